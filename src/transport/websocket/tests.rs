//! A session from its request to its end, as the parts go together: hyper's task ends with the request, and the task of
//! the session goes on with the TCP connection that hyper gives back.

use std::convert::Infallible;
use std::io;
use std::net::{self, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tungstenite::{Error, HandshakeError, Message};

use super::session::{PacketHandler, SessionOptions, run_session};
use super::socket_packet::{Content, SocketPacket, connect, connect_error};
use super::writer::FrameWriter;
use super::{engine_packet, handshake};
use crate::transport::limits::{CurrentLimits, Limits};

const SID: &str = "AAAAAAAAAAAAAAAA";

const MESSAGE_LEN_MAX: usize = 1000;

/// Admits everybody to the root namespace.
struct Admit(Arc<FrameWriter<TcpStream>>);

impl PacketHandler for Admit {
    fn on_bytes(&mut self, _count: usize) -> io::Result<()> {
        Ok(())
    }

    fn on_packet(&mut self, packet: SocketPacket<'_>) -> ControlFlow<()> {
        match packet {
            SocketPacket {
                namespace: "/",
                content: Content::Connect(_),
            } => self.0.send(&connect("/", SID)),
            SocketPacket { namespace, .. } => {
                self.0
                    .send(&connect_error(namespace, "Invalid namespace", None))
            }
        };
        ControlFlow::Continue(())
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response, Infallible> {
    let (parts, body) = request.into_parts();
    let accepted = match handshake::accept(&parts) {
        Ok(accepted) => accepted,
        Err(refusal) => return Ok(refusal.into_response()),
    };
    let upgrade = hyper::upgrade::on(Request::from_parts(parts, body));
    tokio::spawn(async move {
        let upgraded = upgrade.await.expect("the answer is 101");
        let parts = upgraded.downcast::<TokioIo<TcpStream>>();
        let parts = parts.expect("the connection is TCP");
        let limits = CurrentLimits::new(Limits::sample());
        let writer = Arc::new(FrameWriter::new(parts.io.into_inner(), limits));
        writer.send(&engine_packet::open(SID, MESSAGE_LEN_MAX));
        let options = SessionOptions::new(MESSAGE_LEN_MAX);
        run_session(&writer, &parts.read_buf, Admit(writer.clone()), &options).await
    });
    Ok(accepted.into_response())
}

/// Answers one request on a free port.
async fn serve() -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(address).await.expect("loopback");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let service = service_fn(answer);
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await
    });
    address
}

fn connect_to(address: SocketAddr) -> net::TcpStream {
    let stream = net::TcpStream::connect(address).expect("it listens");
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).expect("a timeout");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_with_its_request() {
    let address = serve().await;
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
    let (mut client, _) = tungstenite::client(url, connect_to(address)).expect("101");
    let mut text = |said: Option<&str>| {
        if let Some(said) = said {
            client.send(Message::text(said)).expect("it is open");
        }
        client.read().expect("a message").to_string()
    };
    let open = format!(
        r#"0{{"sid":"{SID}","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":{MESSAGE_LEN_MAX}}}"#
    );
    assert_eq!(text(None), open);
    assert_eq!(text(Some("40")), format!(r#"40{{"sid":"{SID}"}}"#));
    let refused = r#"44/x,{"message":"Invalid namespace"}"#;
    assert_eq!(text(Some("40/x,")), refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_refused_reads_why() {
    let address = serve().await;
    let url = format!("ws://{address}/socket.io/?EIO=3&transport=websocket");
    match tungstenite::client(url, connect_to(address)) {
        Err(HandshakeError::Failure(Error::Http(response))) => {
            assert_eq!(response.status(), 400);
        }
        outcome => unreachable!("not refused: {outcome:?}"),
    }
}
