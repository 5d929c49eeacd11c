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

use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::{Extension, Router};
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
pub use self::public::describe_public;
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

impl FromRef<Internal> for Playground {
    fn from_ref(internal: &Internal) -> Self {
        internal.playground.clone()
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
        description = "For back ends and operators. Every route takes a key as `Authorization: Bearer` or `X-API-Key`, except \
                       probes and pages; `/metrics` and `/api/v1/admin/…` need none from this machine. \
                       JSON may nest arrays and objects at most 64 levels deep."
    ),
    components(schemas(Problem, accounts::Disconnection)),
    security(("bearer" = []), ("key" = []))
)]
struct Description;

/// Routes that need a key.
fn keyed() -> OpenApiRouter<Internal> {
    OpenApiRouter::new()
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
        .routes(routes!(openapi::show))
}

/// Routes that need a key and close, delete or revoke something. Calls are logged at `info`.
fn mutating() -> OpenApiRouter<Internal> {
    OpenApiRouter::new()
        .routes(routes!(accounts::deleted))
        .routes(routes!(accounts::disconnect))
}

/// The same, for those that change accounts in Postgres.
fn of_accounts() -> OpenApiRouter<Internal> {
    OpenApiRouter::new()
        .routes(routes!(accounts::put))
        .routes(routes!(matches::record))
}

/// Routes that need a key, unless the caller is on this machine.
fn of_operators() -> OpenApiRouter<Internal> {
    OpenApiRouter::new()
        .routes(routes!(admin::live::show))
        .routes(routes!(admin::user::show))
        .routes(routes!(metrics::show))
}

/// Pages, which hold no data.
fn pages() -> OpenApiRouter<Internal> {
    OpenApiRouter::new()
        .routes(routes!(admin::show_page))
        .routes(routes!(playground::show))
}

/// Routes for probes. Not logged: probes come every few seconds and carry no key.
fn probes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Hub: FromRef<S>,
{
    OpenApiRouter::new()
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
}

/// Describes every route for back ends and operators.
pub fn describe_internal() -> utoipa::openapi::OpenApi {
    let mut description = OpenApiRouter::with_openapi(Description::openapi())
        .merge(keyed())
        .merge(mutating())
        .merge(of_accounts())
        .merge(of_operators())
        .into_openapi();
    openapi::complete(&mut description);
    description.merge(pages().merge(probes()).into_openapi());
    description
}

/// The routes for back ends and operators.
pub(crate) fn internal(state: Internal) -> Router {
    let with_accounts = from_fn_with_state(state.hub.clone(), access::with_accounts);
    let mutating = mutating()
        .merge(of_accounts().layer(with_accounts))
        .layer(map_response(audit::mark_mutating));
    let keyed = keyed().merge(mutating).layer(from_fn(access::with_key));
    let of_operators = of_operators().layer(from_fn(access::with_key_or_loopback));
    let pages = pages().layer(Extension(AdminPage::new()));
    Router::from(keyed.merge(of_operators).merge(pages))
        .fallback(async || {
            Problem::not_found("there is no such route; GET /api/v1/openapi.json lists them")
        })
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(from_fn_with_state(Audit::default(), audit::log_calls))
        .layer(from_fn_with_state(state.keys.clone(), access::identify))
        .merge(
            Router::from(probes())
                .method_not_allowed_fallback(async || Problem::method_not_allowed()),
        )
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
