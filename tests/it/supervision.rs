//! A half of the program that ends by itself: whoever runs both learns of it at once, and which one it was.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runwatch::BoxFuture;
use runwatch::app::{self, Plan, Running};
use runwatch::poll::OutagesTold;
use runwatch::run::{RunId, SpecId};
use runwatch::store::{
    ChannelName, Claim, Claimed, Commit, Finished, MomentName, Outbox, Owner, RunStore, Settlement,
    SqliteStore, StoreError, Took, Undelivered, Watched,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::scripted::{Api, settings, status};

/// A store in which one thing panics.
struct Broken {
    store: SqliteStore,
    /// Every worker asks for this when it is made, in the task that all workers hang on.
    outbox_panics: bool,
}

impl Outbox for Broken {
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
        self.store.claim(claim)
    }

    fn finish<'a>(
        &'a self,
        claimed: &'a Claimed,
        owner: &'a Owner,
        now: Timestamp,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Finished, StoreError>> {
        self.store.finish(claimed, owner, now, settlement)
    }

    fn release<'a>(
        &'a self,
        claims: &'a [(i64, i64)],
        owner: &'a Owner,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.store.release(claims, owner)
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
        self.store.next_due(channel, now, in_hand)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        assert!(!self.outbox_panics, "as scripted");
        self.store.changed()
    }

    fn undelivered(&self) -> BoxFuture<'_, Result<Vec<Undelivered>, StoreError>> {
        self.store.undelivered()
    }
}

impl RunStore for Broken {
    fn load(&self) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>> {
        self.store.load()
    }

    fn moment(&self, name: MomentName) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        self.store.moment(name)
    }

    fn took(&self, spec: SpecId) -> BoxFuture<'_, Result<Vec<Took>, StoreError>> {
        self.store.took(spec)
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

fn start(outbox_panics: bool) -> Running {
    let api = Api::new().with("r", |_, _| status("PROCESSING"));
    let store = Broken { store: SqliteStore::in_memory().unwrap(), outbox_panics };
    let desktop = app::default_desktop(&[]);
    let plan = Plan {
        settings: settings(),
        runs: Vec::new(),
        channels: vec![desktop],
        outages_told: OutagesTold::default(),
    };
    app::start(plan, Arc::new(api), Arc::new(store))
}

#[tokio::test(start_paused = true)]
async fn a_delivery_half_that_panics_is_noticed_at_once_and_named() {
    let running = start(true);
    let error = running.failed().await;
    assert!(error.to_string().starts_with("the delivery of notifications panicked"), "{error}");
    let second = Duration::from_secs(1);
    let stopped = running.stop(second, second, CancellationToken::new()).await;
    assert!(stopped.unwrap_err().to_string().contains("the delivery of notifications panicked"));
}

#[tokio::test(start_paused = true)]
async fn both_halves_live_until_they_are_stopped() {
    let running = start(false);
    let failed = running.failed();
    tokio::select! {
        error = failed => panic!("{error}"),
        () = tokio::time::sleep(Duration::from_hours(1)) => {}
    }
    let second = Duration::from_secs(1);
    running.stop(second, second, CancellationToken::new()).await.unwrap();
}
