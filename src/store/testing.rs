//! Initial states for the tests of several files: runs that ended, and settled deliveries.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    ChannelName, Claim, Commit, DeliveryFilter, DeliveryState, Finished, Outbox as _, Outcome, Owner,
    RunStore as _, SqliteStore, Watched,
};
use crate::run::{Ending, Event, Subject, Terminal};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Commits the end of a run at a second, with a delivery to `ops`.
pub(super) async fn end(store: &SqliteStore, id: &str, second: i64) {
    let mut run = Watched::new(Subject { id: id.parse().unwrap(), name: None }, at(0));
    run.state.ended = Some(Ending::Finished(Terminal::Failed));
    run.state.ended_at = Some(at(second));
    let ending = Ending::Finished(Terminal::Failed);
    let event = Event::of_ending("s", &run.subject, ending, &run.state, None, at(second));
    let events = vec![(event, vec!["ops".into()])];
    store.commit(Commit { run: Some(run), events, moment: None }).await.unwrap();
}

/// A claim at a second.
pub(super) fn claim<'a>(channel: &'a ChannelName, owner: &'a Owner, second: i64, limit: usize) -> Claim<'a> {
    Claim { channel, owner, now: at(second), lease: Duration::from_secs(1), limit, in_hand: &[] }
}

/// Settles everything that is due at a second.
pub(super) async fn settle(store: &SqliteStore, second: i64, outcome: Outcome) {
    let (ops, me) = ("ops".into(), Owner("me".into()));
    for claimed in store.claim(claim(&ops, &me, second, 99)).await.unwrap() {
        let finished = store.finish(&claimed, &me, at(second), outcome.clone().into()).await.unwrap();
        assert_eq!(finished, Finished::Recorded);
    }
}

pub(super) async fn states(store: &SqliteStore) -> Vec<(String, DeliveryState, u32)> {
    let all = store.deliveries(DeliveryFilter::default(), 99).await.unwrap();
    all.into_iter().map(|one| (one.run_id.unwrap(), one.state, one.attempts)).collect()
}
