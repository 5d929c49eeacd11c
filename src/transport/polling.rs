//! Engine.IO over long polling, and sessions that have moved from there to a WebSocket: socketioxide's. Sessions that begin
//! as a WebSocket are those of [`super::websocket`].
//!
//! `connect` hands connections and events of the library to [`super::session`], `sink` sends packets through its queue.
//! The rest does what the library leaves undone: `sessions` closes transports, `polls` notices polls that clients abort,
//! `strip_request` and `unknown_session` stand in front of it.

mod connect;
mod polls;
mod sessions;
mod sink;
pub(crate) mod strip_request;
pub(crate) mod unknown_session;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use serde_json::value::RawValue;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::TryData;
use socketioxide::handler::ConnectHandler;
use socketioxide::service::SocketIoService;
use socketioxide::{ParserConfig, SocketIo};

use self::connect::{Connecting, OnConnected};
pub(crate) use self::sessions::PollingSessions;
use super::protocol::Namespace;
use super::session::SessionContext;

/// The library's service, which answers requests to `/socket.io/`.
pub(crate) type PollingService = SocketIoService<Router, LocalAdapter>;

/// Packets in one answer to a poll. Some clients refuse more (python-engineio).
const POLLED_MAX: usize = 16;

/// Packets in the library's queue of one session, each a string of its own. More wait in the sink, where their payload is
/// shared. An answer to a poll takes all of them, with one that did not fit into the answer before, and a ping that comes
/// meanwhile.
const LIBRARY_QUEUE_LEN: usize = POLLED_MAX - 2;

/// Bytes of the read buffer that each WebSocket keeps. Clients send little; for longer messages the library allocates
/// more for as long as it needs it.
const READ_BUFFER_LEN: usize = 512;

/// Binary parts of one event, and the time for all of them to arrive. No event of the protocol has any, so they are
/// dropped, and the library keeps little of them until they are complete.
const ATTACHMENTS_MAX: usize = 64;
const ATTACHMENTS_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens all namespaces over the library.
pub(crate) fn serve(context: &Arc<SessionContext>) -> (PollingService, Arc<PollingSessions>) {
    let (service, io) = SocketIo::builder()
        .req_path("/socket.io")
        .connect_timeout(context.join_timeout)
        .max_payload(context.message_len_max as u64)
        .ws_max_message_size(context.message_len_max)
        .ws_max_frame_size(context.message_len_max)
        .max_buffer_size(LIBRARY_QUEUE_LEN)
        .ws_read_buffer_size(READ_BUFFER_LEN)
        .with_parser(
            ParserConfig::common()
                .max_incoming_binary_buf_size(context.message_len_max)
                .max_incoming_binaries(ATTACHMENTS_MAX)
                .packet_completion_timeout(ATTACHMENTS_TIMEOUT),
        )
        .build_with_inner_svc(Router::new());
    let sessions = Arc::new(PollingSessions::new(
        service.clone(),
        context.limits.clone(),
    ));
    for namespace in Namespace::ALL {
        let (context, sessions) = (context.clone(), sessions.clone());
        let admit = move |socket: Connecting, auth: TryData<Box<RawValue>>| {
            connect::admit(context.clone(), sessions.clone(), socket, auth, namespace)
        };
        io.ns(namespace.name(), OnConnected.with(admit));
    }
    (service, sessions)
}
