//! An HTML document that embeds its style and script, loads nothing else, and says so in its content security policy.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Where the markup has its style and its script.
const STYLE_PLACE: &str = "/* page.css */";
const SCRIPT_PLACE: &str = "/* page.js */";

/// Colours, head, cards, buttons and fields of every page.
pub(super) const BASE_STYLE: &str = include_str!("document/base.css");

/// Clones share the text.
#[derive(Clone)]
pub(super) struct Document {
    text: Bytes,
    policy: HeaderValue,
}

impl Document {
    /// `style` follows [`BASE_STYLE`]. `connect_to` are origins that the script may connect to besides its own.
    pub(super) fn new(markup: &str, style: &str, script: &str, connect_to: &[&str]) -> Self {
        let style = format!("{BASE_STYLE}\n{style}");
        let text = markup
            .replace(STYLE_PLACE, &style)
            .replace(SCRIPT_PLACE, script);
        let connect: String = connect_to
            .iter()
            .map(|origin| format!(" {origin}"))
            .collect();
        // By hash, so that an injected script does not run.
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'{connect}; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source_of(script),
            source_of(&style),
        );
        Self {
            text: text.into(),
            policy: HeaderValue::from_str(&policy).expect("the policy is ASCII"),
        }
    }

    pub(super) fn response(&self) -> Response {
        let headers = [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/html; charset=utf-8"),
            ),
            (header::CONTENT_SECURITY_POLICY, self.policy.clone()),
        ];
        (headers, self.text.clone()).into_response()
    }

    /// The markup with everything in it.
    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.text).expect("it was made of text")
    }

    /// Panics unless the policy has the hashes of exactly what the document embeds, and nothing comes from elsewhere.
    #[cfg(test)]
    pub(super) fn assert_whole(&self) {
        let text = self.text();
        let policy = self.policy.to_str().expect("ASCII");
        for (name, open, close) in [
            ("script-src", "<script>", "</script>"),
            ("style-src", "<style>", "</style>"),
        ] {
            let parts: Vec<&str> = text.split(open).skip(1).collect();
            assert_eq!(parts.len(), 1, "one {open}");
            let (part, _) = parts[0].split_once(close).expect("it ends");
            let wanted = format!("{name} {};", source_of(part));
            assert!(policy.contains(&wanted), "{policy} lacks {wanted}");
        }
        for place in [STYLE_PLACE, SCRIPT_PLACE] {
            assert!(!text.contains(place), "{place} is filled in");
        }
        for elsewhere in ["src=", "@import", "url(", "https://"] {
            assert!(!text.contains(elsewhere), "{elsewhere}");
        }
    }
}

/// The source expression of an inline style or script.
fn source_of(part: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(part)))
}
