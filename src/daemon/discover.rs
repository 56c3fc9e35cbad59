//! Looking for runs that nobody named: which of those in the API's list are to be watched.
//!
//! The scheduler reads the list and hands over what is `wanted` here. A run that goes on is watched. One that has ended when it
//! is first seen is told of if it was created since the list was last read, so that it came and went in between, or if it
//! ended since the moment that the configuration names; all others are past.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tracing::{error, info, warn};

use super::Daemon;
use crate::api::Listed;
use crate::clock;
use crate::config::{self, Config, Since};
use crate::poll::{Discovery, Found};
use crate::run::{Run, RunId};
use crate::store::{Commit, RunStore as _, SqliteStore, StoreError};

/// The moment, in the store, at which the newest run was created that a list ever had.
const NEWEST: &str = "newest run";

/// More finds at once are not told one by one.
const TOLD_ONE_BY_ONE: usize = 20;

/// How far the clocks here and there may be apart for a run that was forgotten not to be taken for a new one.
const SKEW: Duration = Duration::from_hours(1);

/// When the newest run of the last list was created; `None` before the first list. Shared by whoever reads lists and whoever
/// writes down what they had.
#[derive(Debug, Clone, Default)]
pub(super) struct Newest(Arc<Mutex<Option<Timestamp>>>);

impl Newest {
    /// What the store remembers. Without discovery that is of no use any more: when it is turned on again, what came and went
    /// meanwhile is past.
    pub(super) async fn load(config: &Config, store: &SqliteStore) -> Result<Self, StoreError> {
        let newest = Self::default();
        if config.discover.is_some() {
            newest.set(store.moment(NEWEST).await?);
        } else {
            newest.remember(None, store).await?;
        }
        Ok(newest)
    }

    /// Has the store remember it.
    pub(super) async fn remember(
        &self,
        at: Option<Timestamp>,
        store: &SqliteStore,
    ) -> Result<(), StoreError> {
        store.commit(Commit { moment: Some((NEWEST, at)), ..Commit::default() }).await?;
        self.set(at);
        Ok(())
    }

    pub(super) fn get(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: Option<Timestamp>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// What the scheduler is to look for, if anything.
pub(super) fn discovery(config: &Config, newest: &Newest) -> Option<Discovery> {
    let discover = config.discover.clone()?;
    let (newest, keep) = (newest.clone(), config.daemon.keep);
    Some(Discovery {
        every: discover.interval,
        wanted: Arc::new(move |listed: &mut Listed| {
            let now = clock::wall();
            discover.matches(&listed.run, now)
                && (listed.run.status.terminal().is_none()
                    || is_news(&listed.run, newest.get(), told_since(discover.announce_past, keep, now)))
        }),
    })
}

/// Whether a run that has ended is to be told of.
fn is_news(run: &Run, newest: Option<Timestamp>, told_since: Option<Timestamp>) -> bool {
    let came_and_went = run.created_at > newest && newest.is_some();
    // One that was created since has ended since, whether the API says when or not.
    let ended = run.completed_at.or(run.created_at);
    came_and_went || told_since.is_some_and(|since| ended.is_some_and(|ended| ended >= since))
}

/// Since when what has ended is told of; never so far back that it may have been forgotten that it was.
fn told_since(announce_past: Option<Since>, keep: Duration, now: Timestamp) -> Option<Timestamp> {
    let remembered = Since::Ago(keep.saturating_sub(SKEW.min(keep / 2))).before(now);
    announce_past.map(|since| since.before(now).max(remembered))
}

impl Daemon {
    /// Has watched what was found.
    pub(super) fn found(&self, found: &Found) {
        if self.handle.is_in_trouble("discover") {
            info!("new runs can be found again");
            self.handle.set_trouble("discover", None);
        }
        let Found { runs, newest } = found.clone();
        let known = self.newest.get();
        // A list without runs is one too: whatever is created after it is new. A clock that is far ahead hides nothing for long.
        let (now, apart) = (clock::wall(), |at: Timestamp| at.checked_add(SKEW).unwrap_or(at));
        let newest = newest.map(|at| at.min(apart(now))).max(known).or_else(|| now.checked_sub(SKEW).ok());
        let Some(config::Discover { notify, .. }) = &self.config.discover else { return };
        if runs.is_empty() && newest == known {
            return;
        }
        let notify = notify.as_deref().map(Into::into);
        let (handle, remembered) = (Arc::clone(&self.handle), self.newest.clone());
        tokio::spawn(async move {
            let ids: Vec<RunId> = runs.iter().map(|listed| listed.id.clone()).collect();
            let added = match handle.watch_found(ids, notify).await {
                Ok(added) => added,
                // The next look finds them again.
                Err(refusal) => return error!("cannot watch what was found: {refusal:?}"),
            };
            if added.len() > TOLD_ONE_BY_ONE {
                info!(runs = added.len(), "found");
            } else {
                for Listed { id, run } in runs.iter().filter(|listed| added.contains(&listed.id)) {
                    let details = run.details.as_deref();
                    let spec = details.and_then(|details| details.spec_name.as_deref());
                    let by = details.and_then(|details| details.created_by_email.as_deref());
                    info!(run_id = id.as_str(), spec, by, "found");
                }
            }
            if newest != known
                && let Err(error) = remembered.remember(newest, &handle.parts_now().store).await
            {
                warn!("cannot remember which runs were there: {error}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Progress, RunStatus};

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

    #[test]
    fn what_came_and_went_between_two_lists_is_news() {
        assert!(!is_news(&ended(Some(50), Some(60)), None, None), "before the first list all is past");
        assert!(is_news(&ended(Some(50), Some(60)), Some(at(49)), None));
        assert!(!is_news(&ended(Some(50), Some(60)), Some(at(50)), None), "it was in that list");
        assert!(!is_news(&ended(None, None), Some(at(0)), None));
    }

    #[test]
    fn the_past_is_news_since_when_it_is_asked_for() {
        let since = Some(at(60));
        assert!(is_news(&ended(Some(50), Some(60)), None, since));
        assert!(!is_news(&ended(Some(50), Some(59)), None, since));
        assert!(is_news(&ended(Some(60), None), None, since));
        assert!(!is_news(&ended(Some(59), None), None, since));
    }

    #[test]
    fn nothing_is_told_that_may_have_been_told_and_forgotten() {
        let (day, now) = (Duration::from_hours(24), at(10 * 86_400));
        assert_eq!(told_since(None, day, now), None);
        assert_eq!(told_since(Some(Since::Ago(day / 2)), day, now), Some(now - day / 2));
        assert_eq!(told_since(Some(Since::At(at(0))), day, now), Some(now - Duration::from_hours(23)));
        let short = Duration::from_secs(10);
        assert_eq!(told_since(Some(Since::At(at(0))), short, now), Some(now - short / 2));
    }
}
