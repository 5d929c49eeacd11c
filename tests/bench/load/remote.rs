//! Running nodes: their addresses and their internal API.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, Url};
use serde_json::Value;
use vigie::Settings;

/// First id of synthetic users: no account that counts from 1 gets there.
pub(super) const FIRST_SYNTHETIC_USER: u64 = 9_000_000_000_001;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(super) enum RemoteError {
    #[error("{0:?} is no URL of a node; write http://HOST:PORT (TLS is not spoken here)")]
    Url(String),
    #[error("cannot reach {url} ({cause}); is the node running, and {flag} its address?")]
    Unreachable {
        url: String,
        /// The flag that named it.
        flag: &'static str,
        cause: String,
    },
    #[error("{url} answered with {status}{}: {body}", hint(*status))]
    Answered {
        url: String,
        status: u16,
        body: String,
    },
    #[error("updates are posted: say with --internal where the nodes' internal listeners are")]
    NoInternal,
    /// An error on this side.
    #[error("cannot speak HTTP: {0}")]
    Own(String),
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => " (set VIGIE_INTERNAL__API_KEY to a key of the nodes' internal API)",
        404 => " (is --internal the internal listener?)",
        _ => "",
    }
}

pub(super) struct Remote {
    /// Public listeners.
    pub(super) nodes: Vec<SocketAddr>,
    /// Internal listeners; updates are posted to the first.
    internal: Vec<Url>,
    api_key: String,
    http: Client,
}

impl Remote {
    /// Resolves the nodes and checks that they listen. Without `nodes`, the target is the node of these settings,
    /// whose API key is used in any case.
    pub(super) fn find(
        settings: &Settings,
        nodes: &[String],
        internal: &[String],
    ) -> Result<Self, RemoteError> {
        let or_own = |urls: &[String], own: SocketAddr| match urls {
            [] => vec![format!("http://{own}")],
            urls => urls.to_vec(),
        };
        // A named node may run elsewhere, so the settings say nothing about its internal listener.
        let internal = if nodes.is_empty() {
            or_own(internal, settings.internal.listen)
        } else {
            internal.to_vec()
        };
        let api_key = settings.internal.keys().next();
        let api_key = api_key.map(|(_, key)| key.expose().to_owned());
        let nodes = or_own(nodes, settings.http.listen);
        Self::at(&nodes, &internal, api_key.unwrap_or_default())
    }

    pub(super) fn at(
        nodes: &[String],
        internal: &[String],
        api_key: String,
    ) -> Result<Self, RemoteError> {
        let mut public = Vec::new();
        for url in nodes {
            public.push(reachable(&parse(url)?, "--node")?);
        }
        let internal: Vec<Url> = internal
            .iter()
            .map(|url| parse(url))
            .collect::<Result<_, _>>()?;
        for url in &internal {
            reachable(url, "--internal")?;
        }
        let http = Client::builder().no_proxy().timeout(ANSWER_WITHIN).build();
        Ok(Self {
            nodes: public,
            internal,
            api_key,
            http: http.map_err(|error| RemoteError::Own(error.to_string()))?,
        })
    }

    /// Where updates are posted, for messages.
    pub(super) fn base_url(&self) -> &str {
        self.internal.first().map_or("", Url::as_str)
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<(), RemoteError> {
        let request = self.request(0, |http, url| http.post(url), path)?;
        // Reads the whole answer, so that the connection can be reused.
        self.text(request.json(body)).await.map(drop)
    }

    /// Deletes the stored updates of a user.
    pub(super) async fn forget(&self, user: u64) -> Result<(), RemoteError> {
        let path = format!("/api/v1/users/{user}/updates");
        let request = self.request(0, |http, url| http.delete(url), &path)?;
        self.text(request).await.map(drop)
    }

    pub(super) async fn get(&self, node: usize, path: &str) -> Result<String, RemoteError> {
        self.text(self.request(node, |http, url| http.get(url), path)?)
            .await
    }

    /// Whether the public listener of a node says that it can do its work.
    pub(super) async fn is_ready(&self, node: usize) -> bool {
        let Some(address) = self.nodes.get(node) else {
            return false;
        };
        let request = self.http.get(format!("http://{address}/readyz"));
        self.text(request).await.is_ok()
    }

    fn request(
        &self,
        node: usize,
        method: impl Fn(&Client, Url) -> RequestBuilder,
        path: &str,
    ) -> Result<RequestBuilder, RemoteError> {
        let base = self.internal.get(node).ok_or(RemoteError::NoInternal)?;
        let url = base
            .join(path)
            .map_err(|_| RemoteError::Url(base.to_string()))?;
        Ok(method(&self.http, url).header("X-API-Key", &self.api_key))
    }

    async fn text(&self, request: RequestBuilder) -> Result<String, RemoteError> {
        let sent = request.send().await;
        let answer: Response = sent.map_err(|error| self.failed(&error))?;
        let (url, status) = (answer.url().to_string(), answer.status());
        let body = answer.text().await;
        if status.is_success() {
            return body.map_err(|error| self.failed(&error));
        }
        Err(RemoteError::Answered {
            url,
            status: status.as_u16(),
            body: body.unwrap_or_default(),
        })
    }

    fn failed(&self, error: &reqwest::Error) -> RemoteError {
        let mut cause: &dyn Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        RemoteError::Unreachable {
            url: self.base_url().to_owned(),
            flag: "--internal",
            cause: cause.to_string(),
        }
    }
}

fn parse(url: &str) -> Result<Url, RemoteError> {
    let wrong = || RemoteError::Url(url.to_owned());
    let parsed = Url::parse(url).map_err(|_| wrong())?;
    match (parsed.scheme(), parsed.host_str()) {
        ("http", Some(_)) => Ok(parsed),
        _ => Err(wrong()),
    }
}

/// Resolves a listener and checks that it accepts connections.
fn reachable(url: &Url, flag: &'static str) -> Result<SocketAddr, RemoteError> {
    let unreachable = |cause: io::Error| RemoteError::Unreachable {
        url: url.to_string(),
        flag,
        cause: cause.to_string(),
    };
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(80);
    let mut addresses = (host, port).to_socket_addrs().map_err(unreachable)?;
    let address = addresses
        .next()
        .ok_or_else(|| unreachable(io::Error::other("no address")))?;
    std::net::TcpStream::connect_timeout(&address, ANSWER_WITHIN).map_err(unreachable)?;
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_is_spoken() {
        assert!(parse("http://127.0.0.1:8181").is_ok());
        assert!(parse("http://[::1]:8181/").is_ok());
        for url in ["https://example.com", "127.0.0.1:8181", "ws://a", ""] {
            assert!(matches!(parse(url), Err(RemoteError::Url(_))), "{url}");
        }
    }

    #[test]
    fn a_node_that_is_not_there_is_named() {
        // Nothing listens on port 1 of loopback.
        let url = ["http://127.0.0.1:1".to_owned()];
        let error = Remote::at(&url, &[], String::new()).err();
        let said = error.expect("nobody is there").to_string();
        assert!(
            said.contains("127.0.0.1:1") && said.contains("--node"),
            "{said}"
        );
    }
}
