//! What the outside touches: TCP, Socket.IO, HTTP.

pub mod address;
mod depth;
pub mod http;
pub mod limits;
pub mod listener;
mod polling;
pub mod protocol;
mod rate;
pub mod server;
mod session;
pub mod socket;
pub mod websocket;
