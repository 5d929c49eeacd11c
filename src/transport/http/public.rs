//! The public routes: sockets, health and accounts.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::Response;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access;
use super::body::BodyMax;
use super::problem::Problem;
use super::{avatars, friends, headers, me, metrics_layer, users};
use crate::domain::Hub;
use crate::domain::token::TokenVerifier;
use crate::telemetry::Metrics;
use crate::transport::limits::CurrentLimits;

/// Origins whose pages may connect and call.
#[derive(Clone, Debug)]
pub(crate) enum AllowedOrigins {
    /// All origins. Safe because the hub uses no cookies, so a page gains nothing from the browser of a visitor.
    Any,
    /// Exactly these values of `Origin`.
    Only(Vec<HeaderValue>),
}

/// State of the public routes.
#[derive(Clone)]
pub(crate) struct Public {
    /// Serves every request.
    pub hub: Hub,
    /// Authenticates callers.
    pub tokens: Arc<TokenVerifier>,
    /// Checked for sockets, and answered by CORS.
    pub origins: AllowedOrigins,
    /// Bounds the size of bodies.
    pub limits: CurrentLimits,
    /// Counts requests.
    pub metrics: Arc<Metrics>,
}

impl FromRef<Public> for BodyMax {
    fn from_ref(public: &Public) -> Self {
        Self(public.limits.get().http_body)
    }
}

/// The routes for clients; `sockets` serves `/socket.io/`.
pub(crate) fn public(state: Public, sockets: Router) -> Router {
    let origins = state.origins.clone();
    let own_pages = from_fn_with_state(origins.clone(), check_origin);
    // Not for sockets: a poll lasts until there is an event, and a WebSocket until it closes.
    let measured = from_fn_with_state(state.metrics.clone(), metrics_layer::count_requests);
    Router::from(super::probes())
        .layer(measured.clone())
        .with_state(state.hub.clone())
        .fallback(async || {
            Problem::not_found("there is nothing here; sockets connect to /socket.io/")
        })
        .merge(sockets.layer(own_pages.clone()))
        .merge(
            with_accounts(state)
                .layer(own_pages)
                .layer(map_response(vary_by_caller))
                .layer(measured),
        )
        .layer(super::timeout())
        .layer(cors(origins))
        .layer(map_response(headers::guard))
}

/// The routes about accounts.
fn of_accounts() -> OpenApiRouter<Public> {
    OpenApiRouter::new()
        .routes(routes!(users::show))
        .routes(routes!(avatars::show))
        .routes(routes!(me::rename, me::delete))
        .routes(routes!(avatars::set))
        .routes(routes!(friends::ask, friends::end))
}

/// Describes every route for clients, without sockets.
pub fn describe_public() -> utoipa::openapi::OpenApi {
    let mut description = of_accounts().into_openapi();
    description.merge(super::probes::<Hub>().into_openapi());
    description
}

/// The routes about accounts, which need Postgres.
fn with_accounts(state: Public) -> Router {
    Router::from(of_accounts())
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this route takes another method",
            )
        })
        .layer(from_fn_with_state(state.hub.clone(), access::with_accounts))
        .with_state(state)
}

/// Adds `Vary: Authorization` to responses that are not cacheable for everybody.
async fn vary_by_caller(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.append(header::VARY, HeaderValue::from_static("Authorization"));
    }
    response
}

/// Refuses pages of other origins. CORS alone does not: browsers send no preflight for a WebSocket, only `Origin`.
async fn check_origin(
    State(origins): State<AllowedOrigins>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let mut said = request.headers().get_all(header::ORIGIN).iter();
    if said.all(|origin| origins.allow(origin)) {
        return Ok(next.run(request).await);
    }
    let detail =
        "pages of this origin may not connect; add it to http.allowed_origins if they should";
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

impl AllowedOrigins {
    /// Compares literally, because browsers write an origin in one way only. Other clients send none.
    fn allow(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Any => true,
            Self::Only(allowed) => allowed.contains(origin),
        }
    }
}

fn cors(origins: AllowedOrigins) -> CorsLayer {
    let origin = match origins {
        AllowedOrigins::Any => AllowOrigin::any(),
        AllowedOrigins::Only(origins) => AllowOrigin::list(origins),
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION])
}
