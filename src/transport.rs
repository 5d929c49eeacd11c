//! What the outside touches: TCP, Socket.IO, HTTP.

pub mod http;
pub mod listener;
pub mod protocol;
pub mod socket;
