//! One channel's worker: claims what is due and starts the attempts.
//!
//! Owns the loop: when to claim, how much, and the gathering of what is told together. What an attempt is and what becomes of
//! it is `attempt`'s.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::attempt::{Context, InHand, LONGEST_STORE_PAUSE, STORE_PAUSE, attempt, lock};
use crate::store::{Claim, Claimed, StoreError};

/// A lease outlives the longest attempt by this.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// A pending delivery is looked at this often at least, in case the wall clock was set.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// At most this many events are told together.
const LARGEST_GATHERING: usize = 100;

/// One channel's worker.
pub(super) struct Worker {
    context: Arc<Context>,
    drain: watch::Receiver<Option<Instant>>,
    retire: CancellationToken,
    changed: watch::Receiver<u64>,
    sends: JoinSet<()>,
    /// When what is being gathered is told.
    gathered_at: Option<Instant>,
    /// Whether the store knows how the channel is configured.
    is_open: bool,
}

impl Worker {
    pub(super) fn new(
        context: Arc<Context>,
        drain: watch::Receiver<Option<Instant>>,
        retire: CancellationToken,
    ) -> Self {
        let changed = context.shared.outbox.changed();
        Self { context, drain, retire, changed, sends: JoinSet::new(), gathered_at: None, is_open: false }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken, after: Duration) {
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
                    let channel = &self.context.channel.name;
                    warn!(%channel, "cannot read what is to be sent to {channel}: {error}");
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
            let channel = &self.context.channel.name;
            error!(%channel, "recording an attempt to send to {channel} panicked: {panic}");
        }
    }

    /// Starts what is due and there is room for; gives how long until more is due, `None` if nothing else is pending or
    /// there is no room.
    async fn start_due(&mut self) -> Result<Option<Duration>, StoreError> {
        if self.retire.is_cancelled() {
            return Ok(None);
        }
        if !self.is_open {
            self.context.open().await?;
            self.is_open = true;
        }
        let gathers = !self.context.channel.gather.is_zero();
        let room = self.context.allowed().saturating_sub(self.sends.len());
        if room == 0 {
            return Ok(None);
        }
        if gathers && let Some(wait) = self.gathering().await? {
            return Ok(Some(wait));
        }
        let claimed = self.claim(if gathers { LARGEST_GATHERING } else { room }).await?;
        let context = &self.context;
        if gathers && !claimed.is_empty() {
            self.sends.spawn(attempt(Arc::clone(context), claimed));
            return Ok(None);
        }
        let full = claimed.len() == room;
        for claimed in claimed {
            self.sends.spawn(attempt(Arc::clone(context), vec![claimed]));
        }
        if full {
            return Ok(None);
        }
        self.next_due().await
    }

    async fn claim(&self, limit: usize) -> Result<Vec<(Claimed, InHand)>, StoreError> {
        let Context { shared, channel, .. } = &*self.context;
        let in_hand = self.in_hand();
        let claim = Claim {
            channel: &channel.name,
            owner: &shared.owner,
            now: (shared.wall)(),
            lease: channel.timeout + LEASE_MARGIN,
            limit,
            in_hand: &in_hand,
        };
        let claimed = shared.outbox.claim(claim).await?;
        let held = |claimed: Claimed| {
            let held = InHand::new(shared, claimed.id);
            (claimed, held)
        };
        Ok(claimed.into_iter().map(held).collect())
    }

    async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        let Context { shared, channel, .. } = &*self.context;
        let now = (shared.wall)();
        let due = shared.outbox.next_due(&channel.name, now, &self.in_hand()).await?;
        Ok(due.map(|due| Duration::try_from(due.duration_since((shared.wall)())).unwrap_or_default()))
    }

    /// Every row that this process has claimed and not settled, of whichever channel.
    fn in_hand(&self) -> Vec<i64> {
        lock(&self.context.shared.in_hand).iter().copied().collect()
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
