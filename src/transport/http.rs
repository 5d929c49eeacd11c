//! HTTP: a public router for clients, and an internal one for back ends and operators.

mod access;
mod accounts;
mod admin;
mod audit;
mod avatars;
mod bearer;
mod body;
mod document;

mod events;
mod friends;
mod headers;
mod health;

mod local_caller;
mod matches;
mod matchmaking;
mod me;

mod metrics;
mod metrics_layer;
mod nodes;
mod notifications;
mod openapi;
mod playground;
mod presence;
mod problem;
mod public;
mod users;
mod validation;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::routing::get;
use tower_http::timeout::TimeoutLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use self::access::ApiKeyCheck;
use self::admin::AdminPage;
pub(crate) use self::admin::Live;
use self::audit::Audit;
use self::body::BodyMax;
pub(crate) use self::playground::{Playground, PlaygroundOptions};
use self::problem::Problem;
pub(crate) use self::public::{AllowedOrigins, Public, public};
use crate::domain::Hub;
use crate::telemetry::Metrics;
use crate::transport::limits::CurrentLimits;

/// Time limit of a request, its body included. A long poll is answered within the ping interval of 25 s.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);

/// State of the internal routes.
#[derive(Clone)]
pub struct Internal {
    /// Serves every request.
    pub hub: Hub,
    /// Encoded by `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Authenticates callers.
    pub keys: ApiKeyCheck,
    /// Bounds the size of bodies.
    pub limits: CurrentLimits,
    /// Samples for the operators' page.
    pub live: Live,
    /// The page for the first five minutes.
    pub playground: Playground,
}

impl FromRef<Internal> for Hub {
    fn from_ref(internal: &Internal) -> Self {
        internal.hub.clone()
    }
}

impl FromRef<Internal> for BodyMax {
    fn from_ref(internal: &Internal) -> Self {
        Self(internal.limits.get().http_body)
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Vigie, internal API",
        description = "For back ends and operators. Every route but /healthz and /readyz takes a key as \
                       `Authorization: Bearer` or `X-API-Key`. \
                       JSON may nest arrays and objects at most 64 levels deep."
    ),
    components(schemas(Problem, accounts::Disconnection)),
    security(("bearer" = []), ("key" = []))
)]
struct Description;

/// The routes for back ends and operators.
pub(crate) fn internal(state: Internal) -> Router {
    let of_accounts = OpenApiRouter::new()
        .routes(routes!(accounts::put))
        .routes(routes!(matches::record))
        .layer(from_fn_with_state(state.hub.clone(), access::with_accounts));
    // These change accounts, or close, delete or revoke something, so calls are logged at `info`.
    let mutating = OpenApiRouter::new()
        .routes(routes!(accounts::deleted))
        .routes(routes!(accounts::disconnect))
        .merge(of_accounts)
        .layer(map_response(audit::mark_mutating));
    let of_page = OpenApiRouter::new()
        .routes(routes!(admin::live::show))
        .routes(routes!(admin::user::show))
        .layer(from_fn(access::with_key_or_loopback));
    let (api, mut description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(notifications::profile_update))
        .routes(routes!(notifications::game_stats_update))
        .routes(routes!(notifications::friend_list_update))
        .routes(routes!(notifications::match_history_update))
        .routes(routes!(notifications::forget))
        .routes(routes!(notifications::batch))
        .routes(routes!(events::send))
        .routes(routes!(presence::list))
        .routes(routes!(presence::one))
        .routes(routes!(nodes::list))
        .routes(routes!(matchmaking::show))
        .routes(routes!(matchmaking::join))
        .routes(routes!(matchmaking::leave))
        .merge(mutating)
        .layer(from_fn(access::with_key))
        .merge(of_page)
        .split_for_parts();
    // Not logged: probes come every few seconds and carry no key.
    let (probes, of_probes) = OpenApiRouter::<Internal>::new()
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .split_for_parts();
    openapi::complete(&mut description);
    description.merge(of_probes);
    let description = description.to_json().unwrap_or_default();
    let page = AdminPage::new();
    let playground = state.playground.clone();
    api.route(
        "/api/v1/openapi.json",
        get(move || openapi::show(description.clone())).layer(from_fn(access::with_key)),
    )
    .route(
        "/metrics",
        get(metrics::show).layer(from_fn(access::with_key_or_loopback)),
    )
    .route(
        "/admin",
        get(move |peer, uri, headers| page.clone().show(peer, uri, headers)),
    )
    .route("/playground", get(move || playground.clone().show()))
    .fallback(async || {
        Problem::not_found("there is no such route; GET /api/v1/openapi.json lists them")
    })
    .method_not_allowed_fallback(async || Problem::method_not_allowed())
    .layer(from_fn_with_state(Audit::default(), audit::log_calls))
    .layer(from_fn_with_state(state.keys.clone(), access::identify))
    .merge(probes.method_not_allowed_fallback(async || Problem::method_not_allowed()))
    .layer(timeout())
    .layer(from_fn_with_state(
        state.metrics.clone(),
        metrics_layer::count_requests,
    ))
    .layer(map_response(headers::guard))
    .with_state(state)
}

/// Ends a request that takes too long, its body included.
fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_WITHIN)
}
