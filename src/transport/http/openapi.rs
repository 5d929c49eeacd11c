//! What the internal API takes and gives, for programs; made from the code of the routes.

use axum::http::header;
use axum::response::IntoResponse;

/// The description, as OpenAPI 3 JSON.
pub(super) async fn show(description: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], description)
}
