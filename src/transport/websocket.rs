//! Engine.IO over WebSocket, for sessions that begin as one. Sessions that begin by polling are socketioxide's, their
//! upgrades included.
//!
//! [`handshake`] checks the request that opens a session, [`session`] is its task, [`writer`] its outbound queue, and
//! `namespaces` connects all of them with [`super::session`]. The rest touches no socket: [`decoder`] turns bytes into
//! messages, [`engine_packet`] and [`socket_packet`] read their contents and write the answers.

pub mod decoder;
pub mod engine_packet;
pub mod frame;
pub mod handshake;
pub(crate) mod namespaces;
pub mod session;
pub mod socket;
pub mod socket_packet;
pub mod writer;

#[cfg(test)]
mod tests;
