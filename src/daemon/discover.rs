//! Discovery: which runs of the API's list to watch although nobody named them.
//!
//! The scheduler reads the list and returns the runs that are `wanted` here. Active runs are watched. A finished run
//! that was not seen before is notified in two cases. It was created after the last list, so it came and went in
//! between; or it ended after the time that the configuration gives. Other finished runs are ignored.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tracing::{error, info};

use super::Daemon;
use super::handle::{Handle, Refusal};
use crate::api::Listed;
use crate::clock;
use crate::config::{Config, Since};
use crate::poll::{Discovery, Found};
use crate::run::{Run, RunId, Subject};
use crate::store::{
    ChannelName, Commit, Kept, MomentName, Origin, RunStore as _, SqliteStore, StoreError, Watched,
};

/// Maximum number of separate log lines for runs discovered at once.
const TOLD_ONE_BY_ONE: usize = 20;

/// Maximum difference between the clocks here and at the API. Prevents a forgotten run from counting as new, and a
/// wrong creation time in the future from counting.
const SKEW: Duration = Duration::from_hours(1);

/// Maximum delay with which a run appears in the list after runs that were created later.
const OVERLAP: Duration = Duration::from_mins(1);

/// Prefix of the store's key for the cursor; the API's address follows.
pub(super) const SEEN_AT: &str = "runs seen at";

/// The discovery cursor of an account, so that runs that come and go between two lists are notified. Shared between
/// readers of lists and writers of their results.
#[derive(Debug, Clone)]
pub(super) struct Seen(Arc<Account>);

#[derive(Debug)]
struct Account {
    /// The cursor's key in the store.
    name: MomentName,
    /// Number of the configuration, counted up by reloads.
    generation: u64,
    known: Mutex<Known>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Runs created since then were in no earlier list; `None` before the first list.
    since: Option<Timestamp>,
    /// Whether a list was recorded since the start or the last reload.
    has_listed: bool,
    /// Whether another configuration is in use. Then results of lists from this one are ignored.
    retired: bool,
}

impl Seen {
    /// Loads the cursor of the configured API from the store.
    pub(super) async fn load(
        config: &Config,
        store: &SqliteStore,
        generation: u64,
    ) -> Result<Self, StoreError> {
        let name = MomentName::from(format!("{SEEN_AT} {}", config.api.base_url));
        let since = if config.discover.is_some() { store.moment(name.clone()).await? } else { None };
        let known = Mutex::new(Known { since, ..Known::default() });
        Ok(Self(Arc::new(Account { name, generation, known })))
    }

    /// The cursor under a new configuration. Retires this one.
    pub(super) async fn after(&self, config: &Config, store: &SqliteStore) -> Result<Self, StoreError> {
        Self::load(config, store, self.0.generation + 1).await
    }

    /// Another configuration is in use from now on.
    pub(super) fn retire(&self) {
        self.change(|known| known.retired = true);
    }

    /// Copies the cursor to a new store, which does not know the finished runs that were notified already.
    pub(super) async fn carry_over(&self, store: &SqliteStore) -> Result<(), StoreError> {
        let since = self.known().since.map(|since| since.checked_add(OVERLAP).unwrap_or(since));
        self.write(since, store).await
    }

    /// What a purge must keep, so that nothing is notified again.
    pub(super) fn kept(&self, runs: Vec<RunId>) -> Kept {
        let Known { since, has_listed, .. } = self.known();
        Kept { runs, created_after: since, removed: !has_listed }
    }

    /// Records the cursor after a list. It never goes back, because later runs may have been notified already.
    async fn remember(&self, since: Option<Timestamp>, store: &SqliteStore) -> Result<(), StoreError> {
        if since > self.known().since {
            self.write(since, store).await?;
        }
        self.change(|known| known.has_listed = true);
        Ok(())
    }

    async fn write(&self, since: Option<Timestamp>, store: &SqliteStore) -> Result<(), StoreError> {
        let moment = Some((self.0.name.clone(), since));
        store.commit(Commit { moment, ..Commit::default() }).await?;
        self.change(|known| known.since = since);
        Ok(())
    }

    fn known(&self) -> Known {
        *self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.known.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Known {
    /// The new cursor after a list whose newest run was created at `newest`.
    fn since_after(self, newest: Option<Timestamp>, keep: Duration, now: Timestamp) -> Option<Timestamp> {
        // A run with a creation time in the future must not hide others. In the first list, the API's clock may be
        // ahead, and then all runs are old.
        let is_first = self.since.is_none();
        let newest = newest.map(|at| if is_first && !is_to_come(at, now) { at } else { at.min(now) });
        match self.since {
            // After an empty list, every run that is created later is new.
            None => newest.or_else(|| now.checked_sub(SKEW).ok()),
            Some(since) => {
                let late = newest.and_then(|at| at.checked_sub(OVERLAP.min(keep / 2)).ok());
                Some(late.map_or(since, |late| late.max(since)))
            }
        }
    }

    /// Whether to notify a finished run. `told_since` applies to the first list only: later, past runs are known.
    fn is_news(self, run: &Run, told_since: Option<Timestamp>, now: Timestamp) -> bool {
        let new = |since| run.created_at.is_some_and(|at| at > since && !is_to_come(at, now));
        // A run that was created after the cursor also ended after it, even if the API gives no end.
        let ended = run.completed_at.or(run.created_at);
        let told = told_since.filter(|_| !self.has_listed);
        self.since.is_some_and(new) || told.is_some_and(|since| ended.is_some_and(|ended| ended >= since))
    }
}

fn is_to_come(at: Timestamp, now: Timestamp) -> bool {
    now.checked_add(SKEW).is_ok_and(|later| at > later)
}

/// What the scheduler should discover, if anything.
pub(super) fn discovery(config: &Config, seen: &Seen) -> Option<Discovery> {
    let discover = config.discover.clone()?;
    let (keep, generation) = (config.daemon.keep, seen.0.generation);
    let seen = seen.clone();
    Some(Discovery {
        every: discover.interval,
        generation,
        wanted: Arc::new(move |listed: &mut Listed| {
            let now = clock::wall();
            let told_since = told_since(discover.announce_past, keep, now);
            discover.matches(&listed.run, now)
                && (listed.run.status.terminal().is_none()
                    || seen.known().is_news(&listed.run, told_since, now))
        }),
    })
}

/// Since when finished runs are notified. Limited by `keep`, because older ones may have been notified and forgotten.
fn told_since(announce_past: Option<Since>, keep: Duration, now: Timestamp) -> Option<Timestamp> {
    announce_past.map(|since| since.before(now).max(told_from(keep, now)))
}

/// Runs that ended before this are never notified.
pub(super) fn told_from(keep: Duration, now: Timestamp) -> Timestamp {
    Since::Ago(keep.saturating_sub(SKEW.min(keep / 2))).before(now)
}

impl Daemon {
    /// Watches the discovered runs.
    pub(super) fn found(&mut self, found: Found) {
        if self.handle.is_in_trouble("discover") {
            info!("new runs can be discovered again");
            self.handle.set_trouble("discover", None);
            self.soon();
        }
        let Found { runs, newest, generation } = found;
        let Some(discover) = &self.config.discover else { return };
        if generation != self.seen.0.generation {
            // A result for the previous configuration.
            return;
        }
        if self.finding.as_ref().is_some_and(|finding| !finding.is_finished()) {
            // The store is slow. The next list contains these runs again.
            return;
        }
        let (known, now) = (self.seen.known(), clock::wall());
        let since = known.since_after(newest, self.config.daemon.keep, now);
        if runs.is_empty() && known.has_listed && since == known.since {
            return;
        }
        let notify = discover.notify.as_deref().map(Into::into);
        let (handle, seen) = (Arc::clone(&self.handle), self.seen.clone());
        self.finding = Some(tokio::spawn(async move {
            // After an error, the next list finds these runs again.
            if let Err(refusal) = handle.watch_found(&runs, notify, &seen, since).await {
                error!("cannot watch what was found: {refusal}");
            }
        }));
    }
}

impl Handle {
    /// Watches discovered runs, then moves the cursor to `since`. Known or removed runs stay as they are.
    async fn watch_found(
        &self,
        runs: &[Listed],
        notify: Option<Arc<[ChannelName]>>,
        seen: &Seen,
        since: Option<Timestamp>,
    ) -> Result<(), Refusal> {
        let _changing = self.changing.lock().await;
        if seen.known().retired {
            return Ok(());
        }
        let parts = self.parts()?;
        let now = clock::wall();
        let ids = runs.iter().map(|listed| listed.id.clone()).collect();
        let unknown = parts.store.unknown(ids, now).await?;
        if !unknown.is_empty() {
            let watched = |id: &RunId| {
                let subject = Subject { id: id.clone(), name: None };
                Watched { notify: notify.clone(), origin: Origin::Found, ..Watched::new(subject, now) }
            };
            parts.watch(unknown.iter().map(watched).collect()).await?;
            log_finds(runs, &unknown);
        }
        seen.remember(since, &parts.store).await?;
        Ok(())
    }
}

fn log_finds(runs: &[Listed], new: &[RunId]) {
    if new.len() > TOLD_ONE_BY_ONE {
        return info!(runs = new.len(), "found");
    }
    for Listed { id, run } in runs.iter().filter(|listed| new.contains(&listed.id)) {
        let details = run.details.as_deref();
        let spec = details.and_then(|details| details.spec_name.as_deref());
        let by = details.and_then(|details| details.created_by_email.as_deref());
        info!(run_id = id.as_str(), spec, by, "found");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse};
    use crate::run::{Progress, RunStatus};

    const DAY: Duration = Duration::from_hours(24);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended(created: Option<i64>, completed: Option<i64>) -> Run {
        Run {
            status: RunStatus::parse(Some("FAILED")),
            progress: Progress::default(),
            created_at: created.map(at),
            completed_at: completed.map(at),
            spec_id: None,
            details: None,
        }
    }

    fn known(since: Option<i64>) -> Known {
        Known { since: since.map(at), ..Known::default() }
    }

    #[test]
    fn what_came_and_went_between_two_lists_is_news() {
        let is_news = |since, created| known(since).is_news(&ended(created, Some(60)), None, at(100));
        assert!(!is_news(None, Some(50)), "before the first list all is past");
        assert!(is_news(Some(49), Some(50)));
        assert!(!is_news(Some(50), Some(50)), "it was in that list");
        assert!(!is_news(Some(0), None));
        assert!(!is_news(Some(0), Some(100 + 2 * 3600)), "a time that is still to come says nothing");
    }

    #[test]
    fn the_past_is_news_since_when_it_is_asked_for_until_somebody_has_looked() {
        let since = Some(at(60));
        for (created, completed, news) in [
            (Some(50), Some(60), true),
            (Some(50), Some(59), false),
            (Some(60), None, true),
            (Some(59), None, false),
        ] {
            let run = ended(created, completed);
            assert_eq!(known(None).is_news(&run, since, at(100)), news, "{run:?}");
            assert!(!Known { has_listed: true, ..known(None) }.is_news(&run, since, at(100)));
        }
    }

    #[test]
    fn a_run_may_show_up_a_little_late() {
        let after = |since, newest: Option<i64>| known(since).since_after(newest.map(at), DAY, at(1_000_000));
        assert_eq!(after(None, Some(5000)), Some(at(5000)), "all that is in the first list is past");
        assert_eq!(after(Some(5000), Some(5010)), Some(at(5000)));
        assert_eq!(after(Some(5000), Some(5100)), Some(at(5040)));
        assert_eq!(after(Some(5000), None), Some(at(5000)), "whatever becomes of the others");
        assert_eq!(after(None, None), Some(at(1_000_000 - 3600)));
        for to_come in [9_000_000, 1_000_000 + 1800] {
            assert_eq!(after(Some(5000), Some(to_come)), Some(at(1_000_000 - 60)), "a time to come is none");
        }
        assert_eq!(after(None, Some(1_000_000 + 1800)), Some(at(1_000_000 + 1800)), "their clock is ahead");
        assert_eq!(after(Some(1_000_000 + 1800), Some(1_000_000 + 1900)), Some(at(1_000_000 + 1800)));
    }

    #[tokio::test]
    async fn what_was_seen_never_goes_back_and_a_store_in_the_others_place_has_it() {
        let parsed =
            parse(Some((std::path::Path::new("c"), "[discover]\n")), &|_| None, &Overrides::default());
        let config = parsed.unwrap().config;
        let (store, other) = (SqliteStore::in_memory().unwrap(), SqliteStore::in_memory().unwrap());
        let seen = Seen::load(&config, &store, 0).await.unwrap();
        seen.carry_over(&other).await.unwrap();
        assert!(!seen.known().has_listed, "nobody has listed yet");
        seen.remember(Some(at(5000)), &store).await.unwrap();
        seen.carry_over(&other).await.unwrap();
        // A list that was read earlier.
        seen.remember(Some(at(5010)), &other).await.unwrap();
        let again = seen.after(&config, &other).await.unwrap().known();
        assert_eq!((again.since, again.has_listed, seen.known().has_listed), (Some(at(5060)), false, true));
    }

    #[test]
    fn nothing_is_told_that_may_have_been_told_and_forgotten() {
        let now = at(10 * 86_400);
        assert_eq!(told_since(None, DAY, now), None);
        assert_eq!(told_since(Some(Since::Ago(DAY / 2)), DAY, now), Some(now - DAY / 2));
        assert_eq!(told_since(Some(Since::At(at(0))), DAY, now), Some(now - Duration::from_hours(23)));
        let short = Duration::from_secs(10);
        assert_eq!(told_since(Some(Since::At(at(0))), short, now), Some(now - short / 2));
    }
}
