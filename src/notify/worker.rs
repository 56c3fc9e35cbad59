//! One channel's worker: claims what is due, makes the attempts, and records how each went.
//!
//! Owns the retry loop and the gathering of what is told together. A delivery is called delivered only when that has been
//! recorded; one that is given up is told of through the other channels in the same transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::delivery::{Shared, Told, ToldOutcome};
use super::{Channel, Notice, NotifyError, Retry};
use crate::run::event::Payload;
use crate::run::{Event, EventKind};
use crate::store::{ChannelName, Claimed, Follows, Outcome, StoreError};

/// A lease outlives the longest attempt by this.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// The pauses after the store failed: the first, doubled up to the last.
const STORE_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(30);

/// A pending delivery is looked at this often at least, in case the wall clock was set.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// So many events are told together at most.
const LARGEST_GATHERING: usize = 100;

/// What a worker and its attempts share.
pub(super) struct Context {
    shared: Arc<Shared>,
    pub(super) channel: Channel,
    /// The receiver wants nothing more.
    disabled: AtomicBool,
}

impl Context {
    pub(super) fn new(shared: Arc<Shared>, channel: Channel) -> Self {
        Self { shared, channel, disabled: AtomicBool::new(false) }
    }
}

/// One channel's worker.
pub(super) struct Worker {
    context: Arc<Context>,
    drain: watch::Receiver<Option<Instant>>,
    retire: CancellationToken,
    changed: watch::Receiver<u64>,
    sends: JoinSet<()>,
    /// When what is being gathered is told.
    gathered_at: Option<Instant>,
}

impl Worker {
    pub(super) fn new(
        context: Arc<Context>,
        drain: watch::Receiver<Option<Instant>>,
        retire: CancellationToken,
    ) -> Self {
        let changed = context.shared.outbox.changed();
        Self { context, drain, retire, changed, sends: JoinSet::new(), gathered_at: None }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken, after: Duration) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = async {
                sleep(after).await;
                self.find_out_whether_disabled().await;
                self.work().await;
            } => {}
        }
        // Attempts that are broken off stay claimed; the store's next owner takes them up.
        self.sends.shutdown().await;
    }

    /// A receiver that wanted nothing more before a restart wants nothing more after it.
    async fn find_out_whether_disabled(&self) {
        let Context { shared, channel, disabled } = &*self.context;
        if let Ok(Some(reason)) = shared.outbox.disabled(&channel.name, &channel.fingerprint).await {
            disabled.store(true, Ordering::Relaxed);
            warn!(channel = %channel.name, "the channel is disabled ({reason}); see `runwatch deliveries retry`");
        }
    }

    async fn work(&mut self) {
        let mut store_pause = STORE_PAUSE;
        loop {
            self.changed.mark_unchanged();
            let next = match self.start_due().await {
                Ok(next) => {
                    store_pause = STORE_PAUSE;
                    next
                }
                Err(error) => {
                    warn!(channel = %self.context.channel.name, "cannot read the outbox: {error}");
                    let pause = store_pause;
                    store_pause = (store_pause * 2).min(LONGEST_STORE_PAUSE);
                    Some(pause)
                }
            };
            if self.is_done(next) {
                return;
            }
            tokio::select! {
                Some(ended) = self.sends.join_next() => {
                    self.ended(ended);
                    // Those that were recorded in one commit end together: what follows them is claimed in one.
                    while let Some(ended) = self.sends.try_join_next() {
                        self.ended(ended);
                    }
                }
                Ok(()) = self.changed.changed() => {}
                Ok(()) = self.drain.changed() => {}
                () = self.retire.cancelled(), if !self.retire.is_cancelled() => {}
                () = sleep(next.unwrap_or_default().min(LONGEST_SLEEP)), if next.is_some() => {}
            }
        }
    }

    fn ended(&self, ended: Result<(), JoinError>) {
        if let Err(panic) = ended {
            error!(channel = %self.context.channel.name, "an attempt panicked: {panic}");
        }
    }

    /// Starts what is due and there is room for; gives how long until more is due, `None` if nothing else is pending or
    /// there is no room.
    async fn start_due(&mut self) -> Result<Option<Duration>, StoreError> {
        let context = Arc::clone(&self.context);
        let Context { shared, channel, .. } = &*context;
        let gathers = !channel.gather.is_zero();
        let room = channel.concurrency.saturating_sub(self.sends.len());
        if room == 0 || self.retire.is_cancelled() {
            return Ok(None);
        }
        if gathers && let Some(wait) = self.gathering().await? {
            return Ok(Some(wait));
        }
        let lease = channel.timeout + LEASE_MARGIN;
        let limit = if gathers { LARGEST_GATHERING } else { room };
        let now = (shared.wall)();
        let claimed = shared.outbox.claim(&channel.name, &shared.owner, now, lease, limit).await?;
        if gathers && !claimed.is_empty() {
            self.sends.spawn(attempt(Arc::clone(&context), claimed));
            return Ok(None);
        }
        let full = claimed.len() == room;
        for claimed in claimed {
            self.sends.spawn(attempt(Arc::clone(&context), vec![claimed]));
        }
        if full {
            return Ok(None);
        }
        self.next_due().await
    }

    async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        let Context { shared, channel, .. } = &*self.context;
        let due = shared.outbox.next_due(&channel.name).await?;
        Ok(due.map(|due| Duration::try_from(due.duration_since((shared.wall)())).unwrap_or_default()))
    }

    /// How long to wait for more to be told together with what is due; `None` if it is to be told now.
    async fn gathering(&mut self) -> Result<Option<Duration>, StoreError> {
        let draining = self.drain.borrow().is_some();
        let now = Instant::now();
        match self.gathered_at {
            Some(at) if at > now && !draining => return Ok(Some(at - now)),
            Some(_) => {
                self.gathered_at = None;
                return Ok(None);
            }
            None => {}
        }
        match self.next_due().await? {
            Some(Duration::ZERO) if !draining => {
                self.gathered_at = Some(now + self.context.channel.gather);
                Ok(Some(self.context.channel.gather))
            }
            Some(wait) if !wait.is_zero() => Ok(Some(wait)),
            _ => Ok(None),
        }
    }

    fn is_done(&self, next: Option<Duration>) -> bool {
        if !self.sends.is_empty() {
            return false;
        }
        let Some(deadline) = *self.drain.borrow() else { return self.retire.is_cancelled() };
        next.is_none_or(|wait| Instant::now() + wait > deadline)
    }
}

/// One attempt, from the claim to the record; several events are told together.
async fn attempt(context: Arc<Context>, claimed: Vec<Claimed>) {
    let began = Instant::now();
    let result = send(&context, &claimed).await;
    let took = began.elapsed();
    for claimed in claimed {
        let verdict = context.judge(&claimed, result.clone());
        // Nothing is called delivered, or given up, that was not recorded.
        if context.record(&claimed, &verdict).await {
            context.say(&claimed, &verdict, took);
        }
    }
}

/// What is to be made of an attempt.
struct Verdict {
    outcome: Outcome,
    follows: Follows,
    told: ToldOutcome,
}

async fn send(context: &Context, claimed: &[Claimed]) -> Result<(), NotifyError> {
    if context.disabled.load(Ordering::Relaxed) && context.is_still_disabled().await {
        return Err(NotifyError { retry: Retry::Disable, message: "the channel is disabled".to_owned() });
    }
    let notice = |claimed: &Claimed| {
        let payload: Payload = serde_json::from_str(&claimed.payload)
            .map_err(|error| NotifyError::retryable(format!("the stored event cannot be read: {error}")))?;
        Ok(Notice {
            event_id: claimed.event_id.clone(),
            payload,
            json: Arc::clone(&claimed.payload),
            attempt: claimed.attempt,
        })
    };
    let notices = claimed.iter().map(notice).collect::<Result<Vec<_>, NotifyError>>()?;
    let notifier = &context.channel.notifier;
    let attempt = match &notices[..] {
        [notice] => notifier.send(notice),
        several => notifier.send_all(several),
    };
    // Notifiers bound themselves; this bound is what the lease rests on.
    timeout(context.channel.timeout, attempt)
        .await
        .unwrap_or_else(|_| Err(NotifyError::retryable("the attempt took too long")))
}

impl Context {
    /// What is to be recorded of an attempt.
    fn judge(&self, claimed: &Claimed, result: Result<(), NotifyError>) -> Verdict {
        let NotifyError { retry, message } = match result {
            Ok(()) => {
                let (outcome, follows) = (Outcome::Delivered, Follows::default());
                return Verdict { outcome, follows, told: ToldOutcome::Delivered };
            }
            Err(error) => error,
        };
        let floor = match retry {
            Retry::NotBefore(floor) => floor.unwrap_or_default(),
            Retry::Disable => {
                let event = self.dead_letter(claimed, &format!("it is disabled: {message}"));
                let news = !self.disabled.load(Ordering::Relaxed);
                let disable = news.then(|| Arc::clone(&self.channel.fingerprint));
                let (outcome, follows) = (Outcome::Dead { error: message }, Follows { event, disable });
                return Verdict { outcome, follows, told: ToldOutcome::Disabled };
            }
        };
        let attempt = claimed.attempt;
        let Some(pause) = self.channel.schedule.pause(attempt, fastrand::f64()) else {
            let event = self.dead_letter(claimed, &format!("given up after {attempt} attempts: {message}"));
            let (outcome, follows) = (Outcome::Dead { error: message }, Follows { event, disable: None });
            return Verdict { outcome, follows, told: ToldOutcome::Exhausted };
        };
        let outcome = Outcome::Retry { at: (self.shared.wall)() + pause.max(floor), error: message };
        Verdict { outcome, follows: Follows::default(), told: ToldOutcome::Retried }
    }

    /// A word in the log about what was recorded, and one for whoever counts.
    fn say(&self, claimed: &Claimed, verdict: &Verdict, took: Duration) {
        let channel = &self.channel.name;
        let Claimed { event_id, attempt, .. } = claimed;
        let run_id = run_of(claimed);
        match (&verdict.outcome, verdict.told) {
            (Outcome::Delivered, _) => {
                let took_ms = (took.as_secs_f64() * 10_000.0).round() / 10.0;
                info!(%channel, %event_id, run_id, attempt, took_ms, "delivered");
            }
            (Outcome::Retry { at, error }, _) => {
                let pause = Duration::try_from(at.duration_since((self.shared.wall)())).unwrap_or_default();
                let again = crate::span::human(pause);
                warn!(%channel, %event_id, run_id, attempt, "{error}; trying again in {again}");
            }
            (Outcome::Dead { error }, ToldOutcome::Disabled) => {
                // From now on nothing is sent, until somebody asks for it.
                if self.disabled.swap(true, Ordering::Relaxed) {
                    warn!(%channel, %event_id, run_id, attempt, "not told: {error}");
                } else {
                    error!(%channel, %event_id, run_id, attempt, "the channel is disabled: {error}");
                }
            }
            (Outcome::Dead { error }, _) => {
                error!(%channel, %event_id, run_id, attempt, "given up after the last attempt: {error}");
            }
        }
        self.tell(verdict.told, took);
    }

    fn tell(&self, outcome: ToldOutcome, took: Duration) {
        if let Some(told) = &self.shared.told {
            let told_now =
                Told { channel: self.channel.name.clone(), kind: self.channel.kind, outcome, took };
            // Nobody counts any more.
            let _ = told.send(told_now);
        }
    }

    /// Somebody may have asked for another try since.
    async fn is_still_disabled(&self) -> bool {
        let Channel { name, fingerprint, .. } = &self.channel;
        let enabled = matches!(self.shared.outbox.disabled(name, fingerprint).await, Ok(None));
        if enabled {
            self.disabled.store(false, Ordering::Relaxed);
        }
        !enabled
    }

    /// The warning that this channel was given up on, and the other channels that want to know. There is none about a
    /// warning: that would go round for ever.
    fn dead_letter(&self, claimed: &Claimed, why: &str) -> Option<(Event, Vec<ChannelName>)> {
        let payload: Payload = serde_json::from_str(&claimed.payload).ok()?;
        if payload.kind == EventKind::DeliveryFailed {
            return None;
        }
        let name = &self.channel.name;
        let event = Event::of_dead_letter(&claimed.event_id, &payload, name, why, (self.shared.wall)());
        let others = self.shared.routes.borrow().of(EventKind::DeliveryFailed, None);
        Some((event, others.into_iter().filter(|other| other != name).collect()))
    }

    /// Writes down how it went, until that has worked; false if it is not this owner's any more.
    async fn record(&self, claimed: &Claimed, verdict: &Verdict) -> bool {
        let mut pause = STORE_PAUSE;
        let Shared { outbox, owner, wall, .. } = &*self.shared;
        let Verdict { outcome, follows, .. } = verdict;
        loop {
            let recorded = outbox.finish(claimed.id, owner, wall(), outcome.clone(), follows.clone()).await;
            let channel = &self.channel.name;
            match recorded {
                Ok(true) => return true,
                Ok(false) => {
                    warn!(%channel, event_id = %claimed.event_id, "an attempt outlived its lease; it may be told again");
                    return false;
                }
                Err(error) => {
                    error!(%channel, event_id = %claimed.event_id, "cannot record an attempt, trying again: {error}");
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_STORE_PAUSE);
        }
    }
}

fn run_of(claimed: &Claimed) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Data {
        run_id: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct About {
        data: Data,
    }
    serde_json::from_str::<About>(&claimed.payload).ok()?.data.run_id
}
