//! Where log lines go and how they look.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::journal::Journal;
use super::out::{JsonLog, Out};
use crate::config::{Log, LogFormat};
use crate::notify::log::TARGET;

/// Sets up logging for the process: on standard error, or in the journal where that reads standard error.
pub(super) fn init(log: &Log, default: LevelFilter, out: &Out) {
    let parsed = log.level.as_deref().and_then(|level| level.parse::<Targets>().ok());
    let levels = parsed.unwrap_or_else(|| Targets::new().with_default(default));
    // The log channel is a way to be told, not a matter of verbosity.
    let levels = levels.with_target(TARGET, LevelFilter::INFO);
    let journal = || Journal::open().ok().map(Layer::boxed);
    let text = || {
        let colour = console::colors_enabled_stderr();
        let layer = tracing_subscriber::fmt::layer().with_writer(out.clone()).with_ansi(colour);
        layer.with_target(false).boxed()
    };
    let json = || {
        let layer = tracing_subscriber::fmt::layer().with_writer(JsonLog(out.clone())).json();
        layer.flatten_event(true).with_current_span(false).boxed()
    };
    let layer = match log.format {
        LogFormat::Json => json(),
        LogFormat::Journald => journal().unwrap_or_else(text),
        LogFormat::Auto if stderr_is_the_journal() => journal().unwrap_or_else(text),
        LogFormat::Auto | LogFormat::Text => text(),
    };
    // Fails only if logging is set up already, as in a test.
    let _ = tracing_subscriber::registry().with(layer.with_filter(levels)).try_init();
}

/// Whether the journal reads this process's standard error: systemd says so as `device:inode` (systemd.exec(5)).
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}
