//! The outward side of a node: TCP, Socket.IO, HTTP.

pub(crate) mod address;
mod depth;
pub(crate) mod http;
pub(crate) mod limits;
pub(crate) mod listener;
mod polling;
pub(crate) mod protocol;
mod rate;
pub(crate) mod server;
mod session;
pub(crate) mod socket;
pub(crate) mod websocket;
