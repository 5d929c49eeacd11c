//! The HTTP routes over accounts: who sees what, who may change what, what is refused, and who hears of it.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{
    ADA, Answer, BOB, Builder, Client, Cluster, Connecting, EVE, MARKER, NODE_KEY, Postgres,
    SECRET, now_seconds, sign,
};

/// Somebody whose account was deleted.
const GONE: u64 = 77;

/// Texts that must be stored to the letter and do no harm.
const INJECTIONS: [&str; 5] = [
    "'; DROP TABLE users; --",
    "\" OR 1=1; --",
    "$1 %s {} \\x27 \\",
    "<script>alert(1)</script>",
    "Ada 李 👩‍🚀 ﷽",
];

/// The beginning of a PNG, which is what makes it one.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and so on";

/// Two nodes on one database in which Ada, Bob and Eve have accounts.
struct Site {
    // Dropped in this order.
    cluster: Cluster,
    postgres: Postgres,
}

impl Site {
    async fn start() -> Self {
        Self::on(Postgres::start().await, |builder| builder).await
    }

    async fn on(postgres: Postgres, different: impl FnOnce(Builder) -> Builder) -> Self {
        let builder = Cluster::builder().nodes(2).on_postgres(&postgres);
        let cluster = different(builder).start().await;
        let site = Self { cluster, postgres };
        for (user, name) in [(ADA, "ada"), (BOB, "bob"), (EVE, "eve")] {
            site.put_account(user, name).await;
        }
        site
    }

    async fn put_account(&self, user: u64, name: &str) -> Value {
        let request = self.inside(Method::PUT, &format!("/api/v1/users/{user}"));
        let answer = request.json(&json!({ "username": name }));
        let answer = self.cluster.send(answer).await;
        assert_eq!(answer.status, 200, "{answer:#?}");
        answer.json
    }

    /// A request to the internal listener of node 0, with the key.
    fn inside(&self, method: Method, path: &str) -> RequestBuilder {
        self.cluster.request(0, method, path).bearer_auth(NODE_KEY)
    }

    /// The view that `viewer` gets of `user` on a node.
    async fn seen(&self, node: usize, viewer: Option<u64>, user: u64) -> Answer {
        let path = format!("/api/v1/users/{user}");
        let request = self.cluster.request_as(viewer, node, Method::GET, &path);
        self.cluster.send(request).await
    }

    /// Sends a request of `user` to node 0, with a body unless it is `null`.
    async fn call(&self, user: u64, method: Method, path: &str, body: Value) -> Answer {
        let mut request = self.cluster.request_as(Some(user), 0, method, path);
        if !body.is_null() {
            request = request.json(&body);
        }
        self.cluster.send(request).await
    }

    async fn rename(&self, user: u64, name: &str) -> Answer {
        let body = json!({ "username": name });
        self.call(user, Method::PATCH, "/api/v1/me", body).await
    }

    async fn befriend(&self, user: u64, other: u64) -> Answer {
        let path = format!("/api/v1/me/friends/{other}");
        self.call(user, Method::PUT, &path, Value::Null).await
    }

    async fn part(&self, user: u64, other: u64) -> Answer {
        let path = format!("/api/v1/me/friends/{other}");
        self.call(user, Method::DELETE, &path, Value::Null).await
    }

    /// Creates an account and deletes it.
    async fn bury(&self, user: u64) {
        self.put_account(user, "gone").await;
        let answer = self.call(user, Method::DELETE, "/api/v1/me", Value::Null);
        assert_eq!(answer.await.status, 204);
    }

    async fn set_avatar(&self, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        let path = "/api/v1/me/avatar";
        let request = self.cluster.request_as(Some(ADA), 0, Method::PUT, path);
        let request = request.header("content-type", content_type).body(body);
        self.cluster.send(request).await
    }
}

/// The next event of this name that is about Ada: Bob hears of his own account, too.
async fn next_about_ada(client: &mut Client, event: &str) -> Value {
    loop {
        let told = client.next_event(event).await;
        if told["userId"] == ADA {
            return told;
        }
    }
}

/// Goal: guests and strangers see the public part, friends and the user all, over HTTP as by watching.
/// Method: each of them asks on both nodes, and watches; the answers are the same.
#[tokio::test]
async fn everybody_sees_what_they_may() {
    let site = Site::start().await;
    site.befriend(ADA, BOB).await;
    site.befriend(BOB, ADA).await;
    let body = json!({ "players": [ADA, EVE], "winner": EVE, "score": [7, 11], "playedAt": 1_700_000_000_000_u64 });
    let played = site.inside(Method::POST, "/api/v1/matches").json(&body);
    let played = site.cluster.send(played).await;
    assert_eq!(played.status, 200, "{played:#?}");

    for node in 0..2 {
        for (viewer, sees_all) in [
            (None, false),
            (Some(EVE), false),
            (Some(MARKER), false),
            (Some(BOB), true),
            (Some(ADA), true),
        ] {
            let answer = site.seen(node, viewer, ADA).await;
            assert_eq!(answer.status, 200, "{viewer:?}: {answer:#?}");
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_eq!(answer.header("vary"), "Authorization");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            let seen = answer.json;
            let profile = json!({ "userID": ADA, "username": "ada", "avatar": "" });
            assert_eq!(seen["profile"], profile, "{viewer:?}");
            assert_eq!(
                seen["stats"],
                json!({ "wins": 0, "losses": 1, "ratio": 0.0 })
            );
            assert!(seen["revisions"]["stats"].as_u64() > seen["revisions"]["profile"].as_u64());
            let (friends, matches) = (seen.get("friends"), seen.get("matches"));
            assert_eq!(
                (friends.is_some(), matches.is_some()),
                (sees_all, sees_all),
                "{viewer:?}: {seen}"
            );
            if sees_all {
                let bob = json!([{ "userId": BOB, "username": "bob", "avatar": "" }]);
                assert_eq!(seen["friends"], bob);
                let eve = json!({ "userId": EVE, "username": "eve", "avatar": "" });
                let entry = json!([{
                    "matchId": played.json["matchId"], "opponent": eve, "result": "loss",
                    "score": [7, 11], "playedAt": 1_700_000_000_000_u64,
                }]);
                assert_eq!(seen["matches"], entry);
            }

            let connecting = viewer.map_or(Connecting::guest(), Connecting::user);
            let socket = site.cluster.connect_with(node, connecting).await;
            let mut watched = socket.watch(ADA).await;
            let fields = watched.as_object_mut().expect("an object");
            assert_eq!(fields.remove("ok"), Some(json!(true)));
            // JavaScript has one kind of numbers.
            watched["stats"]["ratio"] = json!(watched["stats"]["ratio"].as_f64());
            assert_eq!(watched, seen, "{viewer:?} on node {node}");
            socket.close().await;
        }
        site.seen(node, None, 12_345).await.assert_problem(404);
    }
    site.bury(GONE).await;
    for node in 0..2 {
        site.seen(node, None, GONE).await.assert_problem(410);
        site.seen(node, Some(ADA), GONE).await.assert_problem(410);
    }
    for id in ["0", "-1", "x", "9007199254740992", "1%00", "%27"] {
        let path = format!("/api/v1/users/{id}");
        let answer = site.cluster.get_public(0, &path).await;
        answer.assert_problem(400);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

/// Goal: a header that is there and wrong is refused in the words of the sockets; it never makes a guest. Without
/// one there is nothing to change.
/// Method: every kind of bad header on what guests may see, and on every route for users; then none at all.
#[tokio::test]
async fn a_bad_token_is_refused_everywhere() {
    let site = Site::start().await;
    let soon = now_seconds() + 600;
    let expired = sign(
        &json!({ "sub": ADA.to_string(), "exp": now_seconds() - 60 }),
        SECRET,
    );
    let forged = sign(
        &json!({ "sub": ADA.to_string(), "exp": soon }),
        "another secret, also long enough",
    );
    let nobody = sign(&json!({ "sub": "0", "exp": soon }), SECRET);
    let good = site.cluster.token(ADA);
    let mut headers = vec![(format!("Bearer {expired}"), "token_expired: ")];
    for wrong in [
        format!("Bearer {forged}"),
        format!("Bearer {nobody}"),
        format!("Bearer {good}x"),
        "Bearer a.b.c".to_owned(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        String::new(),
        format!("Basic {good}"),
        good,
        format!("Bearer {NODE_KEY}"),
    ] {
        headers.push((wrong, "invalid_token: "));
    }
    let me = [
        (Method::PATCH, "/api/v1/me"),
        (Method::DELETE, "/api/v1/me"),
        (Method::PUT, "/api/v1/me/avatar"),
        (Method::PUT, "/api/v1/me/friends/7"),
        (Method::DELETE, "/api/v1/me/friends/7"),
    ];
    let shown = [(Method::GET, "/api/v1/users/42")];
    for (method, path) in me.iter().chain(&shown) {
        for (header, reason) in &headers {
            let request = site
                .cluster
                .request_as(None, 1, method.clone(), path)
                .header("authorization", header)
                .json(&json!({ "username": "x" }));
            let answer = site.cluster.send(request).await;
            answer.assert_problem(401);
            let detail = answer.json["detail"].as_str().expect("a text");
            assert!(detail.starts_with(reason), "{header:?}: {detail}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    for (method, path) in &me {
        let guest = site.cluster.request_as(None, 1, method.clone(), path);
        let answer = site.cluster.send(guest.json(&json!({}))).await;
        answer.assert_problem(401);
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        assert_eq!(answer.header("cache-control"), "no-store");

        // Somebody with a good token and no account has nothing to change.
        let stranger = site
            .cluster
            .request_as(Some(MARKER), 1, method.clone(), path);
        let answer = site.cluster.send(stranger.json(&json!({}))).await;
        answer.assert_problem(404);
    }
    assert_eq!(
        site.seen(0, None, ADA).await.json["profile"]["username"],
        "ada"
    );
}

/// Goal: a name is stored to the letter, or refused; whoever watches on the other node is told.
/// Method: names that would do harm if they were more than text; then everything that is no name.
#[tokio::test]
async fn a_name_is_stored_to_the_letter_and_told_everywhere() {
    let site = Site::start().await;
    let mut guest = site.cluster.connect_guest(1).await;
    guest.watch(ADA).await;
    let longest = "ä".repeat(64);
    for name in INJECTIONS.into_iter().chain([longest.as_str()]) {
        let answer = site.rename(ADA, &format!("  {name}\u{3000}")).await;
        assert_eq!(answer.status, 200, "{name}: {answer:#?}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.json["profile"]["username"], name);
        assert_eq!(answer.json["friends"], json!([]), "the own view");
        let told = guest.next_event("profile-update").await;
        assert_eq!(told["user"]["username"], name);
        assert_eq!(told["revision"], answer.json["revisions"]["profile"]);
        let stored = site
            .postgres
            .psql("SELECT username FROM users WHERE id = 42");
        assert_eq!(stored.await, name);
    }
    let everybody = site.postgres.psql("SELECT count(*) FROM users").await;
    assert_eq!(everybody, "3");

    let too_long = "ä".repeat(65);
    for name in [
        "", " ", "\u{3000}", "\0", "a\0b", "a\nb", "a\n", "a\u{7f}", "\u{85}a", &too_long,
    ] {
        let answer = site.rename(ADA, name).await;
        answer.assert_problem(422);
        let detail = answer.json["detail"].as_str().expect("a text");
        assert!(detail.contains("`username`"), "{detail}");
    }
    for body in [
        json!({}),
        json!([]),
        json!(["x"]),
        json!({ "username": 1 }),
        json!({ "username": null }),
        json!({ "username": "x", "avatar": "/x" }),
        json!({ "username": "x", "userID": BOB }),
    ] {
        let answer = site.call(ADA, Method::PATCH, "/api/v1/me", body).await;
        answer.assert_problem(400);
    }
    let now = site.seen(1, None, ADA).await.json;
    assert_eq!(now["profile"]["username"], longest);
}

/// Goal: an avatar is a URL that runs nothing.
/// Method: URLs and paths of every kind.
#[tokio::test]
async fn an_avatar_is_a_url_that_runs_nothing() {
    let site = Site::start().await;
    let longest = format!("/{}", "a".repeat(2047));
    for url in [
        "https://example.com/a.png?size=1#x",
        "http://localhost:8080/a",
        "/a.png",
        "/'; DROP TABLE users; --",
        &longest,
    ] {
        let body = json!({ "url": url }).to_string();
        let answer = site
            .set_avatar("application/json; charset=utf-8", body)
            .await;
        assert_eq!(answer.status, 200, "{url}: {answer:#?}");
        assert_eq!(answer.json["profile"]["avatar"], url);
        assert_eq!(answer.json["matches"], json!([]), "the own view");
    }
    let too_long = format!("{longest}a");
    for url in [
        "//example.com/a.png",
        "/\\example.com",
        "javascript:alert(1)",
        "JAVASCRIPT://example.com/%0aalert(1)",
        "data:image/png;base64,AAAA",
        "https://",
        "ftp://example.com/a.png",
        "/a\0",
        "/\t/example.com",
        &too_long,
    ] {
        let body = json!({ "url": url }).to_string();
        let answer = site.set_avatar("application/json", body).await;
        answer.assert_problem(422);
    }
    for body in ["", "{}", "[]", "{\"url\":1}", "{\"url\":\"/a\",\"x\":1}"] {
        site.set_avatar("application/json", body)
            .await
            .assert_problem(400);
    }
    let now = site.seen(1, None, ADA).await.json;
    assert_eq!(now["profile"]["avatar"], longest.as_str());
}

/// Goal: an image is what its content says, of limited size whatever bodies may have otherwise, and served so that a
/// browser keeps it and runs nothing of it.
/// Method: images of all types under wrong names, things that are no images under right ones; a small limit for other
/// bodies; the image is fetched from the other node.
#[tokio::test]
async fn an_image_is_what_its_content_says() {
    let small = |builder: Builder| builder.env("VIGIE_LIMITS__HTTP_BODY", "4KiB");
    let site = Site::on(Postgres::start().await, small).await;
    let mut guest = site.cluster.connect_guest(1).await;
    guest.watch(ADA).await;
    let largest = [PNG, &vec![0; 256 * 1024 - PNG.len()]].concat();
    let images: [(&str, &[u8], &str); 6] = [
        ("text/html", PNG, "image/png"),
        ("image/png", b"\xff\xd8\xff\xe0 and so on", "image/jpeg"),
        (
            "image/svg+xml",
            b"GIF89a<script>alert(1)</script>",
            "image/gif",
        ),
        ("", b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
        ("application/octet-stream", &largest, "image/png"),
        ("image/png", PNG, "image/png"),
    ];
    let mut before = None;
    for (claimed, bytes, media_type) in images {
        let answer = site.set_avatar(claimed, bytes.to_vec()).await;
        assert_eq!(answer.status, 200, "{claimed}: {answer:#?}");
        let url = answer.json["profile"]["avatar"].as_str().expect("a URL");
        let told = guest.next_event("profile-update").await;
        assert_eq!(told["user"]["avatar"], url);

        let served = site.cluster.get_public(1, url).await;
        assert_eq!((served.status, served.bytes.as_slice()), (200, bytes));
        assert_eq!(served.header("content-type"), media_type);
        assert_eq!(
            served.header("cache-control"),
            "public, max-age=31536000, immutable"
        );
        assert_eq!(served.header("x-content-type-options"), "nosniff");
        let policy = served.header("content-security-policy");
        assert_eq!(policy, "default-src 'none'; sandbox");
        assert_eq!(served.header("vary"), "");
        let tag = served.header("etag");
        assert!(url.ends_with(tag.trim_matches('"')), "{tag}");
        let again = site.cluster.request_as(None, 1, Method::GET, url);
        let again = site.cluster.send(again.header("if-none-match", tag)).await;
        assert_eq!((again.status, again.bytes.len()), (304, 0));

        // Only the present one is there, and only under the user's own URL.
        if let Some(before) = before.replace(url.to_owned()) {
            site.cluster
                .get_public(0, &before)
                .await
                .assert_problem(404);
        }
        let of_bob = url.replace("/42/", "/7/");
        site.cluster
            .get_public(0, &of_bob)
            .await
            .assert_problem(404);
    }

    let no_images: [&[u8]; 5] = [
        b"",
        b"<!doctype html><script>alert(1)</script>",
        b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>",
        b"\x89PNG",
        b"BM and so on",
    ];
    for bytes in no_images {
        let answer = site.set_avatar("image/png", bytes).await;
        answer.assert_problem(415);
    }
    let too_large = [largest.as_slice(), b"x"].concat();
    site.set_avatar("image/png", too_large)
        .await
        .assert_problem(413);
    let long = json!({ "url": format!("/{}", "a".repeat(5000)) }).to_string();
    site.set_avatar("application/json", long)
        .await
        .assert_problem(413);
    for path in [
        "/api/v1/avatars/42/x",
        "/api/v1/avatars/x/x",
        "/api/v1/avatars/42/%ff",
        "/api/v1/avatars/42/'%20OR%201=1;%20--",
    ] {
        site.cluster.get_public(0, path).await.assert_problem(404);
    }

    // Others write to the table as well: what it calls an image is looked at again.
    let url = before.expect("one was stored");
    assert_eq!(site.cluster.get_public(1, &url).await.status, 200);
    site.postgres
        .psql("UPDATE avatars SET media_type = 'text/html', image = '<script>alert(1)</script>'")
        .await;
    site.cluster.get_public(1, &url).await.assert_problem(404);
}

/// Goal: a friendship is asked for, agreed to and ended over HTTP; what each sees changes at once, on the other node,
/// too.
/// Method: Bob and a guest watch Ada on node 1 while both befriend each other and part on node 0.
#[tokio::test]
async fn friendships_begin_and_end() {
    let site = Site::start().await;
    let mut bob = site.cluster.connect(1, BOB).await;
    let mut guest = site.cluster.connect_guest(1).await;
    for watcher in [&bob, &guest] {
        assert!(watcher.watch(ADA).await.get("friends").is_none());
    }
    for _ in 0..2 {
        let asked = site.befriend(ADA, BOB).await;
        assert_eq!(asked.status, 200, "{asked:#?}");
        assert_eq!(asked.json, json!({ "status": "requested" }));
    }
    assert!(
        site.seen(1, Some(BOB), ADA)
            .await
            .json
            .get("friends")
            .is_none()
    );
    let agreed = site.befriend(BOB, ADA).await;
    assert_eq!(agreed.json, json!({ "status": "friends" }));
    let friends = json!([{ "userId": BOB, "username": "bob", "avatar": "" }]);
    assert_eq!(site.seen(1, Some(BOB), ADA).await.json["friends"], friends);
    // The list from before may arrive first.
    while next_about_ada(&mut bob, "friend-list-update").await["friends"] != friends {}

    let ended = site.part(BOB, ADA).await;
    assert_eq!((ended.status, ended.text.as_str()), (204, ""));
    assert_eq!(
        site.part(ADA, BOB).await.status,
        204,
        "there is none to end"
    );
    assert!(
        site.seen(1, Some(BOB), ADA)
            .await
            .json
            .get("friends")
            .is_none()
    );
    // From here on Bob is a stranger: what friends see passes him by, what everybody sees does not.
    site.befriend(ADA, EVE).await;
    site.befriend(EVE, ADA).await;
    site.rename(ADA, "ada again").await;
    for watcher in [&mut bob, &mut guest] {
        watcher.next_event("profile-update").await;
    }
    let of_ada = |update: &Value| update["userId"] == ADA;
    let told = bob.payloads("friend-list-update");
    let told: Vec<&Value> = told.iter().filter(|update| of_ada(update)).collect();
    let eve = |update: &&&Value| update.to_string().contains("eve");
    assert_eq!(told.iter().filter(eve).count(), 0, "{told:?}");
    assert_eq!(guest.payloads("friend-list-update"), [] as [Value; 0]);

    site.bury(GONE).await;
    for (other, status) in [(ADA, 422), (12_345, 404), (GONE, 410)] {
        site.befriend(ADA, other).await.assert_problem(status);
        site.part(ADA, other).await.assert_problem(status);
    }
    for id in ["0", "x", "1'--"] {
        let path = format!("/api/v1/me/friends/{id}");
        for method in [Method::PUT, Method::DELETE] {
            let answer = site.call(ADA, method, &path, Value::Null).await;
            answer.assert_problem(400);
        }
    }
}

/// Goal: whoever deletes the account is gone everywhere, and so are the tokens.
/// Method: Ada deletes hers on node 0, with a tab and a watcher on node 1. Another, of whom Postgres knows nothing, is
/// deleted by a back end.
#[tokio::test]
async fn a_deleted_account_is_refused_everywhere() {
    let site = Site::start().await;
    site.befriend(ADA, BOB).await;
    site.befriend(BOB, ADA).await;
    let mut tab = site.cluster.connect(1, ADA).await;
    let mut guest = site.cluster.connect_guest(1).await;
    guest.watch(ADA).await;
    let answer = site
        .call(ADA, Method::DELETE, "/api/v1/me", Value::Null)
        .await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    tab.next_args("account-deleted").await;
    let told = guest.next_event("profile-deleted").await;
    assert_eq!(told, json!({ "userId": ADA }));

    site.cluster
        .notify(0, MARKER, "account-deleted", json!({}))
        .await;
    for node in 0..2 {
        for user in [ADA, MARKER] {
            let requests = [
                (Method::GET, "/api/v1/users/7"),
                (Method::PATCH, "/api/v1/me"),
                (Method::DELETE, "/api/v1/me"),
                (Method::PUT, "/api/v1/me/avatar"),
                (Method::PUT, "/api/v1/me/friends/7"),
                (Method::DELETE, "/api/v1/me/friends/7"),
            ];
            for (method, path) in requests {
                let request = site.cluster.request_as(Some(user), node, method, path);
                let answer = site.cluster.send(request.json(&json!({}))).await;
                answer.assert_problem(401);
                let detail = answer.json["detail"].as_str().expect("a text");
                assert!(detail.starts_with("account_deleted: "), "{detail}");
            }
            let refusal = site.cluster.refusal(node, Connecting::user(user)).await;
            assert_eq!(refusal, "account_deleted");
        }
        site.seen(node, Some(BOB), ADA).await.assert_problem(410);
        assert_eq!(
            site.seen(node, Some(BOB), BOB).await.json["friends"],
            json!([])
        );
    }
    let put = site.inside(Method::PUT, "/api/v1/users/42");
    let put = site.cluster.send(put.json(&json!({ "username": "back" })));
    put.await.assert_problem(410);
}

/// Goal: back ends create and change accounts, and record results; everybody whom it concerns is told.
/// Method: each on node 0, with watchers on node 1; then everything that is refused, which changes nothing.
#[tokio::test]
async fn back_ends_keep_accounts_and_record_results() {
    let site = Site::start().await;
    let put = async |user: u64, body: &Value| {
        let request = site.inside(Method::PUT, &format!("/api/v1/users/{user}"));
        site.cluster.send(request.json(body)).await
    };
    let mut guest = site.cluster.connect_guest(1).await;
    guest.watch(ADA).await;
    let mut friend = site.cluster.connect(1, BOB).await;
    site.befriend(ADA, BOB).await;
    site.befriend(BOB, ADA).await;
    friend.watch(ADA).await;

    for name in INJECTIONS {
        let answer = put(ADA, &json!({ "username": name, "avatar": "/a.png" })).await;
        assert_eq!(answer.status, 200, "{answer:#?}");
        let profile = json!({ "userID": ADA, "username": name, "avatar": "/a.png" });
        assert_eq!(answer.json["profile"], profile);
        assert_eq!(answer.json["friends"][0]["userId"], BOB, "the full view");
        let told = guest.next_event("profile-update").await;
        assert_eq!(told["user"], profile);
    }
    let kept = put(ADA, &json!({ "username": "ada" })).await.json;
    assert_eq!(kept["profile"]["avatar"], "/a.png");
    guest.next_event("profile-update").await;
    site.bury(GONE).await;
    put(GONE, &json!({ "username": "x" }))
        .await
        .assert_problem(410);
    for body in [
        json!({ "username": "" }),
        json!({ "username": "a\0" }),
        json!({ "username": "x", "avatar": "javascript:alert(1)" }),
    ] {
        put(ADA, &body).await.assert_problem(422);
    }
    for body in [
        json!({}),
        json!([]),
        json!({ "username": "x", "stats": {} }),
    ] {
        put(ADA, &body).await.assert_problem(400);
    }

    let record = async |body: &Value| {
        let request = site.inside(Method::POST, "/api/v1/matches");
        site.cluster.send(request.json(body)).await
    };
    let fine = json!({ "players": [ADA, EVE], "winner": ADA, "score": [1_000_000, 0] });
    let answer = record(&fine).await;
    assert_eq!(answer.status, 200, "{answer:#?}");
    let number = answer.json["matchId"].as_u64().expect("a number");
    assert_eq!(answer.json, json!({ "matchId": number }));
    for watcher in [&mut guest, &mut friend] {
        let told = next_about_ada(watcher, "game-stats-update").await;
        assert_eq!(told["stats"], json!({ "wins": 1, "losses": 0, "ratio": 1 }));
    }
    // A watcher who becomes a friend at this moment may first receive the history from before, which is empty.
    let history = loop {
        let told = next_about_ada(&mut friend, "match-history-update").await;
        if told["matches"] != json!([]) {
            break told;
        }
    };
    assert_eq!(history["matches"][0]["matchId"], number);
    assert_eq!(history["matches"][0]["result"], "win");
    let second = record(&fine).await.json["matchId"].as_u64();
    assert!(second > Some(number), "each is recorded");

    let with = |field: &str, value: Value| {
        let mut body = fine.clone();
        body[field] = value;
        body
    };
    for (body, status) in [
        (with("players", json!([ADA, ADA])), 422),
        (with("players", json!([0, ADA])), 422),
        (with("players", json!([ADA, 1.5])), 422),
        (with("winner", json!(BOB)), 422),
        (with("winner", json!(-1)), 422),
        (with("score", json!([-1, 0])), 422),
        (with("score", json!([1_000_001, 0])), 422),
        (with("score", json!([1.5, 0])), 422),
        (with("playedAt", json!(-1)), 422),
        (with("playedAt", json!(1_u64 << 53)), 422),
        (with("playedAt", json!((1_u64 << 53) - 1)), 422),
        (with("players", json!([ADA, 12_345])), 404),
        (with("players", json!([ADA, GONE])), 410),
        (with("players", json!([ADA])), 400),
        (with("players", json!([ADA, BOB, EVE])), 400),
        (with("players", json!(["42", "7"])), 400),
        (with("score", json!("11:7")), 400),
        (with("else", json!(1)), 400),
        (json!([]), 400),
    ] {
        record(&body).await.assert_problem(status);
    }
    let recorded = site.postgres.psql("SELECT count(*) FROM matches").await;
    assert_eq!(recorded, "2");
    assert_eq!(guest.payloads("match-history-update"), [] as [Value; 0]);
}

/// Goal: pages of allowed origins may call every route, others none.
/// Method: preflights and requests of both.
#[tokio::test]
async fn pages_of_allowed_origins_may_call() {
    let postgres = Postgres::start().await;
    let listed = |builder: Builder| {
        let origins = "https://good.example,https://also.example";
        builder.env("VIGIE_HTTP__ALLOWED_ORIGINS", origins)
    };
    let site = Site::on(postgres, listed).await;
    let preflight = async |origin: &str, method: &str| {
        let request = site
            .cluster
            .request_as(None, 0, Method::OPTIONS, "/api/v1/me")
            .header("origin", origin)
            .header("access-control-request-method", method)
            .header(
                "access-control-request-headers",
                "authorization,content-type",
            );
        site.cluster.send(request).await
    };
    for method in ["GET", "PATCH", "PUT", "DELETE"] {
        let answer = preflight("https://also.example", method).await;
        assert_eq!(answer.status, 200, "{answer:#?}");
        let origin = answer.header("access-control-allow-origin");
        assert_eq!(origin, "https://also.example");
        let methods = answer.header("access-control-allow-methods");
        assert!(methods.split(',').any(|one| one == method), "{methods}");
        let headers = answer.header("access-control-allow-headers");
        assert!(headers.contains("authorization"), "{headers}");
        let answer = preflight("https://evil.example", method).await;
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
    let from = async |origin: &str, method: Method, path: &str| {
        let request = site.cluster.request_as(Some(ADA), 0, method, path);
        site.cluster.send(request.header("origin", origin)).await
    };
    let good = from("https://good.example", Method::GET, "/api/v1/users/42").await;
    assert_eq!(good.status, 200, "{good:#?}");
    let allowed = good.header("access-control-allow-origin");
    assert_eq!(allowed, "https://good.example");
    let mut vary: Vec<&str> = Vec::new();
    for value in good.headers.get_all("vary") {
        vary.extend(value.to_str().expect("a text").split(", "));
    }
    assert!(
        vary.contains(&"Authorization") && vary.contains(&"origin"),
        "{vary:?}"
    );
    for (method, path) in [
        (Method::GET, "/api/v1/users/42"),
        (Method::DELETE, "/api/v1/me"),
    ] {
        let evil = from("https://evil.example", method, path).await;
        evil.assert_problem(403);
        assert_eq!(evil.header("cache-control"), "no-store");
    }
    assert_eq!(
        site.seen(1, None, ADA).await.status,
        200,
        "nothing happened"
    );
    let wrong = site.call(ADA, Method::POST, "/api/v1/me", json!({})).await;
    wrong.assert_problem(405);
}

/// Every route about accounts: whether it is internal, and how it is called.
fn routes() -> [(bool, Method, &'static str, Value); 9] {
    let played = json!({ "players": [ADA, BOB], "winner": ADA, "score": [1, 0] });
    [
        (false, Method::GET, "/api/v1/users/42", Value::Null),
        (
            false,
            Method::PATCH,
            "/api/v1/me",
            json!({ "username": "x" }),
        ),
        (
            false,
            Method::PUT,
            "/api/v1/me/avatar",
            json!({ "url": "/x" }),
        ),
        (false, Method::PUT, "/api/v1/me/friends/7", Value::Null),
        (false, Method::DELETE, "/api/v1/me/friends/7", Value::Null),
        (false, Method::DELETE, "/api/v1/me", Value::Null),
        (
            false,
            Method::GET,
            "/api/v1/avatars/42/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            Value::Null,
        ),
        (
            true,
            Method::PUT,
            "/api/v1/users/42",
            json!({ "username": "x" }),
        ),
        (true, Method::POST, "/api/v1/matches", played),
    ]
}

async fn call_route(
    cluster: &Cluster,
    (internal, method, path, body): (bool, Method, &str, Value),
) -> Answer {
    let request = match internal {
        true => cluster.request(0, method, path).bearer_auth(NODE_KEY),
        false => cluster.request_as(Some(ADA), 0, method, path),
    };
    let request = match body.is_null() {
        true => request,
        false => request.json(&body),
    };
    cluster.send(request).await
}

/// Goal: a hub without Postgres says so.
/// Method: every route about accounts on a hub that has none.
#[tokio::test]
async fn without_postgres_there_are_no_accounts() {
    let cluster = Cluster::start_memory().await;
    for route in routes() {
        let answer = call_route(&cluster, route).await;
        answer.assert_problem(404);
        let detail = answer.json["detail"].as_str().expect("a text");
        assert!(detail.contains("no Postgres"), "{detail}");
    }
}

/// Goal: while Postgres is away the answer is "try again", and so it is: what is sent again then works.
/// Method: every route while Postgres is dead, one while it stands still, then both again.
#[tokio::test]
async fn while_postgres_is_away_the_answer_is_try_again() {
    let site = Site::on(Postgres::start_alone().await, |builder| builder).await;
    let assert_unavailable = |answer: &Answer| {
        answer.assert_problem(503);
        assert_eq!(answer.header("retry-after"), "1");
        let detail = answer.json["detail"].as_str().expect("a text");
        assert!(detail.contains("Postgres cannot be reached"), "{detail}");
    };
    site.postgres.pause();
    assert_unavailable(&site.seen(0, None, ADA).await);
    site.postgres.resume();
    site.postgres.kill().await;
    for route in routes() {
        assert_unavailable(&call_route(&site.cluster, route).await);
    }
    assert_unavailable(&site.seen(0, None, ADA).await);
    let said = "a request about an account failed";
    assert!(site.cluster.log(0).contains(said));

    site.postgres.start_again().await;
    assert_eq!(site.seen(0, Some(BOB), ADA).await.status, 200);
    assert_eq!(site.rename(ADA, "ada again").await.status, 200);
    assert_eq!(
        site.seen(1, None, ADA).await.json["profile"]["username"],
        "ada again"
    );
}
