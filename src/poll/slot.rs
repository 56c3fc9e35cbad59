//! One watched run: what is known of it, and where it is on its way round.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::outlook::Outlook;
use super::prior::Prior;
use super::schedule::{Pace, Policy};
use super::update::{RunView, Trouble};
use crate::run::Moment;
use crate::store::Watched;

/// Where a run is on its way round: waiting, asked about by itself or by the list, recorded, and waiting again until it ends.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// It waits for its turn.
    Waiting {
        /// When that comes.
        due: Instant,
    },
    /// A poll of it is in flight.
    Polling {
        /// The poll.
        task: AbortHandle,
    },
    /// The list of runs is being fetched in its place.
    Listing,
    /// An answer about it is being judged and recorded: nothing older may be asked or believed meanwhile.
    Recording,
    /// The watch of it is over.
    Ended,
}

/// One watched run.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) watched: Watched,
    pub(super) pace: Pace,
    pub(super) outlook: Outlook,
    pub(super) polls: u32,
    pub(super) trouble: Option<Trouble>,
    pub(super) body: Option<Bytes>,
    /// The API asked not to be asked about this run before.
    pub(super) not_before: Option<Instant>,
    /// Nothing of it is recorded before then without a poll, as the store failed.
    pub(super) quiet_until: Option<Instant>,
    /// Where it is on its way round.
    pub(super) stage: Stage,
    /// An answer about it came while a list was being asked for: that is older.
    pub(super) answered_meanwhile: bool,
    /// The last list that was asked in its place did not have it: it is asked about by itself until then.
    pub(super) unlisted_until: Option<Instant>,
    /// To be asked about by itself next, before others, until it is answered: a list says that it has ended, or does not have it.
    pub(super) confirm: bool,
    /// Its last request hung: such runs get their share of the requests in flight, and no more.
    pub(super) slow: bool,
    /// When the poll under way was sent, or the last one.
    pub(super) sent_at: Instant,
    /// When it was last seen, by a poll or by a list; before that, when it was added.
    pub(super) seen_at: Instant,
    /// To be taken out as soon as what is being recorded of it has been.
    pub(super) leaving: Vec<oneshot::Sender<()>>,
}

impl Slot {
    /// A run that nobody has polled yet. It is due, or has ended, as soon as it is put in the order.
    pub(super) fn new(watched: Watched, policy: &Policy, now: Instant) -> Self {
        let active = watched.state.ended.is_none();
        Self {
            watched,
            pace: Pace::new(policy),
            outlook: Outlook::default(),
            polls: 0,
            trouble: None,
            body: None,
            not_before: None,
            quiet_until: None,
            stage: if active { Stage::Recording } else { Stage::Ended },
            answered_meanwhile: false,
            unlisted_until: None,
            confirm: false,
            slow: false,
            sent_at: now,
            seen_at: now,
            leaving: Vec::new(),
        }
    }

    pub(super) fn view(&self, prior: Option<&Prior>, now: Moment) -> RunView {
        let state = &self.watched.state;
        RunView {
            subject: self.watched.subject.clone(),
            per_second: self.outlook.per_second(),
            expected_end: self
                .outlook
                .remaining(state, prior, now)
                .and_then(|rest| now.mono.checked_add(rest.expected()?)),
            state: state.clone(),
            trouble: self.trouble.clone(),
            polls: self.polls,
        }
    }

    /// Whether a list may tell of it then. Not where the API asked for a pause (`Retry-After`): it might be asked about too soon.
    pub(super) fn can_be_listed(&self, then: Instant) -> bool {
        !self.confirm
            && self.not_before.is_none_or(|at| at <= then)
            && self.unlisted_until.is_none_or(|at| at <= then)
    }

    /// When it is due, if it waits for its turn.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waiting { due } => Some(due),
            _ => None,
        }
    }

    /// Logs when it is polled next, and why then.
    pub(super) fn log_next_poll(&self, why: &str, wait: Duration) {
        let run_id = self.watched.subject.id.as_str();
        tracing::debug!(run_id, why, "next poll in {}", crate::span::human(wait));
    }

    pub(super) fn is_active(&self) -> bool {
        self.watched.state.ended.is_none()
    }
}
