//! The operators' page: in a browser, and the routes behind it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    ADA, BOB, Cluster, DEADLINE, EVE, NODE_KEY, eventually, eventually_eq, project_root, run,
    scratch,
};

const LIVE: &str = "/api/v1/admin/live";

/// Streams that a node has open at most.
const STREAMS_MAX: usize = 32;

/// Goal: the page shows what it promises, to those who may see it, readable for everybody, without an error.
/// Method: `tests/client/admin.mjs` opens it in headless Chromium on node 0, while clients come and go on node 1; it
/// asserts and ends with 0.
#[tokio::test]
async fn the_page_works_in_a_browser() {
    let cluster = Cluster::builder().nodes(2).without_lookouts().start().await;
    let (_kept, folder) = scratch();
    let node = |place| json!({ "url": cluster.public_url(place), "internalUrl": cluster.internal_url(place) });
    let user = |id| json!({ "id": id, "token": cluster.token(id) });
    let world = json!({
        "nodes": [node(0), node(1)],
        "users": [user(ADA), user(BOB)],
        "key": NODE_KEY,
        "scratch": folder,
    });
    let mut node = std::process::Command::new("node");
    node.arg("admin.mjs").arg(world.to_string());
    node.current_dir(project_root().join("tests/client"));
    let output = run(node).await;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the page failed:\n{said}");
}

/// Somebody who looks: the samples of an open stream.
struct Viewer {
    response: reqwest::Response,
    /// The beginning of an event that has not arrived in full.
    text: String,
}

impl Viewer {
    /// Opens a stream; the status where it is refused.
    async fn open(cluster: &Cluster, node: usize) -> Result<Self, u16> {
        let request = cluster.request(node, Method::GET, LIVE);
        let response = request.bearer_auth(NODE_KEY).send().await;
        let response = response.expect("the node answers");
        match response.status().as_u16() {
            200 => Ok(Self {
                response,
                text: String::new(),
            }),
            status => Err(status),
        }
    }

    /// The next sample; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                let sample = data.map(|data| serde_json::from_str(data).expect("JSON"));
                self.text = rest.to_owned();
                match sample {
                    Some(sample) => return Some(sample),
                    // A sign of life.
                    None => continue,
                }
            }
            let more = tokio::time::timeout(DEADLINE, self.response.chunk()).await;
            let more = more.expect("a sample each second, or the end").ok()??;
            self.text
                .push_str(std::str::from_utf8(&more).expect("ASCII"));
        }
    }

    /// The first sample from here on of which something is true.
    async fn sees(&mut self, what: &str, mut condition: impl FnMut(&Value) -> bool) -> Value {
        let seen = async {
            loop {
                let sample = self.next().await;
                let sample = sample.unwrap_or_else(|| panic!("the stream ended before {what}"));
                if condition(&sample) {
                    return sample;
                }
            }
        };
        let seen = tokio::time::timeout(DEADLINE, seen).await;
        seen.unwrap_or_else(|_| panic!("no sample in which {what}"))
    }
}

/// How many samples a node has taken: each asks how the queue is, and nobody else does.
async fn samples_taken(cluster: &Cluster) -> f64 {
    let series = r#"vigie_redis_script_duration_seconds_count{script="matchmaking/status"}"#;
    series_of(cluster, 0, series).await
}

/// The value of one series of a node's metrics; 0 where it is not there.
async fn series_of(cluster: &Cluster, node: usize, series: &str) -> f64 {
    let page = cluster.get(node, "/metrics").await.text;
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

/// Goal: looking costs as much for many as for one, nothing while nobody looks, and no more look than there is room for.
/// Method: every place is taken, one more is refused, until somebody leaves; the samples that were taken are as many as
/// one viewer sees, and no more are taken while the node renews its lease twice.
#[tokio::test]
async fn those_who_look_share_what_is_looked_up() {
    let cluster = Cluster::builder().nodes(1).without_lookouts().start().await;
    let mut viewers = Vec::new();
    for _ in 0..STREAMS_MAX {
        let viewer = Viewer::open(&cluster, 0).await;
        viewers.push(viewer.unwrap_or_else(|status| panic!("{status} for {}", viewers.len())));
    }
    let one_more = cluster.request(0, Method::GET, LIVE).bearer_auth(NODE_KEY);
    let one_more = cluster.send(one_more).await;
    one_more.assert_problem(503);
    assert!(!one_more.header("retry-after").is_empty(), "{one_more:?}");

    for viewer in &mut viewers {
        assert!(viewer.next().await.is_some());
    }
    let before = samples_taken(&cluster).await;
    let mut seen = 0.0;
    for _ in 0..3 {
        assert!(viewers[0].next().await.is_some());
        seen += 1.0;
    }
    let taken = samples_taken(&cluster).await - before;
    // Some may be on the way, at either end.
    assert!(taken <= seen + 3.0, "{taken} samples, {seen} were seen");

    viewers.pop();
    eventually("there is room again", async || {
        Viewer::open(&cluster, 0).await.ok()
    })
    .await;

    drop(viewers);
    let renewals = async || {
        let series = r#"vigie_redis_script_duration_seconds_count{script="lease/renew"}"#;
        series_of(&cluster, 0, series).await
    };
    eventually("nobody looks anything up", async || {
        let (taken, renewed) = (samples_taken(&cluster).await, renewals().await);
        eventually("two renewals", async || {
            (renewals().await >= renewed + 2.0).then_some(())
        })
        .await;
        (samples_taken(&cluster).await == taken).then_some(())
    })
    .await;
}

/// Goal: a node that stops ends what it streams, and begins no more.
/// Method: SIGTERM with two streams open, and a drain that leaves the time to ask again.
#[tokio::test]
async fn a_stream_ends_with_the_node() {
    let builder = Cluster::builder().nodes(1).without_lookouts();
    let cluster = builder.env("VIGIE_NODE__DRAIN", "10s").start().await;
    // Somebody whose connection is closed in the middle of the drain keeps the node there for a while.
    let _guests = (
        cluster.connect_guest(0).await,
        cluster.connect_guest(0).await,
        cluster.connect_guest(0).await,
    );
    let mut viewers = Vec::new();
    for _ in 0..2 {
        let mut viewer = Viewer::open(&cluster, 0).await.expect("a place");
        assert!(viewer.next().await.is_some());
        viewers.push(viewer);
    }
    cluster.terminate(0);
    for viewer in &mut viewers {
        while viewer.next().await.is_some() {}
    }
    assert_eq!(Viewer::open(&cluster, 0).await.err(), Some(503));
}

/// Goal: the page is served to everybody who reaches the listener and says nothing; what it shows is for those with a
/// key, and for programs on this machine by themselves.
/// Method: both kinds of route, as this machine, as a stranger, as a page of another site, with and without a key.
#[tokio::test]
async fn the_numbers_are_not_for_everybody() {
    let cluster = Cluster::builder().memory().without_lookouts().start().await;
    let ask = async |path: &str, headers: &[(&str, &str)], key: Option<&str>| {
        let mut request = cluster.request(0, Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        cluster.send(request).await
    };
    let local: &[_] = &[];
    let strangers = [
        [("host", "evil.example")],
        [("x-forwarded-for", "127.0.0.1")],
    ];
    let other_site = [("sec-fetch-site", "cross-site")];
    for (headers, says) in [
        (local, "optional"),
        (&strangers[0], "needed"),
        (&strangers[1], "needed"),
        (&other_site, "optional"),
    ] {
        let page = ask("/admin", headers, None).await;
        assert_eq!(page.status, 200, "{headers:?}: {page:?}");
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        assert!(
            page.text.contains(&format!("data-key=\"{says}\"")),
            "{headers:?}"
        );
        assert!(!page.text.contains(NODE_KEY));
        let policy = page.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'sha256-",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
    }
    for path in [LIVE, "/api/v1/admin/users/42"] {
        assert_eq!(ask(path, local, None).await.status, 200, "{path}");
        for headers in strangers.iter().chain([&other_site]) {
            for key in [None, Some("wrong")] {
                let answer = ask(path, headers, key).await;
                answer.assert_problem(401);
            }
            let answer = ask(path, headers, Some(NODE_KEY)).await;
            assert_eq!(answer.status, 200, "{path}, {headers:?}: {answer:?}");
        }
        let answer = cluster.get_public(0, path).await;
        assert!(
            answer.status >= 400,
            "{path} on the public listener: {answer:?}"
        );
    }
    assert_eq!(cluster.get_public(0, "/admin").await.status, 404);
}

/// Goal: one user, looked up on any node, on either engine: where, since when, the last updates, how many watch.
/// Method: tabs, watchers and updates on two nodes, and on the embedded engine; then nobody is left.
#[tokio::test]
async fn a_user_is_looked_up_on_all_nodes() {
    let both = Cluster::builder().nodes(2).partitions(3).without_lookouts();
    let one = Cluster::builder().memory().without_lookouts();
    for (cluster, last) in [(both.start().await, 1), (one.start().await, 0)] {
        let tabs = (
            cluster.connect(0, ADA).await,
            cluster.connect(last, ADA).await,
        );
        let mut guests = Vec::new();
        for node in [0, last, last] {
            let guest = cluster.connect_guest(node).await;
            guest.watch(ADA).await;
            guests.push(guest);
        }
        let revision = cluster
            .notify_profile(last, ADA, json!({ "userID": ADA }))
            .await;
        for asked in [0, last] {
            let path = format!("/api/v1/admin/users/{ADA}");
            let found = cluster.get(asked, &path).await.json;
            assert_eq!(found["userId"], ADA);
            assert_eq!(found["status"], "online", "{found}");
            assert_eq!(found["deleted"], false, "{found}");
            let connections = found["connections"].as_array().expect("a list");
            assert_eq!(connections.len(), 2, "{found}");
            assert_eq!(found["since"], connections[0]["since"], "{found}");
            let nodes = connections.iter().filter_map(|c| c["node"].as_str());
            assert_eq!(nodes.collect::<BTreeSet<_>>().len(), last + 1, "{found}");
            let updates = found["updates"].as_array().expect("a list");
            assert_eq!(updates.len(), 1, "{found}");
            assert_eq!(updates[0]["kind"], "profile", "{found}");
            assert_eq!(updates[0]["revision"], revision, "{found}");
            assert_eq!(
                found["watchers"],
                json!({ "count": 3, "nodes": last + 1, "complete": true })
            );
        }
        guests[0].unwatch(ADA).await;
        tabs.0.close().await;
        tabs.1.close().await;
        let wanted = json!({ "status": "offline", "since": null, "watchers": 2 });
        eventually_eq("whoever is left", wanted, async || {
            let path = format!("/api/v1/admin/users/{ADA}");
            let found = cluster.get(0, &path).await.json;
            let watchers = &found["watchers"]["count"];
            json!({ "status": found["status"], "since": found["since"], "watchers": watchers })
        })
        .await;
    }
}

/// Goal: what went wrong of late is told, with the node that it happened to.
/// Method: a node with a user is killed; another takes it for dead, and says so, and what it released.
#[tokio::test]
async fn a_dead_node_is_told_of() {
    let builder = Cluster::builder().nodes(2).without_lookouts();
    let builder = builder.env("VIGIE_NODE__LEASE", "1s");
    let cluster = builder.env("VIGIE_NODE__HEARTBEAT", "200ms").start().await;
    let _tab = cluster.connect(1, EVE).await;
    let mut viewer = Viewer::open(&cluster, 0).await.expect("a place");
    viewer
        .sees("both nodes are there and somebody is online", |sample| {
            sample["nodes"].as_array().map(Vec::len) == Some(2) && sample["online"] == 1
        })
        .await;
    cluster.kill(1);
    let told = |sample: &Value, kind: &str| {
        let incidents = sample["incidents"].as_array().expect("a list").clone();
        let told = |incident: &Value| incident["kind"] == kind && incident["node"] == "n1";
        incidents.into_iter().find(|incident| told(incident))
    };
    let sample = viewer
        .sees("it is taken for dead", |sample| {
            ["connections_reaped", "node_died"]
                .iter()
                .all(|kind| told(sample, kind).is_some())
                && sample["online"] == 0
        })
        .await;
    assert_eq!(
        told(&sample, "connections_reaped").expect("told")["connections"],
        1
    );
    assert!(told(&sample, "node_reaped").is_some(), "{sample}");
    assert_eq!(
        sample["nodes"].as_array().map(Vec::len),
        Some(1),
        "{sample}"
    );
    assert_eq!(cluster.metric(0, "vigie_reaped_nodes_total").await, 1.0);
    eventually_eq("nodes that are alive", 1.0, async || {
        cluster.metric(0, "vigie_nodes").await
    })
    .await;
}
