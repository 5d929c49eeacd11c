//! Engine.IO over WebSocket, for sessions that begin as one. Sessions that begin by polling are socketioxide's, their
//! upgrades included.
//!
//! Nothing here but `connection` touches a socket: `handshake` checks the request, `decoder` turns bytes into
//! messages, `engine_packet` and `socket_packet` read what the messages carry and write what goes back.

pub mod decoder;
pub mod engine_packet;
pub mod frame;
pub mod handshake;
pub mod socket_packet;
