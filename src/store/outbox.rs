//! The outbox in SQLite: claims due deliveries and records their attempts.
//!
//! `runs` writes the rows together with the state that causes them. A claim is on disk before anything is sent. It has
//! a number, so that finishing an earlier claim changes nothing. An attempt counts when it is recorded, so a crash
//! before a request costs none.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, params};
use tokio::sync::watch;

use super::order::{By, IS_NEXT, KIND, supersede};
use super::row::{micros, timestamp};
use super::runs::write_event;
use super::{
    ChannelName, Claim, Claimed, Finished, Outbox, Outcome, Owner, Settlement, SqliteStore, StoreError,
    Undelivered, channels,
};
use crate::BoxFuture;
use crate::run::EventId;

/// Number of times in a row that the process may end during a delivery before its retry is delayed. A delivery that
/// kills the process must not block the others.
const CUT_OFFS_BEFORE_WAIT: u32 = 20;

/// The first such delay, doubled each time, and the longest; in microseconds.
const FIRST_WAIT: i64 = 60 * 1_000_000;
const LONGEST_WAIT: i64 = 3600 * 1_000_000;

/// Releases the claims of a process that is gone.
pub(super) fn take_back(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE deliveries SET owner = NULL, lease_until = NULL, cut_off = cut_off + 1, due_at = iif(cut_off + 1 < ?2, \
         due_at, max(due_at, ?1 + min(?3 << min(cut_off + 1 - ?2, 20), ?4))) WHERE owner NOT NULL",
        params![micros(now), CUT_OFFS_BEFORE_WAIT, FIRST_WAIT, LONGEST_WAIT],
    )?;
    // Claimed warnings were not superseded when their run ended, so do it now.
    supersede(db, "cut_off > 0", Vec::new(), By::Row, now).map(|_| ())
}

impl Outbox for SqliteStore {
    fn open<'a>(
        &'a self,
        channel: &'a ChannelName,
        fingerprint: &'a str,
        formerly: &'a [String],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        let (channel, fingerprint) = (channel.clone(), fingerprint.to_owned());
        let formerly = formerly.to_vec();
        Box::pin(self.queue.call(move |db| channels::open(db, &channel, &fingerprint, &formerly, now)))
    }

    fn claim<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<Vec<Claimed>, StoreError>> {
        let Claim { channel, owner, now, lease, limit, in_hand } = claim;
        let (channel, owner) = (channel.clone(), owner.clone());
        let (until, in_hand) = (after(now, lease), numbers(in_hand));
        Box::pin(self.queue.call(move |db| {
            if channels::held(db, &channel, now)?.is_some() {
                return Ok(Vec::new());
            }
            let mut claim = db.prepare_cached(&format!(
                "UPDATE deliveries SET owner = ?1, lease_until = ?2, claims = claims + 1 \
                 WHERE id IN (SELECT id FROM deliveries WHERE channel = ?3 AND state = 'pending' AND due_at <= ?4 \
                              AND (lease_until IS NULL OR lease_until <= ?4) \
                              AND id NOT IN (SELECT value FROM json_each(?6)) AND {IS_NEXT} \
                              ORDER BY due_at, id LIMIT ?5) \
                 RETURNING id, claims, event_id, attempts + 1, due_at, \
                 (SELECT payload FROM events WHERE events.id = event_id), \
                 (SELECT run_id FROM events WHERE events.id = event_id), \
                 (SELECT {KIND} FROM events WHERE events.id = event_id)",
            ))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = claim.query_map(params![owner.0, until, channel, micros(now), limit, in_hand], |row| {
                Ok((row.get::<_, i64>(4)?, read_claimed(row)?))
            })?;
            let mut claimed: Vec<(i64, Claimed)> = rows.collect::<Result<_, _>>()?;
            // RETURNING guarantees no order.
            claimed.sort_by_key(|(due_at, delivery)| (*due_at, delivery.id));
            Ok(claimed.into_iter().map(|(_, delivery)| delivery).collect())
        }))
    }

    fn finish<'a>(
        &'a self,
        claimed: &'a Claimed,
        owner: &'a Owner,
        now: Timestamp,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Finished, StoreError>> {
        let (id, claim, owner) = (claimed.id, claimed.claim, owner.clone());
        let allowed = self.allowed.clone();
        let call = self.queue.call(move |db| {
            let mut settlement = settlement;
            if let Some((_, channels)) = &mut settlement.follows.event {
                *channels = allowed.of(channels);
            }
            finish(db, id, claim, &owner, now, settlement)
        });
        Box::pin(async move {
            let (finished, gives_work) = call.await?;
            if gives_work {
                self.filled.send_modify(|count| *count += 1);
            }
            Ok(finished)
        })
    }

    fn release<'a>(
        &'a self,
        claims: &'a [(i64, i64)],
        owner: &'a Owner,
        now: Timestamp,
        fingerprint: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let (claims, owner, fingerprint) = (claims.to_vec(), owner.clone(), fingerprint.to_owned());
        let call = self.queue.call(move |db| {
            for (id, claim) in claims {
                release(db, id, claim, &owner, now, &fingerprint)?;
            }
            Ok(())
        });
        Box::pin(async move {
            call.await?;
            self.filled.send_modify(|count| *count += 1);
            Ok(())
        })
    }

    fn disabled<'a>(
        &'a self,
        channel: &'a ChannelName,
        fingerprint: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        let (channel, fingerprint) = (channel.clone(), fingerprint.to_owned());
        Box::pin(self.queue.call(move |db| channels::disabled(db, &channel, &fingerprint)))
    }

    fn next_due<'a>(
        &'a self,
        channel: &'a ChannelName,
        now: Timestamp,
        in_hand: &'a [i64],
    ) -> BoxFuture<'a, Result<Option<Timestamp>, StoreError>> {
        let (channel, in_hand) = (channel.clone(), numbers(in_hand));
        Box::pin(self.queue.call(move |db| {
            // Uses two indexes: for the first unclaimed delivery, and for the first lease to end.
            let due: Option<i64> = db
                .prepare_cached(&format!(
                    "SELECT min(at) FROM (SELECT * FROM (SELECT due_at AS at FROM deliveries WHERE channel = ?1 \
                     AND state = 'pending' AND lease_until IS NULL AND {IS_NEXT} ORDER BY due_at LIMIT 1) UNION ALL \
                     SELECT min(lease_until) FROM deliveries WHERE channel = ?1 AND lease_until NOT NULL \
                     AND id NOT IN (SELECT value FROM json_each(?2)))",
                ))?
                .query_row(params![channel, in_hand], |row| row.get(0))?;
            let held = channels::held(db, &channel, now)?;
            Ok(due.map(|due| due.max(held.unwrap_or(due))).and_then(timestamp))
        }))
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.filled.subscribe()
    }

    fn undelivered(&self) -> BoxFuture<'_, Result<Vec<Undelivered>, StoreError>> {
        Box::pin(self.queue.call(|db| {
            db.prepare_cached(
                "SELECT channel, payload, attempts + (owner NOT NULL), due_at, last_error, state, owner NOT NULL \
                 FROM deliveries JOIN events ON events.id = event_id WHERE state IN ('pending', 'dead') \
                 ORDER BY deliveries.id",
            )?
            .query_map((), |row| {
                let pending = row.get_ref(5)?.as_str()? == "pending";
                Ok(Undelivered {
                    channel: row.get(0)?,
                    payload: row.get(1)?,
                    attempts: row.get(2)?,
                    due_at: if pending { timestamp(row.get(3)?) } else { None },
                    in_flight: row.get(6)?,
                    last_error: row.get(4)?,
                })
            })?
            .collect()
        }))
    }
}

/// Records an attempt. Returns its result, and whether a worker has something to do now.
fn finish(
    db: &Connection,
    id: i64,
    claim: i64,
    owner: &Owner,
    now: Timestamp,
    settlement: Settlement,
) -> rusqlite::Result<(Finished, bool)> {
    let Settlement { outcome, answer, follows, fingerprint } = settlement;
    let channel: Option<String> = held_row(db, id, claim, owner)?;
    let Some(channel) = channel else { return Ok((Finished::Stale, false)) };
    let (outcome, verdict) = match (outcome, fingerprint) {
        (
            failed @ (Outcome::Retry { .. } | Outcome::Postponed { .. } | Outcome::Dead { .. }),
            Some(fingerprint),
        ) => match channels::fingerprint(db, &channel)? {
            Some(now_configured) if now_configured == *fingerprint => (failed, Finished::Recorded),
            Some(_) => {
                let error = error_of(failed);
                (Outcome::Postponed { at: Some(now), error }, Finished::Requeued)
            }
            None => {
                let error = format!("{}; {}", error_of(failed), channels::NOT_CONFIGURED);
                (Outcome::Dead { error }, Finished::Abandoned)
            }
        },
        (outcome, _) => (outcome, Finished::Recorded),
    };
    let is_failure = outcome != Outcome::Delivered;
    let waits = matches!(outcome, Outcome::Retry { .. } | Outcome::Postponed { .. });
    settle(db, id, outcome, answer.as_deref(), now)?;
    let mut gives_work = verdict == Finished::Requeued;
    if verdict == Finished::Recorded {
        if let Some((event, channels)) = &follows.event {
            write_event(db, event, channels)?;
            gives_work |= !channels.is_empty();
        }
        if let Some(fingerprint) = follows.disable {
            db.prepare_cached(
                "INSERT OR REPLACE INTO disabled_channels (name, fingerprint, at, reason) \
                 SELECT channel, ?2, ?3, coalesce(last_error, '') FROM deliveries WHERE id = ?1",
            )?
            .execute(params![id, fingerprint, micros(now)])?;
        }
        if let Some(until) = follows.hold {
            channels::hold(db, &channel, until)?;
        }
    }
    let superseded = is_failure && waits && supersede(db, "id = ?", vec![Value::from(id)], By::Row, now)? > 0;
    if !waits || superseded {
        // Another worker may be waiting to send the run's next event.
        gives_work |= db
            .prepare_cached(
                "SELECT 1 FROM deliveries AS next JOIN deliveries AS this ON this.id = ?1 WHERE next.channel = this.channel \
                 AND next.run_id = this.run_id AND next.id > this.id AND next.state = 'pending'",
            )?
            .exists([id])?;
    }
    Ok((if superseded { Finished::Superseded } else { verdict }, gives_work))
}

/// Releases a row whose delivery was not sent, and settles it if its run ended or its channel was removed meanwhile.
fn release(
    db: &Connection,
    id: i64,
    claim: i64,
    owner: &Owner,
    now: Timestamp,
    fingerprint: &str,
) -> rusqlite::Result<()> {
    let Some(channel) = held_row(db, id, claim, owner)? else { return Ok(()) };
    let now_configured = channels::fingerprint(db, &channel)?;
    db.prepare_cached(
        "UPDATE deliveries SET owner = NULL, lease_until = NULL, attempts = iif(?2, attempts, 0), \
         cut_off = iif(?2, cut_off, 0) WHERE id = ?1",
    )?
    .execute(params![id, now_configured.as_deref().is_none_or(|now| now == fingerprint)])?;
    if now_configured.is_none() {
        return channels::give_up(db, "id = ?", vec![Value::from(id)], now).map(|_| ());
    }
    supersede(db, "id = ?", vec![Value::from(id)], By::Row, now).map(|_| ())
}

/// The channel of a row, if this claim still holds it.
fn held_row(db: &Connection, id: i64, claim: i64, owner: &Owner) -> rusqlite::Result<Option<String>> {
    use rusqlite::OptionalExtension as _;
    db.prepare_cached(
        "SELECT channel FROM deliveries WHERE id = ?1 AND claims = ?2 AND owner = ?3 AND state = 'pending'",
    )?
    .query_row(params![id, claim, owner.0], |row| row.get(0))
    .optional()
}

fn settle(
    db: &Connection,
    id: i64,
    outcome: Outcome,
    answer: Option<&str>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let counts = !matches!(outcome, Outcome::Postponed { .. });
    let settled_at = matches!(outcome, Outcome::Delivered | Outcome::Dead { .. }).then(|| micros(now));
    let (state, due_at, error) = match outcome {
        Outcome::Delivered => ("delivered", None, None),
        Outcome::Retry { at, error } => ("pending", Some(at), Some(error)),
        Outcome::Postponed { at, error } => ("pending", at, Some(error)),
        Outcome::Dead { error } => ("dead", None, Some(error)),
    };
    db.prepare_cached(
        "UPDATE deliveries SET state = ?2, due_at = coalesce(?3, due_at), last_error = coalesce(?4, last_error), \
         answer = iif(?4 IS NULL, answer, ?5), settled_at = ?6, attempts = attempts + ?7, cut_off = 0, owner = NULL, \
         lease_until = NULL WHERE id = ?1",
    )?
    .execute(params![id, state, due_at.map(micros), error, answer, settled_at, counts])
    .map(|_| ())
}

fn error_of(failed: Outcome) -> String {
    match failed {
        Outcome::Delivered => String::new(),
        Outcome::Retry { error, .. } | Outcome::Postponed { error, .. } | Outcome::Dead { error } => error,
    }
}

pub(super) fn read_claimed(row: &rusqlite::Row<'_>) -> rusqlite::Result<Claimed> {
    Ok(Claimed {
        id: row.get(0)?,
        claim: row.get(1)?,
        event_id: EventId::from_stored(row.get_ref(2)?.as_str()?),
        kind: row.get::<_, Option<_>>(7)?.unwrap_or_default(),
        run_id: row.get(6)?,
        payload: row.get(5)?,
        attempt: row.get(3)?,
    })
}

/// Numbers as a parameter for `json_each`.
fn numbers(numbers: &[i64]) -> String {
    serde_json::Value::from(numbers.to_vec()).to_string()
}

fn after(now: Timestamp, wait: Duration) -> i64 {
    micros(now).saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
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
        let states =
            |all: Vec<crate::store::Delivery>| all.iter().rev().map(|one| one.state).collect::<Vec<_>>();
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
}
