//! From the outbox to the channels: claim, send, record. At least once, one worker a channel.
//!
//! Owns the retry loop. Each channel has a worker of its own, so that a slow or dead one delays no other. A delivery is
//! called delivered only when that has been recorded.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Channel, Notice, NotifyError, Retry};
use crate::clock::WallClock;
use crate::run::event::Payload;
use crate::store::{Claimed, Outbox, Outcome, Owner, StoreError};

/// A lease outlives the longest attempt by this.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// The pauses after the store failed: the first, doubled up to the last.
const STORE_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(30);

/// A pending delivery is looked at this often at least, in case the wall clock was set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Ends the workers once nothing is due before the moment given.
pub type Drain = watch::Sender<Option<Instant>>;

/// The notifying half: all channels' workers.
pub struct Delivery {
    outbox: Arc<dyn Outbox>,
    channels: Vec<Channel>,
    wall: WallClock,
    drain: Drain,
}

impl Delivery {
    /// Workers for these channels. None runs yet.
    pub fn new(outbox: Arc<dyn Outbox>, channels: Vec<Channel>, wall: WallClock) -> Self {
        Self { outbox, channels, wall, drain: watch::Sender::new(None) }
    }

    /// The handle that ends the workers in good order.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Works until cancelled or drained. What is cut off stays in the outbox.
    pub async fn run(self, cancel: CancellationToken) {
        // Unique among the owners of a store: the process and the moment it began.
        let owner = Owner(format!("{}-{}", std::process::id(), (self.wall)().as_microsecond()).into());
        let mut workers = JoinSet::new();
        let mut contexts = HashMap::new();
        let start = |workers: &mut JoinSet<()>, context: Arc<Context>, after: Duration| {
            let worker = Worker {
                drain: self.drain.subscribe(),
                changed: self.outbox.changed(),
                sends: JoinSet::new(),
                context,
            };
            workers.spawn(worker.run(cancel.clone(), after)).id()
        };
        for channel in self.channels {
            let context = Arc::new(Context {
                outbox: Arc::clone(&self.outbox),
                owner: owner.clone(),
                wall: Arc::clone(&self.wall),
                disabled: AtomicBool::new(false),
                channel,
            });
            contexts.insert(start(&mut workers, Arc::clone(&context), Duration::ZERO), context);
        }
        while let Some(ended) = workers.join_next_with_id().await {
            // A worker that panics does not leave its channel silent.
            if let Err(panic) = ended
                && let Some(context) = contexts.remove(&panic.id())
            {
                error!(channel = %context.channel.name, "a delivery worker panicked and is started again: {panic}");
                contexts.insert(start(&mut workers, Arc::clone(&context), STORE_PAUSE), context);
            }
        }
    }
}

/// What a worker and its attempts share.
struct Context {
    outbox: Arc<dyn Outbox>,
    owner: Owner,
    wall: WallClock,
    channel: Channel,
    /// The receiver wants nothing more.
    disabled: AtomicBool,
}

/// One channel's worker.
struct Worker {
    context: Arc<Context>,
    drain: watch::Receiver<Option<Instant>>,
    changed: watch::Receiver<u64>,
    sends: JoinSet<()>,
}

impl Worker {
    async fn run(mut self, cancel: CancellationToken, after: Duration) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = async {
                sleep(after).await;
                self.work().await;
            } => {}
        }
        // Attempts that are broken off stay claimed; the store's next owner takes them up.
        self.sends.shutdown().await;
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
            if self.is_drained(next) {
                return;
            }
            tokio::select! {
                Some(ended) = self.sends.join_next() => {
                    if let Err(panic) = ended {
                        error!(channel = %self.context.channel.name, "an attempt panicked: {panic}");
                    }
                }
                Ok(()) = self.changed.changed() => {}
                Ok(()) = self.drain.changed() => {}
                () = sleep(next.unwrap_or_default().min(LONGEST_SLEEP)), if next.is_some() => {}
            }
        }
    }

    /// Starts what is due and there is room for; gives how long until more is due, `None` if nothing else is pending or
    /// there is no room.
    async fn start_due(&mut self) -> Result<Option<Duration>, StoreError> {
        let Context { outbox, owner, channel, wall, .. } = &*self.context;
        let room = channel.concurrency.saturating_sub(self.sends.len());
        if room == 0 {
            return Ok(None);
        }
        let lease = channel.timeout + LEASE_MARGIN;
        let claimed = outbox.claim(&channel.name, owner, wall(), lease, room).await?;
        let full = claimed.len() == room;
        for claimed in claimed {
            self.sends.spawn(attempt(Arc::clone(&self.context), claimed));
        }
        if full {
            return Ok(None);
        }
        let due = outbox.next_due(&channel.name).await?;
        Ok(due.map(|due| Duration::try_from(due.duration_since(wall())).unwrap_or_default()))
    }

    fn is_drained(&self, next: Option<Duration>) -> bool {
        let Some(deadline) = *self.drain.borrow() else { return false };
        self.sends.is_empty() && next.is_none_or(|wait| Instant::now() + wait > deadline)
    }
}

/// One attempt, from the claim to the record.
async fn attempt(context: Arc<Context>, claimed: Claimed) {
    let began = Instant::now();
    let result = send(&context, &claimed).await;
    let outcome = context.judge(&claimed, result, began.elapsed());
    let mut pause = STORE_PAUSE;
    loop {
        let recorded =
            context.outbox.finish(claimed.id, &context.owner, (context.wall)(), outcome.clone()).await;
        let channel = &context.channel.name;
        match recorded {
            Ok(true) => return,
            Ok(false) => {
                warn!(%channel, event_id = %claimed.event_id, "an attempt outlived its lease; it may be told again");
                return;
            }
            Err(error) => {
                error!(%channel, event_id = %claimed.event_id, "cannot record an attempt, trying again: {error}");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_STORE_PAUSE);
    }
}

async fn send(context: &Context, claimed: &Claimed) -> Result<(), NotifyError> {
    if context.disabled.load(Ordering::Relaxed) {
        return Err(NotifyError { retry: Retry::Disable, message: "the channel is disabled".to_owned() });
    }
    let payload: Payload = serde_json::from_str(&claimed.payload)
        .map_err(|error| NotifyError::retryable(format!("the stored event cannot be read: {error}")))?;
    let notice = Notice {
        event_id: claimed.event_id.clone(),
        payload,
        json: Arc::clone(&claimed.payload),
        attempt: claimed.attempt,
    };
    // Notifiers bound themselves; this bound is what the lease rests on.
    timeout(context.channel.timeout, context.channel.notifier.send(&notice))
        .await
        .unwrap_or_else(|_| Err(NotifyError::retryable("the attempt took too long")))
}

impl Context {
    /// What to record, and a word about it in the log.
    fn judge(&self, claimed: &Claimed, result: Result<(), NotifyError>, took: Duration) -> Outcome {
        let channel = &self.channel.name;
        let Claimed { event_id, attempt, .. } = claimed;
        let NotifyError { retry, message } = match result {
            Ok(()) => {
                info!(%channel, %event_id, attempt, took_ms = (took.as_secs_f64() * 10_000.0).round() / 10.0, "delivered");
                return Outcome::Delivered;
            }
            Err(error) => error,
        };
        let floor = match retry {
            Retry::NotBefore(floor) => floor.unwrap_or_default(),
            Retry::Disable => {
                if !self.disabled.swap(true, Ordering::Relaxed) {
                    error!(%channel, %event_id, "the channel is disabled until the next start: {message}");
                }
                return Outcome::Dead { error: message };
            }
        };
        let Some(pause) = self.channel.schedule.pause(*attempt, fastrand::f64()) else {
            error!(%channel, %event_id, attempt, "given up after the last attempt: {message}");
            return Outcome::Dead { error: message };
        };
        let pause = pause.max(floor);
        warn!(%channel, %event_id, attempt, "{message}; trying again in {}", crate::span::human(pause));
        Outcome::Retry { at: (self.wall)() + pause, error: message }
    }
}
