//! Strips the request that opens a session of what nobody needs.
//!
//! The library keeps the whole head for as long as the session lives. Every part of a head is a slice of the buffer that
//! it was read into, so each would hold that buffer: more memory than everything else in a session.

use axum::extract::{MatchedPath, OriginalUri, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

/// The headers that the library reads.
const RETAINED: [HeaderName; 2] = [header::SEC_WEBSOCKET_KEY, header::CONTENT_TYPE];

/// Copies the parts of the head that are needed, so that nothing refers to the buffer.
pub(crate) async fn strip_request(request: Request) -> Request {
    let (mut parts, body) = request.into_parts();
    parts.headers = retained_headers(&parts.headers);
    if let Ok(uri) = parts.uri.to_string().parse::<Uri>() {
        parts.uri = uri;
    }
    parts.extensions.remove::<OriginalUri>();
    parts.extensions.remove::<MatchedPath>();
    Request::from_parts(parts, body)
}

fn retained_headers(headers: &HeaderMap) -> HeaderMap {
    let mut retained = HeaderMap::with_capacity(RETAINED.len());
    for name in RETAINED {
        let value = headers.get(&name).map(HeaderValue::as_bytes);
        if let Some(Ok(value)) = value.map(HeaderValue::from_bytes) {
            retained.insert(name, value);
        }
    }
    retained
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[tokio::test]
    async fn only_what_is_needed_is_left() {
        let request = Request::post("/socket.io/?EIO=4&sid=x")
            .header("content-type", "text/plain")
            .header("cookie", "a=b")
            .header("user-agent", "somebody")
            .extension(OriginalUri(Uri::from_static("/socket.io/")))
            .extension(7_u32)
            .body(Body::from("40"))
            .expect("a request");
        let (parts, body) = strip_request(request).await.into_parts();
        assert_eq!(parts.uri, "/socket.io/?EIO=4&sid=x");
        assert_eq!(parts.method, "POST");
        assert_eq!(parts.headers.len(), 1);
        assert_eq!(parts.headers["content-type"], "text/plain");
        assert_eq!(parts.extensions.len(), 1);
        assert_eq!(parts.extensions.get::<u32>(), Some(&7));
        let body = axum::body::to_bytes(body, 16).await.expect("a body");
        assert_eq!(body, "40");
    }
}
