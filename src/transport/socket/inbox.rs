//! Where a connection's events arrive: counted, decoded and queued in the order in which they were sent.
//!
//! The library runs each handler's future in a task of its own, so two events sent together may swap. What
//! it does in order is calling the handler: that is where events are queued. What is refused is refused at
//! once; it has no effect that would need an order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use socketioxide::adapter::LocalAdapter;
use socketioxide::handler::{DisconnectHandler, MessageHandler, Value};
use socketioxide::socket::{DisconnectReason, Socket};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

use super::Sockets;
use super::carrier::Carrier;
use super::outlet::Outlet;
use super::rates::{Kind, Rates, Verdict};
use super::reply::Question;
use crate::ids::UserId;
use crate::transport::protocol::{ErrorCode, KickCode, TokenRequest, UserRequest, client_event};

/// Room in the queue beyond a full burst.
const QUEUE_SLACK: usize = 32;

/// What a client asks for.
#[derive(Debug)]
pub(super) enum Request {
    OnlineUsers,
    Watch(UserId),
    Unwatch(UserId),
    RefreshToken(String),
    JoinMatchmaking,
    LeaveMatchmaking,
}

/// A request, and where its answer goes.
pub(super) type Incoming = (Request, Question);

/// The handler that the library calls for every event, and for the end of the connection.
#[derive(Clone)]
pub(super) struct Inbox(Arc<Inner>);

struct Inner {
    queue: mpsc::Sender<Incoming>,
    ended: Arc<Notify>,
    sockets: Arc<Sockets>,
    outlet: Arc<Outlet>,
    carrier: Arc<Carrier>,
    rates: Mutex<Rates>,
}

impl Inbox {
    /// The inbox, and the queue that the session works off. It is bounded: what a client may send at once.
    /// `ended` is notified when the client is gone.
    pub(super) fn new(
        sockets: Arc<Sockets>,
        outlet: Arc<Outlet>,
        carrier: Arc<Carrier>,
        ended: Arc<Notify>,
    ) -> (Self, mpsc::Receiver<Incoming>) {
        let limits = sockets.limits.get();
        let (queue, incoming) = mpsc::channel(limits.events_burst as usize + QUEUE_SLACK);
        let rates = Mutex::new(Rates::new(&limits, Instant::now()));
        let inner = Inner {
            queue,
            ended,
            sockets,
            outlet,
            carrier,
            rates,
        };
        (Self(Arc::new(inner)), incoming)
    }
}

impl Inner {
    fn receive(&self, value: &Value, acknowledgement: Option<i64>) {
        if self.outlet.is_leaving() {
            return;
        }
        self.sockets.metrics.client_events.inc();
        let (event, payload) = split(value);
        let question = Question::new(event, acknowledgement);
        let decoded = decode(question.event(), payload.as_deref());
        let verdict = self.judge(decoded.as_ref().map_or(Kind::Common, kind_of));
        match decoded {
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
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.judge(kind, &limits, Instant::now())
    }

    fn queue(&self, request: Request, question: Question) {
        match self.queue.try_send((request, question)) {
            Err(TrySendError::Full((Request::OnlineUsers, _))) => {
                // There is no refusal that it could be answered with: its client comes back and asks anew.
                self.outlet.close_transport();
            }
            Err(TrySendError::Full((_, question))) => {
                self.refuse(
                    question,
                    ErrorCode::RateLimited,
                    "earlier events still wait; wait a little",
                );
            }
            // Closed: the session has ended, and nobody waits for an answer.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
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

impl MessageHandler<LocalAdapter, Self> for Inbox {
    fn call(&self, _socket: Arc<Socket<LocalAdapter>>, value: Value, acknowledgement: Option<i64>) {
        self.0.receive(&value, acknowledgement);
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
        let inner = &self.0;
        inner
            .sockets
            .transports
            .leave(&socket, &inner.carrier, stays);
        inner.ended.notify_one();
        defer(socket);
    }
}

/// The event's name, and its payload where it has one without binary parts.
fn split(value: &Value) -> (String, Option<Box<RawValue>>) {
    let Value::Str(text, binary) = value else {
        return (String::new(), None);
    };
    let mut arguments = serde_json::from_str::<Vec<Box<RawValue>>>(text)
        .unwrap_or_default()
        .into_iter();
    let event = arguments
        .next()
        .and_then(|name| serde_json::from_str(name.get()).ok());
    let payload = arguments.next().filter(|_| binary.is_none());
    (event.unwrap_or_default(), payload)
}

fn decode(event: &str, payload: Option<&RawValue>) -> Result<Request, (ErrorCode, String)> {
    match event {
        client_event::GET_ONLINE_USERS => Ok(Request::OnlineUsers),
        client_event::WATCH_PROFILE => {
            decode_payload(payload).map(|UserRequest { user_id }| Request::Watch(user_id))
        }
        client_event::UNWATCH_PROFILE => {
            decode_payload(payload).map(|UserRequest { user_id }| Request::Unwatch(user_id))
        }
        client_event::REFRESH_TOKEN => {
            decode_payload(payload).map(|TokenRequest { token }| Request::RefreshToken(token))
        }
        client_event::JOIN_MATCHMAKING => Ok(Request::JoinMatchmaking),
        client_event::LEAVE_MATCHMAKING => Ok(Request::LeaveMatchmaking),
        _ => Err((ErrorCode::UnknownEvent, "there is no such event".to_owned())),
    }
}

fn decode_payload<T: DeserializeOwned>(
    payload: Option<&RawValue>,
) -> Result<T, (ErrorCode, String)> {
    let payload = payload.map_or("null", RawValue::get);
    if !payload.starts_with('{') {
        return Err((
            ErrorCode::InvalidPayload,
            "the payload is a JSON object".to_owned(),
        ));
    }
    serde_json::from_str(payload).map_err(|error| (ErrorCode::InvalidPayload, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Result<Request, ErrorCode> {
        let (event, payload) = split(&Value::Str(text.to_owned().into(), None));
        decode(&event, payload.as_deref()).map_err(|(code, _)| code)
    }

    #[test]
    fn only_an_integer_names_a_user() {
        assert!(matches!(
            decoded(r#"["watch-profile",{"userId":7}]"#),
            Ok(Request::Watch(_))
        ));
        for payload in [
            "",
            ",null",
            ",7",
            ",\"7\"",
            ",[7]",
            ",{}",
            ",{\"userId\":\"7\"}",
            ",{\"userId\":0}",
            ",{\"userId\":-1}",
            ",{\"userId\":1.5}",
            ",{\"userId\":9007199254740992}",
            ",{\"userId\":null}",
            ",{\"userId\":[7]}",
            ",{\"userid\":7}",
            ",{\"userId\":7,\"userId\":8}",
        ] {
            let text = format!(r#"["watch-profile"{payload}]"#);
            assert_eq!(
                decoded(&text).expect_err(&text),
                ErrorCode::InvalidPayload,
                "{text}"
            );
        }
    }

    #[test]
    fn binary_parts_are_no_payload() {
        let value = Value::Str(
            r#"["watch-profile",{"userId":7}]"#.to_owned().into(),
            Some([].into()),
        );
        assert!(split(&value).1.is_none());
    }

    #[test]
    fn other_events_are_unknown() {
        for text in [
            r#"["join"]"#,
            r#"[""]"#,
            "[]",
            "{}",
            "[1]",
            r#"["__proto__",{}]"#,
        ] {
            assert_eq!(
                decoded(text).expect_err(text),
                ErrorCode::UnknownEvent,
                "{text}"
            );
        }
    }

    #[test]
    fn asking_who_is_online_takes_any_payload() {
        for text in [
            r#"["get-online-users"]"#,
            r#"["get-online-users",{"a":[1]},2]"#,
        ] {
            assert!(matches!(decoded(text), Ok(Request::OnlineUsers)), "{text}");
        }
    }
}
