//! The public routes: sockets and health.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::health;
use super::problem::Problem;
use crate::domain::Hub;

/// Whose pages may connect.
#[derive(Clone, Debug)]
pub enum AllowedOrigins {
    /// Everybody's: the hub sets and reads no cookies, so a page gains nothing by a visitor's browser.
    Any,
    /// These only.
    Only(Vec<HeaderValue>),
}

/// The routes for everybody; `sockets` serves `/socket.io/`.
pub fn public(hub: Hub, sockets: Router, origins: AllowedOrigins) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .with_state(hub)
        .fallback(async || {
            Problem::not_found("there is nothing here; sockets connect to /socket.io/")
        })
        .merge(sockets.layer(from_fn_with_state(origins.clone(), check_origin)))
        .layer(cors(origins))
}

/// Refuses a browser's page that may not connect. CORS does not: browsers ask nobody before they open a
/// WebSocket, they only say whose page it is.
async fn check_origin(
    State(origins): State<AllowedOrigins>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if origins.allow(request.headers().get(header::ORIGIN)) {
        return Ok(next.run(request).await);
    }
    let detail =
        "pages of this origin may not connect; add it to http.allowed_origins if they should";
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

impl AllowedOrigins {
    /// What is no browser's page names no origin.
    fn allow(&self, origin: Option<&HeaderValue>) -> bool {
        match (self, origin) {
            (Self::Any, _) | (Self::Only(_), None) => true,
            (Self::Only(allowed), Some(origin)) => allowed.contains(origin),
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
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION])
}
