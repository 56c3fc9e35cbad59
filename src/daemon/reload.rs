//! Reads the configuration again, and uses all of it or nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::handle::{Handle, Parts};
use super::setup::{announce_discovery, channels, client, routes, settings, warn_of_unknown_channels};
use super::watching::watch_list;
use super::{Daemon, Reread};
use crate::blocking;
use crate::config::Config;
use crate::poll::Command;
use crate::store::StoreError;

/// Maximum time to read the configuration and the files it names.
const READ_BOUND: Duration = Duration::from_secs(10);

/// Pause before giving up the deliveries of removed channels is tried again.
const GIVE_UP_AGAIN: Duration = Duration::from_secs(5);

/// Why a reload changed nothing.
#[derive(Debug)]
pub enum ReloadError {
    /// The configuration has problems; all of them, to be shown.
    Refused(String),
    /// It could not be read or used for another reason. Another attempt may succeed.
    Failed(String),
    /// The machine is short of threads.
    Shortage(String),
}

impl From<StoreError> for ReloadError {
    fn from(error: StoreError) -> Self {
        Self::Failed(format!("the store failed: {error}"))
    }
}

impl Reread {
    /// Reads the file in a thread, because a hanging file system must block neither the daemon nor its shutdown.
    pub(super) async fn bounded(&self) -> Result<Config, ReloadError> {
        let read = Arc::clone(&self.read);
        let read = timeout(READ_BOUND, blocking::run("configuration", move || read())).await;
        let bound = crate::span::human(READ_BOUND);
        let late = |_| ReloadError::Failed(format!("reading the configuration took longer than {bound}"));
        let read = read.map_err(late)?.map_err(|error| {
            if blocking::is_shortage(&error) {
                ReloadError::Shortage(format!("{error}{}", blocking::ADVICE))
            } else {
                ReloadError::Failed(error.to_string())
            }
        })?;
        read.map_err(ReloadError::Refused)
    }
}

impl Daemon {
    /// Uses another configuration, and returns a summary. An error changes nothing.
    pub(super) async fn reload(
        &mut self,
        reread: &Reread,
        stop: &CancellationToken,
    ) -> Result<String, ReloadError> {
        let mut config = tokio::select! {
            read = reread.bounded() => read?,
            () = stop.cancelled() => return Err(ReloadError::Failed("the daemon is stopping".to_owned())),
        };
        // All secrets of a process are redacted together, so that an unchanged channel learns the new ones too.
        self.config.known.learn_all_of(&config.known);
        config.known = self.config.known.clone();
        // Everything that can fail comes first.
        let source = client(&config).map_err(|error| ReloadError::Refused(error.to_string()))?;
        let new_channels = channels(&config).map_err(|error| ReloadError::Refused(error.to_string()))?;
        let handle = Arc::clone(&self.handle);
        let _changing = handle.changing.lock().await;
        let parts = handle.parts_now();
        let store = Arc::clone(&parts.store);
        let before = self.running.commands.clone();
        let seen = self.seen.after(&config, &store).await?;
        let list = watch_list(&config, &store).await?;
        // Nothing fails after this point: the configuration is in use.
        self.seen.retire();
        handle.set_trouble("discover", None);
        self.warn_of_what_needs_a_restart(&config);
        // After this, nothing is recorded for removed channels.
        self.routes.send_replace(routes(&config));
        let settings = settings(&config, &self.counters, &seen, self.routes.subscribe());
        let _ = before.send(Command::Reconfigure(Box::new(settings), Arc::clone(&source) as _)).await;
        let (going, ended) = (list.watched.len(), list.ended);
        for id in list.forgotten {
            parts.stop_watching(&id).await;
            // A second time, because a commit in between may have recorded it.
            let _ = crate::store::RunStore::forget(&*store, vec![id]).await;
        }
        warn_of_unknown_channels(&list.watched, &self.routes.borrow());
        let _ = before.send(Command::Add(list.watched)).await;
        let _ = self.running.channels.send(new_channels.clone()).await;
        let channels: Vec<_> = new_channels.iter().map(|channel| channel.name.clone()).collect();
        handle.metrics.set_channels(channels.clone());
        let given_up = store.give_up_on_others(channels, crate::clock::wall()).await;
        handle.exchange(|parts| {
            parts.api = config.api.base_url.as_str().into();
            parts.requests_per_minute = config.poll.requests_per_minute;
            parts.config = Arc::new(config.clone());
        });
        if let Err(error) = given_up {
            warn!("cannot give up deliveries to removed channels: {error}; still trying");
            tokio::spawn(give_up_later(Arc::clone(&handle)));
        }
        if config.discover.is_none() && going == 0 {
            // Without runs, no poll would notice that these problems are over.
            for about in ["api", "key"] {
                handle.set_trouble(about, None);
            }
            handle.metrics.set_api_up(true);
        }
        (self.config, self.source, self.channels, self.seen) = (config, source, new_channels, seen);
        self.soon();
        let discovery = if self.config.discover.is_some() { ", discovery on" } else { "" };
        let message =
            format!("{going} active runs{discovery}, {ended} ended, {} channels", self.channels.len());
        info!("the configuration was read again: {message}");
        announce_discovery(&self.config);
        Ok(message)
    }

    fn warn_of_what_needs_a_restart(&self, new: &Config) {
        let old = &self.config;
        let changed = [
            ("state_dir", old.state_dir != new.state_dir),
            ("listen", old.daemon.listen != new.daemon.listen),
            ("listen_names", old.daemon.listen_names != new.daemon.listen_names),
            ("watch_dir", old.daemon.watch_dir != new.daemon.watch_dir),
            ("socket_mode", old.daemon.socket_for_group != new.daemon.socket_for_group),
            ("[log]", old.log != new.log),
        ];
        for (what, _) in changed.iter().filter(|(_, changed)| *changed) {
            warn!("`{what}` has changed: that takes a restart");
        }
    }
}

/// Gives up the deliveries of removed channels, as soon as the store accepts writes. Otherwise they would stay pending
/// for ever.
async fn give_up_later(handle: Arc<Handle>) {
    let give_up = || async {
        // Uses the configuration at that time, because another reload may have restored a channel.
        let _changing = handle.changing.lock().await;
        let Parts { store, config, .. } = handle.parts_now();
        let channels = config.channels.iter().map(|channel| channel.name.clone()).collect();
        let given_up = store.give_up_on_others(channels, crate::clock::wall()).await;
        given_up.inspect_err(|error| debug!("cannot give up deliveries to removed channels: {error}"))
    };
    until_done(give_up).await;
}

/// Repeats an attempt until it succeeds.
async fn until_done<E, F: Future<Output = Result<usize, E>>>(mut attempt: impl FnMut() -> F) {
    loop {
        sleep(GIVE_UP_AGAIN).await;
        match attempt().await {
            Ok(0) => return,
            Ok(count) => return info!(count, "gave up deliveries to removed channels"),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_given_up_is_given_up_before_long() {
        let began = tokio::time::Instant::now();
        let mut attempts = 0;
        until_done(|| {
            attempts += 1;
            std::future::ready(if attempts < 4 { Err("the store is away") } else { Ok(1) })
        })
        .await;
        assert_eq!((attempts, began.elapsed()), (4, 4 * GIVE_UP_AGAIN));
    }
}
