//! State shared by the whole demo: nodes, users, counters, and the signal to stop.

use std::net::SocketAddr;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;
use tokio::sync::watch;
use vigie::UserId;
use vigie::internals::{issue_token, token_options};
use vigie::settings::AuthSettings;

use super::client::{DemoClient, DemoClientError};
use super::counters::DemoCounters;
use crate::remote::{FIRST_SYNTHETIC_USER as FIRST_USER, Remote, RemoteError};

/// Concurrent requests that delete updates.
const FORGOTTEN_TOGETHER: usize = 16;

/// Longer than any visit.
const TOKEN_TTL: std::time::Duration = std::time::Duration::from_mins(10);

pub(super) struct DemoContext {
    pub(super) remote: Remote,
    pub(super) counters: DemoCounters,
    auth: AuthSettings,
    users: usize,
    stop: watch::Sender<bool>,
}

impl DemoContext {
    pub(super) fn new(remote: Remote, auth: AuthSettings, users: usize) -> Self {
        Self {
            remote,
            counters: DemoCounters::default(),
            auth,
            users,
            stop: watch::Sender::new(false),
        }
    }

    /// Id of the first user; the others follow it.
    pub(super) fn first_user(&self) -> u64 {
        FIRST_USER
    }

    /// Id of a user by index.
    pub(super) fn user(&self, place: usize) -> u64 {
        FIRST_USER + place as u64
    }

    /// Index of a random user.
    pub(super) fn anybody(&self) -> usize {
        rand::random_range(0..self.users)
    }

    /// The node of an index, or a random one.
    pub(super) fn node(&self, place: Option<usize>) -> SocketAddr {
        let nodes = &self.remote.nodes;
        let node = place.unwrap_or_else(|| rand::random_range(0..nodes.len()));
        nodes[node % nodes.len()]
    }

    /// A token signed with the settings of the hub.
    pub(super) fn token(&self, user: u64) -> Result<String, DemoClientError> {
        let user =
            UserId::try_from(user).map_err(|error| DemoClientError::Token(error.to_string()))?;
        issue_token(&token_options(&self.auth), user, TOKEN_TTL)
            .map_err(|error| DemoClientError::Token(error.to_string()))
    }

    /// Checks that every node accepts the tokens.
    pub(super) async fn check_tokens(&self) -> Result<(), DemoClientError> {
        for node in &self.remote.nodes {
            let token = self.token(self.first_user())?;
            DemoClient::connect(*node, Some(&token))
                .await?
                .leave()
                .await;
        }
        Ok(())
    }

    /// Whether the hub counts any of the users as online.
    pub(super) async fn is_anybody_online(&self) -> Result<bool, RemoteError> {
        let path = format!("/api/v1/presence?cursor={}&limit=1", FIRST_USER - 1);
        let page: Value =
            serde_json::from_str(&self.remote.get(0, &path).await?).unwrap_or_default();
        let next = page["users"][0].as_u64();
        Ok(next.is_some_and(|user| user < self.user(self.users)))
    }

    /// Deletes the stored updates of the users.
    pub(super) async fn forget_updates(&self) -> Result<(), RemoteError> {
        stream::iter(0..self.users)
            .map(|place| self.remote.forget(self.user(place)))
            .buffer_unordered(FORGOTTEN_TOGETHER)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await
    }

    /// Makes every user leave.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Resolves when the users are to leave.
    pub(super) async fn stopping(&self) {
        // The sender lives as long as `self`.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }
}
