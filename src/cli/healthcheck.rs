//! `vigie healthcheck`: checks the health of the node of these settings, for containers without an HTTP client.
//!
//! It uses the internal listener: clients that fill the public one must not get a healthy node killed.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{block_on, fail};
use crate::settings::Settings;

/// The node is unhealthy, or the check failed for any reason: Docker knows no other code.
pub(super) const EXIT_UNHEALTHY: u8 = 1;

/// Timeout of the request. A node itself waits two seconds for Redis and Postgres by default.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Most bytes of an answer: the checks that failed, a sentence each.
const ANSWER_LEN_MAX: usize = 64 * 1024;

#[derive(Args)]
pub(super) struct HealthcheckArgs {
    /// Checks whether the node is ready to serve (/readyz), not only alive (/healthz)
    #[arg(long)]
    ready: bool,
}

/// Prints nothing when the node is healthy.
pub(super) fn run(settings: &Settings, args: &HealthcheckArgs) -> ExitCode {
    let listen = settings.internal.listen;
    if listen.port() == 0 {
        let advice =
            "internal.listen has port 0, so only the node knows where it listens; set a port";
        return fail(EXIT_UNHEALTHY, advice);
    }
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let address = local_address(listen);
    match block_on(check(address, path), EXIT_UNHEALTHY) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(problem)) => fail(
            EXIT_UNHEALTHY,
            format_args!("http://{address}{path} {problem}"),
        ),
        Err(code) => code,
    }
}

/// Succeeds on 200; otherwise returns a description of the failure.
async fn check(address: SocketAddr, path: &str) -> Result<(), String> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, get(address, path)).await;
    let (status, body) = answer
        .map_err(|_| format!("does not answer within {} s", ANSWER_WITHIN.as_secs()))?
        .map_err(|_| "cannot be reached; does the node run, with the same settings?")?;
    match status {
        StatusCode::OK => Ok(()),
        status => {
            let body = String::from_utf8_lossy(&body);
            Err(format!("answers {}: {}", status.as_u16(), body.trim()))
        }
    }
}

/// Sends one request over a connection of its own.
async fn get(
    address: SocketAddr,
    path: &str,
) -> Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>> {
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    let request = Request::get(path).header(HOST, address.to_string());
    let answer = async {
        let answer = sender
            .send_request(request.body(Empty::<Bytes>::new())?)
            .await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX)
            .collect()
            .await?;
        Ok((status, body.to_bytes()))
    };
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(error.into()),
    }
}

/// The address of a listener from its own machine: one on all addresses is reached on loopback.
fn local_address(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        address if !address.is_unspecified() => address,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(address, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        for (listen, local) in [
            ("127.0.0.1:8181", "127.0.0.1:8181"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("0.0.0.0:8181", "127.0.0.1:8181"),
            ("[::]:8181", "[::1]:8181"),
        ] {
            let listen = listen.parse().unwrap();
            assert_eq!(local_address(listen).to_string(), local);
        }
    }
}
