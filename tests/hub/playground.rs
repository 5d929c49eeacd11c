//! The playground: in a browser, and where it is.

use serde_json::json;

use crate::harness::{Cluster, NODE_KEY, SECRET, eventually, project_root, run, scratch};

const PATH: &str = "/playground";

/// Goal: everything that the page offers works by the keyboard alone, readable for everybody, without an error; where it
/// may not connect it says what to do.
/// Method: `tests/client/playground.mjs` opens it in headless Chromium, on a hub with nothing configured and on one that
/// allows another origin only; it asserts and ends with 0.
#[tokio::test]
async fn the_page_works_in_a_browser() {
    let cluster = Cluster::unconfigured_builder().start().await;
    let elsewhere = ("VIGIE_HTTP__ALLOWED_ORIGINS", "https://example.org");
    let hindered = Cluster::unconfigured_builder().env(elsewhere.0, elsewhere.1);
    let hindered = hindered.start().await;
    let (_kept, folder) = scratch();
    let world = json!({
        "url": cluster.public_url(0),
        "internalUrl": cluster.internal_url(0),
        "hinderedUrl": hindered.internal_url(0),
        "scratch": folder,
    });
    let mut node = std::process::Command::new("node");
    node.arg("playground.mjs").arg(world.to_string());
    node.current_dir(project_root().join("tests/client"));
    let output = run(node).await;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the page failed:\n{said}");
}

/// Goal: the page runs nothing but its own script and connects to nothing but its hub; the public listener has none.
/// Method: the answers of a hub with nothing configured.
#[tokio::test]
async fn its_policy_is_strict() {
    let cluster = Cluster::unconfigured_builder().start().await;
    let page = cluster.get(0, PATH).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    let socket = cluster.public_url(0).replacen("http:", "ws:", 1);
    for part in [
        "default-src 'none';",
        "script-src 'sha256-",
        "frame-ancestors 'none'",
        &format!("connect-src 'self' {socket};"),
    ] {
        assert!(policy.contains(part), "{policy} lacks {part}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(cluster.get_public(0, PATH).await.status, 404);
    let said = cluster.log(0);
    let link = format!("{}{PATH}\n", cluster.internal_url(0));
    assert!(said.contains(&link), "no {link} in {said}");
}

/// Goal: with keys of one's own the page is not there, and goes when they are taken over.
/// Method: a key of either kind, both, and a hub that reads its settings again.
#[tokio::test]
async fn it_is_not_there_with_keys_of_ones_own() {
    let secret = ("VIGIE_AUTH__SECRET", SECRET);
    let key = ("VIGIE_INTERNAL__API_KEY", NODE_KEY);
    for keys in [&[secret][..], &[key], &[secret, key]] {
        let mut builder = Cluster::unconfigured_builder();
        for (name, value) in keys {
            builder = builder.env(name, value);
        }
        let cluster = builder.start().await;
        let answer = cluster.get(0, PATH).await;
        answer.assert_problem(404);
        let link = format!("{}{PATH}", cluster.internal_url(0));
        assert!(!cluster.log(0).contains(&link), "{keys:?}");
    }

    let (_kept, folder) = scratch();
    let settings = folder.join("vigie.toml");
    std::fs::write(&settings, "").expect("writable");
    let cluster = Cluster::unconfigured_builder()
        .file(&settings)
        .start()
        .await;
    assert_eq!(cluster.get(0, PATH).await.status, 200);
    let own = format!("[auth]\nsecret = \"{SECRET}\"\n[internal]\napi_key = \"{NODE_KEY}\"\n");
    std::fs::write(&settings, own).expect("writable");
    cluster.hang_up(0);
    eventually("the page is gone", async || {
        (cluster.get(0, PATH).await.status == 404).then_some(())
    })
    .await;
}
