//! Security headers of every response; a route may set its own value.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

/// Prevents pages of other sites from embedding a response as a picture, script or style. Fetches by CORS and sockets are
/// not affected. Only avatars are meant to be embedded.
const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");

/// Allows every page to embed a response.
pub(super) const CROSS_ORIGIN: (HeaderName, HeaderValue) = (
    CROSS_ORIGIN_RESOURCE_POLICY,
    HeaderValue::from_static("cross-origin"),
);

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// Responses are not pages (pages have policies of their own), so they may load nothing and appear in no frame.
/// They are not cached, because most depend on the caller and the time.
const DEFAULTS: [(HeaderName, HeaderValue); 5] = [
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

/// Adds the headers that the route has not set.
pub(super) async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in DEFAULTS {
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
