//! Sessions over loopback. The client is tungstenite's, blocking, so that nothing here waits for a fixed time.

use std::net::{self, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use super::*;
use crate::transport::limits::{CurrentLimits, Limits};
use crate::transport::session::sink::SendOutcome;
use crate::transport::websocket::socket_packet::{self, event_name};

/// A test fails after this long instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

const MESSAGE_LEN_MAX: usize = 1000;

/// Acknowledges every event with its name.
struct Echo(Arc<FrameWriter<TcpStream>>);

impl PacketHandler for Echo {
    fn on_bytes(&mut self, _count: usize) -> io::Result<()> {
        Ok(())
    }

    fn on_packet(&mut self, packet: SocketPacket<'_>) -> ControlFlow<()> {
        if let Content::Event { ack, payload, .. } = packet.content {
            let Some(name) = event_name(payload) else {
                return ControlFlow::Break(());
            };
            let answer = serde_json::value::to_raw_value(&name).expect("JSON");
            let ack = ack.unwrap_or_default();
            self.0.send(&socket_packet::acknowledgement(
                packet.namespace,
                ack,
                &answer,
            ));
        }
        ControlFlow::Continue(())
    }
}

type Client = WebSocket<net::TcpStream>;

struct Running {
    writer: Arc<FrameWriter<TcpStream>>,
    task: JoinHandle<SessionEnd>,
}

impl Running {
    async fn end(self) -> SessionEnd {
        let end = tokio::time::timeout(PATIENCE, self.task).await;
        end.expect("the session ends").expect("the task runs")
    }
}

async fn connect() -> (Client, TcpStream) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(address).await.expect("loopback");
    let address = listener.local_addr().expect("an address");
    let client = net::TcpStream::connect(address).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (socket, _) = listener.accept().await.expect("a connection");
    (
        WebSocket::from_raw_socket(client, Role::Client, None),
        socket,
    )
}

async fn start_with(options: SessionOptions, unread: Vec<u8>) -> (Client, Running) {
    let (client, socket) = connect().await;
    let limits = Limits {
        outbound_queue: 100,
        ..Limits::sample()
    };
    let writer = Arc::new(FrameWriter::new(socket, CurrentLimits::new(limits)));
    let task = {
        let writer = writer.clone();
        tokio::spawn(async move {
            let echo = Echo(writer.clone());
            run_session(&writer, &unread, echo, &options).await
        })
    };
    (client, Running { writer, task })
}

async fn start() -> (Client, Running) {
    start_with(SessionOptions::new(MESSAGE_LEN_MAX), Vec::new()).await
}

fn text(client: &mut Client) -> String {
    match client.read().expect("a message") {
        Message::Text(text) => text.to_string(),
        other => unreachable!("{other} instead of a text"),
    }
}

/// The code of the close frame after which the connection ends.
fn close_code(client: &mut Client) -> u16 {
    loop {
        if let Message::Close(Some(frame)) = client.read().expect("a close frame") {
            // Answers it, and waits for the end of the connection.
            while client.read().is_ok() {}
            return frame.code.into();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_handled_and_pings_answered() {
    let (mut client, session) = start().await;
    client
        .send(Message::text("421[\"é\",{}]"))
        .expect("it is open");
    assert_eq!(text(&mut client), "431[\"é\"]");
    client.send(Message::Ping("x".into())).expect("it is open");
    assert_eq!(client.read().expect("a pong"), Message::Pong("x".into()));
    client.close(None).expect("it is open");
    assert_eq!(close_code(&mut client), 1000);
    assert_eq!(session.end().await, SessionEnd::Client);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_the_request_count() {
    let mut ahead = WebSocket::from_raw_socket(io::Cursor::new(Vec::new()), Role::Client, None);
    ahead
        .send(Message::text("42/socket.io/,7[\"early\"]"))
        .expect("memory");
    let unread = ahead.into_inner().into_inner();
    let (mut client, session) = start_with(SessionOptions::new(MESSAGE_LEN_MAX), unread).await;
    assert_eq!(text(&mut client), "43/socket.io/,7[\"early\"]");
    drop(client);
    assert_eq!(session.end().await, SessionEnd::Transport);
}

/// Goal: nothing is sent at first, then pings; each answer earns another one; silence ends the session.
#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_session() {
    let options = SessionOptions {
        ping_interval: Duration::from_millis(50),
        ping_timeout: Duration::from_secs(2),
        ..SessionOptions::new(MESSAGE_LEN_MAX)
    };
    let (mut client, session) = start_with(options, Vec::new()).await;
    for _ in 0..3 {
        assert_eq!(text(&mut client), "2");
        client.send(Message::text("3")).expect("it is open");
    }
    assert_eq!(text(&mut client), "2");
    client.read().expect_err("the connection ends");
    assert_eq!(session.end().await, SessionEnd::PingTimeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_has_its_code() {
    let attachment = || Message::binary("x");
    for (messages, code, end) in [
        (
            vec![Message::text("x".repeat(MESSAGE_LEN_MAX + 1))],
            1009,
            SessionEnd::Fault(Fault::TooLarge),
        ),
        (vec![Message::text("5")], 1002, SessionEnd::BadPacket),
        (vec![Message::text("44")], 1002, SessionEnd::BadPacket),
        (vec![Message::text("42[1]")], 1002, SessionEnd::BadPacket),
        (vec![attachment()], 1002, SessionEnd::BadPacket),
        (
            vec![Message::text("451-[\"x\"]"), Message::text("42[\"x\"]")],
            1002,
            SessionEnd::BadPacket,
        ),
        (
            vec![
                Message::text("452-[\"x\"]"),
                Message::binary(vec![0; MESSAGE_LEN_MAX]),
                attachment(),
            ],
            1009,
            SessionEnd::Fault(Fault::TooLarge),
        ),
        (vec![Message::text("1")], 1000, SessionEnd::Client),
    ] {
        let (mut client, session) = start().await;
        for message in messages {
            client.send(message).expect("it is open");
        }
        assert_eq!(close_code(&mut client), code, "{end:?}");
        drop(client);
        assert_eq!(session.end().await, end);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_that_were_announced_do_no_harm() {
    let (mut client, session) = start().await;
    client
        .send(Message::text("452-1[\"binary\"]"))
        .expect("it is open");
    assert_eq!(text(&mut client), "431[\"binary\"]");
    for _ in 0..2 {
        client.send(Message::binary("x")).expect("it is open");
    }
    client
        .send(Message::text("422[\"next\"]"))
        .expect("it is open");
    assert_eq!(text(&mut client), "432[\"next\"]");
    drop(client);
    session.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_closes_a_session_after_what_waits() {
    let (mut client, session) = start().await;
    let reason = RawValue::from_string("{}".to_owned()).expect("JSON");
    session
        .writer
        .push(&socket_packet::event("/", "kicked", Some(&reason)));
    session.writer.close(4000, "kicked");
    assert_eq!(
        session.writer.send(&engine_packet::ping()),
        SendOutcome::Closed
    );
    assert_eq!(text(&mut client), "42[\"kicked\",{}]");
    assert_eq!(close_code(&mut client), 4000);
    assert_eq!(session.end().await, SessionEnd::Node);

    let (mut client, session) = start().await;
    session.writer.abort();
    client.read().expect_err("the connection ends");
    assert_eq!(session.end().await, SessionEnd::Node);

    // A client that reads nothing, and so answers no close frame.
    let (_client, session) = start().await;
    session.writer.close(1000, "");
    assert_eq!(session.end().await, SessionEnd::Node);
}

/// Goal: frames that do not fit into the kernel's buffers arrive whole and in order; where too many wait, the session
/// ends.
#[tokio::test(flavor = "multi_thread")]
async fn slow_consumers_lose_nothing_or_the_session() {
    let large = |number: usize| frame::text(&[number.to_string().as_bytes(), &[b' '; 100_000]]);
    let (mut client, session) = start().await;
    let mut sent = 0;
    // More than a queue in all, because part of it is in the kernel's buffers.
    while session.writer.send(&large(sent)) == SendOutcome::Queued(0) {
        sent += 1;
    }
    for _ in 0..60 {
        sent += 1;
        session.writer.push(&large(sent));
    }
    assert!(matches!(session.writer.flush(), SendOutcome::Queued(1..)));
    for number in 0..=sent {
        assert_eq!(text(&mut client).trim_end(), number.to_string());
    }
    client
        .send(Message::text("421[\"x\"]"))
        .expect("it is open");
    assert_eq!(text(&mut client), "431[\"x\"]");

    let overflow = (0..1000)
        .map(large)
        .map(|frame: Bytes| session.writer.send(&frame));
    let overflow = overflow
        .into_iter()
        .find(|outcome| matches!(outcome, SendOutcome::Overflow(_)));
    assert_eq!(overflow, Some(SendOutcome::Overflow(101)));
    assert_eq!(session.end().await, SessionEnd::SlowConsumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_of_a_task_that_is_dropped_is_closed() {
    let (mut client, session) = start().await;
    client
        .send(Message::text("421[\"x\"]"))
        .expect("it is open");
    assert_eq!(text(&mut client), "431[\"x\"]");
    session.task.abort();
    client.read().expect_err("the connection ends");
}

/// Goal: a client that sends too much is closed at once. Method: the handler takes a single byte.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_bytes_end_a_session() {
    struct Metered;

    impl PacketHandler for Metered {
        fn on_bytes(&mut self, count: usize) -> io::Result<()> {
            if count > 1 {
                return Err(io::Error::other("too many bytes"));
            }
            Ok(())
        }

        fn on_packet(&mut self, _packet: SocketPacket<'_>) -> ControlFlow<()> {
            unreachable!("nothing is decoded");
        }
    }

    let (mut client, socket) = connect().await;
    let writer = FrameWriter::new(socket, CurrentLimits::new(Limits::sample()));
    client
        .send(Message::text("421[\"x\"]"))
        .expect("it is open");
    let options = SessionOptions::new(MESSAGE_LEN_MAX);
    let end = run_session(&writer, &[], Metered, &options);
    let end = tokio::time::timeout(PATIENCE, end).await;
    assert_eq!(end.expect("the session ends"), SessionEnd::Transport);
    client.read().expect_err("the connection ends");
}

/// Goal: the memory of an idle session, for the record: `cargo test --lib idle_sessions -- --ignored --nocapture`.
/// Method: growth of the resident set with 2,000 sessions that have each sent one event. The clients' ends are bare file
/// descriptors. The kernel's buffers are not in it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints a figure; run it alone"]
async fn idle_sessions_are_small() {
    const SESSIONS: usize = 2000;

    fn resident_kib() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .expect("a figure");
        line.split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .expect("a number")
    }

    let mut all = Vec::with_capacity(SESSIONS + 100);
    for number in 0..100 + SESSIONS {
        // The first ones pay for what is there once: threads, buffers, tables.
        if number == 100 {
            println!("before: {} KiB", resident_kib());
        }
        let (mut client, session) = start().await;
        client
            .send(Message::text("421[\"x\"]"))
            .expect("it is open");
        assert_eq!(text(&mut client), "431[\"x\"]");
        let client = client.get_ref().try_clone().expect("a descriptor");
        all.push((client, session));
    }
    println!("after {SESSIONS} more: {} KiB", resident_kib());
    println!("writer: {} bytes", size_of::<FrameWriter<TcpStream>>());
    let (_, session) = &all[0];
    let options = SessionOptions::new(MESSAGE_LEN_MAX);
    let future = run_session(&session.writer, &[], Echo(session.writer.clone()), &options);
    println!("future: {} bytes", size_of_val(&future));
}
