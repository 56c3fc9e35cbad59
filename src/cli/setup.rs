//! Reads and checks the configuration for a command, shows its problems, and prints results.

use std::collections::HashSet;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::exit::Exit;
use super::flags::Global;
use super::out::{self, Out};
use super::{logging, signals::Signals};
use crate::config::{self, ChannelKind, Config, ConfiguredChannel, Loaded, Report, Severity};
use crate::run::{RunId, Subject};

/// Reads an environment variable. Invalid UTF-8 is replaced, so that the value is refused later. To ignore the variable
/// could send the key to the wrong host.
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Reads an environment variable that names a path, which need not be UTF-8.
pub(super) fn path_variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

/// Reads the configuration, shows its warnings or all its errors, and sets up logging.
pub(super) fn configure(
    global: &Global,
    grace: Option<Duration>,
    level: LevelFilter,
    out: &Out,
) -> Result<Config, Exit> {
    let loaded = config::load(global.config.as_deref(), &environment, &global.overrides(grace));
    // What makes a channel unusable is said where that channel is used.
    match loaded {
        Ok(loaded) => {
            show_only(Severity::Warning, &loaded.report);
            logging::init(&loaded.config.log, level, out);
            Ok(loaded.config)
        }
        Err(report) => {
            show(&report);
            Err(Exit::Config)
        }
    }
}

/// Like [`configure`], for the daemon: it needs a file, and errors that it tolerates are shown. Also returns the file's path.
///
/// Nothing is written on this thread, because a daemon starts even if nobody reads its standard error.
pub(super) fn configure_service(global: &Global, out: &Out) -> Result<Loaded, Exit> {
    let note = |text: String| {
        if !text.is_empty() {
            out.note(&text);
        }
    };
    match config::load_for_service(global.config.as_deref(), &environment, &global.overrides(None)) {
        Ok(loaded) => {
            note(loaded.report.render_usable(colours()));
            logging::init(&loaded.config.log, LevelFilter::INFO, out);
            Ok(loaded)
        }
        Err(report) => {
            note(report.render(Severity::Error, colours()));
            note(report.render(Severity::Warning, colours()));
            Err(Exit::Config)
        }
    }
}

/// Shows a report's errors and warnings on standard error.
pub(super) fn show(report: &Report) {
    show_only(Severity::Error, report);
    show_only(Severity::Warning, report);
}

fn show_only(severity: Severity, report: &Report) {
    print(&report.render(severity, colours()));
}

fn colours() -> bool {
    console::colors_enabled_stderr()
}

fn print(text: &str) {
    if !text.is_empty() {
        out::stderr(&format!("{text}\n"));
    }
}

/// Shows what is wrong with the configuration or with a file that it names.
pub(super) fn refuse(error: impl std::fmt::Display) -> Exit {
    out::error(error);
    Exit::Config
}

/// The configured channels that can be used here. The others are left out with a warning, because nobody named them and
/// their secrets may be readable for the daemon only.
pub(super) fn usable_channels(config: &Config) -> Vec<ConfiguredChannel> {
    let usable = |channel: &&ConfiguredChannel| {
        if let ChannelKind::Unusable(why) = &channel.kind {
            out::stderr(&format!("warning: the channel `{}` is left out: {why}\n", channel.name));
            return false;
        }
        true
    };
    config.channels.iter().filter(usable).cloned().collect()
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

/// Shows an internal error, which is not the user's fault.
pub(super) fn internal(out: &Out, error: &dyn std::fmt::Display) -> Exit {
    out.error(format_args!("internal error: {error}"));
    Exit::Internal
}

/// The requested runs without duplicates, with their configured names.
pub(super) fn subjects(config: &Config, ids: &[RunId]) -> Vec<Subject> {
    let mut seen = HashSet::new();
    let subject = |id: &RunId| {
        let configured = config.runs.iter().find(|run| run.id == *id);
        Subject { id: id.clone(), name: configured.and_then(|run| run.name.clone()) }
    };
    ids.iter().filter(|id| seen.insert(*id)).map(subject).collect()
}

/// Prints the result of a command, on this thread. What cannot be printed cannot be relied on: that is an error, a closed
/// pipe is not.
pub(super) fn print_result(text: &str) -> Result<(), Exit> {
    out::stdout(text).map_err(|error| cannot_print(&error))
}

/// Like [`print_result`], for text that is safe already. A signal still ends the command while nobody reads.
pub(super) async fn hand_over(out: &Out, text: &str, signals: &mut Signals) -> Result<(), Exit> {
    tokio::select! {
        written = out.result(text) => written.map_err(|error| cannot_print(&error)),
        signal = signals.next() => Err(signal),
    }
}

pub(super) fn cannot_print(error: &std::io::Error) -> Exit {
    out::error(format_args!("cannot write the result to standard output: {error}"));
    Exit::Internal
}
