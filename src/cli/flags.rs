//! Flags that several commands share, and the parsers of their values.
//!
//! What one command alone takes stands beside that command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::{LogFormat, Overrides};
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

    /// Log every request, decision and delivery attempt: the same as --log-level debug
    #[arg(short, long, global = true, conflicts_with = "log_level", help_heading = "Global options")]
    verbose: bool,

    /// Log format
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Global options")]
    log_format: Option<LogFormatArg>,
}

impl Global {
    /// `--config`.
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Whether a flag says what API or key is to be used.
    pub(super) fn names_an_api(&self) -> bool {
        self.base_url.is_some() || self.api_key_file.is_some()
    }

    /// The flags as the configuration takes them; `grace` belongs to some commands only.
    pub(super) fn overrides(&self, grace: Option<Duration>) -> Overrides {
        Overrides {
            base_url: self.base_url.clone(),
            api_key_file: self.api_key_file.clone(),
            allow_http: self.allow_http,
            log_level: self.log_level.clone().or_else(|| self.verbose.then(|| "debug".to_owned())),
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

/// The output format.
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
