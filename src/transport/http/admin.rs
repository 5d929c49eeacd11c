//! The operators' page, and the routes behind it.
//!
//! The page contains no data and is served without a key. The routes need a key, or a caller on this machine.

pub(super) mod live;
mod page;
mod sample;
pub(super) mod user;

pub(crate) use self::live::Live;
pub(super) use self::page::AdminPage;
