//! `runwatch daemon`: watches the configured runs in the background. The log is its only display.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};

use super::args::Global;
use super::exit::Exit;
use super::out::Out;
use super::setup::environment;
use super::signals::Signals;
use super::{setup, words};
use crate::api::ApiClient;
use crate::app::{self, Plan};
use crate::clock;
use crate::config::{ChannelKind, Config};
use crate::notify::session_bus;
use crate::poll::{Update, Watched};
use crate::run::{Change, Ending, Patience, RunId, RunState, Subject};
use crate::store::{RunStore, SqliteStore, StoredRun};

/// How long deliveries under way are waited for when the daemon is asked to stop. Retries are the next start's.
const DELIVERY: Duration = Duration::from_secs(10);

/// Watches until asked to stop.
pub(super) async fn run(out: &Out, global: &Global) -> Exit {
    daemon(out, global).await.unwrap_or_else(|exit| exit)
}

async fn daemon(out: &Out, global: &Global) -> Result<Exit, Exit> {
    let config = setup::configure(global, None, LevelFilter::INFO, out)?;
    let mut signals = Signals::new().map_err(|error| setup::internal(out, &error))?;
    let client = Arc::new(ApiClient::new(&app::api_settings(&config)).map_err(setup::refuse)?);
    let channels: Result<Vec<_>, _> = config.channels.iter().map(app::channel).collect();
    let channels = channels.map_err(setup::refuse)?;
    let store = Arc::new(open_store(&config)?);
    let known = store.load().await.map_err(setup::refuse)?;
    let patience = Patience { grace: config.poll.grace, unknown_after: None, refused_ends: false };
    let plan = Plan {
        settings: app::poll_settings(&config, app::routes(&config.channels, []), patience, false),
        runs: watched(&config, known),
        channels,
    };
    announce(&config);
    let mut running = app::start(plan, client, store);
    let signal = loop {
        tokio::select! {
            update = running.updates.recv() => match update {
                Some(update) => log(&update),
                // The scheduler is gone: `stop` finds out why.
                None => break Exit::Internal,
            },
            signal = signals.next() => break signal,
        }
    };
    info!("stopping");
    let stopped = tokio::select! {
        stopped = running.stop(Duration::ZERO, DELIVERY, CancellationToken::new()) => stopped,
        signal = signals.next() => return Err(signal),
    };
    let ended = stopped.map_err(|error| setup::internal(out, &error))?;
    info!(
        deliveries_pending = ended.undelivered.iter().filter(|left| left.due_at.is_some()).count(),
        "stopped"
    );
    // A daemon that was asked to stop, and did, has done its job.
    Ok(if signal == Exit::Internal { signal } else { Exit::Succeeded })
}

/// The configured runs, each with what is remembered of it.
///
/// Only what the API has called finished stays so. A run that was given up (not found, a key refused, …) is asked about
/// again: whatever was wrong may have been mended, which is what a restart is for.
fn watched(config: &Config, known: Vec<StoredRun>) -> Vec<Watched> {
    let now = clock::wall();
    let mut known: HashMap<RunId, RunState> =
        known.into_iter().map(|run| (run.subject.id, run.state)).collect();
    let watched = |run: &crate::config::ConfiguredRun| {
        let mut state = known.remove(&run.id).unwrap_or_else(|| RunState::new(now));
        if !matches!(state.ended, Some(Ending::Finished(_))) {
            state.ended = None;
        }
        Watched {
            state,
            subject: Subject { id: run.id.clone(), name: run.name.clone() },
            notify: run.notify.as_deref().map(Into::into),
        }
    };
    config.runs.iter().map(watched).collect()
}

fn announce(config: &Config) {
    info!(
        runs = config.runs.len(),
        channels = config.channels.len(),
        api = config.api.base_url.as_str(),
        "watching"
    );
    if config.runs.is_empty() {
        warn!("no run is configured: add a [[run]] table");
    }
    if config.channels.is_empty() {
        warn!("no channel is configured: nobody will be told; add a [[notify.…]] table");
    }
    let desktop = config.channels.iter().any(|channel| matches!(channel.kind, ChannelKind::Desktop));
    if desktop && session_bus().is_none() {
        warn!(
            "a desktop channel is configured, and there is no session bus to show it on; a system service has \
             none: run the daemon as a user service (systemd/user/runwatch.service)"
        );
    }
}

fn open_store(config: &Config) -> Result<SqliteStore, Exit> {
    let dir = state_dir(config).ok_or_else(|| {
        setup::refuse("there is no place to keep the state: set state_dir in the configuration, or HOME")
    })?;
    let refuse = |error: &dyn std::fmt::Display| {
        setup::refuse(format_args!("cannot keep the state in {}: {error}", dir.display()))
    };
    std::fs::create_dir_all(&dir).map_err(|error| refuse(&error))?;
    SqliteStore::open(&dir.join("runwatch.db")).map_err(|error| refuse(&error))
}

/// `state_dir`, else `$STATE_DIRECTORY` (systemd's), else `$XDG_STATE_HOME/runwatch`, else `~/.local/state/runwatch`.
fn state_dir(config: &Config) -> Option<PathBuf> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    config
        .state_dir
        .clone()
        .or_else(|| set("STATE_DIRECTORY"))
        .or_else(|| set("XDG_STATE_HOME").map(|home| home.join("runwatch")))
        .or_else(|| set("HOME").map(|home| home.join(".local/state/runwatch")))
}

fn log(update: &Update) {
    match update {
        Update::Run(run, change) if *change >= Change::Status => {
            let run_id = run.subject.id.as_str();
            let run_name = run.subject.name.as_deref();
            let status = run.state.status.as_ref().map(crate::run::RunStatus::as_str);
            info!(run_id, run_name, status, "{} {}", run.subject.label(), words::standing(run));
        }
        Update::Run(..) => {}
        Update::ApiUp(_) | Update::StoreWell => info!("{}", words::notice(update).unwrap_or_default()),
        Update::StoreFailed(_) => error!("{}", words::notice(update).unwrap_or_default()),
        Update::Doubt { subject, .. } => {
            warn!(run_id = subject.id.as_str(), "{}", words::notice(update).unwrap_or_default());
        }
        Update::ApiDown(..) => warn!("{}", words::notice(update).unwrap_or_default()),
    }
}
