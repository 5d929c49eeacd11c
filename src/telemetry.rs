//! How the hub tells about itself: logs and metrics.

mod labels;
mod metrics;
mod seldom;

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::TryInitError;

pub use self::labels::{ClosedBecause, ConnectionKind, EndedBecause, Transport};
pub use self::metrics::Metrics;
pub(crate) use self::seldom::{Seldom, warn_seldom};

/// How often something happened.
pub type Counter = prometheus_client::metrics::counter::Counter;

/// Times that something took, in seconds.
pub type Times = prometheus_client::metrics::histogram::Histogram;
use crate::settings::{LogFormat, LogSettings};

/// Dependencies that tell more than anybody wants to know, unless the level names them.
const NOISY: &str = "socketioxide=warn,engineioxide=warn,fred=warn,tungstenite=warn";

/// The dependency that tells tokens at `trace`.
const TELLS_TOKENS: &str = "tungstenite";

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogSetupError {
    /// The level cannot be read.
    #[error(
        "log.level (VIGIE_LOG__LEVEL) is no list of levels and targets: {0}; write for example \"info,vigie=debug\""
    )]
    Level(#[from] ParseError),
    /// Somebody was first.
    #[error("logs are set up already: {0}")]
    Again(#[from] TryInitError),
}

/// Sends the logs of this process to stderr, as `settings` wants them; in JSON every line names `node`.
///
/// # Errors
/// When the level cannot be read, or logs are set up already.
pub fn init_logs(settings: &LogSettings, node: &str) -> Result<(), LogSetupError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let harmless = filter_fn(is_harmless);
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter(&settings.level)?)
        .with_writer(io::stderr);
    match settings.format {
        LogFormat::Pretty => {
            let logs = logs.compact().with_ansi(colours()).finish();
            logs.with(harmless).try_init()?;
        }
        LogFormat::Json => {
            let node = serde_json::Value::from(node).to_string();
            let logs = logs.json().flatten_event(true);
            let logs = logs.map_event_format(|json| JsonOfNode { json, node });
            logs.finish().with(harmless).try_init()?;
        }
    }
    Ok(())
}

/// Lines of JSON that begin with the node, so that those of several can be told apart wherever they are gathered.
struct JsonOfNode {
    json: Format<Json>,
    /// The node's name, as JSON.
    node: String,
}

impl<S, N> FormatEvent<S, N> for JsonOfNode
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.json
            .format_event(context, Writer::new(&mut line), event)?;
        let rest = line.strip_prefix('{').unwrap_or(&line);
        write!(writer, "{{\"node\":{},{rest}", self.node)
    }
}

/// Whether something of this level and target may be told, whatever level is asked for: at `trace` the library for
/// WebSockets tells everything that clients send, tokens among it. A directive for one of its modules would pass by one
/// for all of it, so this is no directive.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::DEBUG || !metadata.target().starts_with(TELLS_TOKENS)
}

/// The filter that `level` asks for, with the noise kept down.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    let asked = EnvFilter::builder().parse(level)?;
    if asked.max_level_hint() <= Some(LevelFilter::WARN) {
        return Ok(asked);
    }
    // Of two directives for one target the later counts.
    EnvFilter::builder().parse(format!("{NOISY},{level}"))
}

/// Whether whoever reads stderr wants colours (<https://no-color.org>).
fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}

/// A length as the value of a gauge.
pub(crate) fn gauge(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_quiet_unless_asked() {
        let shown = |level: &str| filter(level).unwrap().to_string();
        for quiet in ["info", "trace", "info,vigie=debug"] {
            assert!(shown(quiet).contains("fred=warn"), "{}", shown(quiet));
            assert!(
                shown(quiet).contains("tungstenite=warn"),
                "{}",
                shown(quiet)
            );
        }
        assert!(shown("info,fred=debug").contains("fred=debug"));
        assert!(!shown("info,fred=debug").contains("fred=warn"));
        assert_eq!(shown("error"), "error");
    }

    #[test]
    fn a_level_must_be_one() {
        assert!(filter("vigie=loud").is_err());
    }

    #[test]
    fn what_tells_tokens_is_silent_whatever_is_asked_for() {
        use std::sync::{Arc, Mutex};

        let told = Arc::new(Mutex::new(Vec::new()));
        let writer = told.clone();
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter("trace,tungstenite=trace,tungstenite::protocol=trace").unwrap())
            .with_writer(move || Told(writer.clone()))
            .finish();
        tracing::subscriber::with_default(logs.with(filter_fn(is_harmless)), || {
            tracing::trace!(target: "tungstenite::protocol", "a token");
            tracing::debug!(target: "tungstenite::protocol", "a close frame");
            tracing::trace!(target: "vigie", "something else");
        });
        let told = String::from_utf8(told.lock().unwrap().clone()).unwrap();
        assert!(!told.contains("a token"), "{told}");
        assert!(told.contains("a close frame") && told.contains("something else"));

        struct Told(Arc<Mutex<Vec<u8>>>);

        impl io::Write for Told {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend(bytes);
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
    }
}
