//! The operators' page, and the routes that it gets its numbers from.
//!
//! The page itself holds no data and is served to whoever reaches the listener. Its numbers are for whoever presents a
//! key, or sits at this machine.

pub(super) mod live;
mod page;
mod sample;
pub(super) mod user;

pub use self::live::Live;
pub(super) use self::page::Page;
