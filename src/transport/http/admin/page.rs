//! The operators' page: one document that embeds its style and script and loads nothing else.

use std::sync::Arc;

use axum::extract::{ConnectInfo, OriginalUri};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::super::local_caller;
use crate::transport::listener::Peer;

const MARKUP: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The attribute in the markup that tells the script whether to ask for a key.
const KEY_OPTIONAL: &str = r#"data-key="optional""#;
const KEY_NEEDED: &str = r#"data-key="needed""#;

/// The page in both variants, with its content security policy. Clones share them.
#[derive(Clone)]
pub(in crate::transport::http) struct AdminPage(Arc<Variants>);

struct Variants {
    /// For a browser on this machine.
    key_optional: Bytes,
    /// For everybody else: the page asks for a key first.
    key_needed: Bytes,
    policy: HeaderValue,
}

impl AdminPage {
    pub(in crate::transport::http) fn new() -> Self {
        let markup = MARKUP
            .replace("/* page.css */", STYLE)
            .replace("/* page.js */", SCRIPT);
        // By hash, so that an injected script does not run.
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            source_of(SCRIPT),
            source_of(STYLE),
        );
        Self(Arc::new(Variants {
            key_needed: markup.replace(KEY_OPTIONAL, KEY_NEEDED).into(),
            key_optional: markup.into(),
            policy: HeaderValue::from_str(&policy).expect("the policy is ASCII"),
        }))
    }

    /// Serves the variant for this caller.
    pub(in crate::transport::http) async fn show(
        self,
        ConnectInfo(peer): ConnectInfo<Peer>,
        OriginalUri(uri): OriginalUri,
        headers: HeaderMap,
    ) -> Response {
        let variants = &self.0;
        let page = if local_caller::serves_own_page(peer.address, &uri, &headers) {
            &variants.key_optional
        } else {
            &variants.key_needed
        };
        let headers = [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/html; charset=utf-8"),
            ),
            (header::CONTENT_SECURITY_POLICY, variants.policy.clone()),
        ];
        (headers, page.clone()).into_response()
    }
}

/// The source expression of an inline style or script.
fn source_of(part: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_needs_nothing_else() {
        let page = AdminPage::new();
        let text = |page: &Bytes| String::from_utf8(page.to_vec()).expect("UTF-8");
        let (optional, needed) = (text(&page.0.key_optional), text(&page.0.key_needed));
        for page in [&optional, &needed] {
            // The policy has the hashes of exactly these.
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
