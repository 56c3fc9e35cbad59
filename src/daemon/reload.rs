//! Reading the configuration again: all of it or nothing.

use std::sync::Arc;

use tracing::{info, warn};

use super::setup::{channels, client, settings, warn_of_unknown_channels};
use super::watching::watch_list;
use super::{Daemon, Reread};
use crate::config::Config;
use crate::notify::delivery::Change;
use crate::poll::Command;

impl Daemon {
    /// Takes over another configuration; gives what is done from now on, in words. One with a problem changes nothing, and
    /// the problems are given.
    pub(super) async fn reload(&mut self, reread: &Reread) -> Result<String, String> {
        let reread = Arc::clone(reread);
        let read = tokio::task::spawn_blocking(move || reread()).await.map_err(|error| error.to_string())?;
        let config = read?;
        // Everything that can fail comes first.
        let source = client(&config).map_err(|error| error.to_string())?;
        let new_channels = channels(&config).map_err(|error| error.to_string())?;
        let handle = Arc::clone(&self.handle);
        let _changing = handle.changing.lock().await;
        let parts = handle.parts_now();
        let store = Arc::clone(&parts.store);
        let before = self.running.commands.clone();
        if config.discover.is_none() {
            self.newest.remember(None, &store).await.map_err(|error| format!("the store failed: {error}"))?;
            handle.set_trouble("discover", None);
        }
        let list =
            watch_list(&config, &*store).await.map_err(|error| format!("the store failed: {error}"))?;
        self.warn_of_what_needs_a_restart(&config);
        let settings = settings(&config, &self.counters, &self.newest);
        let routes = settings.routes.clone();
        let _ = before.send(Command::Reconfigure(Box::new(settings), Arc::clone(&source) as _)).await;
        let (going, ended) = (list.going.len(), list.ended);
        for id in list.dropped {
            parts.stop_watching(&id).await;
            // Once more: something may have been recorded of it in between.
            let _ = crate::store::RunStore::forget(&*store, vec![id]).await;
        }
        warn_of_unknown_channels(&list.going, &routes);
        let _ = before.send(Command::Add(list.going)).await;
        let change = Change { channels: new_channels.clone(), routes: routes.clone() };
        let _ = self.running.channels.send(change).await;
        let channels = new_channels.iter().map(|channel| channel.name.clone()).collect();
        if let Err(error) = store.give_up_on_others(channels, crate::clock::wall()).await {
            warn!("cannot give up on what is for channels that are gone: {error}");
        }
        handle.exchange(|parts| {
            parts.routes = routes;
            parts.api = config.api.base_url.as_str().into();
            parts.requests_per_minute = config.poll.requests_per_minute;
        });
        (self.config, self.source, self.channels) = (config, source, new_channels);
        self.soon();
        let message = format!("{going} runs going, {ended} ended, {} channels", self.channels.len());
        info!("the configuration was read again: {message}");
        Ok(message)
    }

    fn warn_of_what_needs_a_restart(&self, new: &Config) {
        let old = &self.config;
        let changed = [
            ("state_dir", old.state_dir != new.state_dir),
            ("listen", old.daemon.listen != new.daemon.listen),
            ("watch_dir", old.daemon.watch_dir != new.daemon.watch_dir),
            ("socket_mode", old.daemon.socket_for_group != new.daemon.socket_for_group),
            ("[log]", old.log != new.log),
        ];
        for (what, _) in changed.iter().filter(|(_, changed)| *changed) {
            warn!("`{what}` has changed: that takes a restart");
        }
    }
}
