//! `vigie healthcheck`: asks the node of these settings how it is, for containers that have no other program to ask with.
//!
//! It asks on the internal listener: clients that fill the public one must not get a healthy node ended.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use crate::settings::Settings;
use clap::Args;

use super::{block_on, fail};

/// Exit code of a node that is not well, and of a check that cannot be made, whyever: Docker knows no other.
pub(super) const EXIT_UNHEALTHY: u8 = 1;

/// How long an answer may take: a node itself waits for Redis and Postgres for two seconds by default.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// What is asked.
#[derive(Args)]
pub(super) struct HealthcheckArgs {
    /// Asks whether the node can do its work (/readyz), not only whether it is alive (/healthz)
    #[arg(long)]
    ready: bool,
}

/// Says nothing where all is well.
pub(super) fn run(settings: &Settings, args: &HealthcheckArgs) -> ExitCode {
    let listen = settings.internal.listen;
    if listen.port() == 0 {
        let advice =
            "internal.listen has port 0, so only the node knows where it listens; set a port";
        return fail(EXIT_UNHEALTHY, advice);
    }
    let path = if args.ready { "readyz" } else { "healthz" };
    let url = format!("http://{}/{path}", from_here(listen));
    match block_on(ask(&url), EXIT_UNHEALTHY) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(problem)) => fail(EXIT_UNHEALTHY, format_args!("{url} {problem}")),
        Err(code) => code,
    }
}

/// Succeeds where the answer is 200; otherwise tells what came instead.
async fn ask(url: &str) -> Result<(), String> {
    let unreachable = |error: reqwest::Error| match error.is_timeout() {
        true => format!("does not answer within {} s", ANSWER_WITHIN.as_secs()),
        false => "cannot be reached; does the node run, with the same settings?".to_owned(),
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

/// Where a listener is reached from its own machine: one on all addresses is on loopback, too.
fn from_here(listen: SocketAddr) -> SocketAddr {
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
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        for (listen, asked) in [
            ("127.0.0.1:8181", "127.0.0.1:8181"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("0.0.0.0:8181", "127.0.0.1:8181"),
            ("[::]:8181", "[::1]:8181"),
        ] {
            let listen = listen.parse().unwrap();
            assert_eq!(from_here(listen).to_string(), asked);
        }
    }
}
