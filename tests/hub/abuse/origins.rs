//! Pages of other sites: they connect nowhere, call nothing, embed nothing, and find no cookie to ride on.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{
    ADA, Answer, BOB, Cluster, Connecting, NODE_KEY, Postgres, eventually, project_root,
};

/// Whose pages may connect.
const ALLOWED: [&str; 2] = ["https://good.example", "http://localhost:3000"];

/// Whose may not. Most are like an allowed one, and are not it.
const FOREIGN: [&str; 16] = [
    "https://evil.example",
    "null",
    "",
    "*",
    "https://GOOD.example",
    "HTTPS://good.example",
    "https://good.example.",
    "https://good.example/",
    "https://good.example:443",
    "https://good.example.evil.example",
    "https://good.example@evil.example",
    "https://evil-good.example",
    "https://www.good.example",
    "http://good.example",
    "https://good.exampl",
    "https://good.example,http://localhost:3000",
];

/// The headers of every answer, unless its route sets others.
const ALWAYS: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// The beginning of a PNG, which is what makes it one.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and so on";

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

/// A node with accounts, of which Ada and Bob have one.
struct Site {
    // Dropped in this order.
    cluster: Cluster,
    _postgres: Postgres,
}

impl Site {
    async fn start(allowed_origins: &str) -> Self {
        let postgres = Postgres::start().await;
        let builder = Cluster::builder().memory().without_lookouts();
        let builder = builder
            .on_postgres(&postgres)
            .env("VIGIE_HTTP__ALLOWED_ORIGINS", allowed_origins)
            .env("VIGIE_LIMITS__HTTP_BODY", "4KiB");
        let cluster = builder.start().await;
        for (user, name) in [(ADA, "ada"), (BOB, "bob")] {
            let path = format!("/api/v1/users/{user}");
            let put = cluster.request(0, Method::PUT, &path).bearer_auth(NODE_KEY);
            let answer = cluster.send(put.json(&json!({ "username": name }))).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        Self {
            cluster,
            _postgres: postgres,
        }
    }

    async fn with_allowed_origins() -> Self {
        Self::start(&ALLOWED.join(",")).await
    }

    /// Calls a public route as a page of `origin` does, on behalf of `user`.
    async fn call(&self, origin: &str, user: Option<u64>, method: Method, path: &str) -> Answer {
        let request = self.cluster.request_as(user, 0, method, path);
        self.cluster.send(request.header("origin", origin)).await
    }

    /// Opens a session by polling; returns its path.
    async fn session(&self) -> String {
        let answer = self.call(ALLOWED[0], None, Method::GET, POLLING).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let opened = answer.text.trim_start_matches('0');
        let opened: Value = serde_json::from_str(opened).expect("JSON");
        let sid = opened["sid"].as_str().expect("a session has a name");
        format!("{POLLING}&sid={sid}")
    }

    /// Asks for a WebSocket as a browser does; returns the status.
    async fn handshake(&self, origins: &[&str]) -> u16 {
        let mut request = self
            .cluster
            .request_as(None, 0, Method::GET, WEBSOCKET)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        for origin in origins {
            request = request.header("origin", *origin);
        }
        // An answer that is an upgrade has no end.
        let response = request.send().await.expect("the node answers");
        response.status().as_u16()
    }

    async fn username_of(&self, user: u64) -> Value {
        let path = format!("/api/v1/users/{user}");
        let answer = self.cluster.get_public(0, &path).await;
        answer.json["profile"]["username"].clone()
    }
}

/// The origin that may read an answer; empty if none may.
fn readable_by(answer: &Answer) -> &str {
    answer.header("access-control-allow-origin")
}

/// Whether caches are told that the answer depends on the origin.
fn varies_by_origin(answer: &Answer) -> bool {
    let values = answer.headers.get_all("vary").iter();
    let names = values.filter_map(|value| value.to_str().ok());
    let mut names = names.flat_map(|names| names.split(','));
    names.any(|name| name.trim().eq_ignore_ascii_case("origin"))
}

/// Goal: where origins are listed, pages of others connect nowhere and call nothing; those of listed ones do.
/// Method: every way in, with origins that are like an allowed one and are not it: the WebSocket handshake, polling in
/// both directions, preflights and calls. After all of it nothing has changed.
#[tokio::test]
async fn pages_of_foreign_origins_are_kept_out() {
    let site = Site::with_allowed_origins().await;
    for origin in ALLOWED {
        assert_eq!(site.handshake(&[origin]).await, 101, "{origin}");
        let session = site.session().await;
        let post = site.cluster.request_as(None, 0, Method::POST, &session);
        let post = post.header("origin", origin).body("40");
        let answer = site.cluster.send(post).await;
        assert_eq!(answer.status, 200, "{origin}: {answer:?}");
        assert_eq!(readable_by(&answer), origin);
        assert!(varies_by_origin(&answer), "{answer:?}");
        let answer = site
            .call(origin, Some(ADA), Method::GET, "/api/v1/users/42")
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(readable_by(&answer), origin);
        assert!(varies_by_origin(&answer), "{answer:?}");
    }
    let session = site.session().await;
    for origin in FOREIGN {
        assert_eq!(site.handshake(&[origin]).await, 403, "{origin}");
        for (method, path) in [
            (Method::GET, POLLING),
            (Method::GET, &session),
            (Method::POST, &session),
            (Method::GET, "/api/v1/users/42"),
            (Method::PATCH, "/api/v1/me"),
            (Method::PUT, "/api/v1/me/avatar"),
            (Method::PUT, "/api/v1/me/friends/7"),
            (Method::DELETE, "/api/v1/me/friends/7"),
            (Method::DELETE, "/api/v1/me"),
        ] {
            let what = format!("{method} {path} from {origin:?}");
            let answer = site.call(origin, Some(ADA), method, path).await;
            answer.assert_problem(403);
            assert_eq!(readable_by(&answer), "", "{what}");
            assert!(varies_by_origin(&answer), "{what}: {answer:?}");
        }
    }
    // Two origins are no origin, whichever comes first.
    assert_eq!(site.handshake(&[ALLOWED[0], FOREIGN[0]]).await, 403);
    assert_eq!(site.handshake(&[FOREIGN[0], ALLOWED[0]]).await, 403);
    assert_eq!(site.username_of(ADA).await, "ada");
    // A program that is no browser sends no origin.
    assert_eq!(site.handshake(&[]).await, 101);
}

/// Goal: the official client gets in from an allowed origin and from no other, over either transport.
/// Method: a socket from each; the one that gets in is online.
#[tokio::test]
async fn the_official_client_needs_an_allowed_origin() {
    let site = Site::with_allowed_origins().await;
    for transport in ["websocket", "polling"] {
        let page = |origin: &str| {
            let connecting = Connecting::user(ADA).origin(origin);
            connecting.transports(&[transport]).once()
        };
        for origin in ALLOWED {
            let tab = site.cluster.connect_with(0, page(origin)).await;
            eventually("the user is online", async || {
                (tab.online().await == [ADA]).then_some(())
            })
            .await;
            tab.close().await;
        }
        for origin in ["https://evil.example", "null", "https://good.example."] {
            let refusal = site.cluster.refusal(0, page(origin)).await;
            assert!(refusal.contains("error"), "{transport} {origin}: {refusal}");
        }
    }
}

/// Goal: preflights say who may call, and nothing that a cache could give to somebody else.
/// Method: preflights for sockets and for accounts, of allowed and foreign origins, with listed origins and with `*`;
/// credentials are never allowed, since there are none.
#[tokio::test]
async fn preflights_are_answered_by_origin() {
    let listed = Site::with_allowed_origins().await;
    let open = Site::start("*").await;
    let preflight = async |site: &Site, origin: &str, path: &str| {
        let request = site
            .cluster
            .request_as(None, 0, Method::OPTIONS, path)
            .header("origin", origin)
            .header("access-control-request-method", "PATCH")
            .header(
                "access-control-request-headers",
                "authorization,content-type",
            );
        let answer = site.cluster.send(request).await;
        assert_eq!(answer.header("access-control-allow-credentials"), "");
        answer
    };
    for path in ["/api/v1/me", "/api/v1/users/42", "/socket.io/", "/nothing"] {
        for origin in ALLOWED {
            let answer = preflight(&listed, origin, path).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(varies_by_origin(&answer), "{answer:?}");
            assert_eq!(readable_by(&answer), origin);
            let methods = answer.header("access-control-allow-methods");
            assert!(methods.contains("PATCH"), "{methods}");
            let headers = answer.header("access-control-allow-headers");
            assert_eq!(headers, "content-type,authorization");
        }
        for origin in FOREIGN {
            let answer = preflight(&listed, origin, path).await;
            assert_eq!(readable_by(&answer), "", "{origin}");
            assert!(varies_by_origin(&answer), "{answer:?}");
        }
        for origin in ALLOWED.iter().chain(&FOREIGN) {
            assert_eq!(readable_by(&preflight(&open, origin, path).await), "*");
        }
    }
}

/// The routes of a table in `src/transport/README.md`, which another test compares with the code: whether each is
/// internal, its method and path.
fn routes_of(table: &str, internal: bool) -> Vec<(bool, Method, String)> {
    let readme =
        std::fs::read_to_string(project_root().join("src/transport/README.md")).expect("a README");
    let (_, rest) = readme
        .split_once(&format!("<!-- table: {table} -->"))
        .expect("the table");
    let rows = rest
        .trim_start()
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let routes = rows.map(|row| {
        let route = row.split('`').nth(1).expect("a route");
        let (method, path) = route.split_once(' ').unwrap_or(("GET", POLLING));
        let path = path.replace("{id}", "42").replace("{user}", "42");
        let path = path.replace("{hash}", &"0123456789abcdef".repeat(4));
        (internal, method.parse().expect("a method"), path)
    });
    routes.collect()
}

/// Every route of both listeners, and what is none.
fn all_routes() -> Vec<(bool, Method, String)> {
    let mut routes = routes_of("public routes", false);
    routes.extend(routes_of("routes", true));
    assert!(routes.len() > 25, "{routes:?}");
    for internal in [false, true] {
        for (method, path) in [
            (Method::GET, "/"),
            (Method::GET, "/nothing"),
            (Method::POST, "/nothing"),
            (Method::DELETE, "/metrics"),
            (Method::DELETE, "/healthz"),
            (Method::OPTIONS, "/api/v1/me"),
            (Method::TRACE, "/api/v1/users/42"),
            (Method::GET, "/api/v1/users/x"),
        ] {
            routes.push((internal, method, path.to_owned()));
        }
    }
    routes.push((false, Method::POST, format!("{POLLING}&sid=nobody")));
    routes.push((false, Method::GET, WEBSOCKET.to_owned()));
    // These end what the others need.
    let ends = |(_, method, path): &(bool, Method, String)| {
        let deletes = method == Method::DELETE && path == "/api/v1/me";
        deletes || path.ends_with("account-deleted")
    };
    let (last, mut first): (Vec<_>, Vec<_>) = routes.into_iter().partition(ends);
    first.extend(last);
    first
}

/// Asks for a route in every way that matters: as nobody, as somebody, with a body that is too large.
fn requests(site: &Site, (internal, method, path): &(bool, Method, String)) -> Vec<RequestBuilder> {
    let request = |user: Option<u64>| match internal {
        true => {
            let request = site.cluster.request(0, method.clone(), path);
            match user {
                Some(_) => request.bearer_auth(NODE_KEY),
                None => request,
            }
        }
        false => site.cluster.request_as(user, 0, method.clone(), path),
    };
    vec![
        request(None),
        request(Some(ADA)).body("x".repeat(5000)),
        request(Some(ADA)).json(&json!({})),
    ]
}

/// Goal: every answer of either listener tells browsers what they may do with it, also where it is an error; no answer
/// sets a cookie, and none depends on one.
/// Method: every documented route and paths that are none, without credentials, as a user and with a large body; with a
/// cookie the status is the same.
#[tokio::test]
async fn every_answer_is_guarded_and_none_knows_cookies() {
    let site = Site::start("*").await;
    let mut statuses = Vec::new();
    for route in all_routes() {
        for request in requests(&site, &route) {
            let with_cookie = request.try_clone().expect("the body is in memory");
            let with_cookie = with_cookie.header("cookie", "io=1; sid=2; session=3; token=4");
            let answer = site.cluster.send(request).await;
            let again = site.cluster.send(with_cookie).await;
            for answer in [&answer, &again] {
                assert_guarded(&route, answer);
                let cookies = answer.headers.get_all("set-cookie").iter().count();
                assert_eq!(cookies, 0, "{route:?}: {answer:?}");
            }
            // A second request to delete may learn that the account is deleted.
            let ends = route.2.ends_with("/me") || route.2.ends_with("deleted");
            assert!(
                ends || again.status == answer.status,
                "{route:?}: {again:?}"
            );
            statuses.push(answer.status);
        }
    }
    for status in [200, 204, 400, 401, 404, 405, 413] {
        assert!(statuses.contains(&status), "nothing answered {status}");
    }
}

fn assert_guarded(route: &(bool, Method, String), answer: &Answer) {
    for (name, value) in ALWAYS {
        let said: Vec<_> = answer.headers.get_all(name).iter().collect();
        // The one page there is may run its own script and nothing else.
        let is_policy_of_page = route.2 == "/admin" && name == "content-security-policy";
        if is_policy_of_page && answer.status == 200 {
            let policy = answer.header(name);
            assert!(
                policy.starts_with("default-src 'none'; script-src 'sha256-"),
                "{policy}"
            );
            assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
            continue;
        }
        assert_eq!(said, [value], "{name} of {route:?}: {answer:?}");
    }
}

/// Goal: pages of every site can show avatars, and nothing else that is served.
/// Method: a picture is sent and asked for; what its answer says instead of the rest, also where the browser has it.
#[tokio::test]
async fn avatars_are_there_to_be_embedded() {
    let site = Site::with_allowed_origins().await;
    let put = site
        .cluster
        .request_as(Some(ADA), 0, Method::PUT, "/api/v1/me/avatar");
    let answer = site.cluster.send(put.body(PNG)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let path = answer.json["profile"]["avatar"].as_str().expect("a path");
    let shown = site.cluster.get_public(0, path).await;
    assert_eq!((shown.status, &*shown.bytes), (200, PNG));
    let known = site.cluster.request_as(None, 0, Method::GET, path);
    let known = known.header("if-none-match", shown.header("etag"));
    let known = site.cluster.send(known).await;
    assert_eq!(known.status, 304, "{known:?}");
    for answer in [&shown, &known] {
        for (name, value) in [
            ("cross-origin-resource-policy", "cross-origin"),
            ("cache-control", "public, max-age=31536000, immutable"),
            ("content-security-policy", "default-src 'none'; sandbox"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            let said: Vec<_> = answer.headers.get_all(name).iter().collect();
            assert_eq!(said, [value], "{name}: {answer:?}");
        }
    }
    let gone = format!("/api/v1/avatars/42/{}", "0123456789abcdef".repeat(4));
    let gone = site.cluster.get_public(0, &gone).await;
    gone.assert_problem(404);
    assert_guarded(
        &(false, Method::GET, "a picture that is none".to_owned()),
        &gone,
    );
}
