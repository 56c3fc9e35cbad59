//! Tests of `outbox`.

use super::*;
use crate::run::{Ending, Event, EventKind, RunState, Subject, Terminal};
use crate::store::testing::{at, states};
use crate::store::{Commit, DeliveryState, RunStore as _, Watched};

const LEASE: Duration = Duration::from_secs(60);

fn owner(name: &str) -> Owner {
    Owner(name.into())
}

/// A store with one event at second 100 for the channel `ops`.
async fn store() -> (SqliteStore, ChannelName) {
    let store = SqliteStore::in_memory().unwrap();
    commit(&store, "r1", EventKind::RunLost, 100).await;
    (store, "ops".into())
}

/// Commits an event of a run at a second, for `ops`.
async fn commit(store: &SqliteStore, run: &str, kind: EventKind, second: i64) {
    let subject = Subject { id: run.parse().unwrap(), name: None };
    let mut state = RunState::new(at(0));
    let ending = match kind {
        EventKind::RunSucceeded => Some(Ending::Finished(Terminal::Succeeded)),
        EventKind::RunLost => Some(Ending::Gone),
        _ => None,
    };
    state.ended = ending;
    let event = match ending {
        Some(ending) => Event::of_ending("s", &subject, ending, &state, None, at(second)),
        None => Event::of_warning("s", &subject, kind, &state, at(0), at(second)),
    };
    let run = Some(Watched { state, ..Watched::new(subject, at(0)) });
    store.commit(Commit { run, events: vec![(event, vec!["ops".into()])], moment: None }).await.unwrap();
}

async fn claim(store: &SqliteStore, who: &str, second: i64) -> Vec<Claimed> {
    claim_beside(store, who, second, &[]).await
}

async fn claim_beside(store: &SqliteStore, who: &str, second: i64, in_hand: &[i64]) -> Vec<Claimed> {
    let (channel, owner) = (&"ops".into(), &owner(who));
    let claim = Claim { channel, owner, now: at(second), lease: LEASE, limit: 9, in_hand };
    store.claim(claim).await.unwrap()
}

async fn finish(store: &SqliteStore, who: &str, claimed: &Claimed, settlement: Settlement) -> Finished {
    store.finish(claimed, &owner(who), at(300), settlement).await.unwrap()
}

fn retry(second: i64) -> Settlement {
    Outcome::Retry { at: at(second), error: "HTTP 500".into() }.into()
}

fn kinds(claimed: &[Claimed]) -> Vec<(String, String)> {
    let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
    claimed.iter().map(|one| (text(&one.run_id), one.kind.to_string())).collect()
}

#[tokio::test]
async fn a_claim_is_exclusive_until_its_lease_ends() {
    let (store, ops) = store().await;
    assert!(claim(&store, "a", 99).await.is_empty(), "not due yet");
    let claimed = claim(&store, "a", 100).await;
    assert_eq!(kinds(&claimed), [("r1".to_owned(), "run.lost".to_owned())]);
    assert!(claim(&store, "b", 159).await.is_empty());
    assert_eq!(store.next_due(&ops, at(100), &[]).await.unwrap(), Some(at(160)));
    let again = claim(&store, "b", 160).await;
    assert_eq!((again[0].id, again[0].attempt), (claimed[0].id, 1), "nothing is known of an attempt");
    assert_eq!(again[0].event_id, claimed[0].event_id);
    // The first owner is too late: its result does not count.
    assert_eq!(finish(&store, "a", &claimed[0], Outcome::Delivered.into()).await, Finished::Stale);
    assert_eq!(finish(&store, "b", &again[0], Outcome::Delivered.into()).await, Finished::Recorded);
    assert_eq!(store.next_due(&ops, at(161), &[]).await.unwrap(), None);
    assert!(store.undelivered().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_process_never_claims_what_it_holds_and_an_older_claim_settles_nothing() {
    let (store, ops) = store().await;
    let first = claim(&store, "a", 100).await;
    let held = [first[0].id];
    assert!(claim_beside(&store, "a", 9000, &held).await.is_empty(), "its lease ended long ago");
    assert_eq!(store.next_due(&ops, at(9000), &held).await.unwrap(), None, "nor is it due");
    let second = claim(&store, "a", 9000).await;
    assert!(second[0].claim > first[0].claim);
    for settlement in [Outcome::Delivered.into(), retry(1), Outcome::Dead { error: "x".into() }.into()] {
        assert_eq!(finish(&store, "a", &first[0], settlement).await, Finished::Stale);
    }
    assert_eq!(states(&store).await, [("r1".into(), DeliveryState::Pending, 1)], "under way");
    assert_eq!(finish(&store, "a", &second[0], Outcome::Delivered.into()).await, Finished::Recorded);
}

#[tokio::test]
async fn a_retry_waits_and_the_dead_stay_visible() {
    let (store, ops) = store().await;
    let first = claim(&store, "a", 100).await;
    let refused = Settlement { answer: Some("try later".into()), ..retry(105) };
    assert_eq!(finish(&store, "a", &first[0], refused).await, Finished::Recorded);
    assert!(claim(&store, "a", 104).await.is_empty());
    let second = claim(&store, "a", 105).await;
    assert_eq!(second[0].attempt, 2);
    let put_off = Outcome::Postponed { at: None, error: "HTTP 429".into() };
    assert_eq!(finish(&store, "a", &second[0], put_off.into()).await, Finished::Recorded);
    let third = claim(&store, "a", 105).await;
    assert_eq!(third[0].attempt, 2, "that was none");
    let dead = Outcome::Dead { error: "HTTP 410".into() };
    assert_eq!(finish(&store, "a", &third[0], dead.into()).await, Finished::Recorded);
    let left = store.undelivered().await.unwrap();
    assert_eq!((left.len(), left[0].attempts), (1, 2));
    assert_eq!((left[0].due_at, left[0].last_error.as_deref()), (None, Some("HTTP 410")));
    assert_eq!(store.next_due(&ops, at(300), &[]).await.unwrap(), None);
}

#[tokio::test]
async fn a_channel_sees_only_its_own() {
    let (store, _) = store().await;
    let (channel, owner) = (&"other".into(), &owner("a"));
    let claim = Claim { channel, owner, now: at(200), lease: LEASE, limit: 9, in_hand: &[] };
    assert!(store.claim(claim).await.unwrap().is_empty());
    assert_eq!(store.next_due(channel, at(200), &[]).await.unwrap(), None);
}

#[tokio::test]
async fn a_run_keeps_its_order_and_holds_up_no_other() {
    let store = SqliteStore::in_memory().unwrap();
    for (run, kind, second) in [
        ("a", EventKind::RunStalled, 10),
        ("a", EventKind::RunOverdue, 11),
        ("b", EventKind::RunSucceeded, 12),
    ] {
        commit(&store, run, kind, second).await;
    }
    let first = claim(&store, "x", 20).await;
    let named = |run: &str, kind: &str| (run.to_owned(), kind.to_owned());
    assert_eq!(kinds(&first), [named("a", "run.stalled"), named("b", "run.succeeded")]);
    assert!(claim(&store, "x", 20).await.is_empty(), "the next waits for the one under way");
    let ops = "ops".into();
    assert_eq!(store.next_due(&ops, at(20), &[]).await.unwrap(), Some(at(80)), "the leases");
    finish(&store, "x", &first[1], Outcome::Delivered.into()).await;
    finish(&store, "x", &first[0], retry(400)).await;
    assert!(claim(&store, "x", 399).await.is_empty(), "and for the one that is tried again");
    assert_eq!(store.next_due(&ops, at(20), &[]).await.unwrap(), Some(at(400)));
    let again = claim(&store, "x", 400).await;
    assert_eq!(kinds(&again), [named("a", "run.stalled")]);
    finish(&store, "x", &again[0], Outcome::Delivered.into()).await;
    assert_eq!(kinds(&claim(&store, "x", 400).await), [named("a", "run.overdue")]);
}

#[tokio::test]
async fn an_end_overtakes_the_warnings_that_are_pending() {
    let store = SqliteStore::in_memory().unwrap();
    commit(&store, "a", EventKind::RunStalled, 10).await;
    commit(&store, "a", EventKind::RunOverdue, 11).await;
    commit(&store, "b", EventKind::RunOverdue, 12).await;
    let under_way = claim(&store, "x", 20).await;
    commit(&store, "a", EventKind::RunSucceeded, 30).await;
    let named = |kind: &str| ("a".to_owned(), kind.to_owned());
    assert!(claim(&store, "x", 30).await.is_empty(), "the one under way comes first");
    assert_eq!(finish(&store, "x", &under_way[0], retry(400)).await, Finished::Superseded);
    assert_eq!(kinds(&claim(&store, "x", 30).await), [named("run.succeeded")]);
    let all = store.deliveries(crate::store::DeliveryFilter::default(), 9).await.unwrap();
    let fates: Vec<_> = all.iter().rev().map(|one| (one.kind.as_str(), one.state)).collect();
    let (superseded, pending) = (DeliveryState::Superseded, DeliveryState::Pending);
    assert_eq!(
        fates,
        [
            ("run.stalled", superseded),
            ("run.overdue", superseded),
            ("run.overdue", pending),
            ("run.succeeded", pending)
        ]
    );
    assert_eq!(all[3].last_error.as_deref(), Some("HTTP 500; superseded: the run has ended since"));
    assert!(all[3].settled_at.is_some());
    assert_eq!(store.undelivered().await.unwrap().len(), 2, "they are not missing");
}

#[tokio::test]
async fn a_warning_that_comes_after_a_loss_is_not_overtaken_by_it() {
    let store = SqliteStore::in_memory().unwrap();
    commit(&store, "a", EventKind::RunLost, 10).await;
    let again = Watched::new(Subject { id: "a".parse().unwrap(), name: None }, at(15));
    store.add(vec![again]).await.unwrap();
    commit(&store, "a", EventKind::RunOverdue, 20).await;
    let states = |all: Vec<crate::store::Delivery>| all.iter().rev().map(|one| one.state).collect::<Vec<_>>();
    let all = store.deliveries(crate::store::DeliveryFilter::default(), 9).await.unwrap();
    assert_eq!(states(all), [DeliveryState::Pending; 2]);
    commit(&store, "a", EventKind::RunLost, 30).await;
    let all = store.deliveries(crate::store::DeliveryFilter::default(), 9).await.unwrap();
    assert_ne!(all[0].event_id, all[2].event_id, "a second loss is an event of its own");
    let (superseded, pending) = (DeliveryState::Superseded, DeliveryState::Pending);
    assert_eq!(states(all), [superseded, superseded, pending]);
}

#[tokio::test]
async fn a_held_channel_gives_nothing_out_until_its_time() {
    let (store, ops) = store().await;
    store.open(&ops, "f", &[], at(0)).await.unwrap();
    let first = claim(&store, "a", 100).await;
    let outcome = Outcome::Postponed { at: None, error: "HTTP 429".into() };
    let follows = crate::store::Follows { hold: Some(at(150)), ..Default::default() };
    let settlement = Settlement { follows, fingerprint: Some("f".into()), ..outcome.into() };
    assert_eq!(finish(&store, "a", &first[0], settlement).await, Finished::Recorded);
    assert!(claim(&store, "a", 149).await.is_empty());
    assert_eq!(store.next_due(&ops, at(149), &[]).await.unwrap(), Some(at(150)));
    assert_eq!(claim(&store, "a", 150).await.len(), 1);
}

#[tokio::test]
async fn a_failure_of_a_channel_that_was_changed_meanwhile_says_nothing() {
    let (store, ops) = store().await;
    store.open(&ops, "old", &[], at(0)).await.unwrap();
    let first = claim(&store, "a", 100).await;
    store.open(&ops, "new", &[], at(200)).await.unwrap();
    let dead: Settlement = Outcome::Dead { error: "HTTP 410".into() }.into();
    let of_old = Settlement { fingerprint: Some("old".into()), ..dead };
    assert_eq!(finish(&store, "a", &first[0], of_old.clone()).await, Finished::Requeued);
    let again = claim(&store, "a", 300).await;
    assert_eq!(again[0].attempt, 1);
    store.give_up_on_others(Vec::new(), at(300)).await.unwrap();
    assert_eq!(finish(&store, "a", &again[0], of_old).await, Finished::Abandoned);
    assert_eq!(states(&store).await, [("r1".into(), DeliveryState::Dead, 1)]);
}

#[tokio::test]
async fn crashes_use_up_no_attempts_and_one_that_crashes_again_and_again_waits() {
    let (store, ops) = store().await;
    let mut second = 100;
    let mut waits = Vec::new();
    for _ in 0..30 {
        let claimed = claim(&store, "a", second).await;
        assert_eq!((claimed.len(), claimed[0].attempt), (1, 1));
        store.queue.call(move |db| take_back(db, at(second))).await.unwrap();
        let due = store.next_due(&ops, at(second), &[]).await.unwrap().unwrap();
        let wait = due.as_second() - second;
        waits.push(wait.max(0));
        second += wait.max(0);
    }
    assert_eq!(waits[..19], [0; 19]);
    assert_eq!(waits[19..], [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600, 3600]);
    // A recorded attempt resets the count.
    let claimed = claim(&store, "a", second).await;
    assert_eq!(finish(&store, "a", &claimed[0], retry(second)).await, Finished::Recorded);
    claim(&store, "a", second).await;
    store.queue.call(move |db| take_back(db, at(second))).await.unwrap();
    assert_eq!(claim(&store, "a", second).await[0].attempt, 2);
}

#[tokio::test]
async fn what_is_given_back_or_cut_off_is_overtaken_like_what_was_never_claimed() {
    for is_crash in [false, true] {
        let store = SqliteStore::in_memory().unwrap();
        let ops: ChannelName = "ops".into();
        store.open(&ops, "f", &[], at(0)).await.unwrap();
        commit(&store, "a", EventKind::RunStalled, 10).await;
        let claimed = claim(&store, "x", 20).await;
        commit(&store, "a", EventKind::RunSucceeded, 30).await;
        if is_crash {
            store.queue.call(move |db| take_back(db, at(40))).await.unwrap();
        } else {
            let claims = [(claimed[0].id, claimed[0].claim)];
            store.release(&claims, &owner("x"), at(40), "f").await.unwrap();
        }
        let due = kinds(&claim(&store, "x", 40).await);
        assert_eq!(due, [("a".to_owned(), "run.succeeded".to_owned())], "crash: {is_crash}");
    }
}

#[tokio::test]
async fn what_is_given_back_follows_what_became_of_its_channel() {
    let (store, ops) = store().await;
    store.open(&ops, "old", &[], at(0)).await.unwrap();
    let first = claim(&store, "a", 100).await;
    assert_eq!(finish(&store, "a", &first[0], retry(100)).await, Finished::Recorded);
    let give_back = async |claimed: &[Claimed]| {
        let claims = [(claimed[0].id, claimed[0].claim)];
        store.release(&claims, &owner("a"), at(200), "old").await.unwrap();
    };
    give_back(&claim(&store, "a", 100).await).await;
    let again = claim(&store, "a", 100).await;
    assert_eq!(again[0].attempt, 2, "it is as it was");
    store.open(&ops, "new", &[], at(150)).await.unwrap();
    give_back(&again).await;
    let anew = claim(&store, "a", 200).await;
    assert_eq!(anew[0].attempt, 1, "it has the whole schedule again");
    store.give_up_on_others(Vec::new(), at(200)).await.unwrap();
    give_back(&anew).await;
    assert_eq!(states(&store).await, [("r1".into(), DeliveryState::Dead, 0)]);
}
