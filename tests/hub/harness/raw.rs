//! A bare WebSocket that reads only what the test has it read: the official client cannot be made to stop.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::DEADLINE;
use super::cluster::Cluster;
use super::connecting::token;
use super::wire::{Heard, WEBSOCKET, Wire};

/// The receive buffer of a stuck client's kernel, in bytes; small, as on a phone.
const RECEIVE_BUFFER: u32 = 4096;

/// The namespace that front ends use, as packets name it.
const NAMESPACE: &str = "/socket.io/,";

/// An open socket. Nothing is read from it unless somebody waits for something.
pub struct Raw(Wire);

impl Cluster {
    /// Opens a bare WebSocket, as a user or as a guest, that watches `target`; it has read everything up to
    /// the answer.
    pub async fn open_raw(&self, node: usize, user: Option<u64>, target: u64) -> Raw {
        let opening = Raw::open(self.public_address(node), user, target);
        tokio::time::timeout(DEADLINE, opening)
            .await
            .expect("the node answers a bare WebSocket")
    }
}

impl Raw {
    async fn open(address: SocketAddr, user: Option<u64>, target: u64) -> Self {
        let mut wire = Wire::connect(address, Some(RECEIVE_BUFFER)).await;
        assert_eq!(wire.upgrade(WEBSOCKET).await, Some(101));
        let mut raw = Self(wire);
        raw.read_until("0{").await;
        let auth = json!({ "token": user.map(token) });
        raw.write(&format!("40{NAMESPACE}{auth}")).await;
        raw.read_until(&format!("40{NAMESPACE}")).await;
        let watch = json!(["watch-profile", { "userId": target }]);
        raw.write(&format!("42{NAMESPACE}1{watch}")).await;
        let answer = raw.read_until(&format!("43{NAMESPACE}1")).await;
        let answer: Value = serde_json::from_str(&answer).expect("an answer is JSON");
        assert_eq!(answer[0]["ok"], true, "{answer}");
        raw
    }

    /// Reads messages up to one that begins with `wanted`; returns the rest of it.
    pub async fn read_until(&mut self, wanted: &str) -> String {
        let rest = self.0.hear_until(wanted).await;
        rest.expect("the node has something to say")
    }

    /// Reads messages up to one that names `wanted`; returns all of them.
    pub async fn read_all_until(&mut self, wanted: &str) -> String {
        let mut received = String::new();
        while !received.contains(wanted) {
            if let Heard::Text(message) = self.0.hear().await.expect("the node has more to say") {
                received.push_str(&message);
            }
        }
        received
    }

    /// Reads everything that still comes, up to the end, which the node has made.
    pub async fn read_to_the_end(self) {
        self.0.ended().await;
    }

    async fn write(&mut self, message: &str) {
        assert!(self.0.say(message).await, "the node reads");
    }
}
