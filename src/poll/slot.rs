//! One watched run: its state, and its stage between two polls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::outlook::Outlook;
use super::prior::Prior;
use super::schedule::{Pace, Policy};
use super::update::{RunView, Trouble};
use crate::run::Moment;
use crate::store::Watched;

/// The stages of a run: it waits, is polled or listed, is recorded, and waits again until it ends.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// Waiting for its next poll.
    Waiting {
        /// When the poll is due.
        due: Instant,
    },
    /// A poll is in flight.
    Polling {
        /// The task of the poll.
        task: AbortHandle,
    },
    /// A list is being fetched instead of a poll.
    Listing,
    /// An answer is being recorded. Older answers must not be requested or believed meanwhile.
    Recording,
    /// The watch of this run is over.
    Ended,
}

/// Why the next poll must confirm what a list said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Confirm {
    /// It need not.
    #[default]
    Nothing,
    /// The list lacks the run, its number of samples, or a status that is known.
    Details,
    /// The list says that the run has ended.
    End,
    /// The list says that the run has ended, but the API itself answered a poll otherwise. The poll's own backoff
    /// decides when to try again.
    Disputed,
}

impl Confirm {
    /// Whether the poll goes before those of other runs. No list may then answer for the run.
    pub(super) fn goes_first(self) -> bool {
        matches!(self, Self::Details | Self::End)
    }
}

/// One watched run.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) watched: Watched,
    pub(super) pace: Pace,
    pub(super) outlook: Outlook,
    pub(super) polls: u32,
    /// Boxed, as what follows, because few runs have one.
    pub(super) trouble: Option<Box<Trouble>>,
    pub(super) body: Option<Box<Bytes>>,
    /// The name of its spec, if the settings say to keep it.
    pub(super) spec_name: Option<Arc<str>>,
    /// The API does not accept a poll of this run before this (`Retry-After`).
    pub(super) not_before: Option<Instant>,
    /// Nothing is recorded for this run before this unless a poll brings it, because the store failed.
    pub(super) quiet_until: Option<Instant>,
    /// The current stage.
    pub(super) stage: Stage,
    /// Whether a poll was answered while a list was being fetched. The list is older than that answer.
    pub(super) answered_meanwhile: bool,
    /// The last list did not contain this run, so it is polled one by one until this.
    pub(super) unlisted_until: Option<Instant>,
    /// What the next poll must confirm of what a list said.
    pub(super) confirm: Confirm,
    /// Whether its last request was slow. Slow runs get only their share of the requests in flight.
    pub(super) slow: bool,
    /// How long its last poll took to be answered; zero if it was not.
    pub(super) answered_in: Duration,
    /// When the last poll was sent.
    pub(super) sent_at: Instant,
    /// When a poll or a list last answered; before that, when the run was added.
    pub(super) seen_at: Instant,
}

impl Slot {
    /// A run without any poll so far. It is due, or ended, as soon as it is in the queue.
    pub(super) fn new(watched: Watched, policy: &Policy, now: Instant) -> Self {
        let active = watched.state.ended.is_none();
        Self {
            watched,
            pace: Pace::new(policy),
            outlook: Outlook::default(),
            polls: 0,
            trouble: None,
            body: None,
            spec_name: None,
            not_before: None,
            quiet_until: None,
            stage: if active { Stage::Recording } else { Stage::Ended },
            answered_meanwhile: false,
            unlisted_until: None,
            confirm: Confirm::default(),
            slow: false,
            answered_in: Duration::ZERO,
            sent_at: now,
            seen_at: now,
        }
    }

    pub(super) fn view(&self, prior: Option<&Prior>, now: Moment) -> RunView {
        let state = &self.watched.state;
        RunView {
            subject: self.watched.subject.clone(),
            spec_name: self.spec_name.clone(),
            per_second: self.outlook.per_second(),
            expected_end: self
                .outlook
                .remaining(state, prior, now)
                .and_then(|rest| now.mono.checked_add(rest.expected()?)),
            state: state.clone(),
            trouble: self.trouble.as_deref().cloned(),
            polls: self.polls,
        }
    }

    /// Whether a list may answer for this run at `then`. Not during a pause from the API (`Retry-After`), since the
    /// list could be too early.
    pub(super) fn can_be_listed(&self, then: Instant) -> bool {
        !self.confirm.goes_first()
            && self.not_before.is_none_or(|at| at <= then)
            && self.unlisted_until.is_none_or(|at| at <= then)
    }

    /// When its next poll is due, if it is waiting.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waiting { due } => Some(due),
            _ => None,
        }
    }

    /// Logs when the next poll is, and why.
    pub(super) fn log_next_poll(&self, why: &str, wait: Duration) {
        let run_id = self.watched.subject.id.as_str();
        tracing::debug!(run_id, why, "next poll in {}", crate::span::human(wait));
    }

    pub(super) fn is_active(&self) -> bool {
        self.watched.state.ended.is_none()
    }
}
