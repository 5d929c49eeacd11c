//! What the load is for: where the nodes are, and all that is peculiar to Vigie. Whatever else speaks Socket.IO and has
//! these routes can be measured the same way.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Url};
use serde_json::json;

use super::error::BenchError;
use super::load::NUMBER_MARK;

/// How long an answer over HTTP may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Counts the messages on users' topics that a node has received.
const TOPIC_MESSAGES: &str = "vigie_topic_messages_total";

/// Counts the updates that a node has skipped for newer ones.
const CONFLATED: &str = "vigie_conflated_total";

/// The nodes under load.
pub(super) struct Target {
    /// The public listeners.
    pub(super) nodes: Vec<SocketAddr>,
    /// The internal listeners, the first of which is told of updates.
    internal: Vec<Url>,
    api_key: String,
    http: Client,
}

impl Target {
    /// Looks up where the nodes are, and whether they listen.
    ///
    /// # Errors
    /// When an URL is none, or nobody listens there.
    pub(super) fn find(
        nodes: &[String],
        internal: &[String],
        api_key: String,
    ) -> Result<Self, BenchError> {
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
            http: http.map_err(|error| BenchError::Own(error.to_string()))?,
        })
    }

    /// Where updates are posted to, for people.
    pub(super) fn told(&self) -> &str {
        self.internal.first().map_or("", Url::as_str)
    }

    /// Tells the first node of an update of `user`, of about 100 bytes.
    ///
    /// # Errors
    /// When it does not answer, or not with success.
    pub(super) async fn publish(&self, user: u64, number: usize) -> Result<(), BenchError> {
        // The number goes where watchers see it, whoever they are.
        let username = format!("bench-{number:06}");
        debug_assert!(format!("\"username\":\"{username}").starts_with(NUMBER_MARK));
        let avatar = format!("/avatars/{user}.png");
        let profile = json!({ "userID": user, "username": username, "avatar": avatar });
        let path = format!("/api/v1/users/{user}/profile-update");
        let request = self.request(0, |http, url| http.post(url), &path)?;
        let sent = request.json(&json!({ "user": profile })).send().await;
        let answer = sent.map_err(|error| self.failed(&error))?;
        if answer.status().is_success() {
            // Read to the end, so that the connection can be used again.
            let body = answer.bytes().await;
            return body.map(drop).map_err(|error| self.failed(&error));
        }
        Err(BenchError::Answered {
            url: self.told().to_owned(),
            status: answer.status().as_u16(),
            body: answer.text().await.unwrap_or_default(),
        })
    }

    /// How many messages about users a node has received from the others so far, if it tells.
    pub(super) async fn topic_messages(&self, node: usize) -> Option<u64> {
        self.metric(node, TOPIC_MESSAGES).await
    }

    /// How many updates a node has skipped so far, because it told a newer one instead, if it tells.
    pub(super) async fn conflated(&self, node: usize) -> Option<u64> {
        self.metric(node, CONFLATED).await
    }

    async fn metric(&self, node: usize, name: &str) -> Option<u64> {
        let request = self.request(node, |http, url| http.get(url), "/metrics");
        let page = request.ok()?.send().await.ok()?.text().await.ok()?;
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value?.trim().parse().ok()
    }

    fn request(
        &self,
        node: usize,
        method: impl Fn(&Client, Url) -> RequestBuilder,
        path: &str,
    ) -> Result<RequestBuilder, BenchError> {
        let base = self.internal.get(node).ok_or(BenchError::NoInternal)?;
        let url = base
            .join(path)
            .map_err(|_| BenchError::Url(base.to_string()))?;
        Ok(method(&self.http, url).header("X-API-Key", &self.api_key))
    }

    fn failed(&self, error: &reqwest::Error) -> BenchError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        BenchError::Unreachable {
            url: self.told().to_owned(),
            flag: "--internal",
            cause: cause.to_string(),
        }
    }
}

fn parse(url: &str) -> Result<Url, BenchError> {
    let wrong = || BenchError::Url(url.to_owned());
    let parsed = Url::parse(url).map_err(|_| wrong())?;
    match (parsed.scheme(), parsed.host_str()) {
        ("http", Some(_)) => Ok(parsed),
        _ => Err(wrong()),
    }
}

/// The address of a listener, where somebody listens.
fn reachable(url: &Url, flag: &'static str) -> Result<SocketAddr, BenchError> {
    let unreachable = |cause: io::Error| BenchError::Unreachable {
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
            assert!(matches!(parse(url), Err(BenchError::Url(_))), "{url}");
        }
    }

    #[test]
    fn a_node_that_is_not_there_is_named() {
        // Nobody listens on port 1 of loopback.
        let url = ["http://127.0.0.1:1".to_owned()];
        let error = Target::find(&url, &[], String::new()).err();
        let said = error.expect("nobody is there").to_string();
        assert!(
            said.contains("127.0.0.1:1") && said.contains("--node"),
            "{said}"
        );
    }
}
