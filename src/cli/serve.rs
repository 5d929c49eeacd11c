//! `vigie serve`: runs one node from start to the end of its drain.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use crate::app::{App, Reload};
use crate::settings::{EngineKind, Settings, SettingsError};
use crate::telemetry;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::{EXIT_CONFIG, fail, files, print};

/// How long blocking work may continue after the node has stopped; none of it needs to finish.
const RUNTIME_GRACE: Duration = Duration::from_secs(1);

/// Reloads the settings.
type Load = Box<dyn Fn() -> Result<Settings, SettingsError> + Send>;

/// Runs a node until a signal ends it. SIGHUP applies the keys and limits that `load` then returns.
pub(super) fn run(settings: Settings, load: Load) -> ExitCode {
    if let Err(error) = telemetry::init_logs(
        &settings.log,
        settings.node.id.as_deref().unwrap_or_default(),
    ) {
        return fail(EXIT_CONFIG, error);
    }
    for warning in settings.warnings() {
        warn!("{warning}");
    }
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, format_args!("cannot start the runtime: {error}")),
    };
    // Each connection is an open file.
    files::raise_limit();
    let code = serve(&runtime, settings, load);
    runtime.shutdown_timeout(RUNTIME_GRACE);
    code
}

fn serve(runtime: &Runtime, settings: Settings, load: Load) -> ExitCode {
    runtime.block_on(async {
        match Signals::listen() {
            Ok(signals) => run_node(settings, load, signals).await,
            Err(error) => fail(1, format_args!("cannot listen for signals: {error}")),
        }
    })
}

async fn run_node(settings: Settings, load: Load, mut signals: Signals) -> ExitCode {
    let hints = Hints::of(&settings);
    let started = tokio::select! {
        started = App::start(settings) => started,
        code = signals.next() => return ExitCode::from(code),
    };
    let app = match started {
        Ok(app) => app,
        Err(error) => return fail(1, error),
    };
    let (public, internal) = (app.public_address(), app.internal_address());
    // A closed stdout does not stop the node.
    print(&ready_line(public, internal, app.node_id(), hints.engine));
    print(&hints.text(public, internal));
    let reloading = tokio::spawn(run_reload(signals.hangup.take(), app.reload(), load));
    app.run_until(wait_for_signal(signals)).await;
    reloading.abort();
    ExitCode::SUCCESS
}

/// Applies keys and limits at every SIGHUP. Invalid settings change nothing.
async fn run_reload(hangup: Option<Signal>, reload: Reload, load: Load) {
    let Some(mut hangup) = hangup else {
        return;
    };
    while hangup.recv().await.is_some() {
        match load() {
            Ok(settings) => match reload.take_over(&settings) {
                Ok(()) => {
                    for warning in settings.warnings() {
                        warn!("{warning}");
                    }
                    info!("took over keys and limits; whatever else changed waits for a restart")
                }
                Err(error) => error!(%error, "kept the keys and limits that are in use"),
            },
            Err(error) => error!(%error, "kept the keys and limits that are in use"),
        }
    }
}

/// Resolves at the first signal; the second exits the process.
async fn wait_for_signal(mut signals: Signals) {
    signals.next().await;
    info!("stopping; a second signal exits at once");
    tokio::spawn(async move {
        let code = signals.next().await;
        std::process::exit(code.into());
    });
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Taken by [`run_reload`].
    hangup: Option<Signal>,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: Some(signal(SignalKind::hangup())?),
        })
    }

    /// Waits for a signal that ends the node; returns its exit code, 128 plus its number.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 143,
            _ = self.interrupt.recv() => 130,
        }
    }
}

/// Programs wait for this line. It is the first on stdout, and the only one outside development mode.
fn ready_line(public: SocketAddr, internal: SocketAddr, node: &str, engine: EngineKind) -> String {
    format!(
        "vigie listening public=http://{public} internal=http://{internal} node={node} engine={engine}\n"
    )
}

/// The settings that the start-up hints show; the rest moves into the app.
struct Hints {
    engine: EngineKind,
    development: bool,
    /// The API key as shell text; never a real key.
    api_key: &'static str,
    can_sign: bool,
    playground: bool,
}

impl Hints {
    fn of(settings: &Settings) -> Self {
        Self {
            engine: settings.engine,
            development: settings.development(),
            api_key: match settings.internal.api_key {
                _ if settings.uses_development_api_key() => crate::settings::DEVELOPMENT_API_KEY,
                Some(_) => "$VIGIE_INTERNAL__API_KEY",
                None => "(one of internal.api_keys)",
            },
            can_sign: settings.auth.secret.is_some(),
            playground: settings.serves_playground(),
        }
    }

    /// Commands to try; empty outside development mode.
    fn text(&self, public: SocketAddr, internal: SocketAddr) -> String {
        if !self.development {
            return String::new();
        }
        let key = self.api_key;
        let token = if self.can_sign {
            format!("{} token --user 42", program())
        } else {
            "(signed with your private key)".to_owned()
        };
        let playground = if self.playground {
            format!("  the playground        http://{internal}/playground\n")
        } else {
            String::new()
        };
        format!(
            r#"
Development mode: at least one key in use is published in the source. Never in production:
set VIGIE_AUTH__SECRET and VIGIE_INTERNAL__API_KEY there.

Try it:
{playground}  a token of user 42    {token}
  a browser or Node     import {{ io }} from "socket.io-client";
                        const socket = io("http://{public}", {{ auth: {{ token }} }});
                        socket.on("connect", () => socket.emit("watch-profile", {{ userId: 42 }}, console.log));
                        socket.on("profile-update", console.log);
  a profile changed     curl http://{internal}/api/v1/users/42/profile-update \
                          -H "X-API-Key: {key}" -H "Content-Type: application/json" \
                          -d '{{ "user": {{ "userID": 42, "username": "ada" }} }}'
  who is online         curl http://{internal}/api/v1/presence -H "X-API-Key: {key}"
"#
        )
    }
}

/// This program as it was called, so that the printed command works as is.
fn program() -> String {
    std::env::args()
        .next()
        .unwrap_or_else(|| "vigie".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> (SocketAddr, SocketAddr) {
        (([127, 0, 0, 1], 8181).into(), ([127, 0, 0, 1], 8182).into())
    }

    fn hints(environment: &[(&str, &str)]) -> String {
        let environment = environment
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()));
        let (public, internal) = addresses();
        Hints::of(&Settings::load(None, environment).unwrap()).text(public, internal)
    }

    #[test]
    fn the_ready_line_is_one_line() {
        let (public, internal) = addresses();
        assert_eq!(
            ready_line(public, internal, "a-1", EngineKind::Memory),
            "vigie listening public=http://127.0.0.1:8181 internal=http://127.0.0.1:8182 node=a-1 engine=memory\n",
        );
    }

    #[test]
    fn only_development_keys_are_shown() {
        let nothing_set = hints(&[]);
        assert!(
            nothing_set.contains("X-API-Key: vigie-development-key"),
            "{nothing_set}"
        );
        let playground = "http://127.0.0.1:8182/playground\n";
        assert!(nothing_set.contains(playground), "{nothing_set}");

        let own_key = hints(&[("VIGIE_INTERNAL__API_KEY", "s3cr3t")]);
        assert!(
            own_key.contains("X-API-Key: $VIGIE_INTERNAL__API_KEY"),
            "{own_key}"
        );
        assert!(!own_key.contains("s3cr3t"), "{own_key}");
        assert!(!own_key.contains("playground"), "{own_key}");

        let keys = [
            ("VIGIE_AUTH__SECRET", "s3cr3t"),
            ("VIGIE_INTERNAL__API_KEY", "k3y"),
        ];
        assert_eq!(hints(&keys), "");
    }
}
