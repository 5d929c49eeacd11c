//! Admission of connections: verifies the token, counts the connection, registers the user and starts the connection's
//! task.
//!
//! All of it happens before the client learns that it is connected, because an event that arrives before its handler is
//! there would be lost. A client that is gone by then leaves no trace: its session drops the inbound queue, and the
//! connection ends.
//!
//! CONNECT_ERROR is sent only if it is final, because the official client never tries again after it. Every other
//! obstacle passes by itself: [`super::held_connect`] holds the CONNECT.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::SessionContext;
use super::address_limit::AddressPermit;
use super::connection_task::{ConnectionTask, Dispatcher};
use super::engine_session::NamespaceHandle;
use super::inbound::{DisconnectSignal, InboundQueue};
use super::sink::Sink;
use crate::domain::connection::Refused;
use crate::domain::token::Identity;
use crate::ids::UserId;
use crate::transport::protocol::ConnectErrorCode;

/// Why a connection is not admitted.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// Trying again is pointless. The client reads the code as the message of `connect_error`.
    Final(ConnectErrorCode),
    /// The session has ended, so nothing reaches the client, which comes back by itself.
    Ended,
}

/// Why an attempt to admit a connection failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Obstacle {
    /// It does not pass by itself.
    #[error("{0}")]
    Final(ConnectErrorCode),
    #[error("the address has too many connections")]
    Address,
    /// The domain does not admit it at the moment.
    #[error(transparent)]
    Domain(Refused),
}

/// One CONNECT, for as long as it is not answered.
pub(crate) struct ConnectRequest {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) handle: NamespaceHandle,
    auth: Option<Box<RawValue>>,
    /// Kept from one attempt to the next.
    permit: Option<AddressPermit>,
}

impl ConnectRequest {
    /// `auth` is the payload of the CONNECT, if it is JSON.
    pub(crate) fn new(
        sink: Arc<dyn Sink>,
        handle: NamespaceHandle,
        auth: Option<Box<RawValue>>,
    ) -> Self {
        Self {
            sink,
            handle,
            auth,
            permit: None,
        }
    }
}

impl SessionContext {
    /// Admits a connection, and holds its CONNECT until it can.
    ///
    /// # Errors
    /// When the connection is refused for good, or could not be admitted in time; then its session has ended.
    pub(crate) async fn admit(
        self: Arc<Self>,
        mut request: ConnectRequest,
    ) -> Result<(), ConnectError> {
        let session = &request.handle.session;
        let peer = session.address;
        let outcome = if session.may_connect(Instant::now()) {
            self.hold(&mut request).await
        } else {
            Err("the session asks to join too often".to_owned())
        };
        let error = match outcome {
            Ok(None) => return Ok(()),
            Ok(Some(code)) => {
                tracing::debug!(reason = %code, %peer, "refused a connection");
                ConnectError::Final(code)
            }
            Err(reason) => {
                tracing::debug!(%reason, %peer, "closed a session that could not be admitted");
                self.end_session(&*request.sink).await;
                ConnectError::Ended
            }
        };
        self.metrics.refused.inc();
        Err(error)
    }

    /// Tries once to admit a connection.
    pub(super) async fn try_admit(
        self: Arc<Self>,
        request: &mut ConnectRequest,
    ) -> Result<(), Obstacle> {
        let identity = self.identify(request.auth.as_deref())?;
        let handle = request.handle.clone();
        let session = &handle.session;
        if request.permit.is_none() {
            let max = self.limits.get().connections_per_address;
            let permit = self.addresses.acquire(session.address, max);
            request.permit = Some(permit.ok_or(Obstacle::Address)?);
        }
        let id = self.next_id();
        // Opened first: deliveries to the user wait here from the moment of registration.
        let outbound = self.outbound.open(id, session.clone());
        let connection = match self.hub.connect(id, identity, session.transport).await {
            Ok(connection) => connection,
            Err(refused) => {
                self.outbound.close(id);
                return Err(refused.into());
            }
        };
        let user = connection.user().map(UserId::get);
        tracing::debug!(connection = %id, user, "admitted a connection");

        if self.idle.join(&request.sink.sid(), session) {
            self.pending.joined(session.opened);
        }
        let disconnected = Arc::new(DisconnectSignal::default());
        let (inbound, events) = InboundQueue::new(
            self.clone(),
            outbound.clone(),
            handle.clone(),
            disconnected.clone(),
        );
        request.sink.clone().attach(inbound, outbound.clone());
        let dispatcher = Dispatcher::new(
            self.clone(),
            connection,
            identity,
            outbound.clone(),
            handle,
            events,
        );
        let task = ConnectionTask {
            context: self,
            outbound,
            disconnected,
            dispatcher: Some(dispatcher),
            permit: request.permit.take(),
        };
        tokio::spawn(task.run());
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

/// The token in the handshake; none for a guest. Anything that is neither a token nor its absence is refused: a bad token
/// never makes a guest.
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
    // serde reads an array as the fields in their order.
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

impl fmt::Display for ConnectError {
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
