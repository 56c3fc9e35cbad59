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
    let levels = log.level.as_deref().and_then(levels).unwrap_or_else(|| ours(default));
    // The log channel delivers notifications: verbosity does not change it.
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

/// The filter for a setting: a single level applies to runwatch's own modules only.
fn levels(text: &str) -> Option<Targets> {
    match text.trim().parse::<LevelFilter>() {
        Ok(level) => Some(ours(level)),
        Err(_) => text.parse().ok(),
    }
}

/// Libraries log several lines per request about connections at `debug`. They are shown only at `trace`.
fn ours(level: LevelFilter) -> Targets {
    let others = if level == LevelFilter::DEBUG { LevelFilter::INFO } else { level };
    Targets::new().with_default(others).with_target("runwatch", level)
}

/// Whether the journal reads this process's standard error: systemd says so as `device:inode` (systemd.exec(5)).
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn debug_is_ours_and_trace_is_everybodys() {
        for (setting, ours, theirs) in [
            ("debug", Some(Level::DEBUG), Some(Level::INFO)),
            ("DEBUG", Some(Level::DEBUG), Some(Level::INFO)),
            ("trace", Some(Level::TRACE), Some(Level::TRACE)),
            ("warn", Some(Level::WARN), Some(Level::WARN)),
            ("info,runwatch::api=debug", Some(Level::DEBUG), Some(Level::INFO)),
            ("runwatch=debug,hyper_util=debug", Some(Level::DEBUG), Some(Level::DEBUG)),
            ("off", None, None),
        ] {
            let levels = levels(setting).unwrap();
            let most = |target: &str| {
                let all = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
                all.into_iter().find(|level| levels.would_enable(target, level))
            };
            assert_eq!(
                (most("runwatch::api::client"), most("hyper_util::client")),
                (ours, theirs),
                "{setting}"
            );
        }
    }
}
