//! `runwatch daemon`: watches in the background. Owns the signals and exit codes; `crate::daemon` is the daemon itself.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::daemon_status::DaemonStatusArgs;
use super::exit::Exit;
use super::flags::Global;
use super::out::Out;
use super::setup::{self, environment, path_variable};
use super::signals::{SAME_SIGNAL, Signals};
use crate::config::{self, Config, Loaded, Severity};
use crate::control;
use crate::daemon::{self, DaemonError, Order, Reread, Setup};

/// `runwatch daemon`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DaemonArgs {
    #[command(subcommand)]
    pub(super) verb: Option<DaemonVerb>,

    /// Watch the runs whose ids are the names of files in this directory, and of files that come
    #[arg(long, value_name = "DIR")]
    pub(super) watch_dir: Option<PathBuf>,
}

/// `runwatch daemon …`.
#[derive(Debug, Clone, Subcommand)]
pub enum DaemonVerb {
    /// Show the daemon's version, API, runs, deliveries and problems
    Status(DaemonStatusArgs),
}

/// Watches until asked to stop.
pub(super) async fn run(out: &Out, global: &Global, args: &DaemonArgs) -> Exit {
    daemon(out, global, args).await.unwrap_or_else(|exit| exit)
}

async fn daemon(out: &Out, global: &Global, args: &DaemonArgs) -> Result<Exit, Exit> {
    // Its report has the whole text of the file, which is not needed any more.
    let Loaded { config, path, .. } = setup::configure_service(global, out)?;
    let config = with_flags(config, args);
    let mut signals = Signals::new().map_err(|error| setup::internal(out, &error))?;
    let mut hangups = signal(SignalKind::hangup()).map_err(|error| setup::internal(out, &error))?;
    let state_dir = daemon::directory(config.state_dir.as_deref(), &path_variable).ok_or_else(|| {
        refuse(out, "there is no place to keep the state: set state_dir in the configuration, or HOME")
    })?;
    let socket = control::socket(&path_variable, &state_dir);
    let (orders, ordered) = mpsc::channel(16);
    let reread = {
        // A file that has gone must not give way to another, or to none.
        let (file, overrides) = (path.clone(), global.overrides(None));
        let args = args.clone();
        let read = move || reread(file.as_deref(), &overrides).map(|config| with_flags(config, &args));
        Reread { file: path, read: Arc::new(read) }
    };
    let setup = Setup { config, reread, state_dir, socket, orders: (orders.clone(), ordered) };
    let stop = CancellationToken::new();
    let mut stopped_at: Option<Instant> = None;
    let running = daemon::run(setup, stop.clone());
    tokio::pin!(running);
    loop {
        tokio::select! {
            ended = &mut running => return match ended {
                // A daemon that was asked to stop, and did, has done its job.
                Ok(()) => Ok(Exit::Succeeded),
                Err(DaemonError::Config(error)) => Err(refuse(out, error)),
                Err(DaemonError::Busy(error)) => {
                    out.error(error);
                    Err(Exit::Internal)
                }
                Err(DaemonError::Internal(error)) => Err(setup::internal(out, &error)),
            },
            signal = signals.next() => {
                match stopped_at {
                    None => stop.cancel(),
                    // One that comes so soon was meant by whoever sent the first: timeout(1) signals twice.
                    Some(at) if at.elapsed() < SAME_SIGNAL => continue,
                    Some(_) => return Err(signal),
                }
                stopped_at = Some(Instant::now());
            }
            Some(()) = hangups.recv() => {
                let (reply, _) = oneshot::channel();
                // One that is being dealt with reads what is there now, too.
                let _ = orders.try_send(Order::Reload(reply));
            }
        }
    }
}

/// Says what is wrong with the configuration or with what it points to. Ends even if nobody reads standard error.
fn refuse(out: &Out, error: impl std::fmt::Display) -> Exit {
    out.error(error);
    Exit::Config
}

fn with_flags(mut config: Config, args: &DaemonArgs) -> Config {
    config.daemon.watch_dir = args.watch_dir.clone().or(config.daemon.watch_dir);
    config
}

/// Reads the configuration again, from the same file as at the start. The error is what `config check` would show.
fn reread(path: Option<&std::path::Path>, overrides: &config::Overrides) -> Result<Config, String> {
    match config::load_for_service(path, &environment, overrides) {
        Ok(loaded) => {
            let warnings = loaded.report.render_usable(false);
            if !warnings.is_empty() {
                warn!("{warnings}");
            }
            Ok(loaded.config)
        }
        Err(report) => Err(report.render(Severity::Error, false)),
    }
}
