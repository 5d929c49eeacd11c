//! The playground: a page for the first five minutes, which signs in users and acts as their back end.
//!
//! It holds the development keys, which are published, and is not there with keys of one's own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::extract::{ConnectInfo, OriginalUri, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::document::Document;
use super::local_caller;
use super::problem::Problem;
use crate::transport::listener::Peer;

const MARKUP: &str = include_str!("playground/page.html");
const STYLE: &str = include_str!("playground/page.css");
const SCRIPT: &str = concat!(
    include_str!("playground/connection.js"),
    include_str!("playground/pane.js"),
    include_str!("playground/visitors.js"),
    include_str!("playground/page.js"),
);

/// The attribute in the markup with [`PlaygroundOptions`] as JSON.
const OPTIONS_PLACE: &str = r#"data-options="{}""#;

/// The hub as the page needs to know it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlaygroundOptions {
    /// Address of the public listener.
    #[serde(skip)]
    pub public: SocketAddr,
    /// The development key of the internal API.
    pub api_key: &'static str,
    /// The development secret that signs tokens.
    pub token_secret: &'static str,
    /// The claim that holds the user id.
    pub user_id_claim: String,
    /// The claim `iss`, if the hub wants one.
    pub issuer: Option<String>,
    /// The claim `aud`, if the hub wants one.
    pub audience: Option<String>,
    /// `http.allowed_origins`; the page explains if it is not among them.
    pub allowed_origins: Vec<String>,
}

/// The page, while it is served. Clones share it.
#[derive(Clone, Default)]
pub struct Playground(Arc<ArcSwapOption<Document>>);

impl Playground {
    /// Serves the page with these options from now on; without options it is not served.
    pub(crate) fn set(&self, options: Option<&PlaygroundOptions>) {
        self.0.store(options.map(document).map(Arc::new));
    }
}

fn document(options: &PlaygroundOptions) -> Document {
    let socket = socket_url(options.public);
    let mut json = serde_json::to_value(options).unwrap_or_default();
    json["socketUrl"] = socket.as_str().into();
    let markup = MARKUP.replace(
        OPTIONS_PLACE,
        &format!("data-options=\"{}\"", attribute(&json.to_string())),
    );
    Document::new(&markup, STYLE, SCRIPT, &[&socket])
}

/// Shows the playground, a page with guests and users to try the hub on; only in development mode, and only to browsers on
/// this machine.
#[utoipa::path(
    get,
    path = "/playground",
    security(()),
    responses(
        (status = 200, description = "the page", body = String, content_type = "text/html"),
        (status = 404, description = "the hub has keys of its own, or the browser is elsewhere", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(
    State(playground): State<Playground>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let page = playground.0.load();
    match &*page {
        Some(page) if local_caller::serves_own_page(peer.address, &uri, &headers) => {
            page.response()
        }
        Some(_) => Problem::not_found(
            "the playground holds the development keys, so it is only for browsers on the hub's machine: open it there, by \
             the name localhost or a loopback address and without a proxy",
        )
        .into_response(),
        None => Problem::not_found(
            "the playground signs tokens with the development secret and calls this API with the development key: it is \
             there while a hub on loopback uses both, so where neither auth nor internal.api_key is set",
        )
        .into_response(),
    }
}

/// URL of the public listener, which is on loopback while the development keys are in use.
fn socket_url(public: SocketAddr) -> String {
    match public.ip().to_canonical() {
        IpAddr::V4(ip) => format!("ws://{ip}:{}", public.port()),
        // A content security policy cannot name addresses of IPv6.
        IpAddr::V6(_) => format!("ws://localhost:{}", public.port()),
    }
}

/// Escapes a text for an attribute in double quotes.
fn attribute(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(issuer: &str) -> PlaygroundOptions {
        PlaygroundOptions {
            public: ([127, 0, 0, 1], 8181).into(),
            api_key: "key",
            token_secret: "secret",
            user_id_claim: "sub".to_owned(),
            issuer: Some(issuer.to_owned()),
            audience: None,
            allowed_origins: vec!["*".to_owned()],
        }
    }

    #[test]
    fn the_page_is_whole_and_holds_its_options() {
        document(&options("accounts")).assert_whole();
        let page = document(&options("https:\"//<&"));
        let text = page.text();
        for wanted in [
            r#"&quot;issuer&quot;:&quot;https:\&quot;//&lt;&amp;&quot;"#,
            r#"&quot;socketUrl&quot;:&quot;ws://127.0.0.1:8181&quot;"#,
        ] {
            assert!(text.contains(wanted), "{wanted}");
        }
    }

    #[test]
    fn sockets_are_reached_by_a_name_that_a_policy_can_say() {
        for (listen, url) in [
            ("127.0.0.1:1", "ws://127.0.0.1:1"),
            ("127.0.0.9:2", "ws://127.0.0.9:2"),
            ("[::1]:3", "ws://localhost:3"),
            ("[::ffff:127.0.0.1]:4", "ws://127.0.0.1:4"),
        ] {
            assert_eq!(socket_url(listen.parse().expect("an address")), url);
        }
    }
}
