//! Outages: an API that cannot be used, or a list of runs that cannot be fetched while the API answers.
//!
//! Tracks whether the API can be reached, since when it refuses the key, and which outages were notified. The store
//! keeps the last notification, so a restart does not repeat it. Pure: returns [`Notice`]s, which the scheduler carries
//! out.

use jiff::Timestamp;
use tokio::time::Instant;

use super::alerts::Alerts;
use super::health::Health;
use super::recorder::{Draft, Recording};
use super::update::Update;
use crate::api::{PollError, PollErrorKind};
use crate::run::{Authority, DoubtKind, Event, Moment};
use crate::store::{RunStore, StoreError};

/// What is out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// The API does not answer, refuses the key, or answers only with 429.
    Api,
    /// Discovery is on, and the list of runs cannot be fetched.
    List,
}

impl Outage {
    const ALL: [Self; 2] = [Self::Api, Self::List];

    /// The store's key for the time of the last notification.
    pub fn moment(self) -> &'static str {
        match self {
            Self::Api => "outage told",
            Self::List => "list outage told",
        }
    }
}

/// When each outage was last notified.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutagesTold {
    api: Option<Timestamp>,
    list: Option<Timestamp>,
}

impl OutagesTold {
    /// Reads the times from the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn load(store: &dyn RunStore) -> Result<Self, StoreError> {
        let (api, list) = (Outage::Api.moment(), Outage::List.moment());
        Ok(Self { api: store.moment(api.into()).await?, list: store.moment(list.into()).await? })
    }

    fn of(&mut self, outage: Outage) -> &mut Option<Timestamp> {
        match outage {
            Outage::Api => &mut self.api,
            Outage::List => &mut self.list,
        }
    }
}

/// What to do about an outage.
#[derive(Debug, Clone)]
pub(super) enum Notice {
    /// Send an update to the observers.
    Tell(Update),
    /// Notify the channels and record the time.
    Notify { outage: Outage, reason: &'static str, since: Timestamp },
    /// Record that the outage is over.
    Over(Outage),
}

impl Notice {
    /// The draft to record for an event `source`. If there is nothing to record, the update for the observers.
    pub(super) fn draft(self, source: &str, now: Moment) -> Result<(Draft, Recording), Update> {
        let (outage, events, told_at) = match self {
            Self::Tell(update) => return Err(update),
            Self::Notify { outage, reason, since } => {
                tracing::warn!(%since, "{}", lasting(outage, reason));
                (outage, vec![Event::of_outage(source, reason, since, now.wall)], Some(now.wall))
            }
            Self::Over(outage) => (outage, Vec::new(), None),
        };
        let draft = Draft { run: None, events, moment: Some((outage.moment().into(), told_at)) };
        Ok((draft, Recording::Outage(outage, told_at)))
    }
}

/// The log message for an outage that lasts.
fn lasting(outage: Outage, reason: &str) -> &'static str {
    match (outage, reason) {
        (Outage::List, _) => "the list of runs has failed for a long time: new runs are not discovered",
        (Outage::Api, "key_refused") => "the API has refused the key for a long time",
        (Outage::Api, "throttled") => "the API has answered nothing but 429 for a long time",
        (Outage::Api, _) => "the API has been unreachable for a long time",
    }
}

/// The state of all outages.
#[derive(Debug, Default)]
pub(super) struct Outages {
    health: Health,
    refused_since: Option<Moment>,
    told: OutagesTold,
    /// Outages whose record is being written.
    recording: Vec<Outage>,
}

impl Outages {
    /// Takes the notifications that were sent before this process started.
    pub(super) fn were_told(&mut self, told: OutagesTold) {
        self.told = told;
    }

    /// Whether the API refuses the key.
    pub(super) fn is_key_refused(&self) -> bool {
        self.refused_since.is_some()
    }

    /// Since when it has refused the key.
    pub(super) fn refused_since(&self) -> Option<Moment> {
        self.refused_since
    }

    /// Whether the API cannot be used at all.
    pub(super) fn is_api_out(&self) -> bool {
        self.health.down_since().is_some() || self.refused_since.is_some()
    }

    /// The API answered with a result and accepted the key.
    pub(super) fn answered(&mut self, now: Moment) -> Vec<Notice> {
        let mut notices = self.reached(now);
        if self.refused_since.take().is_some() {
            notices.push(Notice::Tell(Update::KeyAccepted));
        }
        notices.extend(self.over(Outage::Api));
        notices
    }

    /// The API answered, even if only with a refusal.
    fn reached(&mut self, now: Moment) -> Vec<Notice> {
        self.health.answered(now).map(|up| Notice::Tell(Update::ApiUp(up))).into_iter().collect()
    }

    /// A request failed. `active` is the number of active runs. `asker` is the run that was polled, or the list.
    pub(super) fn failed(
        &mut self,
        asker: u32,
        active: usize,
        error: &PollError,
        alerts: &Alerts,
        now: Moment,
    ) -> Vec<Notice> {
        match error.kind {
            PollErrorKind::Doubt(DoubtKind::KeyRefused) if error.said_by() != Authority::Page => {
                let mut notices = self.reached(now);
                let since = *self.refused_since.get_or_insert(now);
                notices.extend(self.lasts(Outage::Api, "key_refused", since, alerts, now));
                notices
            }
            PollErrorKind::Doubt(_) if error.said_by() == Authority::Api => self.answered(now),
            // Long throttling is as bad as no answer for those who wait. A proxy's answer is no answer of the API.
            PollErrorKind::Doubt(_) | PollErrorKind::Transient | PollErrorKind::Throttled => {
                let throttled = error.kind == PollErrorKind::Throttled;
                let down = self.health.failed(asker, active, throttled, now);
                let mut notices: Vec<Notice> = down
                    .map(|down| Notice::Tell(Update::ApiDown(down, error.message.clone())))
                    .into_iter()
                    .collect();
                if let Some(since) = self.health.down_since() {
                    let reason = if throttled { "throttled" } else { "no_answer" };
                    notices.extend(self.lasts(Outage::Api, reason, since, alerts, now));
                }
                notices
            }
        }
    }

    /// No requests are allowed, so none can fail, but time passes. Returns the notices that are due, and when the next
    /// one is.
    pub(super) fn silent(&mut self, alerts: &Alerts, now: Moment) -> (Vec<Notice>, Option<Instant>) {
        let Some(since) = self.health.failing_since() else { return (Vec::new(), None) };
        if self.recording.contains(&Outage::Api) {
            return (Vec::new(), None);
        }
        let at = alerts.tell_outage_at(since, self.told.api, now);
        if at.is_none_or(|at| at > now.mono) {
            return (Vec::new(), at);
        }
        let message = "the API accepts no requests for now (Retry-After)".to_owned();
        let down = self.health.silenced().map(|down| Notice::Tell(Update::ApiDown(down, message)));
        let lasts = self.lasts(Outage::Api, "throttled", since, alerts, now);
        (down.into_iter().chain(lasts).collect(), None)
    }

    /// An outage lasts. It is notified once it has lasted long enough.
    pub(super) fn lasts(
        &mut self,
        outage: Outage,
        reason: &'static str,
        since: Moment,
        alerts: &Alerts,
        now: Moment,
    ) -> Option<Notice> {
        if self.recording.contains(&outage) || !alerts.of_outage(since, *self.told.of(outage), now) {
            return None;
        }
        self.recording.push(outage);
        Some(Notice::Notify { outage, reason, since: since.wall })
    }

    /// An outage that was notified is over.
    pub(super) fn over(&mut self, outage: Outage) -> Option<Notice> {
        if self.told.of(outage).is_none() || self.recording.contains(&outage) {
            return None;
        }
        self.recording.push(outage);
        Some(Notice::Over(outage))
    }

    /// The record of an outage was written, or failed. A failed record is retried with the next request.
    pub(super) fn recorded(&mut self, outage: Outage, told_at: Option<Timestamp>, worked: bool) {
        self.recording.retain(|other| *other != outage);
        if worked {
            *self.told.of(outage) = told_at;
        }
    }

    /// Nothing polls the API any more, so nothing could notice the end of an outage. Ends all outages.
    pub(super) fn nobody_polls(&mut self, now: Moment) -> Vec<Notice> {
        let mut notices = self.answered(now);
        notices.extend(Outage::ALL.into_iter().filter_map(|outage| self.over(outage)));
        notices
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    const ALERTS: Alerts = Alerts {
        stalled_after: None,
        overdue_after: None,
        unreachable_after: Some(Duration::from_secs(900)),
        remind_every: Duration::from_hours(1),
    };

    fn error(kind: PollErrorKind, from_api: bool, is_page: bool) -> PollError {
        PollError { kind, message: "x".into(), from_api, is_page, retry_after: None }
    }

    fn later(now: Moment, seconds: u64) -> Moment {
        let wait = Duration::from_secs(seconds);
        Moment { mono: now.mono + wait, wall: now.wall + wait }
    }

    /// Short names of the notices.
    fn words(notices: &[Notice]) -> Vec<&'static str> {
        let word = |notice: &Notice| match notice {
            Notice::Tell(Update::ApiDown(..)) => "down",
            Notice::Tell(Update::ApiUp(_)) => "up",
            Notice::Tell(Update::KeyAccepted) => "key accepted",
            Notice::Tell(_) => "other",
            Notice::Notify { reason, .. } => reason,
            Notice::Over(_) => "over",
        };
        notices.iter().map(word).collect()
    }

    #[test]
    fn throttling_pages_and_silence_are_outages_alike() {
        for (error, reason) in [
            (error(PollErrorKind::Throttled, true, false), "throttled"),
            (error(PollErrorKind::Transient, false, false), "no_answer"),
            (error(PollErrorKind::Doubt(DoubtKind::KeyRefused), false, true), "no_answer"),
            (error(PollErrorKind::Doubt(DoubtKind::NoSuchPage), false, false), "no_answer"),
        ] {
            let (mut outages, start) = (Outages::default(), clock::now());
            let mut failed = |seconds| words(&outages.failed(0, 1, &error, &ALERTS, later(start, seconds)));
            assert_eq!(failed(0), Vec::<&str>::new(), "{error:?}: one is a blip");
            assert_eq!(failed(1), ["down"], "{error:?}");
            assert_eq!(failed(899), Vec::<&str>::new(), "{error:?}");
            assert_eq!(failed(900), [reason], "{error:?}");
            assert_eq!(failed(901), Vec::<&str>::new(), "{error:?}: it is being recorded");
            outages.recorded(Outage::Api, Some(later(start, 900).wall), true);
            assert_eq!(words(&outages.answered(later(start, 1000))), ["up", "over"], "{error:?}");
        }
    }

    #[test]
    fn a_long_pause_that_the_api_asks_for_is_told_in_time() {
        let (mut outages, start) = (Outages::default(), clock::now());
        assert!(outages.silent(&ALERTS, start).1.is_none(), "nothing has failed");
        outages.failed(0, 1, &error(PollErrorKind::Throttled, true, false), &ALERTS, start);
        let mut silent = |seconds| {
            let (notices, next) = outages.silent(&ALERTS, later(start, seconds));
            (words(&notices), next.map(|at| at.saturating_duration_since(start.mono).as_secs()))
        };
        assert_eq!(silent(0), (vec![], Some(900)));
        assert_eq!(silent(899), (vec![], Some(900)));
        assert_eq!(silent(900), (vec!["down", "throttled"], None));
        assert_eq!(silent(901), (vec![], None), "it is being recorded");
        outages.recorded(Outage::Api, Some(later(start, 900).wall), true);
        let (notices, next) = outages.silent(&ALERTS, later(start, 901));
        assert_eq!((words(&notices), next), (vec![], Some(later(start, 4500).mono)), "a reminder");
    }

    #[test]
    fn nothing_goes_on_where_nobody_polls() {
        let (mut outages, start) = (Outages::default(), clock::now());
        for (kind, from_api) in
            [(PollErrorKind::Transient, false), (PollErrorKind::Doubt(DoubtKind::KeyRefused), true)]
        {
            outages.failed(0, 1, &error(kind, from_api, false), &ALERTS, start);
            outages.failed(0, 1, &error(kind, from_api, false), &ALERTS, start);
        }
        let told = Some(start.wall);
        outages.were_told(OutagesTold { api: told, list: told });
        let notices = words(&outages.nobody_polls(later(start, 5)));
        assert_eq!(notices, ["key accepted", "over", "over"]);
        assert!(!outages.is_api_out());
        outages.failed(0, 1, &error(PollErrorKind::Transient, false, false), &ALERTS, start);
        outages.failed(0, 1, &error(PollErrorKind::Transient, false, false), &ALERTS, start);
        assert_eq!(
            words(&outages.nobody_polls(later(start, 9))),
            ["up"],
            "what is being recorded is not again"
        );
    }

    #[test]
    fn the_apis_own_refusal_is_an_answer() {
        let (mut outages, start) = (Outages::default(), clock::now());
        let down = error(PollErrorKind::Transient, false, false);
        outages.failed(0, 1, &down, &ALERTS, start);
        outages.failed(0, 1, &down, &ALERTS, start);
        let missing = error(PollErrorKind::Doubt(DoubtKind::Missing), true, false);
        assert_eq!(words(&outages.failed(0, 1, &missing, &ALERTS, start)), ["up"]);
    }
}
