//! What the API says to everybody who uses the key: how many requests there may be, and whether it throttles, refuses the key or
//! does not answer. Pure.
//!
//! Owns the request budget and what holds it back. What is to be told comes back as [`Notice`]s.

use std::time::Duration;

use tokio::time::Instant;

use super::limiter::Limiter;
use super::outage::{Notice, Outages};
use super::settings::Settings;
use super::throttle::Throttle;
use crate::api::{PollError, PollErrorKind};
use crate::run::{DoubtKind, Moment};

/// The account that the key belongs to.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) limiter: Limiter,
    pub(super) outages: Outages,
    throttle: Throttle,
}

/// What follows from an error for the others.
#[derive(Debug, Default)]
pub(super) struct Fallout {
    pub(super) notices: Vec<Notice>,
    /// Whether the API wants no more requests, whoever they are from.
    pub(super) holds_all: bool,
}

impl Account {
    pub(super) fn new(requests_per_minute: u32, now: Instant) -> Self {
        Self {
            limiter: Limiter::new(requests_per_minute, now),
            outages: Outages::default(),
            throttle: Throttle::default(),
        }
    }

    /// An asker was answered to the point, or is there no more: it is not held back.
    pub(super) fn release(&mut self, asker: u32) {
        self.throttle.answered(asker);
    }

    /// How many polls may be in flight. A key that is refused is tried with one at a time.
    pub(super) fn room(&self, settings: &Settings) -> usize {
        let trying = self.outages.is_key_refused() && !settings.patience.refused_ends;
        if trying { 1 } else { settings.max_in_flight }
    }

    /// What an error says of the API and of the key, whoever asked; `pause` is how long the asker waits, and `active` runs are watched.
    pub(super) fn failed(
        &mut self,
        asker: u32,
        active: usize,
        error: &PollError,
        pause: Duration,
        settings: &Settings,
        now: Moment,
    ) -> Fallout {
        let notices = self.outages.failed(asker, active, error, &settings.alerts, now);
        let mut fallout = Fallout { notices, holds_all: false };
        match error.kind {
            PollErrorKind::Doubt(DoubtKind::KeyRefused) if !settings.patience.refused_ends => {
                if let Some(since) = self.outages.refused_since() {
                    // The key is every run's: ever more seldom, and one at a time.
                    let refused = now.mono - since.mono;
                    self.limiter.hold(now.mono + pause.max(refused.min(settings.policy.error.max)));
                }
            }
            PollErrorKind::Throttled => fallout.holds_all = self.throttled(asker, now.mono + pause, now.mono),
            _ => self.release(asker),
        }
        fallout
    }

    /// A request was refused for being one too many: the asker waits, and all do if it is not alone with that. Gives whether
    /// they do.
    pub(super) fn throttled(&mut self, asker: u32, until: Instant, now: Instant) -> bool {
        let all = self.throttle.refused(asker, until, now);
        all.inspect(|until| self.limiter.hold(*until)).is_some()
    }
}
