//! The command line: which command runs, with which settings, and what the exit code says.

mod check_config;
mod completions;
mod doctor;
mod files;
mod healthcheck;
mod inspect;
mod man;
mod migrate;
mod serve;
mod table;
mod token;
mod types;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::settings::{RedisUrl, Settings, SettingsError};
use anstream::{AutoStream, ColorChoice};
use clap::{Args, CommandFactory, Parser, Subcommand};
use tokio::runtime::Builder;

/// The configuration or the command line is wrong.
const EXIT_CONFIG: u8 = 2;

/// The answer to a flag that contains a secret.
const SECRET_IN_FLAG: &str = "--redis-url has a user or a password in it, and everybody on this machine sees the command \
                            line; set VIGIE_REDIS__URL, or write the URL to a file that redis.url_file \
                            (VIGIE_REDIS__URL_FILE) names";

/// The load generator and its dependencies stay out of the server.
const BENCH_ELSEWHERE: &str = "`bench` is vigie-bench, a program of its own that `cargo build --release --features bench` \
                               builds beside this one; `vigie-bench --help` has its commands";

/// A Redis-backed, horizontally scalable Socket.IO hub.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    overrides: Overrides,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a node until SIGTERM or SIGINT, as vigie alone does
    Serve,
    /// Checks whether a node would start, and shows the settings in effect, secrets hidden
    CheckConfig,
    /// Prints completions for bash, zsh, fish, elvish or powershell
    Completions(completions::CompletionsArgs),
    /// Checks the data in Redis against itself and against the connections that nodes hold; repairs it on request
    Doctor(doctor::DoctorArgs),
    /// Asks the node of these settings, on internal.listen, whether it is alive, or with --ready whether it can do its work;
    /// exit code 0 if so, 1 otherwise
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Shows what is in Redis: nodes, online users, one user, topics, the queue
    Inspect(inspect::InspectArgs),
    /// Prints the manual, or the page of a command: vigie man | man -l -
    Man(man::ManArgs),
    /// Creates or migrates the tables in Postgres (14 or later)
    Migrate,
    /// Prints a token of a user for development, signed with auth.secret: --user 42 [--ttl 1h]
    Token(token::TokenArgs),
    /// Prints the client contract as TypeScript
    Types,
    /// Says how to get vigie-bench, which puts load on running nodes
    Bench(BenchArgs),
}

/// Arguments for vigie-bench, accepted so that the answer to any of them is where it went.
#[derive(Args)]
struct BenchArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<OsString>,
}

/// Flags that override the environment, and the file to read.
#[derive(Args, Clone)]
#[command(next_help_heading = "Settings (override the environment)")]
struct Overrides {
    /// Settings file to read instead of config/vigie.toml
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where presence, profiles and topics are kept
    #[arg(long, value_parser = ["memory", "redis"], global = true)]
    engine: Option<String>,
    /// Address and port for browsers
    #[arg(long, value_name = "ADDRESS", global = true)]
    http_listen: Option<SocketAddr>,
    /// Address and port for back ends and operators
    #[arg(long, value_name = "ADDRESS", global = true)]
    internal_listen: Option<SocketAddr>,
    /// Where Redis is; a URL with a password is set as VIGIE_REDIS__URL instead, or in a file
    #[arg(long, value_name = "URL", global = true)]
    redis_url: Option<String>,
    /// Name of this node
    #[arg(long, value_name = "NAME", global = true)]
    node_id: Option<String>,
    /// off, error, warn, info, debug or trace; or several per target
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,
    /// Log format
    #[arg(long, value_parser = ["pretty", "json"], global = true)]
    log_format: Option<String>,
}

/// The command line as it is parsed, with its help.
#[doc(hidden)]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command of the process's arguments; returns its exit code.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let overrides = &cli.overrides;
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => with_settings(overrides, |settings| {
            let overrides = overrides.clone();
            serve::run(settings, Box::new(move || load(&overrides)))
        }),
        Command::Bench(_) => fail(EXIT_CONFIG, BENCH_ELSEWHERE),
        Command::CheckConfig => with_settings(overrides, |settings| check_config::run(&settings)),
        Command::Completions(args) => completions::run(Cli::command(), &args),
        Command::Doctor(args) => with_settings(overrides, |settings| doctor::run(&settings, &args)),
        Command::Healthcheck(args) => {
            with_settings_or(healthcheck::EXIT_UNHEALTHY, overrides, |settings| {
                healthcheck::run(&settings, &args)
            })
        }
        Command::Inspect(args) => {
            with_settings(overrides, |settings| inspect::run(&settings, &args))
        }
        Command::Man(args) => man::run(Cli::command(), &args),
        Command::Migrate => with_settings(overrides, |settings| migrate::run(&settings)),
        Command::Token(args) => with_settings(overrides, |settings| token::run(&settings, &args)),
        Command::Types => types::run(),
    }
}

fn with_settings(overrides: &Overrides, command: impl FnOnce(Settings) -> ExitCode) -> ExitCode {
    with_settings_or(EXIT_CONFIG, overrides, command)
}

/// The same, with exit code `code` when the settings are wrong.
fn with_settings_or(
    code: u8,
    overrides: &Overrides,
    command: impl FnOnce(Settings) -> ExitCode,
) -> ExitCode {
    if overrides.contain_secret() {
        return fail(code, SECRET_IN_FLAG);
    }
    match load(overrides) {
        Ok(settings) => command(settings),
        Err(error) => fail(code, error),
    }
}

fn load(overrides: &Overrides) -> Result<Settings, SettingsError> {
    let mut environment = environment(std::env::vars_os());
    overrides.apply_to(&mut environment);
    Settings::load(overrides.config.as_deref(), environment)
}

/// The variables as text. One that is not UTF-8 is converted lossily, so that it does not count as unset.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> HashMap<String, String> {
    let text = |name: OsString| name.to_string_lossy().into_owned();
    variables
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

impl Overrides {
    /// Whether the command line, which every user of the machine can read, contains a secret.
    fn contain_secret(&self) -> bool {
        let url = self.redis_url.as_deref().map(RedisUrl::new);
        url.is_some_and(|url| url.carries_secret())
    }

    /// Sets the variables that the flags override.
    fn apply_to(&self, environment: &mut HashMap<String, String>) {
        let flags = [
            ("VIGIE_ENGINE", self.engine.clone()),
            (
                "VIGIE_HTTP__LISTEN",
                self.http_listen.map(|address| address.to_string()),
            ),
            (
                "VIGIE_INTERNAL__LISTEN",
                self.internal_listen.map(|address| address.to_string()),
            ),
            ("VIGIE_REDIS__URL", self.redis_url.clone()),
            ("VIGIE_NODE__ID", self.node_id.clone()),
            ("VIGIE_LOG__LEVEL", self.log_level.clone()),
            ("VIGIE_LOG__FORMAT", self.log_format.clone()),
        ];
        if self.redis_url.is_some() {
            environment.remove("VIGIE_REDIS__URL_FILE");
        }
        for (variable, value) in flags {
            if let Some(value) = value {
                environment.insert(variable.to_owned(), value);
            }
        }
    }
}

/// Runs a future to its end on this thread. Without a runtime, reports the error and returns `code`.
fn block_on<T>(work: impl Future<Output = T>, code: u8) -> Result<T, ExitCode> {
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => Ok(runtime.block_on(work)),
        Err(error) => Err(fail(
            code,
            format_args!("cannot start the runtime: {error}"),
        )),
    }
}

/// Prints an error to stderr.
fn fail(code: u8, error: impl std::fmt::Display) -> ExitCode {
    // Fails only if stderr is closed.
    let _ = writeln!(io::stderr(), "error: {error}");
    ExitCode::from(code)
}

/// Prints a warning to stderr.
fn warn(warning: &str) {
    let _ = writeln!(io::stderr(), "warning: {warning}");
}

/// Prints to stdout. A reader that stops early (`vigie types | head -1`) is not an error.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(1, format_args!("cannot write to stdout: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints to stdout, without colours unless it is a terminal and `NO_COLOR` is unset.
fn print_styled(text: &str) -> ExitCode {
    match AutoStream::choice(&io::stdout()) {
        ColorChoice::Never => print(&anstream::adapter::strip_str(text).to_string()),
        _ => print(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Cli {
        Cli::parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_secret() {
        fn flags(command: &clap::Command) -> Vec<String> {
            let own = command
                .get_arguments()
                .map(|argument| argument.get_id().to_string());
            let of_others = command.get_subcommands().flat_map(flags);
            own.chain(of_others).collect()
        }
        let flags = flags(&Cli::command());
        assert!(flags.contains(&"redis_url".to_owned()), "{flags:?}");
        for flag in flags {
            let secret = ["secret", "key", "token", "pass", "postgres"];
            assert!(!secret.iter().any(|word| flag.contains(word)), "{flag}");
        }
        for (url, shown) in [("redis://db", false), ("redis://:pa55@db", true)] {
            let cli = parse(&format!("vigie --redis-url {url}"));
            assert_eq!(cli.overrides.contain_secret(), shown, "{url}");
        }
    }

    #[test]
    fn serve_is_what_happens_without_a_command() {
        assert!(parse("vigie").command.is_none());
        assert!(matches!(parse("vigie serve").command, Some(Command::Serve)));
    }

    #[test]
    fn the_load_generator_is_elsewhere_whatever_is_asked_of_it() {
        for line in ["vigie bench", "vigie bench fanout --connections 10 --json"] {
            assert!(
                matches!(parse(line).command, Some(Command::Bench(_))),
                "{line}"
            );
        }
    }

    #[test]
    fn flags_override_the_environment_before_and_after_the_command() {
        for line in [
            "vigie --engine redis --node-id b",
            "vigie --engine redis serve --node-id b",
        ] {
            let mut environment = HashMap::from([("VIGIE_ENGINE".to_owned(), "memory".to_owned())]);
            parse(line).overrides.apply_to(&mut environment);
            assert_eq!(environment["VIGIE_ENGINE"], "redis");
            assert_eq!(environment["VIGIE_NODE__ID"], "b");
        }
    }

    #[test]
    fn a_redis_url_on_the_command_line_beats_a_file_of_the_environment() {
        let file = ("VIGIE_REDIS__URL_FILE".to_owned(), "/run/url".to_owned());
        let mut environment = HashMap::from([file]);
        parse("vigie --redis-url redis://db")
            .overrides
            .apply_to(&mut environment);
        assert_eq!(
            environment,
            HashMap::from([("VIGIE_REDIS__URL".to_owned(), "redis://db".to_owned())])
        );
    }
}
