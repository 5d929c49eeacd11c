//! Engine.IO over WebSocket, for sessions that begin as one. Sessions that begin by polling are socketioxide's, their
//! upgrades included.
//!
//! [`handshake`] checks the request that opens a session, [`session`] is its task, [`writer`] its outbound queue, and
//! `namespaces` connects all of them with [`super::session`]. The rest touches no socket: [`decoder`] turns bytes into
//! messages, [`engine_packet`] and [`socket_packet`] read their contents and write the answers.

pub(crate) mod decoder;
pub(crate) mod engine_packet;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod namespaces;
pub(crate) mod session;
pub(crate) mod socket_packet;
pub(crate) mod writer;

#[cfg(test)]
mod tests;
