//! The inbound queue of one connection: events are counted, decoded and queued in the order in which they arrive, and
//! [`super::connection_task`] works them off.
//!
//! A rejected event is answered at once; it has no effect that would need an order.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

use super::SessionContext;
use super::ack::refusal;
use super::engine_session::NamespaceHandle;
use super::outbound::Outbound;
use super::rates::{Decision, EventClass};
use super::sink::{Flush, Sink};
use crate::telemetry::EndedBecause;
use crate::transport::protocol::{ErrorCode, KickCode, Request};

/// Room in the queue beyond a full burst.
const QUEUE_SLACK: usize = 32;

/// An event that waits for the connection's task. The queue reserves room from the start, so it holds boxes.
pub(super) struct QueuedEvent {
    pub(super) request: Request,
    /// The name that an exception repeats.
    pub(super) name: String,
    /// The id of the acknowledgement that the client waits for, if it does.
    pub(super) ack: Option<i64>,
}

/// The end of a connection, for its task.
#[derive(Default)]
pub(super) struct DisconnectSignal {
    because: OnceLock<EndedBecause>,
    notify: Notify,
}

impl DisconnectSignal {
    fn set(&self, because: EndedBecause) {
        // The first reason counts.
        let _ = self.because.set(because);
        self.notify.notify_one();
    }

    /// Resolves when the connection has ended.
    pub(super) async fn wait(&self) {
        self.notify.notified().await;
    }

    /// Why it ended. The library reports no reason for a client that left before CONNECT was acknowledged.
    pub(super) fn because(&self) -> EndedBecause {
        let because = self.because.get().copied();
        because.unwrap_or(EndedBecause::Transport)
    }
}

/// Takes every event of a connection, and its end, from the transport.
#[derive(Clone)]
pub(crate) struct InboundQueue(Arc<Inner>);

struct Inner {
    queue: mpsc::Sender<Box<QueuedEvent>>,
    disconnected: Arc<DisconnectSignal>,
    context: Arc<SessionContext>,
    outbound: Arc<Outbound>,
    handle: NamespaceHandle,
}

impl InboundQueue {
    /// A queue for as many events as a client may send at once, and its other end.
    pub(super) fn new(
        context: Arc<SessionContext>,
        outbound: Arc<Outbound>,
        handle: NamespaceHandle,
        disconnected: Arc<DisconnectSignal>,
    ) -> (Self, mpsc::Receiver<Box<QueuedEvent>>) {
        let burst = context.limits.get().events_burst as usize;
        let (queue, events) = mpsc::channel(burst + QUEUE_SLACK);
        let inner = Inner {
            queue,
            disconnected,
            context,
            outbound,
            handle,
        };
        (Self(Arc::new(inner)), events)
    }

    /// Takes an event: the JSON array of its name and its arguments.
    pub(crate) fn receive(&self, text: &str, has_binary: bool, ack: Option<i64>) {
        let Inner {
            context, outbound, ..
        } = &*self.0;
        if outbound.is_closing() {
            return;
        }
        context.metrics.client_events.inc();
        let (name, decoded) = Request::decode(text, has_binary);
        let decision = self.check_rate(decoded.as_ref().map_or(EventClass::Common, class_of));
        match decoded {
            _ if decision == Decision::Disconnect => outbound.kick(KickCode::RateLimited),
            // Online lists are paced instead: they are always answered with an array.
            Ok(request) if decision == Decision::Allow || request == Request::OnlineUsers => {
                self.push(QueuedEvent { request, name, ack });
            }
            Err((code, message)) if decision == Decision::Allow => {
                self.reject(&name, ack, code, &message);
            }
            _ => {
                let message = "too many events in too short a time; wait a little";
                self.reject(&name, ack, ErrorCode::RateLimited, message);
            }
        }
    }

    /// Ends the connection. `open` is its sink where the session stays open.
    pub(crate) fn end(&self, because: EndedBecause, open: Option<Arc<dyn Sink>>) {
        let session = &self.0.handle.session;
        match open {
            Some(sink) => self.0.context.idle.leave(session, sink),
            None => session.leave(),
        }
        self.0.disconnected.set(because);
    }

    fn check_rate(&self, class: EventClass) -> Decision {
        let limits = self.0.context.limits.get();
        let mut quota = self.0.handle.quota(&limits);
        quota.events.check(class, &limits, Instant::now())
    }

    fn push(&self, event: QueuedEvent) {
        let full = match self.0.queue.try_send(Box::new(event)) {
            Err(TrySendError::Full(event)) => event,
            // Closed: the connection has ended, and nobody waits for an answer.
            Ok(()) | Err(TrySendError::Closed(_)) => return,
        };
        if full.request == Request::OnlineUsers {
            // Its answer is an array, so it cannot be refused. The client comes back and asks again.
            return self.0.outbound.close_transport();
        }
        let message = "earlier events still wait; wait a little";
        self.reject(&full.name, full.ack, ErrorCode::RateLimited, message);
    }

    fn reject(&self, name: &str, ack: Option<i64>, code: ErrorCode, message: &str) {
        self.0.context.metrics.refused_events.inc();
        if let Some(refusal) = refusal(name, ack, code, message) {
            self.0.outbound.send(&refusal, Flush::Now);
        }
    }
}

fn class_of(request: &Request) -> EventClass {
    match request {
        Request::OnlineUsers | Request::Watch(_) | Request::Unwatch(_) => EventClass::Common,
        Request::RefreshToken(_) => EventClass::Token,
        Request::JoinMatchmaking | Request::LeaveMatchmaking => EventClass::Matchmaking,
    }
}
