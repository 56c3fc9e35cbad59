//! The worker of one channel: claims due deliveries and starts attempts.
//!
//! Owns the loop: when to claim, how much, and when gathered events are sent together. Claiming, sending and recording
//! overlap. Claims and records wait for commits, and a fast receiver must not wait for them. `attempt` owns the
//! attempts and their results.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::attempt::{
    Context, InHand, LONGEST_STORE_PAUSE, Prepared, STORE_PAUSE, Sent, lock, prepare, send,
};
use super::delivery::AttemptOutcome;
use crate::store::{Claim, Claimed, StoreError};

/// How much longer a lease is than the longest attempt. A delivery claimed earlier is released instead of sent.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Maximum time between two checks of pending deliveries, in case the wall clock was set.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Maximum number of events sent together.
const LARGEST_GATHERING: usize = 100;

/// A receiver that answers within this time is fast: deliveries are claimed before there is room to send them.
const QUICK: Duration = Duration::from_millis(100);

/// Number of deliveries to claim ahead for a fast receiver, as a multiple of the concurrency. More deliveries share a
/// commit if it is larger; later events can supersede more if it is smaller.
const AHEAD: usize = 16;

/// Maximum number of sends without a record. As many may be sent again after a crash.
const UNRECORDED: usize = 128;

/// Maximum wait for records in progress when the worker stops. Deliveries without a record are sent again.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// The worker of one channel.
pub(super) struct Worker {
    context: Arc<Context>,
    drain: watch::Receiver<Option<Instant>>,
    retire: CancellationToken,
    changed: watch::Receiver<u64>,
    /// Deliveries claimed but not sent yet, in order.
    ready: VecDeque<Prepared>,
    claims: JoinSet<Result<Due, StoreError>>,
    /// Whether the claim in progress began before the channel was held or ended.
    is_outdated: bool,
    sends: JoinSet<Sent>,
    /// Each returns whether more deliveries may be due now.
    records: JoinSet<bool>,
    /// Held by records in progress that hold or end the channel. Until the store has them, nothing is sent or claimed.
    halt: Arc<()>,
    /// When a delivery is due, as far as known; `None` to wait for a change.
    ask_at: Option<Instant>,
    asked_at: Instant,
    /// Whether the receiver's last answer was fast.
    is_quick: bool,
    store_pause: Duration,
    /// When the gathered events are sent.
    gathered_at: Option<Instant>,
    /// Whether the store knows the channel's configuration.
    is_open: bool,
}

/// The store's answer about the channel.
struct Due {
    /// Whether deliveries could be claimed.
    claims: bool,
    claimed: Vec<(Claimed, InHand)>,
    /// Whether more may be due now.
    more: bool,
    /// Time until the next delivery is due.
    next: Option<Duration>,
}

impl Worker {
    pub(super) fn new(
        context: Arc<Context>,
        drain: watch::Receiver<Option<Instant>>,
        retire: CancellationToken,
    ) -> Self {
        let changed = context.shared.outbox.changed();
        Self {
            context,
            drain,
            retire,
            changed,
            ready: VecDeque::new(),
            claims: JoinSet::new(),
            is_outdated: false,
            sends: JoinSet::new(),
            records: JoinSet::new(),
            halt: Arc::new(()),
            ask_at: Some(Instant::now()),
            asked_at: Instant::now(),
            is_quick: false,
            store_pause: STORE_PAUSE,
            gathered_at: None,
            is_open: false,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken, after: Duration) {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = async {
                sleep(after).await;
                self.work().await;
            } => {}
        }
        self.stop().await;
    }

    /// Cancels everything in flight. Cancelled attempts stay claimed, and the store's next owner continues with them.
    async fn stop(&mut self) {
        self.claims.shutdown().await;
        self.sends.abort_all();
        while let Some(sent) = self.sends.join_next().await {
            // Attempts that have finished are recorded.
            if sent.is_ok() {
                self.sent(sent);
            }
        }
        // If the store does not answer in time, these records are lost, and their deliveries are repeated.
        let _ = timeout(LAST_RECORDS, async { while self.records.join_next().await.is_some() {} }).await;
        self.records.shutdown().await;
    }

    async fn work(&mut self) {
        loop {
            self.send_ready();
            self.ask_if_due();
            if self.is_done() {
                return;
            }
            let ask_at = self.ask_at().filter(|_| self.may_ask());
            // In order, so that a test in virtual time can be repeated. No branch starves the others: each send and claim
            // needs a record or an answer of the store before the next one.
            tokio::select! {
                biased;
                Some(due) = self.claims.join_next() => self.claimed(due),
                Some(sent) = self.sends.join_next() => {
                    self.sent(sent);
                    while let Some(sent) = self.sends.try_join_next() {
                        self.sent(sent);
                    }
                }
                Some(recorded) = self.records.join_next() => {
                    self.recorded(recorded);
                    // Records of one commit end together, so one claim follows them all.
                    while let Some(recorded) = self.records.try_join_next() {
                        self.recorded(recorded);
                    }
                }
                Ok(()) = self.changed.changed() => self.ask_now(),
                Ok(()) = self.drain.changed() => self.ask_now(),
                () = self.retire.cancelled(), if !self.retire.is_cancelled() => {}
                () = sleep_until(ask_at.unwrap_or_else(Instant::now)), if ask_at.is_some() => {}
            }
        }
    }

    fn ask_now(&mut self) {
        self.ask_at = Some(Instant::now());
    }

    /// When to ask the store next; `None` to wait for a change.
    fn ask_at(&self) -> Option<Instant> {
        let due = self.ask_at?.min(self.asked_at + LONGEST_SLEEP);
        // Gathering lasts until then.
        let gathered = self.gathered_at.filter(|_| self.drain.borrow().is_none());
        Some(gathered.map_or(due, |at| due.max(at)))
    }

    fn is_halted(&self) -> bool {
        Arc::strong_count(&self.halt) > 1
    }

    /// Starts as many sends as there is room for.
    fn send_ready(&mut self) {
        if self.retire.is_cancelled() || self.is_halted() {
            return self.release_ready();
        }
        if self.gathers() {
            if !self.ready.is_empty() && self.sends.is_empty() {
                let together = self.ready.drain(..).collect();
                self.sends.spawn(send(Arc::clone(&self.context), together));
            }
            return;
        }
        let (allowed, _) = self.context.allowed();
        let mut late = Vec::new();
        while self.sends.len() < allowed && self.records.len() < UNRECORDED {
            let Some(one) = self.ready.pop_front() else { break };
            if one.claimed_at.elapsed() > LEASE_MARGIN {
                late.push(one);
            } else {
                self.sends.spawn(send(Arc::clone(&self.context), vec![one]));
            }
        }
        self.release(late);
    }

    fn release_ready(&mut self) {
        let unsent = self.ready.drain(..).collect();
        self.release(unsent);
    }

    fn release(&mut self, unsent: Vec<Prepared>) {
        if !unsent.is_empty() {
            let context = Arc::clone(&self.context);
            self.records.spawn(async move {
                context.release(unsent).await;
                true
            });
        }
    }

    /// How many more deliveries to claim. More than can be sent now only if the receiver is fast, because later events
    /// cannot supersede claimed ones.
    fn room(&self) -> usize {
        if self.gathers() {
            return if self.sends.is_empty() && self.ready.is_empty() { LARGEST_GATHERING } else { 0 };
        }
        let (allowed, is_all) = self.context.allowed();
        let ahead = if self.is_quick && is_all { allowed * AHEAD } else { 0 };
        (allowed + ahead).saturating_sub(self.sends.len() + self.ready.len())
    }

    /// Whether to ask the store now: one request at a time, and not for a few deliveries while many wait.
    fn may_ask(&self) -> bool {
        self.claims.is_empty()
            && !self.is_halted()
            && self.records.len() < UNRECORDED
            && !self.retire.is_cancelled()
            && self.room() > self.ready.len()
    }

    /// Asks the store for due deliveries, if it is time.
    fn ask_if_due(&mut self) {
        let now = Instant::now();
        if self.ask_at().is_none_or(|at| at > now) || !self.may_ask() {
            return;
        }
        (self.ask_at, self.asked_at) = (None, now);
        let context = Arc::clone(&self.context);
        let (is_open, room) = (self.is_open, self.room());
        // Due deliveries wait once, so that more can be sent together with them.
        let limit = if self.gathers() && !self.is_gathered(now) { 0 } else { room };
        self.claims.spawn(async move {
            if !is_open {
                context.open().await?;
            }
            due(&context, limit).await
        });
    }

    fn claimed(&mut self, due: Result<Result<Due, StoreError>, JoinError>) {
        let channel = &self.context.channel.name;
        let now = Instant::now();
        let is_outdated = std::mem::take(&mut self.is_outdated);
        let due = match due {
            Ok(Ok(due)) => due,
            Ok(Err(error)) => {
                warn!(%channel, "cannot read due deliveries to {channel}: {error}");
                self.ask_at = Some(now + self.store_pause);
                self.store_pause = (self.store_pause * 2).min(LONGEST_STORE_PAUSE);
                return;
            }
            Err(panic) => {
                error!(%channel, "reading due deliveries to {channel} panicked: {panic}");
                self.ask_at = Some(now + self.store_pause);
                return;
            }
        };
        self.store_pause = STORE_PAUSE;
        self.is_open = true;
        for (claimed, in_hand) in due.claimed {
            let one = prepare(claimed, in_hand);
            match one.payload.as_ref().err().cloned() {
                // There is nothing to send.
                Some(error) => self.judged(one, Err(error), Duration::ZERO),
                None => self.ready.push_back(one),
            }
        }
        if is_outdated {
            self.release_ready();
        }
        let next = if due.more { Some(Duration::ZERO) } else { due.next };
        let next = next.map(|wait| now.checked_add(wait).unwrap_or(now + LONGEST_SLEEP));
        if due.claims {
            self.gathered_at = None;
        } else if next.is_some_and(|at| at <= now) {
            self.gathered_at = Some(now + self.context.channel.gather);
        }
        // Something may have changed meanwhile.
        self.ask_at = [self.ask_at, next].into_iter().flatten().min();
    }

    fn sent(&mut self, sent: Result<Sent, JoinError>) {
        let Sent { prepared, result, took } = match sent {
            Ok(sent) => sent,
            Err(panic) => {
                let channel = &self.context.channel.name;
                error!(%channel, "an attempt to send to {channel} panicked: {panic}");
                return self.ask_now();
            }
        };
        self.is_quick = took < QUICK;
        for one in prepared {
            self.judged(one, result.clone(), took);
        }
    }

    /// The result of an attempt takes effect at once, and is logged when it is recorded.
    fn judged(&mut self, one: Prepared, result: Result<(), super::NotifyError>, took: Duration) {
        let verdict = self.context.judge(&one, result);
        let follows = &verdict.settlement.follows;
        let halts = follows.hold.is_some() || follows.disable.is_some();
        let halt = halts.then(|| Arc::clone(&self.halt));
        let context = Arc::clone(&self.context);
        self.records.spawn(async move {
            context.settle(&one, &verdict, took).await;
            drop(halt);
            verdict.reported != AttemptOutcome::Delivered
        });
        if halts {
            self.is_outdated = !self.claims.is_empty();
            self.release_ready();
        }
    }

    fn recorded(&mut self, recorded: Result<bool, JoinError>) {
        match recorded {
            Ok(true) => self.ask_now(),
            Ok(false) => {}
            Err(panic) => {
                let channel = &self.context.channel.name;
                error!(%channel, "recording an attempt to send to {channel} panicked: {panic}");
                self.ask_now();
            }
        }
    }

    fn gathers(&self) -> bool {
        !self.context.channel.gather.is_zero()
    }

    /// Whether due deliveries have waited for more.
    fn is_gathered(&self, now: Instant) -> bool {
        self.gathered_at.is_some_and(|at| at <= now) || self.drain.borrow().is_some()
    }

    fn is_done(&self) -> bool {
        let idle = self.sends.is_empty()
            && self.records.is_empty()
            && self.claims.is_empty()
            && self.ready.is_empty();
        if !idle || self.retire.is_cancelled() {
            return idle;
        }
        let Some(deadline) = *self.drain.borrow() else { return false };
        self.ask_at.is_none_or(|at| at > deadline)
    }
}

/// Claims up to `limit` due deliveries and finds out when more are due, in one commit.
async fn due(context: &Context, limit: usize) -> Result<Due, StoreError> {
    let super::attempt::Shared { outbox, owner, wall, .. } = &*context.shared;
    let channel = &context.channel;
    // All rows that this process has claimed and not settled, of any channel.
    let in_hand: Vec<i64> = lock(&context.shared.in_hand).iter().copied().collect();
    let now = wall();
    let claim = Claim {
        channel: &channel.name,
        owner,
        now,
        lease: channel.timeout + LEASE_MARGIN,
        limit,
        in_hand: &in_hand,
    };
    let claiming = async { if limit == 0 { Ok(Vec::new()) } else { outbox.claim(claim).await } };
    let (claimed, next) = tokio::join!(claiming, outbox.next_due(&channel.name, now, &in_hand));
    let held = |claimed: Claimed| {
        let held = InHand::new(&context.shared, claimed.id);
        (claimed, held)
    };
    let claimed: Vec<_> = claimed?.into_iter().map(held).collect();
    let claims = limit > 0;
    let more = claims && (claimed.len() == limit || next.is_err());
    // Send the claimed deliveries even if the next due time cannot be read.
    let next = if claimed.is_empty() { next? } else { next.unwrap_or_default() };
    let next = next.map(|due| Duration::try_from(due.duration_since(wall())).unwrap_or_default());
    Ok(Due { claims, claimed, more, next })
}
