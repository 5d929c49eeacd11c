//! What every answer says to browsers, where its route has not said it itself.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

/// For whom an answer is where its route says nothing. Pages of allowed origins read answers by CORS, and open sockets,
/// which both ask nothing of this; it keeps the answers out of what other pages embed: as pictures, scripts, styles.
/// Only avatars are there to be embedded.
const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");

/// Everybody may embed it.
pub(super) const CROSS_ORIGIN: (HeaderName, HeaderValue) = (
    CROSS_ORIGIN_RESOURCE_POLICY,
    HeaderValue::from_static("cross-origin"),
);

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// Said of everything. No answer is a page, but for the operators', which says itself what it loads: whatever is taken for
/// one loads nothing and is in no frame. Nothing is
/// kept, since most depends on who asks and when.
const ALWAYS: [(HeaderName, HeaderValue); 5] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (CROSS_ORIGIN_RESOURCE_POLICY, SAME_ORIGIN),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Adds to an answer what its route has not said.
pub(super) async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(value);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[tokio::test]
    async fn what_the_route_says_stays() {
        let kept = [(header::CACHE_CONTROL, "max-age=1")].into_response();
        let headers = guard(kept).await.headers().clone();
        let values: Vec<_> = headers.get_all(header::CACHE_CONTROL).iter().collect();
        assert_eq!(values, ["max-age=1"]);
        assert_eq!(
            headers
                .get(header::X_CONTENT_TYPE_OPTIONS)
                .map(HeaderValue::as_bytes),
            Some(&b"nosniff"[..])
        );
    }
}
