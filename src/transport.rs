//! What the outside touches: TCP, Socket.IO, HTTP.

pub mod address;
mod depth;
pub mod http;
pub mod limits;
pub mod listener;
pub mod protocol;
mod rate;
pub mod server;
pub mod socket;
pub mod websocket;
