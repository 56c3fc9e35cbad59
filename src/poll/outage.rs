//! Outages that last, and are told: an API that is of no use, and a list of runs that cannot be had while the API answers.
//!
//! Owns what was told of them. It is remembered in the store, so that a restart tells nothing twice.

use jiff::Timestamp;

use super::poller::Recording;
use super::scheduler::Scheduler;
use super::update::Update;
use crate::run::{Event, Moment};
use crate::store::{Commit, RunStore, StoreError};

/// What there is an outage of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// The API does not answer, or refuses the key.
    Api,
    /// Runs are looked for, and the list of them cannot be had.
    List,
}

impl Outage {
    /// The moment, in the store, at which it was told last.
    pub fn moment(self) -> &'static str {
        match self {
            Self::Api => "outage told",
            Self::List => "list outage told",
        }
    }
}

/// When the outages that go on were told last.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutagesTold {
    api: Option<Timestamp>,
    list: Option<Timestamp>,
}

impl OutagesTold {
    /// What the store remembers.
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

    /// Takes note of what has been recorded.
    pub(super) fn set(&mut self, outage: Outage, told_at: Option<Timestamp>) {
        *self.of(outage) = told_at;
    }
}

impl Scheduler {
    /// Has an outage told that has lasted.
    pub(super) fn tell_outage(&mut self, outage: Outage, reason: &str, since: Moment, now: Moment) {
        let told_at = *self.outages_told.of(outage);
        if self.is_telling(outage) || !self.settings.alerts.of_outage(since, told_at, now) {
            return;
        }
        let event = Event::of_outage(&self.settings.source, reason, since.wall, now.wall);
        let events = self.routed(vec![event], None);
        let moment = Some((outage.moment().into(), Some(now.wall)));
        self.commit(Commit { run: None, events, moment }, Recording::Outage(outage, Some(now.wall)));
    }

    /// An outage that was told is over.
    pub(super) fn end_outage(&mut self, outage: Outage) {
        if self.outages_told.of(outage).is_some() && !self.is_telling(outage) {
            let commit = Commit { moment: Some((outage.moment().into(), None)), ..Commit::default() };
            self.commit(commit, Recording::Outage(outage, None));
        }
    }

    fn is_telling(&self, outage: Outage) -> bool {
        self.recording
            .values()
            .any(|recording| matches!(recording, Recording::Outage(told, _) if *told == outage))
    }

    /// The API answered to the point, and to the key.
    pub(super) fn api_is_of_use(&mut self) {
        if self.refused_since.take().is_some() {
            self.tell(Update::KeyAccepted);
        }
        self.end_outage(Outage::Api);
    }

    /// The API answered something.
    pub(super) fn api_answered(&mut self, now: Moment) {
        if let Some(up) = self.health.answered(now) {
            self.tell(Update::ApiUp(up));
        }
    }
}
