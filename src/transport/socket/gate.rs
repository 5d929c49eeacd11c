//! Admits connections: who is it, may it come in, where do its events go.
//!
//! All of it happens before the client is told that it is connected, because events that arrive before their handler is
//! there are lost. A client that is gone before it was told leaves no trace either: its session drops the inbox, and so
//! the connection ends.
//!
//! CONNECT_ERROR is sent only where it is final, because the official client never tries again after it. Everything
//! else passes by itself: the CONNECT is held, see `hold`.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::TryData;
use socketioxide::handler::{ConnectHandler, FromConnectParts, Value};
use socketioxide::socket::Socket;

use super::addresses::Counted;
use super::carrier::{Carrier, Place};
use super::hold;
use super::inbox::{End, Inbox};
use super::outlet::Outlet;
use super::session;
use super::sink::Sink;
use super::{Namespace, Sockets};
use crate::domain::connection::Refused;
use crate::domain::token::Identity;
use crate::ids::UserId;
use crate::telemetry::Transport;
use crate::transport::protocol::ConnectErrorCode;

/// Why a connection is not admitted.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Trying again is pointless; the client reads the code as the message of `connect_error`.
    Final(ConnectErrorCode),
    /// The session has ended, so nothing of this reaches the client, which comes back by itself.
    Ended,
}

/// Why a connection is not admitted at the moment.
#[derive(Debug, thiserror::Error)]
pub(super) enum Obstacle {
    /// It does not pass by itself.
    #[error("{0}")]
    Final(ConnectErrorCode),
    /// The address has as many connections as allowed.
    #[error("the address has too many connections")]
    Address,
    /// The domain does not admit it at the moment.
    #[error(transparent)]
    Domain(Refused),
}

/// The socket of a CONNECT. The library's own extractor keeps it to itself.
pub(super) struct Connecting(Arc<Socket<LocalAdapter>>);

impl FromConnectParts<LocalAdapter> for Connecting {
    type Error = Infallible;

    fn from_connect_parts(
        socket: &Arc<Socket<LocalAdapter>>,
        _: &Option<Value>,
    ) -> Result<Self, Infallible> {
        Ok(Self(socket.clone()))
    }
}

/// One CONNECT, for as long as it is not answered.
pub(super) struct Request {
    pub(super) sink: Sink,
    pub(super) place: Place,
    pub(super) auth: Option<Box<RawValue>>,
    /// Its share of the connections of its address, from the moment it gets one.
    pub(super) counted: Option<Counted>,
}

impl Request {
    pub(super) fn new(sink: Sink, place: Place, auth: Option<Box<RawValue>>) -> Self {
        Self {
            sink,
            place,
            auth,
            counted: None,
        }
    }
}

impl Sockets {
    /// Admits a connection over a session of the library to `namespace`.
    pub(super) async fn admit_polling(
        self: Arc<Self>,
        Connecting(socket): Connecting,
        TryData(auth): TryData<Box<RawValue>>,
        namespace: Namespace,
    ) -> Result<(), Refusal> {
        let Some(carrier) = Carrier::of(&socket) else {
            // Each request that opens a session gets one. Without it, the library ends the session in time.
            hold::until_ended(&socket).await;
            return Err(Refusal::Ended);
        };
        let place = Place { carrier, namespace };
        self.admit(Request::new(Sink::Polling(socket), place, auth.ok()))
            .await
    }

    /// Admits a connection, holds the CONNECT until it can, or says why not.
    pub(super) async fn admit(self: Arc<Self>, mut request: Request) -> Result<(), Refusal> {
        let carrier = &request.place.carrier;
        let address = carrier.address;
        let may_join = carrier.may_join(Instant::now());
        let outcome = match may_join {
            true => self.hold(&mut request).await,
            false => Err("the session asks to join too often".to_owned()),
        };
        let refusal = match outcome {
            Ok(None) => return Ok(()),
            Ok(Some(code)) => {
                tracing::debug!(reason = %code, peer = %address, "refused a connection");
                Refusal::Final(code)
            }
            Err(reason) => {
                tracing::debug!(%reason, peer = %address, "closed a session that could not be admitted");
                self.end(&request).await;
                Refusal::Ended
            }
        };
        self.metrics.refused.inc();
        Err(refusal)
    }

    /// Tries once to admit a connection.
    pub(super) async fn try_admit(self: Arc<Self>, request: &mut Request) -> Result<(), Obstacle> {
        let identity = self.identify(request.auth.as_deref())?;
        let carrier = request.place.carrier.clone();
        if request.counted.is_none() {
            let limit = self.limits.get().connections_per_address;
            let counted = self.addresses.count(carrier.address, limit);
            request.counted = Some(counted.ok_or(Obstacle::Address)?);
        }
        let id = self.next_id();
        // Opened first: what is told to the user from the moment of admission on waits here.
        let outlet = self.outlets.open(id, carrier.clone());
        let user = identity.map(|identity| identity.user);
        let connection = match self.hub.connect(id, identity, transport_of(&carrier)).await {
            Ok(connection) => connection,
            Err(refused) => {
                self.outlets.close(id);
                return Err(refused.into());
            }
        };
        tracing::debug!(connection = %id, user = user.map(UserId::get), "admitted a connection");

        let sink = &request.sink;
        if self.transports.join(&sink.sid(), &carrier) {
            self.openings.joined(carrier.opened);
        }
        let end = Arc::new(End::default());
        let place = request.place.clone();
        let (inbox, incoming) =
            Inbox::new(self.clone(), outlet.clone(), place.clone(), end.clone());
        match sink {
            Sink::WebSocket(session, namespace) => {
                session.join(*namespace, inbox);
                outlet.welcome(sink.clone());
            }
            Sink::Polling(socket) => {
                socket.on_fallback(inbox.clone());
                socket.on_disconnect(inbox);
                socket.extensions.insert(outlet.clone());
            }
        }
        let counted = request.counted.take();
        tokio::spawn(async move {
            session::run(self, connection, identity, outlet, place, incoming, &end).await;
            drop(counted);
        });
        Ok(())
    }

    fn identify(&self, auth: Option<&RawValue>) -> Result<Option<Identity>, ConnectErrorCode> {
        let Some(token) = token_of(auth)? else {
            return Ok(None);
        };
        let verified = self.tokens.verify(&token);
        verified.map(Some).map_err(|error| {
            tracing::debug!(%error, "refused a token");
            error.into()
        })
    }
}

/// What happens once the client was told that it is connected. A handler type of our own, because the
/// library runs closures in a task of their own, and the next update may be faster.
#[derive(Clone)]
pub(super) struct Welcome;

impl ConnectHandler<LocalAdapter, Self> for Welcome {
    fn call(&self, socket: Arc<Socket<LocalAdapter>>, _auth: Option<Value>) {
        if let Some(outlet) = socket.extensions.remove::<Arc<Outlet>>() {
            outlet.welcome(Sink::Polling(socket));
        }
    }
}

/// What the session began with.
fn transport_of(carrier: &Carrier) -> Transport {
    match carrier.is_websocket() {
        true => Transport::WebSocket,
        false => Transport::Polling,
    }
}

/// The token in the handshake; none for a guest. What is neither a guest's nor a token is refused: a bad
/// token never makes a guest.
fn token_of(auth: Option<&RawValue>) -> Result<Option<String>, ConnectErrorCode> {
    #[derive(Deserialize)]
    struct Auth {
        #[serde(default)]
        token: Option<String>,
    }

    let auth = auth.map_or("", RawValue::get);
    if auth == "null" {
        return Ok(None);
    }
    // An array would be read as the fields in their order.
    if !auth.starts_with('{') {
        return Err(ConnectErrorCode::InvalidToken);
    }
    let auth: Auth = serde_json::from_str(auth).map_err(|_| ConnectErrorCode::InvalidToken)?;
    Ok(auth.token.filter(|token| !token.is_empty()))
}

impl From<ConnectErrorCode> for Obstacle {
    fn from(code: ConnectErrorCode) -> Self {
        Self::Final(code)
    }
}

impl From<Refused> for Obstacle {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::AccountDeleted => Self::Final(ConnectErrorCode::AccountDeleted),
            Refused::TokenRevoked => {
                tracing::debug!(error = %refused, "refused a token");
                Self::Final(ConnectErrorCode::InvalidToken)
            }
            Refused::TooManyConnections | Refused::Engine(_) => Self::Domain(refused),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Final(code) => code.fmt(formatter),
            Self::Ended => formatter.write_str("the session has ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn token(auth: &str) -> Result<Option<String>, ConnectErrorCode> {
        let auth = RawValue::from_string(auth.to_owned()).expect("valid JSON");
        token_of(Some(&auth))
    }

    #[test]
    fn without_a_token_it_is_a_guest() {
        for auth in [
            "{}",
            "null",
            r#"{"token":null}"#,
            r#"{"token":""}"#,
            r#"{"other":1}"#,
        ] {
            assert_eq!(token(auth), Ok(None), "{auth}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for auth in [
            r#"{"token":1}"#,
            r#"{"token":{}}"#,
            r#"{"token":["x"]}"#,
            r#"{"token":null,"token":"x"}"#,
            r#"{"token":"x","token":"x"}"#,
            "1",
            "\"x\"",
            "[]",
            "[null]",
        ] {
            assert_eq!(token(auth), Err(ConnectErrorCode::InvalidToken), "{auth}");
        }
        assert_eq!(
            token(r#"{"token":true}"#),
            Err(ConnectErrorCode::InvalidToken)
        );
    }

    #[test]
    fn a_token_is_handed_on() {
        assert_eq!(token(r#"{"token":"a.b.c"}"#), Ok(Some("a.b.c".to_owned())));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2048)
        })]

        #[test]
        fn a_bad_token_never_makes_a_guest(
            fields in proptest::collection::vec(
                (
                    select(vec!["token", "\\u0074oken", "Token", "__proto__", "other"]),
                    select(vec!["null", "\"\"", "\"a.b.c\"", "0", "false", "{}", "[]", "[\"a\"]", "{\"token\":null}"]),
                ),
                0..4,
            ),
            (before, after) in select(vec![("", ""), ("[", "]"), ("{\"auth\":", "}")]),
        ) {
            let object: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let auth = format!("{before}{{{}}}{after}", object.join(","));
            let mut tokens = fields.iter().filter(|(name, _)| matches!(*name, "token" | "\\u0074oken"));
            let expected = match (before, tokens.next(), tokens.next()) {
                ("[", ..) => Err(ConnectErrorCode::InvalidToken),
                // Nothing is looked for further inside.
                (before, ..) if !before.is_empty() => Ok(None),
                (_, _, Some(_)) => Err(ConnectErrorCode::InvalidToken),
                (_, Some((_, "\"a.b.c\"")), None) => Ok(Some("a.b.c".to_owned())),
                (_, None | Some((_, "null" | "\"\"")), None) => Ok(None),
                (_, Some(_), None) => Err(ConnectErrorCode::InvalidToken),
            };
            prop_assert_eq!(token(&auth), expected, "{}", auth);
        }

        #[test]
        fn every_text_is_handed_on_as_it_is(text: String, other: String) {
            let auth = serde_json::json!({ other: 1, "token": text });
            prop_assert_eq!(token(&auth.to_string()), Ok(Some(text).filter(|text| !text.is_empty())));
        }
    }
}
