//! The operators' page, and the routes behind it.
//!
//! The page contains no data and is served without a key. The routes need a key, or a caller on this machine.

pub(super) mod live;
mod page;
mod sample;
pub(super) mod user;

use axum::Extension;
use axum::extract::{ConnectInfo, OriginalUri};
use axum::http::HeaderMap;
use axum::response::Response;

pub(crate) use self::live::Live;
pub(super) use self::page::AdminPage;
use crate::transport::listener::Peer;

/// Shows the operators' page, which holds no data and asks for a key where its routes need one.
#[utoipa::path(
    get,
    path = "/admin",
    security(()),
    responses((status = 200, description = "the page", body = String, content_type = "text/html")),
)]
pub(super) async fn show_page(
    Extension(page): Extension<AdminPage>,
    peer: ConnectInfo<Peer>,
    uri: OriginalUri,
    headers: HeaderMap,
) -> Response {
    page.show(peer, uri, headers).await
}
