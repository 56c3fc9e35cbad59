//! From the flags to a checked configuration, with its problems shown.

use std::io::IsTerminal as _;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::args::Global;
use super::exit::Exit;
use super::screen::Screen;
use super::{logging, out};
use crate::config::{self, Config, ConfiguredChannel, Report, Severity};

/// Looks up a variable of this process's environment. One that is not UTF-8 is as good as not set.
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads the configuration, shows its warnings or all its errors, and sets up logging.
pub(super) fn configure(
    global: &Global,
    grace: Option<Duration>,
    level: LevelFilter,
    screen: &Screen,
) -> Result<Config, Exit> {
    match config::load(global.config.as_deref(), &environment, &global.overrides(grace)) {
        Ok(loaded) => {
            show(&loaded.report);
            logging::init(&loaded.config.log, level, screen);
            Ok(loaded.config)
        }
        Err(report) => {
            show(&report);
            Err(Exit::Config)
        }
    }
}

/// Shows a report's errors and warnings on standard error.
pub(super) fn show(report: &Report) {
    let colour = std::io::stderr().is_terminal();
    for severity in [Severity::Error, Severity::Warning] {
        let text = report.render(severity, colour);
        if !text.is_empty() {
            out::stderr(&format!("{text}\n"));
        }
    }
}

/// Says what is wrong with the configuration or with what it points to.
pub(super) fn refuse(error: impl std::fmt::Display) -> Exit {
    out::error(error);
    Exit::Config
}

/// The configured channels of these names.
pub(super) fn choose_channels(config: &Config, names: &[String]) -> Result<Vec<ConfiguredChannel>, Exit> {
    let find = |name: &String| {
        config.channels.iter().find(|channel| *channel.name == **name).cloned().ok_or_else(|| {
            let known: Vec<&str> = config.channels.iter().map(|channel| &*channel.name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            out::error(format_args!("there is no channel `{name}`; configured: {known}"));
            Exit::Usage
        })
    };
    names.iter().map(find).collect()
}

/// Prints the result of a command. What cannot be printed cannot be relied on: that is an error, a closed pipe is not.
pub(super) fn print_result(text: &str) -> Result<(), Exit> {
    out::stdout(text).map_err(|error| {
        out::error(format_args!("cannot write the result to standard output: {error}"));
        Exit::Internal
    })
}
