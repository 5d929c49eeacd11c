//! The client side of Socket.IO over WebSocket, without I/O.

pub(super) mod frame;
pub(super) mod packet;

use std::net::SocketAddr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("{address} refused a client: {reason}{}", hint(reason))]
    Refused { address: SocketAddr, reason: String },
    #[error("a connection to {address} failed: {cause}")]
    Failed { address: SocketAddr, cause: String },
}

impl ConnectionError {
    pub(super) fn failed(address: SocketAddr, cause: impl std::fmt::Display) -> Self {
        let cause = cause.to_string();
        Self::Failed { address, cause }
    }
}

pub(super) const HEAD_END: &[u8] = b"\r\n\r\n";

pub(super) fn upgrade_request(address: SocketAddr) -> String {
    format!(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {address}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Checks the response head of the upgrade.
pub(super) fn check_head(head: &[u8]) -> Result<(), String> {
    if head.starts_with(b"HTTP/1.1 101 ") {
        return Ok(());
    }
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    Err(format!("it answered the upgrade with {line}"))
}

fn hint(reason: &str) -> &'static str {
    match reason {
        _ if reason.contains("invalid_token") => {
            "; tokens are signed with auth.secret of these settings: set VIGIE_AUTH__SECRET to the nodes'"
        }
        _ if reason.contains("closed the connection") => {
            "; where limits.connections_per_address is set on the nodes, raise it, or set it to 0"
        }
        _ => "",
    }
}
