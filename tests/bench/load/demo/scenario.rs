//! What all of the demo share: the nodes, the users, when to stop, and what has happened.

use std::net::SocketAddr;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;
use tokio::sync::watch;
use vigie::domain::token;
use vigie::ids::UserId;
use vigie::settings::AuthSettings;

use super::client::{Client, ClientError};
use super::counters::Tally;
use crate::remote::{FIRST_SYNTHETIC_USER as FIRST_USER, Remote, RemoteError};

/// Users about whom updates are forgotten at the same time.
const FORGOTTEN_TOGETHER: usize = 16;

/// How long tokens are valid: longer than anybody stays.
const TOKEN_TTL: std::time::Duration = std::time::Duration::from_mins(10);

/// The stage.
pub(super) struct Scene {
    /// The nodes.
    pub(super) remote: Remote,
    /// What has happened.
    pub(super) tally: Tally,
    auth: AuthSettings,
    users: usize,
    stop: watch::Sender<bool>,
}

impl Scene {
    /// A stage with so many users.
    pub(super) fn new(remote: Remote, auth: AuthSettings, users: usize) -> Self {
        Self {
            remote,
            tally: Tally::default(),
            auth,
            users,
            stop: watch::Sender::new(false),
        }
    }

    /// Id of the first user; the others follow it.
    pub(super) fn first_user(&self) -> u64 {
        FIRST_USER
    }

    /// Id of the user in a place.
    pub(super) fn user(&self, place: usize) -> u64 {
        FIRST_USER + place as u64
    }

    /// Any of the users, by place.
    pub(super) fn anybody(&self) -> usize {
        rand::random_range(0..self.users)
    }

    /// A node: the one for a place, or any.
    pub(super) fn node(&self, place: Option<usize>) -> SocketAddr {
        let nodes = &self.remote.nodes;
        let node = place.unwrap_or_else(|| rand::random_range(0..nodes.len()));
        nodes[node % nodes.len()]
    }

    /// A token of a user, as the hub's own settings sign it.
    ///
    /// # Errors
    /// When they cannot sign.
    pub(super) fn token(&self, user: u64) -> Result<String, ClientError> {
        let user = UserId::try_from(user).map_err(|error| ClientError::Token(error.to_string()))?;
        token::issue(&self.auth, user, TOKEN_TTL)
            .map_err(|error| ClientError::Token(error.to_string()))
    }

    /// Checks that every node takes the users' tokens.
    ///
    /// # Errors
    /// When one does not.
    pub(super) async fn check_tokens(&self) -> Result<(), ClientError> {
        for node in &self.remote.nodes {
            let token = self.token(self.first_user())?;
            Client::connect(*node, Some(&token)).await?.leave().await;
        }
        Ok(())
    }

    /// Whether the hub counts any of the users as online.
    ///
    /// # Errors
    /// When it does not say.
    pub(super) async fn is_anybody_online(&self) -> Result<bool, RemoteError> {
        let path = format!("/api/v1/presence?cursor={}&limit=1", FIRST_USER - 1);
        let page: Value =
            serde_json::from_str(&self.remote.get(0, &path).await?).unwrap_or_default();
        let next = page["users"][0].as_u64();
        Ok(next.is_some_and(|user| user < self.user(self.users)))
    }

    /// Has the nodes forget what was posted about the users.
    ///
    /// # Errors
    /// When they do not.
    pub(super) async fn forget_updates(&self) -> Result<(), RemoteError> {
        stream::iter(0..self.users)
            .map(|place| self.remote.forget(self.user(place)))
            .buffer_unordered(FORGOTTEN_TOGETHER)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await
    }

    /// Has everybody leave.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Resolves when everybody is to leave.
    pub(super) async fn stopping(&self) {
        // The sender is here as long as anybody asks.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }
}
