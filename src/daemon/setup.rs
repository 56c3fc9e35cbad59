//! Makes the parts of a daemon from a configuration, and logs notes at the start and after a reload.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use super::DaemonError;
use super::discover::{Seen, discovery, told_from};
use super::watching::watch_list;
use crate::api::ApiClient;
use crate::app;
use crate::clock;
use crate::config::{ChannelKind, Config, ConfiguredChannel, Since};
use crate::notify::{Channel, session_bus};
use crate::poll::{Counters, Settings};
use crate::run::Patience;
use crate::span;
use crate::store::{Adopted, Routes, SqliteStore, StoreError, Watched};
use crate::words;

/// Interval between saves of counts. Counts that a crash loses are read again.
const SAVE_EVERY: Duration = Duration::from_secs(30);

pub(super) fn client(config: &Config) -> Result<Arc<ApiClient>, DaemonError> {
    let client = ApiClient::new(&app::api_settings(config));
    client.map(Arc::new).map_err(|error| DaemonError::Config(error.to_string()))
}

pub(super) fn channels(config: &Config) -> Result<Vec<Channel>, DaemonError> {
    let build = |channel: &ConfiguredChannel| app::channel(channel, config);
    let channels: Result<_, _> = config.channels.iter().map(build).collect();
    channels.map_err(|error| DaemonError::Config(error.to_string()))
}

pub(super) fn routes(config: &Config) -> Routes {
    app::routes(&config.channels, [])
}

pub(super) fn settings(
    config: &Config,
    counters: &Arc<Counters>,
    seen: &Seen,
    routes: watch::Receiver<Routes>,
) -> Settings {
    let patience = Patience { grace: config.poll.grace, unknown_after: None, refused_ends: false };
    let settings = app::poll_settings(config, routes, patience, false);
    Settings {
        keep_ended: false,
        save_every: Some(SAVE_EVERY),
        counters: Arc::clone(counters),
        discovery: discovery(config, seen),
        ..settings
    }
}

pub(super) async fn list(config: &Config, store: &SqliteStore) -> Result<Adopted, DaemonError> {
    watch_list(config, store).await.map_err(|error| store_failed(&error))
}

pub(super) fn store_failed(error: &StoreError) -> DaemonError {
    DaemonError::Internal(format!("the store failed: {error}"))
}

/// Logs what is watched, and possible surprises.
pub(super) fn announce(config: &Config, list: &Adopted, routes: &Routes) {
    info!(
        runs = list.watched.len(),
        ended = list.ended,
        channels = config.channels.len(),
        api = config.api.base_url.as_str(),
        "watching"
    );
    announce_discovery(config);
    warn_of_unknown_channels(&list.watched, routes);
    for id in &list.forgotten {
        info!(run_id = id.as_str(), "no longer watched: it is not in the configuration");
    }
    if config.channels.is_empty() {
        warn!("no channel is configured, so nobody is notified; add a [[notify.…]] table");
    }
    let desktop = config.channels.iter().any(|channel| matches!(channel.kind, ChannelKind::Desktop { .. }));
    if desktop && session_bus().is_none() {
        warn!(
            "a desktop channel is configured, but there is no session bus to show it on; a system service has \
             none: run the daemon as a user service (systemd/user/runwatch.service)"
        );
    }
}

/// Logs whether discovery is on, and which past runs are not notified.
pub(super) fn announce_discovery(config: &Config) {
    let Some(discover) = &config.discover else { return };
    info!("discovering runs every {}", span::human(discover.interval));
    let (now, keep) = (clock::wall(), config.daemon.keep);
    if let Some(Since::At(at)) = discover.announce_past
        && at < told_from(keep, now)
    {
        warn!(
            "runs that ended before {} are not notified, whatever `announce_past` says: `keep` in [daemon] is {}",
            words::time(told_from(keep, now)),
            span::human(keep)
        );
    }
}

/// Warns about runs that name channels that do not exist.
pub(super) fn warn_of_unknown_channels(runs: &[Watched], routes: &Routes) {
    for run in runs {
        let names = run.notify.iter().flat_map(|names| names.iter()).map(|name| &**name);
        let gone: Vec<&str> = names.filter(|name| !routes.has(name)).collect();
        if !gone.is_empty() {
            let run_id = run.subject.id.as_str();
            warn!(
                run_id,
                "these channels of the run are not configured: {}; if it has no others, all channels are notified",
                gone.join(", ")
            );
        }
    }
}
