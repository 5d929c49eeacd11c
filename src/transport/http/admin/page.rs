//! The operators' page.

use axum::extract::{ConnectInfo, OriginalUri};
use axum::http::HeaderMap;
use axum::response::Response;

use super::super::document::Document;
use super::super::local_caller;
use crate::transport::listener::Peer;

const MARKUP: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The attribute in the markup that tells the script whether to ask for a key.
const KEY_OPTIONAL: &str = r#"data-key="optional""#;
const KEY_NEEDED: &str = r#"data-key="needed""#;

/// The page in both variants. Clones share them.
#[derive(Clone)]
pub(in crate::transport::http) struct AdminPage {
    /// For a browser on this machine.
    key_optional: Document,
    /// For everybody else: the page asks for a key first.
    key_needed: Document,
}

impl AdminPage {
    pub(in crate::transport::http) fn new() -> Self {
        let needed = MARKUP.replace(KEY_OPTIONAL, KEY_NEEDED);
        Self {
            key_optional: Document::new(MARKUP, STYLE, SCRIPT, &[]),
            key_needed: Document::new(&needed, STYLE, SCRIPT, &[]),
        }
    }

    /// Serves the variant for this caller.
    pub(in crate::transport::http) async fn show(
        self,
        ConnectInfo(peer): ConnectInfo<Peer>,
        OriginalUri(uri): OriginalUri,
        headers: HeaderMap,
    ) -> Response {
        if local_caller::serves_own_page(peer.address, &uri, &headers) {
            self.key_optional.response()
        } else {
            self.key_needed.response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_variants_are_whole() {
        let page = AdminPage::new();
        let (optional, needed) = (&page.key_optional, &page.key_needed);
        optional.assert_whole();
        needed.assert_whole();
        assert!(optional.text().contains(KEY_OPTIONAL) && !optional.text().contains(KEY_NEEDED));
        assert!(needed.text().contains(KEY_NEEDED) && !needed.text().contains(KEY_OPTIONAL));
    }
}
