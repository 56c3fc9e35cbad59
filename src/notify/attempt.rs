//! The steps of one attempt: send, judge, record, and only then log.
//!
//! Owns what each kind of failure means for the event and for the channel, and what all attempts of a channel share.
//! `worker` starts attempts, and `report` has the wording. A delivery counts as delivered only when that is recorded.
//! If a delivery is given up, the same transaction notifies the other channels.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use super::delivery::{AttemptOutcome, AttemptReport};
use super::pace::Pace;
use super::report::about;
use super::{Channel, Notice, NotifyError, Retry};
use crate::clock::WallClock;
use crate::run::event::Payload;
use crate::run::{Event, EventId, EventKind};
use crate::store::{
    ChannelName, Claimed, Finished, Follows, Outbox, Outcome, Owner, Routes, Settlement, StoreError,
};

/// Pauses after the store failed: the first, doubled up to the last.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);
pub(super) const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(30);

/// Number of refusals by an unavailable receiver after which an event lets others go first, because the event may be
/// the cause.
const STEPS_ASIDE_AFTER: u32 = 5;

/// What the attempts of all channels share.
pub(super) struct Shared {
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) owner: Owner,
    pub(super) wall: WallClock,
    /// Which channels are notified when a delivery is given up.
    pub(super) routes: watch::Receiver<Routes>,
    pub(super) reports: Option<mpsc::UnboundedSender<AttemptReport>>,
    /// Rows that this process has claimed and not settled, even if their leases ended. Prevents sending a delivery
    /// again because the store was unavailable.
    pub(super) in_hand: Mutex<HashSet<i64>>,
    pub(super) made: Made,
}

/// Deliveries that were made but not yet recorded. Cheap to clone. Those still in it when the workers have ended are to be
/// recorded in the store that takes over.
#[derive(Debug, Clone, Default)]
pub struct Made(Arc<Mutex<HashSet<(EventId, ChannelName)>>>);

impl Made {
    /// The event and the channel of each.
    pub fn unrecorded(&self) -> Vec<(EventId, ChannelName)> {
        lock(&self.0).iter().cloned().collect()
    }
}

/// What the attempts of one channel share.
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) channel: Channel,
    /// Whether the receiver refuses everything.
    pub(super) disabled: AtomicBool,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pace: Pace,
    /// The number of deliveries made.
    delivered: u64,
    /// Events refused while the receiver was unavailable: how often, and `delivered` at the first refusal.
    refused: HashMap<i64, (u32, u64)>,
    /// When the channel was last held.
    pub(super) held_at: Option<Instant>,
}

/// What to record and do after an attempt.
pub(super) struct Verdict {
    pub(super) settlement: Settlement,
    pub(super) reported: AttemptOutcome,
}

/// A claimed delivery with its parsed event.
pub(super) struct Prepared {
    pub(super) claimed: Claimed,
    pub(super) payload: Result<Payload, NotifyError>,
    /// When it was claimed.
    pub(super) claimed_at: Instant,
    _in_hand: InHand,
}

/// A row that is in hand until this is dropped.
pub(super) struct InHand {
    shared: Arc<Shared>,
    id: i64,
}

impl InHand {
    pub(super) fn new(shared: &Arc<Shared>, id: i64) -> Self {
        lock(&shared.in_hand).insert(id);
        Self { shared: Arc::clone(shared), id }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        lock(&self.shared.in_hand).remove(&self.id);
    }
}

/// The result of a send.
pub(super) struct Sent {
    pub(super) prepared: Vec<Prepared>,
    pub(super) result: Result<(), NotifyError>,
    pub(super) took: Duration,
}

/// An event of an older version, which accepted run ids that are invalid today. Its id is used as a name only. The
/// stored bytes are sent unchanged.
fn without_id(stored: &str) -> Option<Payload> {
    let mut event: serde_json::Value = serde_json::from_str(stored).ok()?;
    let data = event.get_mut("data")?.as_object_mut()?;
    let id = data.remove("run_id")?;
    data.entry("run_name").or_insert(id);
    serde_json::from_value(event).ok()
}

/// Makes one attempt; sends several events together if the channel gathers.
pub(super) async fn send(context: Arc<Context>, prepared: Vec<Prepared>) -> Sent {
    let began = Instant::now();
    let result = send_all(&context, &prepared).await;
    Sent { prepared, result, took: began.elapsed() }
}

/// Parses the event of a claimed delivery.
pub(super) fn prepare(claimed: Claimed, in_hand: InHand) -> Prepared {
    let payload = serde_json::from_str(&claimed.payload);
    let payload = payload.or_else(|error| without_id(&claimed.payload).ok_or(error)).map_err(|error| {
        NotifyError::new(Retry::Undeliverable, format!("the stored event cannot be read: {error}"))
    });
    Prepared { claimed, payload, claimed_at: Instant::now(), _in_hand: in_hand }
}

async fn send_all(context: &Arc<Context>, prepared: &[Prepared]) -> Result<(), NotifyError> {
    if context.disabled.load(Ordering::Relaxed) && context.is_still_disabled().await {
        return Err(NotifyError::new(Retry::Disable, "the channel is disabled"));
    }
    let notice = |one: &Prepared| {
        let Prepared { claimed, payload, .. } = one;
        Some(Notice {
            event_id: claimed.event_id.clone(),
            payload: payload.as_ref().ok()?.clone(),
            json: Arc::clone(&claimed.payload),
            attempt: claimed.attempt,
        })
    };
    let notices: Vec<Notice> = prepared.iter().filter_map(notice).collect();
    context.channel.attempt(notices).await
}

impl Context {
    pub(super) fn new(shared: Arc<Shared>, channel: Channel) -> Self {
        let pace = Pace::new(channel.concurrency);
        let state = State { pace, delivered: 0, refused: HashMap::new(), held_at: None };
        Self { shared, channel, disabled: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// How many may be sent at once now, and whether that is the channel's maximum.
    pub(super) fn allowed(&self) -> (usize, bool) {
        let allowed = lock(&self.state).pace.allowed();
        (allowed, allowed == self.channel.concurrency)
    }

    /// Records how the channel is configured. A channel that was disabled before a restart stays disabled.
    pub(super) async fn open(&self) -> Result<(), StoreError> {
        let Channel { name, fingerprint, formerly, .. } = &self.channel;
        let now = (self.shared.wall)();
        if let Some(reason) = self.shared.outbox.open(name, fingerprint, formerly, now).await? {
            self.disabled.store(true, Ordering::Relaxed);
            warn!(channel = %name, "the channel {name} is disabled ({reason}); see `runwatch deliveries retry`");
        }
        Ok(())
    }

    /// Records an attempt, and then logs it.
    pub(super) async fn settle(&self, one: &Prepared, verdict: &Verdict, took: Duration) {
        let made = (verdict.reported == AttemptOutcome::Delivered)
            .then(|| (one.claimed.event_id.clone(), self.channel.name.clone()));
        lock(&self.shared.made.0).extend(made.clone());
        // Nothing is logged as delivered or given up before that is recorded.
        let finished = self.record(&one.claimed, verdict).await;
        if let Some(made) = made {
            lock(&self.shared.made.0).remove(&made);
        }
        self.say(one, verdict, finished, took);
    }

    /// Releases claims that are not sent now, in one commit. The rows keep their order.
    pub(super) async fn release(&self, unsent: Vec<Prepared>) {
        let Shared { outbox, owner, wall, .. } = &*self.shared;
        let rows: Vec<(i64, i64)> = unsent.iter().map(|one| (one.claimed.id, one.claimed.claim)).collect();
        let mut pause = STORE_PAUSE;
        while let Err(error) = outbox.release(&rows, owner, wall(), &self.channel.fingerprint).await {
            let channel = &self.channel.name;
            warn!(%channel, "{channel}: cannot release waiting deliveries, retrying: {error}");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_STORE_PAUSE);
        }
    }

    /// What to record after an attempt.
    pub(super) fn judge(&self, one: &Prepared, result: Result<(), NotifyError>) -> Verdict {
        let error = match result {
            Ok(()) => {
                let mut state = lock(&self.state);
                state.pace.taken();
                state.delivered += 1;
                state.refused.remove(&one.claimed.id);
                return self.verdict(Outcome::Delivered, AttemptOutcome::Delivered);
            }
            Err(error) => error,
        };
        let verdict = match error.retry {
            Retry::NotBefore(floor) => self.failed(one, &error, floor.unwrap_or_default()),
            Retry::SlowDown(wait) => self.refused(&error, wait, false),
            Retry::Unavailable(wait) => self.unavailable(one, &error, wait),
            Retry::Undeliverable => {
                let why = format!("it can never be delivered there: {error}");
                self.given_up(one, &error, &why, AttemptOutcome::Undeliverable)
            }
            Retry::Disable => {
                let why = format!("it is disabled: {error}");
                let mut verdict = self.given_up(one, &error, &why, AttemptOutcome::Disabled);
                let is_news = !self.disabled.load(Ordering::Relaxed);
                verdict.settlement.follows.disable = is_news.then(|| Arc::clone(&self.channel.fingerprint));
                verdict
            }
        };
        Verdict { settlement: Settlement { answer: error.answer, ..verdict.settlement }, ..verdict }
    }

    fn verdict(&self, outcome: Outcome, reported: AttemptOutcome) -> Verdict {
        let fingerprint = Some(Arc::clone(&self.channel.fingerprint));
        Verdict { settlement: Settlement { fingerprint, ..outcome.into() }, reported }
    }

    /// The attempt counts. It is retried on schedule, unless it was the last.
    fn failed(&self, one: &Prepared, error: &NotifyError, floor: Duration) -> Verdict {
        let attempt = one.claimed.attempt;
        let Some(pause) = self.channel.schedule.pause(attempt, fastrand::f64()) else {
            let why = format!("given up after {attempt} attempts: {error}");
            return self.given_up(one, error, &why, AttemptOutcome::Exhausted);
        };
        let at = (self.shared.wall)() + pause.max(floor);
        self.verdict(Outcome::Retry { at, error: error.to_string() }, AttemptOutcome::Retried)
    }

    /// The channel is held, and the event keeps its place in the order.
    fn refused(&self, error: &NotifyError, wait: Option<Duration>, steps_aside: bool) -> Verdict {
        let pause = lock(&self.state).pace.refused(wait, Instant::now());
        let until = (self.shared.wall)() + pause;
        let outcome = Outcome::Postponed { at: steps_aside.then_some(until), error: error.to_string() };
        let mut verdict = self.verdict(outcome, AttemptOutcome::Held);
        verdict.settlement.follows.hold = Some(until);
        verdict
    }

    /// The channel is held. An event that is refused again and again lets others go first. If others are accepted
    /// meanwhile, the event is the cause, and the attempt counts.
    fn unavailable(&self, one: &Prepared, error: &NotifyError, wait: Duration) -> Verdict {
        let (times, is_about_the_event) = {
            let mut state = lock(&self.state);
            let delivered = state.delivered;
            let (times, before) = state.refused.entry(one.claimed.id).or_insert((0, delivered));
            *times += 1;
            (*times, *times > STEPS_ASIDE_AFTER && delivered > *before)
        };
        if is_about_the_event {
            return self.failed(one, error, wait);
        }
        self.refused(error, Some(wait), times.is_multiple_of(STEPS_ASIDE_AFTER))
    }

    fn given_up(&self, one: &Prepared, error: &NotifyError, why: &str, reported: AttemptOutcome) -> Verdict {
        let mut verdict = self.verdict(Outcome::Dead { error: error.to_string() }, reported);
        verdict.settlement.follows = Follows { event: self.dead_letter(one, why), ..Follows::default() };
        verdict
    }

    /// The event that this delivery was given up, and the other channels that want it. There is none for such an event
    /// itself, because that would never end.
    fn dead_letter(&self, one: &Prepared, why: &str) -> Option<(Event, Vec<ChannelName>)> {
        let Claimed { kind, run_id, event_id, .. } = &one.claimed;
        if **kind == *EventKind::DeliveryFailed.as_str() {
            return None;
        }
        let run = match &one.payload {
            Ok(Payload { data, .. }) => (data.run_id.clone(), data.run_name.clone()),
            // The stored event cannot be read, but its row names its run.
            Err(_) => (run_id.as_deref().and_then(|id| id.parse().ok()), None),
        };
        let name = &self.channel.name;
        let event = Event::of_dead_letter(event_id, run, name, why, (self.shared.wall)());
        let others = self.shared.routes.borrow().of(EventKind::DeliveryFailed, None);
        Some((event, others.into_iter().filter(|other| other != name).collect()))
    }

    /// Records the result, and repeats that until it works.
    async fn record(&self, claimed: &Claimed, verdict: &Verdict) -> Finished {
        let mut pause = STORE_PAUSE;
        let Shared { outbox, owner, wall, .. } = &*self.shared;
        loop {
            match outbox.finish(claimed, owner, wall(), verdict.settlement.clone()).await {
                Ok(finished) => return finished,
                Err(error) => {
                    let channel = &self.channel.name;
                    let about = about(claimed, None);
                    error!(
                        %channel, event_id = %claimed.event_id,
                        "cannot record an attempt ({channel}, {about}), retrying: {error}"
                    );
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_STORE_PAUSE);
        }
    }

    /// A user may have asked for a retry meanwhile.
    async fn is_still_disabled(&self) -> bool {
        let Channel { name, fingerprint, .. } = &self.channel;
        let enabled = matches!(self.shared.outbox.disabled(name, fingerprint).await, Ok(None));
        if enabled {
            self.disabled.store(false, Ordering::Relaxed);
        }
        !enabled
    }
}

/// Locks although another holder panicked, because the data stays consistent.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
