//! `vigie healthcheck`: checks the health of the node of these settings, for containers without an HTTP client.
//!
//! It uses the internal listener: clients that fill the public one must not get a healthy node killed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use crate::settings::Settings;
use clap::Args;

use super::{block_on, fail};

/// The node is unhealthy, or the check failed for any reason: Docker knows no other code.
pub(super) const EXIT_UNHEALTHY: u8 = 1;

/// Timeout of the request. A node itself waits two seconds for Redis and Postgres by default.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

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
    let path = if args.ready { "readyz" } else { "healthz" };
    let url = format!("http://{}/{path}", local_address(listen));
    match block_on(check(&url), EXIT_UNHEALTHY) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(problem)) => fail(EXIT_UNHEALTHY, format_args!("{url} {problem}")),
        Err(code) => code,
    }
}

/// Succeeds on 200; otherwise returns a description of the failure.
async fn check(url: &str) -> Result<(), String> {
    let unreachable = |error: reqwest::Error| {
        if error.is_timeout() {
            format!("does not answer within {} s", ANSWER_WITHIN.as_secs())
        } else {
            "cannot be reached; does the node run, with the same settings?".to_owned()
        }
    };
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(ANSWER_WITHIN)
        .build();
    let request = client.map_err(unreachable)?.get(url);
    let answer = request.send().await.map_err(unreachable)?;
    match answer.status() {
        reqwest::StatusCode::OK => Ok(()),
        status => {
            let body = answer.text().await.unwrap_or_default();
            Err(format!("answers {}: {}", status.as_u16(), body.trim()))
        }
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
