//! The command line: one definition for parsing, help, man pages and completions.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::daemon_args::{AddArgs, DaemonArgs, DeliveriesVerb, ListArgs, RemoveArgs, ShowArgs};
use super::threshold::Threshold;
use crate::config::{LogFormat, Overrides};
use crate::run::RunId;
use crate::span;

/// Tells you when your DataFramer runs have finished
#[derive(Debug, Parser)]
#[command(name = "runwatch", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: runwatch help exit-codes\nTry it without an account: runwatch demo")]
pub struct Cli {
    /// What is asked for.
    #[command(subcommand)]
    pub command: Verb,

    #[command(flatten)]
    pub(super) global: Global,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(super) config: Option<PathBuf>,

    /// Where the API is
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    base_url: Option<String>,

    /// File with the API key
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    api_key_file: Option<PathBuf>,

    /// Allow an unencrypted base URL that is not on this machine
    #[arg(long, global = true, help_heading = "Global options")]
    allow_http: bool,

    /// What to log: error, warn, info, debug or trace, or by module
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Global options", value_parser = log_level)]
    log_level: Option<String>,

    /// How to log it
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Global options")]
    log_format: Option<LogFormatArg>,
}

impl Global {
    /// `--config`.
    pub(super) fn config(&self) -> Option<&std::path::Path> {
        self.config.as_deref()
    }

    /// The flags as the configuration takes them; `grace` belongs to some commands only.
    pub(super) fn overrides(&self, grace: Option<Duration>) -> Overrides {
        Overrides {
            base_url: self.base_url.clone(),
            api_key_file: self.api_key_file.clone(),
            allow_http: self.allow_http,
            log_level: self.log_level.clone(),
            log_format: self.log_format.map(Into::into),
            grace,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormatArg {
    Auto,
    Text,
    Json,
    Journald,
}

impl From<LogFormatArg> for LogFormat {
    fn from(format: LogFormatArg) -> Self {
        match format {
            LogFormatArg::Auto => Self::Auto,
            LogFormatArg::Text => Self::Text,
            LogFormatArg::Json => Self::Json,
            LogFormatArg::Journald => Self::Journald,
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Watch runs until they end, with live progress and notifications
    Watch(WatchArgs),
    /// Wait for runs in a CI job: quiet, bounded, with a result to act on
    Wait(WaitArgs),
    /// Ask once where runs stand
    Status(StatusArgs),
    /// List the runs that the API has, the newest first
    Runs(RunsArgs),
    /// Watch the configured runs in the background and notify
    Daemon(DaemonArgs),
    /// Have the daemon watch runs
    Add(AddArgs),
    /// Have the daemon watch runs no more
    Remove(RemoveArgs),
    /// List the runs that the daemon knows
    List(ListArgs),
    /// Show what the daemon knows of a run, and what was told of it
    Show(ShowArgs),
    /// Look at what the daemon told and has to tell, and have it told again
    #[command(subcommand)]
    Deliveries(DeliveriesVerb),
    /// Have the daemon read its configuration again
    Reload,
    /// Look for what is wrong: key, API, clock, desktop, state, channels and daemon
    Doctor,
    /// Work with the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Work with notification channels
    #[command(subcommand)]
    Notify(NotifyVerb),
    /// Serve a simulated DataFramer API on this machine
    #[cfg(feature = "simulator")]
    Simulate(super::simulate::SimulateArgs),
    /// Watch three simulated runs to their end, in fifteen seconds, without an account
    #[cfg(feature = "simulator")]
    Demo(super::demo::DemoArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write one for each command into a directory
    Man {
        /// Where to; standard output if not given
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Show help for a command, or the exit codes
    Help {
        /// A command, or `exit-codes`
        #[arg(value_name = "COMMAND|exit-codes")]
        topic: Vec<String>,
    },
}

/// A run's id, or its URL.
pub(super) fn run_id(text: &str) -> Result<RunId, String> {
    text.parse().map_err(|error: crate::run::RunIdError| error.to_string())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    span::parse(text).map_err(|error| error.to_string())
}

pub(super) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    span::parse_or_zero(text).map_err(|error| error.to_string())
}

fn log_level(text: &str) -> Result<String, String> {
    if crate::config::is_level(text) {
        Ok(text.to_owned())
    } else {
        Err("expected error, warn, info, debug or trace, or levels by module".to_owned())
    }
}

/// `runwatch watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Run ids or run URLs; without any, on a terminal, the runs that go on are offered to choose from
    #[arg(value_name = "RUN", value_parser = run_id)]
    pub(super) runs: Vec<RunId>,

    /// The newest run there is (with --mine: of yours)
    #[arg(long, conflicts_with = "runs")]
    pub(super) latest: bool,

    /// The runs that go on and are yours: created by this address [default: `email` of the configuration]
    #[arg(long, value_name = "EMAIL", conflicts_with = "runs", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(super) mine: Option<String>,

    /// End when one of the runs has ended, not all
    #[arg(long)]
    pub(super) any: bool,

    /// Give up after this time, for all runs together: 30s, 5m, 2h
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration)]
    pub(super) timeout: Option<Duration>,

    /// How long an id may be unknown to the API before it is called wrong [default: 1m]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration_or_zero)]
    pub(super) grace: Option<Duration>,

    /// Notify through these configured channels only
    #[arg(long, value_name = "CHANNEL", value_delimiter = ',')]
    pub(super) notify: Option<Vec<String>>,

    /// Notify nobody
    #[arg(long, conflicts_with = "notify")]
    pub(super) no_notify: bool,
}

/// `runwatch wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Run ids or run URLs
    #[arg(required = true, value_name = "RUN", value_parser = run_id)]
    pub(super) runs: Vec<RunId>,

    /// Give up after this time, for all runs together: 30s, 5m, 2h
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration)]
    pub(super) timeout: Option<Duration>,

    /// Exit 6 if a run SUCCEEDED with more failed samples than this: a number, or a share of its samples such as 5%
    #[arg(long, value_name = "N|P%", allow_hyphen_values = true)]
    pub(super) max_failed: Option<Threshold>,

    /// Exit 6 if a run SUCCEEDED with fewer completed samples than this: a number, or a share of its samples such as 95%
    #[arg(long, value_name = "N|P%", allow_hyphen_values = true)]
    pub(super) min_completed: Option<Threshold>,

    /// End as soon as one run has not succeeded, without waiting for the others
    #[arg(long)]
    pub(super) fail_fast: bool,

    /// What to print on standard output [default: github under GitHub Actions, else text]
    #[arg(long, value_name = "FORMAT")]
    pub(super) output: Option<WaitOutput>,

    /// How long an id may be unknown to the API before it is called wrong [default: 1m]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration_or_zero)]
    pub(super) grace: Option<Duration>,

    /// Notify through these configured channels too; nobody is notified otherwise
    #[arg(long, value_name = "CHANNEL", value_delimiter = ',')]
    pub(super) notify: Option<Vec<String>>,
}

/// What `wait` prints on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitOutput {
    /// One line a run
    Text,
    /// One JSON object
    Json,
    /// Annotations, outputs and a step summary for GitHub Actions
    Github,
}

/// `runwatch status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Run ids or run URLs
    #[arg(required = true, value_name = "RUN", value_parser = run_id)]
    pub(super) runs: Vec<RunId>,

    /// Exit by the state of the runs: 8 while one is running, else as `wait` would. Otherwise only a run that cannot be
    /// read counts (4, 5, 7)
    #[arg(long)]
    pub(super) exit_code: bool,

    #[command(flatten)]
    pub(super) output: Output,
}

/// `runwatch runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Those that have ended too
    #[arg(long)]
    pub(super) all: bool,

    /// Only yours: created by this address [default: `email` of the configuration]
    #[arg(long, value_name = "EMAIL", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(super) mine: Option<String>,

    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: u32,

    #[command(flatten)]
    pub(super) output: Output,
}

/// In what form something is listed.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// What to print on standard output
    #[arg(long = "output", value_name = "FORMAT", default_value = "text")]
    pub(super) format: ListFormat,
}

/// What is printed on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// Lines for people
    Text,
    /// One JSON object
    Json,
}

/// `runwatch config …`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Check a configuration file, without the network, and show every problem
    Check {
        /// The file; by default the one that runwatch would use
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// `runwatch notify …`.
#[derive(Debug, Subcommand)]
pub enum NotifyVerb {
    /// Send a test event through channels, and show how it went
    Test {
        /// Channels by name; all by default
        #[arg(value_name = "CHANNEL")]
        channels: Vec<String>,
    },
}
