//! A bare WebSocket that reads only what the test has it read: the official client cannot be made to stop.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::DEADLINE;
use super::cluster::Cluster;
use super::connecting::token;

/// What a stuck client's own kernel takes in; little, as on a phone.
const RECEIVE_BUFFER: u32 = 4096;

/// The namespace that front ends use, as packets name it.
const NAMESPACE: &str = "/socket.io/,";

/// An open socket. Nothing is read from it unless somebody waits for something.
pub struct Raw {
    stream: TcpStream,
}

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
        let socket = TcpSocket::new_v4().expect("there are sockets left");
        socket
            .set_recv_buffer_size(RECEIVE_BUFFER)
            .expect("a size that is allowed");
        let stream = socket.connect(address).await.expect("the node listens");
        let mut raw = Self { stream };
        raw.shake_hands(address).await;
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

    async fn shake_hands(&mut self, address: SocketAddr) {
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {address}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.stream
            .write_all(request.as_bytes())
            .await
            .expect("the node reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    /// Reads messages up to one that begins with `wanted`; returns the rest of it.
    pub async fn read_until(&mut self, wanted: &str) -> String {
        loop {
            let message = self.read().await.expect("the node has something to say");
            if let Some(rest) = message.strip_prefix(wanted) {
                return rest.to_owned();
            }
        }
    }

    /// Reads messages up to one that names `wanted`; returns all of them.
    pub async fn read_all_until(&mut self, wanted: &str) -> String {
        let mut received = String::new();
        while !received.contains(wanted) {
            let message = tokio::time::timeout(DEADLINE, self.read()).await;
            let message = message
                .expect("in time")
                .expect("the node has something to say");
            received.push_str(&message);
        }
        received
    }

    /// Reads everything that still comes, up to the end, which the node has made.
    pub async fn read_to_the_end(mut self) {
        let mut buffer = vec![0; 64 * 1024];
        let reading = async { while self.stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {} };
        tokio::time::timeout(DEADLINE, reading)
            .await
            .expect("the node has closed the connection");
    }

    async fn read(&mut self) -> std::io::Result<String> {
        let _kind = self.stream.read_u8().await?;
        let length = match self.stream.read_u8().await? {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            length => u64::from(length),
        };
        let mut message = vec![0; usize::try_from(length).expect("it fits into memory")];
        self.stream.read_exact(&mut message).await?;
        Ok(String::from_utf8_lossy(&message).into_owned())
    }

    /// Writes a message, masked with zeros, which leave it as it is.
    async fn write(&mut self, message: &str) {
        let mut frame = vec![0x81];
        match u16::try_from(message.len()) {
            Ok(length @ 0..126) => frame.push(0x80 | length as u8),
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => panic!("longer than any message of the tests"),
        }
        frame.extend([0; 4]);
        frame.extend(message.as_bytes());
        self.stream.write_all(&frame).await.expect("the node reads");
    }
}
