//! The outbox in SQLite: claiming what is due, and recording how it went.
//!
//! The rows are written by `runs`, together with the state they follow from. An attempt is counted when it is claimed:
//! the intent is on disk before anything is sent.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};
use tokio::sync::watch;

use super::row::{micros, timestamp};
use super::runs::write_event;
use super::{ChannelName, Claimed, Follows, Outbox, Outcome, Owner, SqliteStore, StoreError, Undelivered};
use crate::BoxFuture;
use crate::run::EventId;

impl Outbox for SqliteStore {
    fn claim<'a>(
        &'a self,
        channel: &'a ChannelName,
        owner: &'a Owner,
        now: Timestamp,
        lease: Duration,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Claimed>, StoreError>> {
        let (channel, owner) = (channel.clone(), owner.clone());
        let until = after(now, lease);
        Box::pin(self.queue.call(move |db| {
            let mut claim = db.prepare_cached(
                "UPDATE deliveries SET owner = ?1, lease_until = ?2, attempts = attempts + 1 \
                 WHERE id IN (SELECT id FROM deliveries WHERE channel = ?3 AND state = 'pending' AND due_at <= ?4 \
                              AND (lease_until IS NULL OR lease_until <= ?4) ORDER BY due_at, id LIMIT ?5) \
                 RETURNING id, event_id, attempts, (SELECT payload FROM events WHERE events.id = event_id)",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = claim.query_map(params![owner.0, until, channel, micros(now), limit], |row| {
                Ok(Claimed {
                    id: row.get(0)?,
                    event_id: EventId::from_stored(row.get_ref(1)?.as_str()?),
                    attempt: row.get(2)?,
                    payload: row.get(3)?,
                })
            })?;
            let mut claimed: Vec<Claimed> = rows.collect::<Result<_, _>>()?;
            // RETURNING promises no order.
            claimed.sort_by_key(|delivery| delivery.id);
            Ok(claimed)
        }))
    }

    fn renew<'a>(
        &'a self,
        id: i64,
        owner: &'a Owner,
        until: Timestamp,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let owner = owner.clone();
        Box::pin(self.queue.call(move |db| {
            db.prepare_cached(
                "UPDATE deliveries SET lease_until = ?3 WHERE id = ?1 AND owner = ?2 AND state = 'pending'",
            )?
            .execute(params![id, owner.0, micros(until)])
            .map(|rows| rows == 1)
        }))
    }

    fn finish<'a>(
        &'a self,
        id: i64,
        owner: &'a Owner,
        now: Timestamp,
        outcome: Outcome,
        follows: Follows,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let owner = owner.clone();
        let Follows { event, disable } = follows;
        let fills_outbox = event.as_ref().is_some_and(|(_, channels)| !channels.is_empty());
        let now = micros(now);
        let (state, due_at, error, settled_at) = match outcome {
            Outcome::Delivered => ("delivered", None, None, Some(now)),
            Outcome::Retry { at, error } => ("pending", Some(micros(at)), Some(error), None),
            Outcome::Dead { error } => ("dead", None, Some(error), Some(now)),
        };
        let call = self.queue.call(move |db| {
            let rows = db
                .prepare_cached(
                    "UPDATE deliveries SET state = ?3, due_at = coalesce(?4, due_at), \
                     last_error = coalesce(?5, last_error), settled_at = ?6, owner = NULL, lease_until = NULL \
                     WHERE id = ?1 AND owner = ?2 AND state = 'pending'",
                )?
                .execute(params![id, owner.0, state, due_at, error, settled_at])?;
            if let Some((event, channels)) = event.filter(|_| rows == 1) {
                write_event(db, &event, &channels)?;
            }
            if let Some(fingerprint) = disable.filter(|_| rows == 1) {
                db.prepare_cached(
                    "INSERT OR REPLACE INTO disabled_channels (name, fingerprint, at, reason) \
                     SELECT channel, ?2, ?3, coalesce(last_error, '') FROM deliveries WHERE id = ?1",
                )?
                .execute(params![id, fingerprint, now])?;
            }
            Ok(rows == 1)
        });
        Box::pin(async move {
            let finished = call.await?;
            if finished && fills_outbox {
                self.filled.send_modify(|count| *count += 1);
            }
            Ok(finished)
        })
    }

    fn disabled<'a>(
        &'a self,
        channel: &'a ChannelName,
        fingerprint: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        let (channel, fingerprint) = (channel.clone(), fingerprint.to_owned());
        Box::pin(self.queue.call(move |db| {
            db.prepare_cached("SELECT reason FROM disabled_channels WHERE name = ?1 AND fingerprint = ?2")?
                .query_row(params![channel, fingerprint], |row| row.get(0))
                .optional()
        }))
    }

    fn next_due<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, StoreError>> {
        let channel = channel.clone();
        Box::pin(self.queue.call(move |db| {
            // By two indexes: the first that nobody has, and the first lease to end.
            db.prepare_cached(
                "SELECT min(at) FROM (SELECT * FROM (SELECT due_at AS at FROM deliveries WHERE channel = ?1 \
                 AND state = 'pending' AND lease_until IS NULL ORDER BY due_at LIMIT 1) UNION ALL \
                 SELECT min(lease_until) FROM deliveries WHERE channel = ?1 AND lease_until NOT NULL)",
            )?
            .query_row([channel], |row| row.get::<_, Option<i64>>(0))
            .map(|due| due.and_then(timestamp))
        }))
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.filled.subscribe()
    }

    fn undelivered(&self) -> BoxFuture<'_, Result<Vec<Undelivered>, StoreError>> {
        Box::pin(self.queue.call(|db| {
            db.prepare_cached(
                "SELECT channel, payload, attempts, due_at, last_error, state, owner NOT NULL FROM deliveries \
                 JOIN events ON events.id = event_id WHERE state != 'delivered' ORDER BY deliveries.id",
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

fn after(now: Timestamp, wait: Duration) -> i64 {
    micros(now).saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Ending, Event, Subject};
    use crate::store::{Commit, RunStore, Watched};

    const LEASE: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn owner(name: &str) -> Owner {
        Owner(name.into())
    }

    /// A store with one event at second 100 for the channel `ops`.
    async fn store() -> (SqliteStore, ChannelName) {
        let store = SqliteStore::in_memory().unwrap();
        let subject = Subject { id: "r1".parse().unwrap(), name: None };
        let run = Watched::new(subject, at(0));
        let event = Event::of_ending("s", &run.subject, Ending::Gone, &run.state, None, at(100));
        let channel: ChannelName = "ops".into();
        let events = vec![(event, vec![channel.clone()])];
        store.commit(Commit { run: Some(run), events, moment: None }).await.unwrap();
        (store, channel)
    }

    #[tokio::test]
    async fn a_claim_is_exclusive_until_its_lease_ends() {
        let (store, ops) = store().await;
        assert!(store.claim(&ops, &owner("a"), at(99), LEASE, 9).await.unwrap().is_empty(), "not due yet");
        let claimed = store.claim(&ops, &owner("a"), at(100), LEASE, 9).await.unwrap();
        assert_eq!(claimed.len(), 1);
        assert!(store.claim(&ops, &owner("b"), at(159), LEASE, 9).await.unwrap().is_empty());
        assert_eq!(store.next_due(&ops).await.unwrap(), Some(at(160)));
        let again = store.claim(&ops, &owner("b"), at(160), LEASE, 9).await.unwrap();
        assert_eq!((again[0].id, again[0].attempt), (claimed[0].id, 2));
        assert_eq!(again[0].event_id, claimed[0].event_id);
        // The first owner comes back too late: its word no longer counts.
        assert!(
            !store
                .finish(claimed[0].id, &owner("a"), at(161), Outcome::Delivered, Follows::default())
                .await
                .unwrap()
        );
        assert!(!store.renew(claimed[0].id, &owner("a"), at(500)).await.unwrap());
        assert!(store.renew(again[0].id, &owner("b"), at(500)).await.unwrap());
        assert_eq!(store.next_due(&ops).await.unwrap(), Some(at(500)));
        assert!(
            store
                .finish(again[0].id, &owner("b"), at(161), Outcome::Delivered, Follows::default())
                .await
                .unwrap()
        );
        assert_eq!(store.next_due(&ops).await.unwrap(), None);
        assert!(store.undelivered().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_retry_waits_and_the_dead_stay_visible() {
        let (store, ops) = store().await;
        let me = owner("a");
        let first = store.claim(&ops, &me, at(100), LEASE, 9).await.unwrap();
        let retry = Outcome::Retry { at: at(105), error: "HTTP 500".into() };
        assert!(store.finish(first[0].id, &me, at(101), retry, Follows::default()).await.unwrap());
        assert!(store.claim(&ops, &me, at(104), LEASE, 9).await.unwrap().is_empty());
        let second = store.claim(&ops, &me, at(105), LEASE, 9).await.unwrap();
        assert_eq!(second[0].attempt, 2);
        let dead = Outcome::Dead { error: "HTTP 410".into() };
        assert!(store.finish(second[0].id, &me, at(106), dead, Follows::default()).await.unwrap());
        let left = store.undelivered().await.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].due_at, left[0].last_error.as_deref()), (None, Some("HTTP 410")));
        assert_eq!(store.next_due(&ops).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_channel_sees_only_its_own() {
        let (store, _) = store().await;
        let other: ChannelName = "other".into();
        assert!(store.claim(&other, &owner("a"), at(200), LEASE, 9).await.unwrap().is_empty());
        assert_eq!(store.next_due(&other).await.unwrap(), None);
    }
}
