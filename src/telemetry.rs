//! Logs and metrics.

mod labels;
mod log_fields;
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

pub(crate) use self::labels::{ClosedBecause, ConnectionKind, EndedBecause, Transport};
pub use self::log_fields::LOG_FIELDS;
pub use self::metrics::Metrics;
pub(crate) use self::seldom::{Seldom, warn_seldom};
use crate::settings::{LogFormat, LogSettings};

/// A monotonic count.
pub(crate) type Counter = prometheus_client::metrics::counter::Counter;

/// Durations in seconds.
pub(crate) type Times = prometheus_client::metrics::histogram::Histogram;

/// Default levels of verbose dependencies; `log.level` overrides them.
const NOISY: &str = "socketioxide=warn,engineioxide=warn,fred=warn,tungstenite=warn";

/// The dependency that logs tokens at `trace`.
const LOGS_TOKENS: &str = "tungstenite";

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogSetupError {
    /// The level cannot be parsed.
    #[error(
        "log.level (VIGIE_LOG__LEVEL) is no list of levels and targets: {0}; write for example \"info,vigie=debug\""
    )]
    Level(#[from] ParseError),
    /// The process has a subscriber already.
    #[error("logs are set up already: {0}")]
    Again(#[from] TryInitError),
}

/// Sends the logs of this process to stderr in the configured format. JSON lines contain `node`.
///
/// # Errors
/// When the level cannot be parsed, or logs are set up already.
pub(crate) fn init_logs(settings: &LogSettings, node: &str) -> Result<(), LogSetupError> {
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
            let logs = logs.map_event_format(|json| JsonWithNode { json, node });
            logs.finish().with(harmless).try_init()?;
        }
    }
    Ok(())
}

/// Formats JSON lines that begin with the name of the node, for collectors of logs from several nodes.
struct JsonWithNode {
    json: Format<Json>,
    /// Name of the node, as a JSON string.
    node: String,
}

impl<S, N> FormatEvent<S, N> for JsonWithNode
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

/// Drops events that may contain tokens, whatever the level: at `trace` the WebSocket library logs everything that clients
/// send. A filter rather than a directive, because a directive for one of its modules would override it.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::DEBUG || !metadata.target().starts_with(LOGS_TOKENS)
}

/// The filter for `level`, with default levels for verbose dependencies.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    let asked = EnvFilter::builder().parse(level)?;
    if asked.max_level_hint() <= Some(LevelFilter::WARN) {
        return Ok(asked);
    }
    // The later of two directives for one target wins.
    EnvFilter::builder().parse(format!("{NOISY},{level}"))
}

/// Whether to use colours: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}

/// Converts a length to the value of a gauge.
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
    fn no_level_makes_a_dependency_log_tokens() {
        use std::sync::{Arc, Mutex};

        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = written.clone();
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter("trace,tungstenite=trace,tungstenite::protocol=trace").unwrap())
            .with_writer(move || LogSink(writer.clone()))
            .finish();
        tracing::subscriber::with_default(logs.with(filter_fn(is_harmless)), || {
            tracing::trace!(target: "tungstenite::protocol", "a token");
            tracing::debug!(target: "tungstenite::protocol", "a close frame");
            tracing::trace!(target: "vigie", "something else");
        });
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(!written.contains("a token"), "{written}");
        assert!(written.contains("a close frame") && written.contains("something else"));

        struct LogSink(Arc<Mutex<Vec<u8>>>);

        impl io::Write for LogSink {
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
