//! The public routes: sockets and health.

use axum::Router;
use axum::http::{HeaderValue, Method, header};
use axum::routing::get;
use socketioxide::layer::SocketIoLayer;
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
pub fn public(hub: Hub, sockets: SocketIoLayer, origins: AllowedOrigins) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .with_state(hub)
        .fallback(async || {
            Problem::not_found("there is nothing here; sockets connect to /socket.io/")
        })
        .layer(sockets)
        .layer(cors(origins))
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
