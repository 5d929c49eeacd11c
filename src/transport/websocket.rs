//! Engine.IO over WebSocket, for sessions that begin as one. Sessions that begin by polling are socketioxide's, their
//! upgrades included.
//!
//! `handshake` checks the request that opens a session, `session` is its task, `writer` its way out. Below them, nothing
//! touches a socket: `decoder` turns bytes into messages, `engine_packet` and `socket_packet` read what the messages
//! carry and write what goes back.

pub mod decoder;
pub mod engine_packet;
pub mod frame;
pub mod handshake;
pub mod session;
pub mod socket;
pub mod socket_packet;
pub mod writer;

#[cfg(test)]
mod tests;
