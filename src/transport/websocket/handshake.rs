//! The request that opens a WebSocket session (RFC 6455, section 4.2), and its answer.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest, Sha1};

/// The one version of the protocol.
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// The suffix with which keys are hashed (RFC 6455, section 1.3).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key is 16 random bytes.
const KEY_LEN: usize = 16;

/// Some clients draw the last character of their key at random, too, so bits beyond the 16 bytes are not compared.
const KEY_ENCODING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The reason why a request opens no session, as a sentence for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpgradeRefusal {
    /// Another version of Engine.IO, or none.
    #[error(
        "this server speaks Engine.IO 4: send EIO=4 in the query, as socket.io-client does from version 3 on"
    )]
    EngineVersion,
    /// Another transport, or none.
    #[error("the transport is unknown: send transport=websocket or transport=polling in the query")]
    Transport,
    /// Anything but GET.
    #[error("a session is opened with GET")]
    Method,
    /// HTTP/1.0 knows no upgrades.
    #[error(
        "a WebSocket needs HTTP/1.1, Connection: Upgrade and Upgrade: websocket: have the proxy in front of this server use \
         HTTP/1.1 and pass both headers on (in nginx: proxy_http_version 1.1)"
    )]
    HttpVersion,
    /// A proxy has removed the headers, or somebody has opened the address in a browser.
    #[error(
        "this address speaks WebSocket, and the request came without the headers Connection: Upgrade and Upgrade: websocket: \
         have the proxy in front of this server pass both on"
    )]
    NoUpgrade,
    /// A version of the WebSocket protocol that does not exist any more.
    #[error("send Sec-WebSocket-Version: 13")]
    WebSocketVersion,
    /// No key, or one that is too long or too short.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
}

impl UpgradeRefusal {
    /// The status of the answer.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for UpgradeRefusal {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.to_string()).into_response();
        if self == Self::WebSocketVersion {
            let headers = response.headers_mut();
            headers.insert(header::SEC_WEBSOCKET_VERSION, VERSION);
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        response
    }
}

/// Whether a query asks for a session that begins as a WebSocket.
pub(crate) fn opens_websocket(query: &str) -> bool {
    value(query, "transport") == Some("websocket") && value(query, "sid").is_none()
}

/// Checks a request that opens a session.
///
/// # Errors
/// The request opens none; the refusal is the answer.
pub(crate) fn accept(request: &Parts) -> Result<Accepted, UpgradeRefusal> {
    let query = request.uri.query().unwrap_or_default();
    if value(query, "EIO") != Some("4") {
        return Err(UpgradeRefusal::EngineVersion);
    }
    if value(query, "transport") != Some("websocket") {
        return Err(UpgradeRefusal::Transport);
    }
    if request.method != Method::GET {
        return Err(UpgradeRefusal::Method);
    }
    check_upgrade(request.version, &request.headers).map(Accepted)
}

/// Checks that a request can become a WebSocket. Returns the answer to its key.
///
/// # Errors
/// It cannot; the refusal is the answer.
pub(crate) fn check_upgrade(
    version: Version,
    headers: &HeaderMap,
) -> Result<String, UpgradeRefusal> {
    if version < Version::HTTP_11 {
        return Err(UpgradeRefusal::HttpVersion);
    }
    if !lists(headers, header::CONNECTION, "upgrade")
        || !lists(headers, header::UPGRADE, "websocket")
    {
        return Err(UpgradeRefusal::NoUpgrade);
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or(UpgradeRefusal::Key)?;
    if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(UpgradeRefusal::WebSocketVersion);
    }
    match KEY_ENCODING.decode(key) {
        Ok(bytes) if bytes.len() == KEY_LEN => Ok(answer_to(key.as_bytes())),
        _ => Err(UpgradeRefusal::Key),
    }
}

/// The answer to a request that opens a session: 101, after which the connection carries frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted(String);

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let headers = [
            (header::CONNECTION, "Upgrade"),
            (header::UPGRADE, "websocket"),
            (header::SEC_WEBSOCKET_ACCEPT, &self.0),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }
}

/// The value of `Sec-WebSocket-Accept`.
fn answer_to(key: &[u8]) -> String {
    let hash = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX);
    KEY_ENCODING.encode(hash.finalize())
}

/// The first value of a parameter, as it is written; socketioxide reads queries the same way.
fn value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

/// Whether a header that is a list, on one line or several, has this token.
fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).into_iter();
    let mut tokens = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    tokens.any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use axum::http::request::Builder;
    use proptest::prelude::*;
    use tungstenite::handshake::derive_accept_key;

    use super::*;

    const OPENING: &str = "/socket.io/?EIO=4&transport=websocket";
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    /// A request that opens a session, but for headers that are `without`.
    fn request(without: &[&str]) -> Builder {
        let headers = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ];
        headers
            .into_iter()
            .filter(|(name, _)| !without.contains(name))
            .fold(Request::get(OPENING), |request, (name, value)| {
                request.header(name, value)
            })
    }

    fn outcome(request: Builder) -> Result<String, UpgradeRefusal> {
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        accept(&parts).map(|accepted| accepted.0)
    }

    #[test]
    fn a_proper_request_is_accepted() {
        assert_eq!(
            outcome(request(&[])).as_deref(),
            Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        let several_lines = request(&["connection"])
            .header("connection", "keep-alive")
            .header("connection", "close,UPGRADE");
        assert!(outcome(several_lines).is_ok());
        let response = accept(&request(&[]).body(()).expect("a request").into_parts().0)
            .expect("accepted")
            .into_response();
        assert_eq!(response.status(), 101);
        assert_eq!(
            response.headers()["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(response.headers()["upgrade"], "websocket");
        assert_eq!(response.headers()["connection"], "Upgrade");
    }

    #[test]
    fn everything_else_is_refused() {
        let refused = |request, refusal: UpgradeRefusal| {
            assert_eq!(outcome(request), Err(refusal), "{refusal}");
        };
        refused(request(&[]).method("POST"), UpgradeRefusal::Method);
        refused(
            request(&[]).version(Version::HTTP_10),
            UpgradeRefusal::HttpVersion,
        );
        refused(request(&["connection"]), UpgradeRefusal::NoUpgrade);
        refused(request(&["upgrade"]), UpgradeRefusal::NoUpgrade);
        refused(
            request(&["connection"]).header("connection", "Upgraded, keep-alive"),
            UpgradeRefusal::NoUpgrade,
        );
        refused(
            request(&["sec-websocket-version"]),
            UpgradeRefusal::WebSocketVersion,
        );
        refused(
            request(&["sec-websocket-version"]).header("sec-websocket-version", "8"),
            UpgradeRefusal::WebSocketVersion,
        );
        refused(request(&["sec-websocket-key"]), UpgradeRefusal::Key);
        for key in [
            "",
            "x",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZSE=",
            "dGhlIHNhbXBsZSBub24=",
            "!",
        ] {
            refused(
                request(&["sec-websocket-key"]).header("sec-websocket-key", key),
                UpgradeRefusal::Key,
            );
        }
        for (query, refusal) in [
            ("", UpgradeRefusal::EngineVersion),
            ("?transport=websocket", UpgradeRefusal::EngineVersion),
            ("?EIO=3&transport=websocket", UpgradeRefusal::EngineVersion),
            (
                "?EIO=3&EIO=4&transport=websocket",
                UpgradeRefusal::EngineVersion,
            ),
            ("?eio=4&transport=websocket", UpgradeRefusal::EngineVersion),
            ("?EIO=4", UpgradeRefusal::Transport),
            ("?EIO=4&transport=webtransport", UpgradeRefusal::Transport),
            ("?EIO=4&transport=WebSocket", UpgradeRefusal::Transport),
        ] {
            refused(request(&[]).uri(format!("/socket.io/{query}")), refusal);
        }
    }

    #[test]
    fn a_refusal_says_how_to_do_better() {
        let response = UpgradeRefusal::WebSocketVersion.into_response();
        assert_eq!(response.status(), 426);
        assert_eq!(response.headers()["sec-websocket-version"], "13");
        assert_eq!(UpgradeRefusal::NoUpgrade.into_response().status(), 400);
        for word in ["proxy", "Connection: Upgrade", "Upgrade: websocket"] {
            assert!(
                UpgradeRefusal::NoUpgrade.to_string().contains(word),
                "{word}"
            );
        }
    }

    #[test]
    fn only_new_sessions_begin_as_websockets() {
        assert!(opens_websocket("EIO=4&transport=websocket&t=abc"));
        assert!(opens_websocket("transport=websocket&transport=polling"));
        for query in [
            "",
            "EIO=4",
            "EIO=4&transport=polling",
            "EIO=4&transport=websocket&sid=",
            "sid=x&transport=websocket",
        ] {
            assert!(!opens_websocket(query), "{query}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn keys_are_answered_as_by_tungstenite(key: [u8; KEY_LEN]) {
            let key = KEY_ENCODING.encode(key);
            let request = request(&["sec-websocket-key"]).header("sec-websocket-key", &key);
            prop_assert_eq!(outcome(request), Ok(derive_accept_key(key.as_bytes())));
        }
    }
}
