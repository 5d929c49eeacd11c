//! The Socket.IO endpoint of a node: takes the requests under `/socket.io/` and hands each to one of the two transports,
//! [`super::websocket`] and [`super::polling`].

pub(super) mod handshake;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn_with_state, map_request};

use self::handshake::{Handshake, handshake_layer, polling_session};
use crate::domain::Hub;
use crate::domain::delivery::DeliveryStream;
use crate::domain::token::TokenVerifier;
use crate::telemetry::Metrics;
use crate::transport::address::TrustedProxies;
use crate::transport::limits::CurrentLimits;
use crate::transport::polling::strip_request::strip_request;
use crate::transport::polling::unknown_session::refuse_unknown_session;
use crate::transport::polling::{self, PollingService, PollingSessions};
use crate::transport::session::{SessionContext, fan_out};

/// Options that are fixed when the node starts: the library cannot change them later.
#[derive(Clone, Debug)]
pub(crate) struct SocketOptions {
    /// Most bytes of one message.
    pub message_len_max: usize,
    /// How long a session may take to join a namespace.
    pub join_timeout: Duration,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub proxies: TrustedProxies,
}

/// The Socket.IO endpoint of a node.
pub(crate) struct SocketServer {
    context: Arc<SessionContext>,
    polling: PollingService,
    polling_sessions: Arc<PollingSessions>,
    handshake: Arc<Handshake>,
}

impl SocketServer {
    /// Opens all namespaces.
    pub(crate) fn new(
        hub: Hub,
        tokens: Arc<TokenVerifier>,
        metrics: Arc<Metrics>,
        options: SocketOptions,
        limits: CurrentLimits,
    ) -> Self {
        let context = Arc::new(SessionContext::new(
            hub,
            tokens,
            metrics,
            limits,
            options.message_len_max,
            options.join_timeout,
        ));
        let (polling, polling_sessions) = polling::serve(&context);
        let handshake = Handshake::new(context.clone(), polling_sessions.clone(), options.proxies);
        Self {
            context,
            polling,
            polling_sessions,
            handshake: Arc::new(handshake),
        }
    }

    /// The routes under `/socket.io/`.
    pub(crate) fn routes(&self) -> Router {
        let handshake = from_fn_with_state(self.handshake.clone(), handshake_layer);
        let unknown_session = from_fn_with_state(self.polling.clone(), refuse_unknown_session);
        Router::new()
            .route_service("/socket.io", self.polling.clone())
            .route_service("/socket.io/", self.polling.clone())
            .layer(map_request(strip_request))
            .layer(handshake)
            .layer(unknown_session)
    }

    /// To be called for each request whose client has gone before the answer was complete.
    pub(crate) fn on_aborted(&self) -> impl Fn(&Method, &Uri) + Clone + Send + Sync + use<> {
        let sessions = self.polling_sessions.clone();
        move |method, uri| {
            if let Some(sid) = polling_session(method, uri) {
                sessions.polls.abort(sid);
            }
        }
    }

    /// Sends deliveries to connections until the stream ends.
    pub(crate) fn fan_out(
        &self,
        deliveries: DeliveryStream,
    ) -> impl Future<Output = ()> + Send + use<> {
        fan_out(self.context.clone(), deliveries)
    }

    /// Closes sessions that carry no connection, or whose client is gone without a goodbye. Runs until it is dropped.
    pub(crate) fn run_session_checks(&self) -> impl Future<Output = ()> + Send + use<> {
        let (context, polling) = (self.context.clone(), self.polling_sessions.clone());
        async move {
            let limit = || context.limits.get().handshake;
            tokio::join!(
                context.idle.run(limit, &context.metrics),
                polling.run(|sid| context.idle.forget(sid)),
            );
        }
    }

    /// Closes every connection at the transport, spread over `spread`, so that clients come back to another node by
    /// themselves, and waits until each is forgotten.
    pub(crate) async fn close_all(&self, spread: Duration) {
        self.context.outbound.close_all(spread).await;
    }
}
