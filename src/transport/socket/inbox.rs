//! Where a connection's events arrive: counted, read and queued in the order in which they were sent.
//!
//! A WebSocket session's task calls this in order. The library runs each handler's future in a task of its own, so two
//! events sent together may swap; it calls the handler in order, and that is where events are queued. A refused event is
//! refused at once; it has no effect that would need an order.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use socketioxide::adapter::LocalAdapter;
use socketioxide::handler::{DisconnectHandler, MessageHandler, Value};
use socketioxide::socket::{DisconnectReason, Socket};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

use super::Sockets;
use super::carrier::Place;
use super::outlet::Outlet;
use super::rates::{Kind, Verdict};
use super::reply::Question;
use super::transports::is_polling;
use crate::telemetry::EndedBecause;
use crate::transport::protocol::{ErrorCode, KickCode, Request};

/// Room in the queue beyond a full burst.
const QUEUE_SLACK: usize = 32;

/// A request, and where its answer goes. The queue has room for some from the start, so each is small there.
pub(super) type Incoming = Box<(Request, Question)>;

/// Takes every event of a connection, and its end, from the session that carries it.
#[derive(Clone)]
pub(super) struct Inbox(Arc<Inner>);

/// The end of a connection, for whoever runs it.
#[derive(Default)]
pub(super) struct End {
    because: OnceLock<EndedBecause>,
    told: Notify,
}

impl End {
    fn tell(&self, because: EndedBecause) {
        // The first one counts.
        let _ = self.because.set(because);
        self.told.notify_one();
    }

    /// Resolves when the client is gone.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }

    /// Why it ended. Of a client that was gone before it was told that it is connected nobody says.
    pub(super) fn because(&self) -> EndedBecause {
        let because = self.because.get().copied();
        because.unwrap_or(EndedBecause::Transport)
    }
}

struct Inner {
    queue: mpsc::Sender<Incoming>,
    end: Arc<End>,
    sockets: Arc<Sockets>,
    outlet: Arc<Outlet>,
    place: Place,
}

impl Inbox {
    /// The inbox, and the queue that the session works off. It is bounded: what a client may send at once.
    /// `end` is told when the client is gone.
    pub(super) fn new(
        sockets: Arc<Sockets>,
        outlet: Arc<Outlet>,
        place: Place,
        end: Arc<End>,
    ) -> (Self, mpsc::Receiver<Incoming>) {
        let limits = sockets.limits.get();
        let (queue, incoming) = mpsc::channel(limits.events_burst as usize + QUEUE_SLACK);
        let inner = Inner {
            queue,
            end,
            sockets,
            outlet,
            place,
        };
        (Self(Arc::new(inner)), incoming)
    }
}

impl Inbox {
    /// Takes an event: the JSON array of its name and its arguments.
    pub(super) fn receive(&self, text: &str, has_binary: bool, acknowledgement: Option<i64>) {
        self.0.receive(text, has_binary, acknowledgement);
    }

    /// The connection has ended. `stays` is the id of a WebSocket session that has not.
    pub(super) fn end(&self, because: EndedBecause, stays: Option<String>) {
        let Inner {
            sockets,
            place,
            end,
            ..
        } = &*self.0;
        match stays {
            Some(sid) => sockets.transports.leave(sid, &place.carrier, false),
            None => place.carrier.leave(),
        }
        end.tell(because);
    }
}

impl Inner {
    fn receive(&self, text: &str, has_binary: bool, acknowledgement: Option<i64>) {
        if self.outlet.is_leaving() {
            return;
        }
        self.sockets.metrics.client_events.inc();
        let (event, request) = Request::decode(text, has_binary);
        let question = Question::new(event, acknowledgement);
        let verdict = self.judge(request.as_ref().map_or(Kind::Common, kind_of));
        match request {
            _ if verdict == Verdict::Expel => self.outlet.kick(KickCode::RateLimited),
            // Always answered with an array, at a pace of its own.
            Ok(Request::OnlineUsers) => self.queue(Request::OnlineUsers, question),
            _ if verdict == Verdict::Refuse => {
                let message = "too many events in too short a time; wait a little";
                self.refuse(question, ErrorCode::RateLimited, message);
            }
            Ok(request) => self.queue(request, question),
            Err((code, message)) => self.refuse(question, code, &message),
        }
    }

    fn judge(&self, kind: Kind) -> Verdict {
        let limits = self.sockets.limits.get();
        let events = &mut self.place.allowance().events;
        events.judge(kind, &limits, Instant::now())
    }

    fn queue(&self, request: Request, question: Question) {
        let full = match self.queue.try_send(Box::new((request, question))) {
            Err(TrySendError::Full(incoming)) => *incoming,
            // Closed: the session has ended, and nobody waits for an answer.
            Ok(()) | Err(TrySendError::Closed(_)) => return,
        };
        match full {
            // There is no refusal that it could be answered with: its client comes back and asks anew.
            (Request::OnlineUsers, _) => self.outlet.close_transport(),
            (_, question) => {
                let message = "earlier events still wait; wait a little";
                self.refuse(question, ErrorCode::RateLimited, message);
            }
        }
    }

    fn refuse(&self, question: Question, code: ErrorCode, message: &str) {
        self.sockets.metrics.refused_events.inc();
        question.refuse(&self.outlet, code, message);
    }
}

/// Which rate counts for what a client asks for.
fn kind_of(request: &Request) -> Kind {
    match request {
        Request::OnlineUsers | Request::Watch(_) | Request::Unwatch(_) => Kind::Common,
        Request::RefreshToken(_) => Kind::Token,
        Request::JoinMatchmaking | Request::LeaveMatchmaking => Kind::Matchmaking,
    }
}

/// Why a connection ended, for the metrics.
fn because(reason: DisconnectReason) -> EndedBecause {
    match reason {
        DisconnectReason::ClientNSDisconnect => EndedBecause::Client,
        DisconnectReason::ServerNSDisconnect | DisconnectReason::ClosingServer => EndedBecause::Hub,
        DisconnectReason::TransportClose => EndedBecause::Transport,
        DisconnectReason::HeartbeatTimeout => EndedBecause::PingTimeout,
        DisconnectReason::TransportError
        | DisconnectReason::MultipleHttpPollingError
        | DisconnectReason::PacketParsingError => EndedBecause::Error,
    }
}

impl MessageHandler<LocalAdapter, Self> for Inbox {
    fn call(&self, _socket: Arc<Socket<LocalAdapter>>, value: Value, acknowledgement: Option<i64>) {
        match &value {
            Value::Str(text, binary) => self.receive(text, binary.is_some(), acknowledgement),
            Value::Bytes(_) => self.receive("", true, acknowledgement),
        }
    }
}

impl DisconnectHandler<LocalAdapter, Self> for Inbox {
    /// Runs `defer`, which takes the socket out of its namespace, at once: a client that comes back over the
    /// same transport would otherwise be taken for one that is still there, and never be answered.
    fn call_with_defer(
        &self,
        socket: Arc<Socket<LocalAdapter>>,
        reason: DisconnectReason,
        defer: fn(Arc<Socket<LocalAdapter>>),
    ) {
        let stays = matches!(
            reason,
            DisconnectReason::ClientNSDisconnect | DisconnectReason::ServerNSDisconnect
        );
        let Inner {
            sockets,
            place,
            end,
            ..
        } = &*self.0;
        let sid = socket.id.to_string();
        if stays {
            let is_polling = is_polling(&socket);
            sockets.transports.leave(sid, &place.carrier, is_polling);
        } else {
            place.carrier.leave();
            sockets.transports.forget(&sid);
        }
        end.tell(because(reason));
        defer(socket);
    }
}
