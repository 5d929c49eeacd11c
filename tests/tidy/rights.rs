//! The rights that a Redis user of the hub's own needs.

use crate::{files, read};

/// Goal: the documentation grants a Redis user the rights that an error of the node would name.
/// Method: the text in `preflight.rs`. `tests/hub/readiness/redis.rs` shows that they are enough.
#[test]
fn rights_in_redis() {
    let source = read("src/engine/redis/preflight.rs");
    let rights = source
        .split_once("const RIGHTS: &str =")
        .and_then(|(_, text)| text.split('"').nth(1))
        .expect("a text follows");
    let line = format!("'~vigie:*' '&vigie:*' {rights}\n");
    let is_there = files("", "md")
        .iter()
        .any(|file| read(file).contains(&line));
    assert!(is_there, "no *.md has the line {line}");
}
