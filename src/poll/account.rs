//! State shared by all runs that use one API key: the request budget, throttling, a refused key and outages. Pure.
//!
//! Owns the budget and every reason to hold requests back. Returns what to report as [`Notice`]s.

use std::time::Duration;

use tokio::time::Instant;

use super::alerts::Alerts;
use super::limiter::Limiter;
use super::outage::{Notice, Outages};
use super::settings::Settings;
use super::slot::Slot;
use super::slots::Slots;
use super::throttle::Throttle;
use crate::api::{PollError, PollErrorKind};
use crate::run::{DoubtKind, Moment};

/// The account that the API key belongs to.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) limiter: Limiter,
    pub(super) outages: Outages,
    throttle: Throttle,
}

/// Effects of one run's error on the other runs.
#[derive(Debug, Default)]
pub(super) struct Fallout {
    pub(super) notices: Vec<Notice>,
    /// Whether the API refuses further requests for all runs.
    pub(super) holds_all: bool,
}

/// What to do while the API accepts no requests.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Overdue runs whose warning is not recorded yet.
    pub(super) overdue: Vec<u32>,
    pub(super) notices: Vec<Notice>,
    /// When to check again if nothing else happens before.
    pub(super) wake_at: Option<Instant>,
}

impl Silence {
    /// Collects the overdue runs among those that are held back. Skips runs that are being polled or recorded.
    fn add<'s>(&mut self, held: impl Iterator<Item = (u32, &'s Slot)>, alerts: &Alerts, now: Moment) {
        for (run, slot) in held.filter(|(_, slot)| slot.due().is_some()) {
            let Some(at) = alerts.tell_overdue_at(slot.watched.deadline, &slot.watched.state) else {
                continue;
            };
            let wait = Duration::try_from(at.duration_since(now.wall)).unwrap_or_default();
            let at = now.mono.checked_add(wait).max(slot.quiet_until);
            if at.is_some_and(|at| at <= now.mono) {
                self.overdue.push(run);
            } else {
                self.wake_at = [self.wake_at, at].into_iter().flatten().min();
            }
        }
    }
}

impl Account {
    pub(super) fn new(requests_per_minute: u32, now: Instant) -> Self {
        Self {
            limiter: Limiter::new(requests_per_minute, now),
            outages: Outages::default(),
            throttle: Throttle::default(),
        }
    }

    /// Stops holding an asker back, because the API answered it or because it is gone.
    pub(super) fn release(&mut self, asker: u32) {
        self.throttle.answered(asker);
    }

    /// Warnings that became due while no request is sent: overdue runs and the outage, and when to check again.
    /// Deadlines pass even when nothing is polled.
    pub(super) fn silence(&mut self, slots: &Slots, alerts: &Alerts, now: Moment) -> Silence {
        let mut silence = Silence::default();
        if self.throttle.is_silent(slots.active(), now.mono) {
            (silence.notices, silence.wake_at) = self.outages.silent(alerts, now);
        }
        let held = |run: u32| slots.get(run).map(|slot| (run, slot));
        if self.limiter.is_held(now.mono) {
            silence.add(slots.iter(), alerts, now);
        } else {
            silence.add(self.throttle.unpolled(now.mono).filter_map(held), alerts, now);
        }
        silence
    }

    /// Maximum number of polls in flight. While the API refuses the key, it is one.
    pub(super) fn room(&self, settings: &Settings) -> usize {
        let trying = self.outages.is_key_refused() && !settings.patience.refused_ends;
        if trying { 1 } else { settings.max_in_flight }
    }

    /// Updates the state of the API and the key after an error from any asker. `pause` is how long that asker waits.
    /// `active` is the number of watched runs that have not finished.
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
                    // All runs share the key, so retries become rarer and go out one at a time.
                    let refused = now.mono - since.mono;
                    self.limiter.hold(now.mono + pause.max(refused.min(settings.policy.error.max)));
                }
            }
            PollErrorKind::Throttled => fallout.holds_all = self.throttled(asker, now.mono + pause, now.mono),
            _ if error.retry_after.is_some() => self.throttle.paused(asker, now.mono + pause, now.mono),
            _ => self.release(asker),
        }
        fallout
    }

    /// A request got a 429. The asker waits; all runs wait if other requests are throttled too. Returns whether they
    /// do.
    pub(super) fn throttled(&mut self, asker: u32, until: Instant, now: Instant) -> bool {
        let all = self.throttle.refused(asker, until, now);
        all.inspect(|until| self.limiter.hold(*until)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::schedule::{Curve, Policy};
    use super::*;
    use crate::clock;
    use crate::run::Subject;
    use crate::store::Watched;

    const ALERTS: Alerts = Alerts {
        stalled_after: Some(Duration::ZERO),
        overdue_after: None,
        unreachable_after: Some(Duration::from_secs(900)),
        remind_every: Duration::from_hours(1),
    };

    fn later(now: Moment, seconds: u64) -> Moment {
        let wait = Duration::from_secs(seconds);
        Moment { mono: now.mono + wait, wall: now.wall + wait }
    }

    /// Waiting runs with their deadlines in seconds from now.
    fn runs(deadlines: &[u64], now: Timestamp) -> Slots {
        let curve = Curve {
            initial: Duration::from_secs(1),
            multiplier: 1.0,
            max: Duration::from_secs(1),
            jitter: 0.0,
        };
        let policy = Policy { healthy: curve, error: curve, price: None };
        let mut slots = Slots::default();
        for (n, deadline) in deadlines.iter().enumerate() {
            let subject = Subject { id: format!("r{n}").parse().unwrap(), name: None };
            let mut run = Watched::new(subject, now);
            run.deadline = Some(Duration::from_secs(*deadline));
            slots.add(run, &policy, Instant::now());
        }
        slots
    }

    #[test]
    fn a_run_that_is_held_back_is_overdue_in_time() {
        let (now, until) = (clock::now(), |now: Moment| now.mono + Duration::from_hours(1));
        let (mut account, mut slots) = (Account::new(120, now.mono), runs(&[50, 60, 70], now.wall));
        let overdue = |account: &mut Account, slots: &Slots, seconds| {
            let silence = account.silence(slots, &ALERTS, later(now, seconds));
            let wake = silence.wake_at.map(|at| at.saturating_duration_since(now.mono).as_secs());
            (silence.overdue, wake)
        };
        assert_eq!(overdue(&mut account, &slots, 80), (vec![], None), "each is polled when it is due");
        assert!(!account.throttled(1, until(now), now.mono));
        assert_eq!(overdue(&mut account, &slots, 40), (vec![], Some(60)), "the others are polled");
        assert_eq!(overdue(&mut account, &slots, 60), (vec![1], None));
        assert!(account.throttled(2, until(now), now.mono));
        assert_eq!(overdue(&mut account, &slots, 0), (vec![], Some(50)), "all are held back");
        assert_eq!(overdue(&mut account, &slots, 60), (vec![0, 1], Some(70)));
        // A run that is being recorded gets no second warning. A failed write is not retried at once.
        slots.hold(0);
        slots.get_mut(1).unwrap().quiet_until = Some(later(now, 65).mono);
        assert_eq!(overdue(&mut account, &slots, 60), (vec![], Some(65)));
        assert_eq!(overdue(&mut account, &slots, 3601), (vec![], None), "they are polled again");
    }
}
