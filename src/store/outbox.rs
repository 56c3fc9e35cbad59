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
#[path = "outbox_tests.rs"]
mod tests;
