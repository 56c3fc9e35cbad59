//! Flags that several commands share, and the parsers of their values.
//!
//! Flags of a single command are in the file of that command.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Args, ValueEnum};

use crate::config::{Config, EAGERNESS, LogFormat, Overrides};
use crate::run::RunId;
use crate::span;

/// Flags that every command takes.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(super) config: Option<PathBuf>,

    /// Base URL of the API
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    base_url: Option<String>,

    /// File with the API key
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    api_key_file: Option<PathBuf>,

    /// Allow an unencrypted base URL that is not on this machine
    #[arg(long, global = true, help_heading = "Global options")]
    allow_http: bool,

    /// Log level: error, warn, info, debug or trace, or by module
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Global options", value_parser = log_level)]
    log_level: Option<String>,

    /// Log every request, decision and delivery attempt: as --log-level debug; twice (-vv): as trace
    #[arg(short, long, global = true, conflicts_with = "log_level", action = ArgAction::Count, help_heading = "Global options")]
    verbose: u8,

    /// Log format
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Global options")]
    log_format: Option<LogFormatArg>,

    // Read by `Colours::named`, for usage errors too.
    /// When to print colors
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    color: Colours,
}

/// When to print colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Colours {
    /// On a terminal, as `NO_COLOR` and `CLICOLOR_FORCE` say
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Colours {
    /// The value of `--color` in unchecked arguments, for usage errors too. The last one counts.
    pub(super) fn named(args: &[OsString]) -> Self {
        let options = args.split(|arg| arg == "--").next().unwrap_or_default();
        let values = options.iter().enumerate().filter_map(|(at, arg)| match arg.to_str()? {
            "--color" => options.get(at + 1)?.to_str(),
            arg => arg.strip_prefix("--color="),
        });
        values.filter_map(|value| Self::from_str(value, false).ok()).next_back().unwrap_or(Self::Auto)
    }

    /// Applies it to both streams.
    pub(super) fn set(self) {
        if self != Self::Auto {
            console::set_colors_enabled(self == Self::Always);
            console::set_colors_enabled_stderr(self == Self::Always);
        }
    }
}

/// How runs are polled and shown, for one command.
#[derive(Debug, Args)]
pub struct Pacing {
    /// Poll each run at this interval, instead of by its progress: 5s, 1m
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration, conflicts_with = "eagerness")]
    interval: Option<Duration>,

    /// How many requests a short delay is worth [default: that of the configuration]
    #[arg(long, value_name = "EAGERNESS", value_parser = eagerness_names())]
    eagerness: Option<String>,

    /// Print only results, warnings and errors
    #[arg(short, long)]
    pub(super) quiet: bool,
}

impl Pacing {
    /// Overrides the configuration with the flags.
    pub(super) fn apply(&self, config: &mut Config) {
        let policy = &mut config.poll.policy;
        let named = |word: &str| EAGERNESS.iter().find(|(name, _)| *name == word).map(|(_, price)| *price);
        if let Some(interval) = self.interval {
            (policy.healthy.initial, policy.healthy.max, policy.price) = (interval, interval, None);
        }
        if let Some(price) = self.eagerness.as_deref().and_then(named) {
            policy.price = price;
        }
    }
}

fn eagerness_names() -> PossibleValuesParser {
    PossibleValuesParser::new(EAGERNESS.iter().map(|(name, _)| *name))
}

impl Global {
    /// `--config`.
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Whether a flag names the API or the key.
    pub(super) fn names_an_api(&self) -> bool {
        self.base_url.is_some() || self.api_key_file.is_some()
    }

    /// The log level that `-v` means.
    fn verbosity(&self) -> Option<String> {
        match self.verbose {
            0 => None,
            1 => Some("debug".to_owned()),
            2.. => Some("trace".to_owned()),
        }
    }

    /// The flags that override the configuration. Only some commands have `grace`.
    pub(super) fn overrides(&self, grace: Option<Duration>) -> Overrides {
        Overrides {
            base_url: self.base_url.clone(),
            api_key_file: self.api_key_file.clone(),
            allow_http: self.allow_http,
            log_level: self.log_level.clone().or(self.verbosity()),
            log_format: self.log_format.map(Into::into),
            grace,
            service: false,
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

/// The output format.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// What to print on standard output
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "text")]
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        pacing: Pacing,
    }

    #[test]
    fn an_interval_is_fixed_and_an_eagerness_has_its_price() {
        let policy = |args: &[&str]| {
            let loaded = crate::config::parse(None, &|_| None, &Overrides::default());
            let mut config = loaded.unwrap_or_else(|report| panic!("{report:?}")).config;
            Line::parse_from([&["x"], args].concat()).pacing.apply(&mut config);
            config.poll.policy
        };
        let default = policy(&[]);
        let fixed = policy(&["--interval", "45s"]);
        let interval = Duration::from_secs(45);
        assert_eq!((fixed.healthy.initial, fixed.healthy.max, fixed.price), (interval, interval, None));
        assert_eq!(fixed.error, default.error);
        assert_ne!(policy(&["--eagerness", "high"]).price, default.price);
        assert_eq!(policy(&["--eagerness", "normal"]), default);
        assert_eq!(policy(&["--eagerness", "off"]).price, None);
    }
}
