//! HTTP against the nodes of a cluster, and what comes back.

use reqwest::{Method, RequestBuilder, Response, header::HeaderMap};
use serde_json::{Value, json};

use super::cluster::{Cluster, NODE_KEY};

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
    pub text: String,
    /// The body as JSON; `null` where it is none.
    pub json: Value,
}

impl Answer {
    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Fails the test unless this is a refusal in problem JSON with the given status.
    pub fn assert_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:#?}");
        self.assert_some_problem();
    }

    /// The same for any status from 400 to 499.
    pub fn assert_refused(&self) {
        assert!((400..500).contains(&self.status), "{self:#?}");
        self.assert_some_problem();
    }

    fn assert_some_problem(&self) {
        let kind = self
            .headers
            .get("content-type")
            .and_then(|value| value.to_str().ok());
        assert_eq!(kind, Some("application/problem+json"), "{self:#?}");
        assert_eq!(self.json["status"], self.status, "{self:#?}");
        for field in ["type", "title", "detail"] {
            assert!(self.json[field].is_string(), "no {field} in {self:#?}");
        }
    }
}

/// The body of an answer; of a stream without end, what comes first.
async fn read(mut response: Response) -> Vec<u8> {
    let kind = response.headers().get("content-type");
    let bytes = match kind.is_some_and(|kind| kind == "text/event-stream") {
        true => response.chunk().await.map(Option::unwrap_or_default),
        false => response.bytes().await,
    };
    bytes.expect("the node sends a whole answer").to_vec()
}

impl Cluster {
    /// POSTs to the internal listener, with the key.
    pub async fn post(&self, node: usize, path: &str, body: &Value) -> Answer {
        self.send(
            self.request(node, Method::POST, path)
                .bearer_auth(NODE_KEY)
                .json(body),
        )
        .await
    }

    /// GETs from the internal listener, with the key.
    pub async fn get(&self, node: usize, path: &str) -> Answer {
        self.send(self.request(node, Method::GET, path).bearer_auth(NODE_KEY))
            .await
    }

    /// GETs from the public listener.
    pub async fn get_public(&self, node: usize, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", self.nodes[node].public)))
            .await
    }

    /// The same for a node that may be gone: `None` where nobody answers.
    pub async fn try_get_public(&self, node: usize, path: &str) -> Option<u16> {
        let url = format!("{}{path}", self.nodes[node].public);
        let request = self.http.get(url).timeout(super::DEADLINE);
        Some(request.send().await.ok()?.status().as_u16())
    }

    /// A request to the internal listener to which the test adds what it likes; no key yet.
    pub fn request(&self, node: usize, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.nodes[node].internal))
    }

    /// A request to the public listener, as a user or a guest.
    pub fn request_as(
        &self,
        user: Option<u64>,
        node: usize,
        method: Method,
        path: &str,
    ) -> RequestBuilder {
        let url = format!("{}{path}", self.nodes[node].public);
        let request = self.http.request(method, url);
        match user {
            Some(user) => request.bearer_auth(self.token(user)),
            None => request,
        }
    }

    /// Sends a request.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request
            .timeout(super::DEADLINE)
            .send()
            .await
            .expect("the node answers");
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = read(response).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json = serde_json::from_str(&text).unwrap_or_default();
        Answer {
            status,
            headers,
            bytes,
            text,
            json,
        }
    }

    /// Tells a node of an update (`profile-update` and so on), which must succeed.
    pub async fn notify(&self, node: usize, user: u64, kind: &str, body: Value) -> Value {
        let answer = self
            .post(node, &format!("/api/v1/users/{user}/{kind}"), &body)
            .await;
        assert_eq!(
            answer.status, 200,
            "{kind} of {user} {body} answered {answer:#?}"
        );
        answer.json
    }

    /// The same, told to node 0, whatever comes of it.
    pub async fn tell(&self, user: u64, route: &str, body: &Value) -> Answer {
        self.post(0, &format!("/api/v1/users/{user}/{route}"), body)
            .await
    }

    /// Tells a node of a new profile; returns its revision.
    pub async fn notify_profile(&self, node: usize, user: u64, profile: Value) -> u64 {
        let answer = self
            .notify(node, user, "profile-update", json!({ "user": profile }))
            .await;
        answer["revision"]
            .as_u64()
            .unwrap_or_else(|| panic!("no revision in {answer}"))
    }

    /// A number among a node's metrics, summed over its labels; 0 where the metric is not there.
    pub async fn metric(&self, node: usize, name: &str) -> f64 {
        let answer = self.get(node, "/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let of_that_name = answer.text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let values = of_that_name.filter_map(|line| line.rsplit(' ').next());
        values
            .map(|value| value.parse::<f64>().expect("a metric is a number"))
            .sum()
    }
}
