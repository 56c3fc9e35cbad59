//! `doctor`: checks the daemon's key, credentials and directories in its own environment, and whether its configuration
//! still matches the file.

use std::time::Duration;

use tokio::time::timeout;

use crate::app;
use crate::config::Config;
use crate::control::{Doctor, Finding};
use crate::daemon::handle::{Handle, Refusal};
use crate::daemon::reload::ReloadError;
use crate::daemon::setup::{channels, client};
use crate::doctor::{Surroundings, examine};
use crate::span;

/// Maximum time for all checks together. The command waits a little longer.
const BOUND: Duration = Duration::from_secs(50);

impl Handle {
    pub(in crate::daemon) async fn doctor(&self) -> Result<Doctor, Refusal> {
        let config = self.parts_now().config;
        let surroundings = Surroundings::Daemon { state_dir: self.state_dir.clone() };
        let checks = async { tokio::join!(examine(&config, &surroundings), self.configuration(&config)) };
        let (mut findings, configuration) = timeout(BOUND, checks).await.map_err(|_| {
            Refusal::Unavailable(format!("the checks did not finish within {}", span::human(BOUND)))
        })?;
        findings.insert(0, configuration?);
        // The configuration's problems were just checked.
        let troubles = self.troubles_by_subject().into_iter().filter(|(about, _)| *about != "configuration");
        findings.extend(troubles.map(|(about, trouble)| Finding::wrong("daemon", trouble, remedy(about))));
        Ok(Doctor { findings, config: self.reread.file.clone() })
    }

    /// Whether the file still matches the configuration in use.
    async fn configuration(&self, in_force: &Config) -> Result<Finding, Refusal> {
        let file = self.reread.file.as_ref().map_or_else(
            || "the configuration".to_owned(),
            |file| crate::run::printable(&file.to_string_lossy(), 1000),
        );
        let reload = "systemctl reload runwatch (or: runwatch reload)";
        let read = match self.reread.bounded().await {
            // The checks that a reload makes before it uses the file.
            Ok(config) => match client(&config).and_then(|_| channels(&config)) {
                Ok(_) => Ok(config),
                Err(error) => Err(error.to_string()),
            },
            Err(ReloadError::Refused(problems)) => Err(problems),
            Err(ReloadError::Failed(why)) => {
                let found = format!("{file} cannot be read now, and the configuration in use is kept: {why}");
                return Ok(Finding::wrong("configuration", found, "check the file system it is on"));
            }
            Err(ReloadError::Shortage(why)) => {
                return Err(Refusal::Unavailable(format!("{file} cannot be read now: {why}")));
            }
        };
        let refused = self.is_in_trouble("configuration");
        Ok(match read {
            Ok(config) if is_same(&config, in_force) && refused => Finding::absent(
                "configuration",
                format!("{file} is in use again, after a reload was refused"),
            )
            .with_remedy(format!("to clear this: {reload}")),
            Ok(config) if is_same(&config, in_force) => {
                Finding::well("configuration", format!("{file} is in use"))
            }
            Ok(_) => Finding::absent("configuration", format!("{file} has changed since the daemon read it"))
                .with_remedy(format!(
                    "to use it: {reload}; for state_dir, [log] and most of [daemon], restart"
                )),
            Err(problems) => Finding::wrong(
                "configuration",
                format!(
                    "{file} has a mistake, and the earlier configuration stays in use: {}",
                    problems.lines().next().unwrap_or_default().trim_start_matches("error: ")
                ),
                format!("`runwatch config check` shows every mistake; then: {reload}"),
            ),
        })
    }
}

/// What to do about one of the daemon's problems.
fn remedy(about: &str) -> &'static str {
    match about {
        "api" | "discover" => "see the API above; the daemon keeps polling",
        "key" => "put a valid key where the daemon reads it, then: systemctl restart runwatch",
        "store" => {
            "check the disk and the rights of the state directory; the daemon tries again every 5 seconds"
        }
        "aside" => "nothing, unless you need the old file: it was kept",
        "socket" => "remove the file in its place, or restart the daemon (systemctl restart runwatch)",
        "watch_dir" => "make the directory, and let the daemon's user read it",
        _ => "see its log (journalctl -u runwatch)",
    }
}

/// Whether two configurations are equal, including the content of the files that they name and settings that need a
/// restart.
fn is_same(one: &Config, other: &Config) -> bool {
    // Without `..`, so that a new setting cannot be forgotten.
    let Config {
        api,
        poll,
        alerts,
        retry_delays,
        daemon,
        log,
        state_dir,
        runs,
        discover,
        channels,
        known: _,
    } = one;
    let print = |channels: &[crate::config::ConfiguredChannel]| {
        let print = |channel: &crate::config::ConfiguredChannel| {
            (channel.name.clone(), channel.events.clone(), app::fingerprint(&channel.kind).ok())
        };
        channels.iter().map(print).collect::<Vec<_>>()
    };
    (api, poll, alerts, retry_delays) == (&other.api, &other.poll, &other.alerts, &other.retry_delays)
        && (daemon, log, state_dir) == (&other.daemon, &other.log, &other.state_dir)
        && (runs, discover) == (&other.runs, &other.discover)
        && print(channels) == print(&other.channels)
}
