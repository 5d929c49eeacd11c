//! Serves HTTP on the connections of a listener.
//!
//! The head of a request is bounded in bytes and in time. Handlers get the [`Peer`] of each request.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, StatusCode, Uri};
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::listener::{Listener, Peer, RequestGuard};

/// Size in bytes of the head of a request, and of the read buffer.
const HEAD_MAX: usize = 16 * 1024;

/// Keep-alive between two requests. Balancers keep connections open for a minute; one that closes earlier looks like a
/// failure to them.
const IDLE_MAX: Duration = Duration::from_secs(75);

/// Serves `routes` until `stopping` is cancelled; open connections then close after the request in progress. Calls
/// `on_abort` for each request whose client closes the connection before the answer.
pub(crate) async fn serve(
    listener: Listener,
    routes: Router,
    on_abort: impl Fn(&Method, &Uri) + Clone + Send + Sync + 'static,
    stopping: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(IDLE_MAX)
        .max_buf_size(HEAD_MAX);
    loop {
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            () = stopping.cancelled() => return,
        };
        let (peer, routes) = (stream.peer(), routes.clone());
        let on_abort = on_abort.clone();
        let answers = service_fn(move |request: Request<Incoming>| {
            // Created here, because the future is dropped unpolled if the client disconnects at once.
            let unanswered = Unanswered::new(&request, on_abort.clone());
            let (routes, peer) = (routes.clone(), peer.clone());
            async move {
                let response = answer(routes, peer, request).await;
                unanswered.answered();
                response
            }
        });
        let connection = http
            .serve_connection(TokioIo::new(stream), answers)
            .with_upgrades();
        let stopping = stopping.clone();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopping.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::trace!(%error, "a connection failed");
            }
        });
    }
}

/// Calls `on_abort` on drop, unless the request was answered.
struct Unanswered<F: Fn(&Method, &Uri)> {
    method: Method,
    uri: Uri,
    on_abort: Option<F>,
}

impl<F: Fn(&Method, &Uri)> Unanswered<F> {
    fn new<B>(request: &Request<B>, on_abort: F) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            on_abort: Some(on_abort),
        }
    }

    fn answered(mut self) {
        self.on_abort = None;
    }
}

impl<F: Fn(&Method, &Uri)> Drop for Unanswered<F> {
    fn drop(&mut self) {
        if let Some(on_abort) = self.on_abort.take() {
            on_abort(&self.method, &self.uri);
        }
    }
}

async fn answer(
    mut routes: Router,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let request_guard = peer.begin_request();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer.clone()));
    let response = routes.call(request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        peer.mark_upgraded();
    }
    Ok(response.map(|body| Answer {
        body,
        _request: request_guard,
    }))
}

/// A response body that keeps the request in progress until it is written.
struct Answer {
    body: Body,
    _request: RequestGuard,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
