//! The real store behind a door: every call takes some virtual time, may fail, and is checked when it is done.
//!
//! The clock of the runtime must not go on while the store works, so a call is waited for without giving the thread
//! back. As behind the store's own thread, calls are done one after the other, even if the caller no longer waits.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use jiff::Timestamp;
use runwatch::BoxFuture;
use runwatch::run::{RunId, SpecId};
use runwatch::store::{
    ChannelName, Claim, Claimed, Commit, DeliveryFilter, Finished, MomentName, Outbox, Owner, RunDuration,
    RunStore, Settlement, SqliteStore, StoreError, StoreErrorKind, Undelivered, Watched,
};
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;

use super::ledger::{Ledger, has_events};
use super::plan::CALM;
use super::world::World;

/// Share of the calls that fail, such as on a full disk.
const FAILS: f64 = 0.01;

/// The store of one life.
#[derive(Clone)]
pub struct Door {
    pub store: SqliteStore,
    world: Arc<World>,
    ledger: Arc<Ledger>,
    /// One call at a time.
    turn: Arc<Mutex<()>>,
    /// One for each worker, because a channel with several receivers wakes them in any order.
    changes: Arc<std::sync::Mutex<Vec<watch::Sender<u64>>>>,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits without giving the thread back to the runtime.
pub fn wait_here<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// What a call changes.
#[derive(Clone, Copy, PartialEq)]
enum Changes {
    Nothing,
    Runs,
    Outbox,
    Both,
}

impl Door {
    pub fn new(store: SqliteStore, world: &Arc<World>, ledger: &Arc<Ledger>) -> Self {
        let (world, ledger) = (Arc::clone(world), Arc::clone(ledger));
        let changes: Arc<std::sync::Mutex<Vec<watch::Sender<u64>>>> = Arc::default();
        let (workers, mut changed) = (Arc::clone(&changes), store.changed());
        tokio::spawn(async move {
            while changed.changed().await.is_ok() {
                for worker in workers.lock().unwrap().iter() {
                    worker.send_modify(|count| *count += 1);
                }
            }
        });
        Self { store, world, ledger, turn: Arc::default(), changes }
    }

    /// Does a call in its turn.
    async fn call<T, F>(
        &self,
        name: &'static str,
        changes: Changes,
        work: impl FnOnce(SqliteStore) -> F + Send + 'static,
        done: impl FnOnce(&Ledger, &T) + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let door = self.clone();
        let call = tokio::spawn(async move {
            let _turn = door.turn.lock().await;
            door.delay().await;
            door.world.step(format!("{name} begins")).await;
            if changes != Changes::Nothing && door.world.now() < CALM && door.world.chance(FAILS) {
                return Err(StoreError { kind: StoreErrorKind::Full, message: "as scripted".into() });
            }
            let result = wait_here(work(door.store.clone()));
            if let Ok(result) = &result {
                door.check(changes);
                done(&door.ledger, result);
            }
            door.delay().await;
            door.world.step(format!("{name} {}", if result.is_ok() { "is done" } else { "failed" })).await;
            result
        });
        call.await.unwrap_or_else(|error| Err(StoreError::internal(error.to_string())))
    }

    /// The same for a call whose result tells nothing new.
    async fn plain<T, F>(
        &self,
        name: &'static str,
        changes: Changes,
        work: impl FnOnce(SqliteStore) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        self.call(name, changes, work, |_, _| {}).await
    }

    async fn delay(&self) {
        let delay = self.world.draw(|dice| match dice.u8(..60) {
            0 => dice.u64(..10_000),
            1..8 => dice.u64(..50),
            _ => 0,
        });
        if delay > 0 {
            sleep(Duration::from_millis(delay)).await;
        }
    }

    fn check(&self, changes: Changes) {
        if matches!(changes, Changes::Runs | Changes::Both) {
            self.ledger.runs(&wait_here(self.store.load()).unwrap());
        }
        if matches!(changes, Changes::Outbox | Changes::Both) {
            self.check_outbox();
        }
    }

    pub fn check_outbox(&self) {
        self.ledger.outbox(wait_here(self.store.deliveries(DeliveryFilter::default(), 9999)).unwrap());
    }
}

impl RunStore for Door {
    fn load(&self) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>> {
        Box::pin(self.plain("load", Changes::Nothing, |store| async move { store.load().await }))
    }

    fn moment(&self, name: MomentName) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(self.plain("moment", Changes::Nothing, |store| async move { store.moment(name).await }))
    }

    fn durations(&self, spec: SpecId) -> BoxFuture<'_, Result<Vec<RunDuration>, StoreError>> {
        Box::pin(
            self.plain(
                "durations",
                Changes::Nothing,
                move |store| async move { store.durations(spec).await },
            ),
        )
    }

    fn add(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>> {
        Box::pin(self.plain("add", Changes::Runs, |store| async move { store.add(runs).await }))
    }

    fn save(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.plain("save", Changes::Runs, |store| async move { store.save(runs).await }))
    }

    fn forget(&self, runs: Vec<RunId>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.plain("forget", Changes::Runs, |store| async move { store.forget(runs).await }))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        let changes = if has_events(&commit) { Changes::Both } else { Changes::Runs };
        Box::pin(self.plain("commit", changes, |store| async move { store.commit(commit).await }))
    }
}

impl Outbox for Door {
    fn open<'a>(
        &'a self,
        channel: &'a ChannelName,
        fingerprint: &'a str,
        formerly: &'a [String],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        let (channel, fingerprint, formerly) = (channel.clone(), fingerprint.to_owned(), formerly.to_vec());
        let work =
            move |store: SqliteStore| async move { store.open(&channel, &fingerprint, &formerly, now).await };
        Box::pin(self.plain("open", Changes::Nothing, work))
    }

    fn claim<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<Vec<Claimed>, StoreError>> {
        let Claim { channel, owner, now, lease, limit, in_hand } = claim;
        let (channel, owner, in_hand) = (channel.clone(), owner.clone(), in_hand.to_vec());
        let work = move |store: SqliteStore| async move {
            let claim = Claim { channel: &channel, owner: &owner, now, lease, limit, in_hand: &in_hand };
            store.claim(claim).await
        };
        Box::pin(self.plain("claim", Changes::Nothing, work))
    }

    fn finish<'a>(
        &'a self,
        claimed: &'a Claimed,
        owner: &'a Owner,
        now: Timestamp,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Finished, StoreError>> {
        let (claimed, owner) = (claimed.clone(), owner.clone());
        let (of_claimed, of_settlement) = (claimed.clone(), settlement.clone());
        let changes = if settlement.follows.event.is_some() { Changes::Outbox } else { Changes::Nothing };
        let work =
            move |store: SqliteStore| async move { store.finish(&claimed, &owner, now, settlement).await };
        let done = move |ledger: &Ledger, finished: &Finished| {
            ledger.finished(&of_claimed, &of_settlement, *finished);
        };
        Box::pin(self.call("finish", changes, work, done))
    }

    fn release<'a>(
        &'a self,
        claims: &'a [(i64, i64)],
        owner: &'a Owner,
        now: Timestamp,
        fingerprint: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let (claims, owner, fingerprint) = (claims.to_vec(), owner.clone(), fingerprint.to_owned());
        let work =
            move |store: SqliteStore| async move { store.release(&claims, &owner, now, &fingerprint).await };
        Box::pin(self.plain("release", Changes::Nothing, work))
    }

    fn disabled<'a>(
        &'a self,
        channel: &'a ChannelName,
        fingerprint: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        let (channel, fingerprint) = (channel.clone(), fingerprint.to_owned());
        let work = move |store: SqliteStore| async move { store.disabled(&channel, &fingerprint).await };
        Box::pin(self.plain("disabled", Changes::Nothing, work))
    }

    fn next_due<'a>(
        &'a self,
        channel: &'a ChannelName,
        now: Timestamp,
        in_hand: &'a [i64],
    ) -> BoxFuture<'a, Result<Option<Timestamp>, StoreError>> {
        let (channel, in_hand) = (channel.clone(), in_hand.to_vec());
        let work = move |store: SqliteStore| async move { store.next_due(&channel, now, &in_hand).await };
        Box::pin(self.plain("next_due", Changes::Nothing, work))
    }

    fn changed(&self) -> watch::Receiver<u64> {
        let (sender, changed) = watch::channel(0);
        self.changes.lock().unwrap().push(sender);
        changed
    }

    fn undelivered(&self) -> BoxFuture<'_, Result<Vec<Undelivered>, StoreError>> {
        Box::pin(self.plain(
            "undelivered",
            Changes::Nothing,
            |store| async move { store.undelivered().await },
        ))
    }
}
