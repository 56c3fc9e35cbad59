//! Watches the runs whose files are in the watched directory.
//!
//! `watch_dir` reads the directory in its own thread. This file handles its results and errors on the runtime. The
//! daemon's loop calls it and is never blocked: a task adds the runs, because the store may be slow.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info, warn};

use super::handle::{Handle, Refusal};
use super::watch_dir::{self, LIST_EVERY, Seen};
use crate::control::{Added, NewRun};
use crate::run::RunId;

/// Time until adding files, or starting the thread, is tried again after a failure.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// How long the start waits for the first listing. Usually, runs with files are watched when the daemon is ready.
const FIRST_LISTING: Duration = Duration::from_secs(2);

/// A directory that was not listed for this long hangs.
const HANGS_AFTER: Duration = LIST_EVERY.saturating_mul(2);

/// The watched directory, if one is configured.
pub(super) struct Spool {
    dir: Option<PathBuf>,
    handle: Arc<Handle>,
    /// Reports from the thread; `None` if it could not be started.
    seen: Option<UnboundedReceiver<Seen>>,
    /// The runs whose files exist; `None` before the first listing.
    present: Option<HashSet<RunId>>,
    /// Runs that are neither watched nor being added.
    to_add: HashSet<RunId>,
    /// The task that is adding runs.
    adding: Option<JoinHandle<Batch>>,
    /// The number of runs added.
    count: usize,
    /// When to start the thread, or to add files, again.
    again_at: Option<Instant>,
    /// When a directory that was not listed meanwhile counts as hanging.
    hangs_at: Instant,
}

/// Runs to add, and the result.
type Batch = (HashSet<RunId>, Result<Added, Refusal>);

/// What to handle next.
pub(super) enum Came {
    /// Adding runs succeeded or failed.
    Added(Result<Batch, JoinError>),
    /// A report from the thread; `None` if the thread has ended.
    Seen(Option<Seen>),
    /// It is time to try again.
    Again,
    /// No report came for too long.
    Hangs,
}

impl Spool {
    /// Starts with the files that exist already, if they can be listed soon.
    pub(super) async fn open(dir: Option<PathBuf>, handle: Arc<Handle>) -> Self {
        let hangs_at = Instant::now() + HANGS_AFTER;
        let mut spool = Self {
            dir,
            handle,
            seen: None,
            present: None,
            to_add: HashSet::new(),
            adding: None,
            count: 0,
            again_at: None,
            hangs_at,
        };
        spool.start();
        // After a timeout, the loop continues the listing.
        let _ = timeout(FIRST_LISTING, async {
            while spool.seen.is_some() && (spool.present.is_none() || spool.adding.is_some()) {
                let came = spool.next().await;
                let is_over =
                    !matches!(came, Came::Added(Ok((_, Ok(_)))) | Came::Seen(Some(Seen::Listed { .. })));
                spool.take(came);
                if is_over {
                    return;
                }
            }
        })
        .await;
        spool
    }

    /// Starts the thread.
    fn start(&mut self) {
        let Some(dir) = &self.dir else { return };
        let (sender, seen) = unbounded_channel();
        match watch_dir::start(dir, sender) {
            Ok(()) => self.seen = Some(seen),
            Err(error) => {
                self.seen = None;
                self.failed(&format!("cannot start a thread: {error}"));
                self.again_at = Some(Instant::now() + AGAIN_AFTER);
            }
        }
    }

    /// Waits until there is something to handle, possibly for ever. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Came {
        let (again_at, hangs_at) = (self.again_at, self.hangs_at);
        let watches = self.seen.is_some();
        let seen = async {
            match &mut self.seen {
                Some(seen) => seen.recv().await,
                None => std::future::pending().await,
            }
        };
        let added = async {
            match &mut self.adding {
                Some(adding) => adding.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            seen = seen => Came::Seen(seen),
            added = added => Came::Added(added),
            () = sleep_until(again_at.unwrap_or(hangs_at)), if again_at.is_some() => Came::Again,
            () = sleep_until(hangs_at), if watches => Came::Hangs,
        }
    }

    /// Handles it. Returns whether anything changed.
    pub(super) fn take(&mut self, came: Came) -> bool {
        let before = (self.handle.is_in_trouble("watch_dir"), self.count);
        self.do_it(came);
        before != (self.handle.is_in_trouble("watch_dir"), self.count)
    }

    fn do_it(&mut self, came: Came) {
        match came {
            Came::Seen(Some(seen)) => {
                self.hangs_at = Instant::now() + HANGS_AFTER;
                self.see(seen);
            }
            Came::Added(batch) => {
                self.adding = None;
                self.added(batch);
            }
            Came::Seen(None) => {
                self.seen = None;
                self.failed("its thread has ended");
                self.again_at = Some(Instant::now() + AGAIN_AFTER);
            }
            Came::Again => {
                self.again_at = None;
                if self.seen.is_none() {
                    self.start();
                }
                self.add();
            }
            Came::Hangs => {
                self.hangs_at = Instant::now() + HANGS_AFTER;
                let after = crate::span::human(HANGS_AFTER);
                self.failed(&format!("no answer for {after}; is its file system mounted?"));
            }
        }
    }

    /// The runs whose files exist, which are still wanted. `None` if that is not known.
    pub(super) fn runs(&self) -> Option<Vec<RunId>> {
        if self.dir.is_none() {
            return Some(Vec::new());
        }
        self.present.as_ref().map(|present| present.iter().cloned().collect())
    }

    fn see(&mut self, seen: Seen) {
        let new = match seen {
            Seen::Failed(why) => return self.failed(&why),
            Seen::Listed { all, new } => {
                self.well();
                self.present = Some(all.into_iter().collect());
                new
            }
            Seen::Came(new) => {
                self.present.get_or_insert_default().extend(new.iter().cloned());
                new
            }
        };
        self.to_add.extend(new);
        self.add();
    }

    /// The directory can be read.
    fn well(&self) {
        let Some(dir) = &self.dir else { return };
        if self.present.is_none() || self.handle.is_in_trouble("watch_dir") {
            info!(dir = %dir.display(), "watching for files");
        }
        self.handle.set_trouble("watch_dir", None);
    }

    /// The directory cannot be read. Logged once.
    fn failed(&self, why: &str) {
        let Some(dir) = &self.dir else { return };
        if !self.handle.is_in_trouble("watch_dir") {
            error!("cannot watch the directory {}: {why}; still trying", dir.display());
        }
        self.handle
            .set_trouble("watch_dir", Some(format!("cannot watch the directory {}: {why}", dir.display())));
    }

    /// Starts to add the runs that are not watched yet, one batch at a time.
    fn add(&mut self) {
        if self.to_add.is_empty() || self.adding.is_some() {
            return;
        }
        let (batch, handle) = (std::mem::take(&mut self.to_add), Arc::clone(&self.handle));
        self.adding = Some(tokio::spawn(async move {
            let added = handle.add(batch.iter().cloned().map(NewRun::of).collect()).await;
            (batch, added)
        }));
    }

    fn added(&mut self, batch: Result<Batch, JoinError>) {
        let refusal = match batch {
            Ok((batch, Ok(added))) => {
                self.count += batch.len();
                for run in added.runs.iter().filter(|run| run.finished.is_none()) {
                    info!(run_id = run.id.as_str(), "added to the watch list by a file");
                }
                return self.add();
            }
            Ok((batch, Err(refusal))) => {
                self.to_add.extend(batch);
                refusal.to_string()
            }
            Err(panic) => {
                // Adds all present files again, because adding a run twice has no effect.
                self.to_add.extend(self.present.iter().flatten().cloned());
                panic.to_string()
            }
        };
        let again = crate::span::human(AGAIN_AFTER);
        warn!("cannot add runs from the watched directory, retrying in {again}: {refusal}");
        self.again_at = Some(Instant::now() + AGAIN_AFTER);
    }
}
