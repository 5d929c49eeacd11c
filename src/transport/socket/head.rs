//! What a session keeps of the request that opened it.
//!
//! The library keeps the whole head for as long as the session lives. What a head is made of are slices of the buffer
//! that it was read into, so each would hold that buffer: more than everything else that a session needs.

use axum::extract::{MatchedPath, OriginalUri, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

/// The headers that somebody looks at.
const KEPT: [HeaderName; 2] = [header::SEC_WEBSOCKET_KEY, header::CONTENT_TYPE];

/// The same request, with a head that holds nothing but itself.
pub(super) async fn lean(request: Request) -> Request {
    let (mut parts, body) = request.into_parts();
    parts.headers = kept(&parts.headers);
    if let Ok(uri) = parts.uri.to_string().parse::<Uri>() {
        parts.uri = uri;
    }
    parts.extensions.remove::<OriginalUri>();
    parts.extensions.remove::<MatchedPath>();
    Request::from_parts(parts, body)
}

fn kept(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(KEPT.len());
    for name in KEPT {
        let value = headers.get(&name).map(HeaderValue::as_bytes);
        if let Some(Ok(value)) = value.map(HeaderValue::from_bytes) {
            kept.insert(name, value);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[tokio::test]
    async fn a_head_holds_nothing_but_what_is_looked_at() {
        let request = Request::post("/socket.io/?EIO=4&sid=x")
            .header("content-type", "text/plain")
            .header("cookie", "a=b")
            .header("user-agent", "somebody")
            .extension(OriginalUri(Uri::from_static("/socket.io/")))
            .extension(7_u32)
            .body(Body::from("40"))
            .expect("a request");
        let (parts, body) = lean(request).await.into_parts();
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
