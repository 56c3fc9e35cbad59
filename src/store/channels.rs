//! The store's data about channels: how each is configured, whether its receiver refuses everything, and until when it
//! is held.
//!
//! Owns the rule that a changed configuration makes pending deliveries due. Used by `outbox`.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};

use super::row::micros;
use super::{ChannelName, SqliteStore, StoreError};

/// Maximum hold, in microseconds. A hold that ends later was made before the clock was set back, and is ignored.
const LONGEST_HOLD: i64 = 2 * 3600 * 1_000_000;

/// Records how a channel is configured. Returns why it is disabled, if it is.
pub(super) fn open(
    db: &Connection,
    channel: &str,
    fingerprint: &str,
    formerly: &[String],
    now: Timestamp,
) -> rusqlite::Result<Option<String>> {
    for former in formerly {
        db.prepare_cached(
            "UPDATE disabled_channels SET fingerprint = ?3 WHERE name = ?1 AND fingerprint = ?2",
        )?
        .execute(params![channel, former, fingerprint])?;
    }
    let known: Option<String> = db
        .prepare_cached("SELECT fingerprint FROM channels WHERE name = ?1")?
        .query_row([channel], |row| row.get(0))
        .optional()?;
    if known.as_deref() != Some(fingerprint) {
        db.prepare_cached("INSERT OR REPLACE INTO channels (name, fingerprint) VALUES (?1, ?2)")?
            .execute([channel, fingerprint])?;
    }
    // If the earlier configuration is unknown, an upgrade changes nothing.
    if known.is_some_and(|known| known != fingerprint && !formerly.contains(&known)) {
        db.prepare_cached(
            "UPDATE deliveries SET due_at = min(due_at, ?2), attempts = 0, cut_off = 0 \
             WHERE channel = ?1 AND state = 'pending' AND owner IS NULL",
        )?
        .execute(params![channel, micros(now)])?;
    }
    disabled(db, channel, fingerprint)
}

pub(super) fn disabled(
    db: &Connection,
    channel: &str,
    fingerprint: &str,
) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT reason FROM disabled_channels WHERE name = ?1 AND fingerprint = ?2")?
        .query_row([channel, fingerprint], |row| row.get(0))
        .optional()
}

/// Holds all deliveries to a channel until `until`.
pub(super) fn hold(db: &Connection, channel: &str, until: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE channels SET held_until = max(coalesce(held_until, 0), ?2) WHERE name = ?1")?
        .execute(params![channel, micros(until)])
        .map(|_| ())
}

/// Until when a channel is held, in microseconds, if it is.
pub(super) fn held(db: &Connection, channel: &str, now: Timestamp) -> rusqlite::Result<Option<i64>> {
    let until: Option<Option<i64>> = db
        .prepare_cached("SELECT held_until FROM channels WHERE name = ?1")?
        .query_row([channel], |row| row.get(0))
        .optional()?;
    let now = micros(now);
    Ok(until.flatten().filter(|until| (now + 1..now.saturating_add(LONGEST_HOLD)).contains(until)))
}

/// Removes holds and disablings, because a user asked to use the channels again.
pub(super) fn release(db: &Connection, channels: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM disabled_channels WHERE name IN (SELECT value FROM json_each(?1))", [channels])?;
    db.execute(
        "UPDATE channels SET held_until = NULL WHERE name IN (SELECT value FROM json_each(?1))",
        [channels],
    )
    .map(|_| ())
}

/// The stored fingerprint of a channel's configuration.
pub(super) fn fingerprint(db: &Connection, channel: &str) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT fingerprint FROM channels WHERE name = ?1")?
        .query_row([channel], |row| row.get(0))
        .optional()
}

/// Gives up pending deliveries to removed channels, among the rows in `scope` (a condition on `deliveries`, with its
/// parameters). Leaves out those that are being sent. Returns how many.
pub(super) fn give_up(
    db: &Connection,
    scope: &str,
    mut values: Vec<Value>,
    now: Timestamp,
) -> rusqlite::Result<usize> {
    let update = format!(
        "UPDATE deliveries SET state = 'dead', settled_at = ?, last_error = '{NOT_CONFIGURED}' \
         WHERE state = 'pending' AND owner IS NULL AND {scope}"
    );
    values.insert(0, micros(now).into());
    db.prepare_cached(&update)?.execute(params_from_iter(values))
}

/// Why deliveries to a removed channel are given up.
pub(super) const NOT_CONFIGURED: &str = "the channel is not configured any more";

impl SqliteStore {
    /// Gives up the deliveries to all channels but these, and writes no more for them, because nothing would send them.
    /// A delivery in flight is given up when it fails. Returns the number of deliveries.
    pub async fn give_up_on_others(
        &self,
        channels: Vec<ChannelName>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        self.allowed.set(&channels);
        let give_up = move |db: &Connection| {
            let others = format!("NOT IN ({})", vec!["?"; channels.len()].join(", "));
            db.execute(
                &format!("DELETE FROM channels WHERE name {others}"),
                params_from_iter(channels.iter()),
            )?;
            let channels = channels.iter().map(|name| Value::from(name.to_string())).collect();
            self::give_up(db, &format!("channel {others}"), channels, now)
        };
        self.queue.call(give_up).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{at, end, settle, states};
    use crate::store::{DeliveryState, Outbox as _, Outcome};

    #[tokio::test]
    async fn what_is_for_nobody_any_more_is_given_up() {
        let store = SqliteStore::in_memory().unwrap();
        end(&store, "a", 10).await;
        assert_eq!(store.give_up_on_others(vec!["ops".into()], at(20)).await.unwrap(), 0);
        assert_eq!(store.give_up_on_others(vec!["new".into()], at(20)).await.unwrap(), 1);
        assert_eq!(states(&store).await, [("a".into(), DeliveryState::Dead, 0)]);
        // A commit that was routed before and is written now has no channel either.
        end(&store, "b", 30).await;
        assert_eq!(states(&store).await, [("a".into(), DeliveryState::Dead, 0)]);
    }

    #[tokio::test]
    async fn another_configuration_makes_what_is_pending_due_and_the_same_one_does_not() {
        let store = SqliteStore::in_memory().unwrap();
        let ops: ChannelName = "ops".into();
        assert_eq!(store.open(&ops, "v2:one", &[], at(5)).await.unwrap(), None);
        end(&store, "a", 10).await;
        settle(&store, 11, Outcome::Retry { at: at(9000), error: "HTTP 404".into() }).await;
        let due = async |now| store.next_due(&ops, at(now), &[]).await.unwrap();
        for (fingerprint, formerly) in [("v2:one", vec![]), ("v3:one", vec!["v2:one".to_owned()])] {
            store.open(&ops, fingerprint, &formerly, at(20)).await.unwrap();
            assert_eq!(due(20).await, Some(at(9000)), "{fingerprint}");
        }
        store.open(&ops, "v3:two", &["v2:two".to_owned()], at(30)).await.unwrap();
        assert_eq!(due(30).await, Some(at(30)));
        assert_eq!(
            states(&store).await,
            [("a".into(), DeliveryState::Pending, 0)],
            "the schedule begins again"
        );
    }
}
