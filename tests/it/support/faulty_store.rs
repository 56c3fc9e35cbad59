//! A store that fails or panics in some of its calls, as a test says.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runwatch::BoxFuture;
use runwatch::run::{RunId, SpecId};
use runwatch::store::{
    ChannelName, Claim, Claimed, Commit, Finished, MomentName, Outbox, Owner, RunDuration, RunStore,
    Settlement, SqliteStore, StoreError, Undelivered, Watched,
};
use tokio::sync::watch;

/// A call that a test can meddle with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Claim,
    Finish,
    Next,
    /// Every worker asks for this when it is made, in the task that all workers hang on.
    Changed,
}

/// A store in memory with something in front of it.
pub struct Faulty {
    store: Arc<SqliteStore>,
    before: Box<dyn Fn(Call) -> Result<(), StoreError> + Send + Sync>,
    claiming: Duration,
    finishing: Duration,
}

impl Faulty {
    /// `before` is called before each of these calls. It may panic; its error is the call's, where the call can fail.
    pub fn new(
        store: Arc<SqliteStore>,
        before: impl Fn(Call) -> Result<(), StoreError> + Send + Sync + 'static,
    ) -> Self {
        Self { store, before: Box::new(before), claiming: Duration::ZERO, finishing: Duration::ZERO }
    }

    /// The answer to a claim takes so long after the claim was made, and the commit of an attempt so long before it is made.
    pub fn slow(self, claiming: Duration, finishing: Duration) -> Self {
        Self { claiming, finishing, ..self }
    }
}

async fn pause(length: Duration) {
    if !length.is_zero() {
        tokio::time::sleep(length).await;
    }
}

impl Outbox for Faulty {
    fn open<'a>(
        &'a self,
        channel: &'a ChannelName,
        fingerprint: &'a str,
        formerly: &'a [String],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        self.store.open(channel, fingerprint, formerly, now)
    }

    fn claim<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<Vec<Claimed>, StoreError>> {
        match (self.before)(Call::Claim) {
            Ok(()) => Box::pin(async {
                let claimed = self.store.claim(claim).await;
                pause(self.claiming).await;
                claimed
            }),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    fn finish<'a>(
        &'a self,
        claimed: &'a Claimed,
        owner: &'a Owner,
        now: Timestamp,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Finished, StoreError>> {
        match (self.before)(Call::Finish) {
            Ok(()) => Box::pin(async move {
                pause(self.finishing).await;
                self.store.finish(claimed, owner, now, settlement).await
            }),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    fn release<'a>(
        &'a self,
        claims: &'a [(i64, i64)],
        owner: &'a Owner,
        now: Timestamp,
        fingerprint: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.store.release(claims, owner, now, fingerprint)
    }

    fn disabled<'a>(
        &'a self,
        channel: &'a ChannelName,
        fingerprint: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        self.store.disabled(channel, fingerprint)
    }

    fn next_due<'a>(
        &'a self,
        channel: &'a ChannelName,
        now: Timestamp,
        in_hand: &'a [i64],
    ) -> BoxFuture<'a, Result<Option<Timestamp>, StoreError>> {
        match (self.before)(Call::Next) {
            Ok(()) => self.store.next_due(channel, now, in_hand),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    fn changed(&self) -> watch::Receiver<u64> {
        (self.before)(Call::Changed).unwrap();
        self.store.changed()
    }

    fn undelivered(&self) -> BoxFuture<'_, Result<Vec<Undelivered>, StoreError>> {
        self.store.undelivered()
    }
}

impl RunStore for Faulty {
    fn load(&self) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>> {
        self.store.load()
    }

    fn moment(&self, name: MomentName) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        self.store.moment(name)
    }

    fn durations(&self, spec: SpecId) -> BoxFuture<'_, Result<Vec<RunDuration>, StoreError>> {
        self.store.durations(spec)
    }

    fn add(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>> {
        self.store.add(runs)
    }

    fn save(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.save(runs)
    }

    fn forget(&self, runs: Vec<RunId>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.forget(runs)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.commit(commit)
    }
}
