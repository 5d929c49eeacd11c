//! Everything specific to Vigie about the nodes under load. A peer that speaks Socket.IO and has these routes can be
//! measured the same way.

use serde_json::json;

use crate::remote::{Remote, RemoteError};
use crate::socket_io::packet::NUMBER_MARK;

/// Messages on users' topics that a node has received.
const TOPIC_MESSAGES: &str = "vigie_topic_messages_total";

/// Messages on the channels of presence that a node has received.
const PRESENCE_MESSAGES: &str = "vigie_presence_messages_total";

const ONLINE_USERS: &str = "vigie_online_users";

/// Updates that a node has skipped for newer ones.
const CONFLATED: &str = "vigie_conflated_total";

impl Remote {
    /// Posts an update of `user`, of about 100 bytes, to the first node.
    pub(super) async fn publish(&self, user: u64, number: usize) -> Result<(), RemoteError> {
        // The name is a public field, so every watcher receives the number.
        let username = format!("bench-{number:06}");
        debug_assert!(format!("\"username\":\"{username}").starts_with(NUMBER_MARK));
        let avatar = format!("/avatars/{user}.png");
        let profile = json!({ "userID": user, "username": username, "avatar": avatar });
        let path = format!("/api/v1/users/{user}/profile-update");
        self.post(&path, &json!({ "user": profile })).await
    }

    /// `None` when the node has no such metric.
    pub(super) async fn topic_messages(&self, node: usize) -> Option<u64> {
        self.metric(node, TOPIC_MESSAGES).await
    }

    /// `None` when the node has no such metric.
    pub(super) async fn presence_messages(&self, node: usize) -> Option<u64> {
        self.metric(node, PRESENCE_MESSAGES).await
    }

    /// Users online on all nodes, as this one sees it. `None` when the node has no such metric.
    pub(super) async fn online_users(&self, node: usize) -> Option<u64> {
        self.metric(node, ONLINE_USERS).await
    }

    /// `None` when the node has no such metric.
    pub(super) async fn conflated(&self, node: usize) -> Option<u64> {
        self.metric(node, CONFLATED).await
    }

    async fn metric(&self, node: usize, name: &str) -> Option<u64> {
        let page = self.get(node, "/metrics").await.ok()?;
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value?.trim().parse().ok()
    }
}
