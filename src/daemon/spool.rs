//! Has the runs watched whose files are in the watched directory, for as long as that can be read.
//!
//! `watch_dir` is the directory itself; this owns what becomes of its files, and of trouble with it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::handle::Handle;
use super::watch_dir::WatchDir;
use crate::control::NewRun;
use crate::run::RunId;

/// How long after something in the directory could not be added it is looked through again.
const RESCAN_AFTER: Duration = Duration::from_secs(30);

/// The watched directory, if there is to be one.
pub(super) struct Spool {
    dir: Option<PathBuf>,
    handle: Arc<Handle>,
    watch: Option<WatchDir>,
    /// When it is to be looked through again, because it could not be, or something in it could not be added.
    rescan_at: Option<Instant>,
}

/// What there is to do.
pub(super) enum Came {
    /// Files, or the end of the directory.
    Files(io::Result<Vec<RunId>>),
    /// The time to look through it again.
    Rescan,
}

impl Spool {
    /// Begins with the files that are there already.
    pub(super) async fn open(dir: Option<PathBuf>, handle: Arc<Handle>) -> Self {
        let mut spool = Self { dir, handle, watch: None, rescan_at: None };
        spool.scan().await;
        spool
    }

    /// Waits until there is something to do, for ever if there never is. Nothing is lost if it is broken off.
    pub(super) async fn next(&mut self) -> Came {
        let rescan_at = self.rescan_at;
        let files = async {
            match &mut self.watch {
                Some(watch) => watch.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            files = files => Came::Files(files),
            () = sleep_until(rescan_at.unwrap_or_else(Instant::now)), if rescan_at.is_some() => Came::Rescan,
        }
    }

    /// Does it.
    pub(super) async fn take(&mut self, came: Came) {
        match came {
            Came::Files(Ok(runs)) => self.add(runs).await,
            Came::Files(Err(error)) => {
                warn!("the watched directory cannot be watched any more: {error}");
                self.scan().await;
            }
            Came::Rescan => self.scan().await,
        }
    }

    /// The runs whose files are there now: they are still wanted.
    pub(super) fn runs(&self) -> Vec<RunId> {
        self.watch.as_ref().and_then(|watch| watch.scan().ok()).unwrap_or_default()
    }

    async fn scan(&mut self) {
        (self.watch, self.rescan_at) = (None, None);
        let Some(dir) = &self.dir else { return };
        match WatchDir::new(dir).and_then(|watch| watch.scan().map(|runs| (watch, runs))) {
            Ok((watch, runs)) => {
                info!(dir = %dir.display(), "watching for files");
                self.handle.set_trouble("watch_dir", None);
                self.watch = Some(watch);
                self.add(runs).await;
            }
            Err(error) => {
                let trouble = format!("cannot watch the directory {}: {error}", dir.display());
                error!("{trouble}");
                self.handle.set_trouble("watch_dir", Some(trouble));
                self.rescan_at = Some(Instant::now() + RESCAN_AFTER);
            }
        }
    }

    async fn add(&mut self, runs: Vec<RunId>) {
        if runs.is_empty() {
            return;
        }
        match self.handle.add(runs.into_iter().map(NewRun::of).collect()).await {
            Ok(added) => {
                for run in added.runs.iter().filter(|run| run.finished.is_none()) {
                    info!(run_id = run.id.as_str(), "watched for a file");
                }
            }
            Err(refusal) => {
                let again = crate::span::human(RESCAN_AFTER);
                error!("cannot add what the watched directory has, trying again in {again}: {refusal:?}");
                self.rescan_at = Some(Instant::now() + RESCAN_AFTER);
            }
        }
    }
}
