//! Reports attempts: log lines, and values for the metrics.
//!
//! Owns the wording. `journalctl` shows only the text, so the text names the channel and the run. `attempt` calls this
//! after an attempt is recorded.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::attempt::{Context, Prepared, Verdict, lock};
use super::delivery::{AttemptOutcome, AttemptReport};
use crate::run::event::Payload;
use crate::span::human;
use crate::store::{Claimed, Finished, Outcome};

/// Minimum time between two log lines about a channel that is held again and again.
const SAME_HOLD: Duration = Duration::from_mins(1);

impl Context {
    /// Logs and counts what was recorded.
    pub(super) fn say(&self, one: &Prepared, verdict: &Verdict, finished: Finished, took: Duration) {
        let channel = &self.channel.name;
        let Claimed { event_id, attempt, run_id, .. } = &one.claimed;
        let run_id = run_id.as_deref();
        let about = about(&one.claimed, one.payload.as_ref().ok());
        let took_ms = (took.as_secs_f64() * 10_000.0).round() / 10.0;
        let error = match &verdict.settlement.outcome {
            Outcome::Delivered => "delivered",
            Outcome::Retry { error, .. } | Outcome::Postponed { error, .. } | Outcome::Dead { error } => {
                error
            }
        };
        debug!(%channel, %event_id, run_id, attempt, took_ms, "{channel}: attempt {attempt} at {about}: {error}");
        match finished {
            Finished::Recorded => {}
            Finished::Stale => {
                return warn!(
                    %channel, %event_id, run_id,
                    "{channel}: {about}: another process has claimed it meanwhile; it may be sent again"
                );
            }
            Finished::Superseded => {
                self.count(AttemptOutcome::Superseded, took);
                return info!(
                    %channel, %event_id, run_id,
                    "{channel}: {about} is not retried, because the run has ended: {error}"
                );
            }
            Finished::Requeued => {
                self.count(AttemptOutcome::Retried, took);
                return info!(
                    %channel, %event_id, run_id,
                    "{channel}: {about} is retried at once, because the channel was reconfigured: {error}"
                );
            }
            Finished::Abandoned => {
                self.count(AttemptOutcome::Exhausted, took);
                return warn!(
                    %channel, %event_id, run_id,
                    "{channel}: {about} is given up, because the channel was removed: {error}"
                );
            }
        }
        match (&verdict.settlement.outcome, verdict.reported) {
            (Outcome::Delivered, _) => {
                info!(%channel, %event_id, run_id, attempt, took_ms, "delivered {about} to {channel}");
            }
            (Outcome::Retry { at, .. }, _) => {
                let again = human(self.until(*at));
                warn!(%channel, %event_id, run_id, attempt, "{channel}: {about}: {error}; retrying in {again}");
            }
            (Outcome::Postponed { .. }, _) => self.say_held(verdict, error),
            (Outcome::Dead { .. }, AttemptOutcome::Disabled) => {
                // From now on nothing is sent, until a user asks for it.
                if self.disabled.swap(true, Ordering::Relaxed) {
                    warn!(%channel, %event_id, run_id, attempt, "{channel}: {about} is not sent: {error}");
                } else {
                    error!(%channel, %event_id, run_id, attempt, "the channel {channel} is disabled: {about}: {error}");
                }
            }
            (Outcome::Dead { .. }, AttemptOutcome::Undeliverable) => {
                error!(
                    %channel, %event_id, run_id, attempt,
                    "{channel}: {about} is given up, because it can never be delivered there: {error}"
                );
            }
            (Outcome::Dead { .. }, _) => {
                error!(
                    %channel, %event_id, run_id, attempt,
                    "{channel}: {about} is given up after the last attempt: {error}"
                );
            }
        }
        self.count(verdict.reported, took);
    }

    /// Logs that the channel is held, once while the holds repeat.
    fn say_held(&self, verdict: &Verdict, error: &str) {
        let Some(until) = verdict.settlement.follows.hold else { return };
        let channel = &self.channel.name;
        let before = lock(&self.state).held_at.replace(Instant::now());
        let wait = human(self.until(until));
        if before.is_some_and(|at| at.elapsed() < SAME_HOLD) {
            debug!(%channel, "{channel}: nothing is sent for {wait}: {error}");
        } else {
            warn!(%channel, "{channel}: nothing is sent for {wait}, and more slowly after that: {error}");
        }
    }

    fn until(&self, at: Timestamp) -> Duration {
        Duration::try_from(at.duration_since((self.shared.wall)())).unwrap_or_default()
    }

    fn count(&self, outcome: AttemptOutcome, took: Duration) {
        if let Some(reports) = &self.shared.reports {
            let report =
                AttemptReport { channel: self.channel.name.clone(), kind: self.channel.kind, outcome, took };
            // The receiver of the counts is gone.
            let _ = reports.send(report);
        }
    }
}

/// An event in a few words: `run.failed of nightly (5eed…)`.
pub(super) fn about(claimed: &Claimed, payload: Option<&Payload>) -> String {
    let Claimed { kind, run_id, .. } = claimed;
    let kind = if kind.is_empty() { "an unreadable event" } else { &**kind };
    let name = payload.and_then(|payload| payload.data.run_name.as_deref());
    match (run_id, name) {
        (Some(id), Some(name)) => format!("{kind} of {name} ({id})"),
        (Some(id), None) => format!("{kind} of {id}"),
        (None, _) => kind.to_owned(),
    }
}
