//! The page, put together from its three files, with nothing from elsewhere.

use std::sync::Arc;

use axum::extract::{ConnectInfo, OriginalUri};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::super::loopback;
use crate::transport::listener::Peer;

const MARKUP: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the markup says about the key, until it is known who asks.
const KEY_OPTIONAL: &str = r#"data-key="optional""#;
const KEY_NEEDED: &str = r#"data-key="needed""#;

/// The page in both forms, and what it may load. Clones share them.
#[derive(Clone)]
pub(in crate::transport::http) struct Page(Arc<Forms>);

struct Forms {
    /// For a browser on this machine.
    key_optional: Bytes,
    /// For everybody else: it asks for a key before it asks for anything.
    key_needed: Bytes,
    policy: HeaderValue,
}

impl Page {
    /// Puts the page together.
    pub(in crate::transport::http) fn new() -> Self {
        let markup = MARKUP
            .replace("/* page.css */", STYLE)
            .replace("/* page.js */", SCRIPT);
        // It runs this very script and no other, whatever finds its way into the page.
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            source_of(SCRIPT),
            source_of(STYLE),
        );
        Self(Arc::new(Forms {
            key_needed: markup.replace(KEY_OPTIONAL, KEY_NEEDED).into(),
            key_optional: markup.into(),
            policy: HeaderValue::from_str(&policy).expect("the policy is ASCII"),
        }))
    }

    /// Shows the page. It says whether the routes behind it want a key, so that it need not try.
    pub(in crate::transport::http) async fn show(
        self,
        ConnectInfo(peer): ConnectInfo<Peer>,
        OriginalUri(uri): OriginalUri,
        headers: HeaderMap,
    ) -> Response {
        let forms = &self.0;
        let page = match loopback::serves_own_page(peer.address, &uri, &headers) {
            true => &forms.key_optional,
            false => &forms.key_needed,
        };
        let headers = [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/html; charset=utf-8"),
            ),
            (header::CONTENT_SECURITY_POLICY, forms.policy.clone()),
        ];
        (headers, page.clone()).into_response()
    }
}

/// How a policy names what is part of a page.
fn source_of(part: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_needs_nothing_else() {
        let page = Page::new();
        let text = |page: &Bytes| String::from_utf8(page.to_vec()).expect("UTF-8");
        let (optional, needed) = (text(&page.0.key_optional), text(&page.0.key_needed));
        for page in [&optional, &needed] {
            // What the policy has the hashes of.
            assert!(page.contains(&format!("<style>{STYLE}</style>")));
            assert!(page.contains(&format!("<script>{SCRIPT}</script>")));
            for elsewhere in ["src=", "@import", "url(", "https://"] {
                assert!(!page.contains(elsewhere), "{elsewhere}");
            }
        }
        assert!(optional.contains(KEY_OPTIONAL) && !optional.contains(KEY_NEEDED));
        assert!(needed.contains(KEY_NEEDED) && !needed.contains(KEY_OPTIONAL));
    }
}
