//! Operations of users on the outbox: list, retry, resend.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Row, params, params_from_iter};
use serde::{Deserialize, Serialize};

use super::channels;
use super::order::{By, KIND, supersede};
use super::row::{micros, timestamp};
use super::runs::find_run;
use super::{ChannelName, Route, SqliteStore, StoreError, Watched};
use crate::run::{EventId, RunId};

/// The state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Not made yet.
    Pending,
    /// The receiver accepted it.
    Delivered,
    /// Given up.
    Dead,
    /// Not sent, because the end of its run supersedes it.
    Superseded,
}

impl DeliveryState {
    /// The word in the file and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Superseded => "superseded",
        }
    }
}

/// The delivery of one event to one channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number.
    pub id: i64,
    /// The event's id.
    pub event_id: String,
    /// The event's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The event's run.
    pub run_id: Option<String>,
    /// The channel.
    pub channel: String,
    /// Its state.
    pub state: DeliveryState,
    /// Attempts so far, including one in flight.
    pub attempts: u32,
    /// When the event was observed.
    pub at: Option<Timestamp>,
    /// When it is tried next, if it is pending.
    pub due_at: Option<Timestamp>,
    /// When it was delivered, given up or superseded.
    pub settled_at: Option<Timestamp>,
    /// The last error.
    pub last_error: Option<String>,
    /// The start of the receiver's last refusal, without secrets.
    #[serde(default)]
    pub answer: Option<String>,
}

/// Selects deliveries; fields that are not set match everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliveryFilter {
    /// The delivery with this number.
    pub id: Option<i64>,
    /// Deliveries in this state.
    pub state: Option<DeliveryState>,
    /// Deliveries to this channel.
    pub channel: Option<String>,
    /// Deliveries about this run.
    pub run: Option<RunId>,
    /// Deliveries of events since then.
    pub since: Option<Timestamp>,
}

impl DeliveryFilter {
    /// A condition on `deliveries` joined with `events`, and its parameters.
    fn condition(&self) -> (String, Vec<Value>) {
        let mut condition = String::from("1");
        let mut values = Vec::new();
        let mut and = |clause: &str, value: Value| {
            condition.push_str(" AND ");
            condition.push_str(clause);
            values.push(value);
        };
        if let Some(id) = self.id {
            and("deliveries.id = ?", id.into());
        }
        if let Some(state) = self.state {
            and("state = ?", state.as_str().to_owned().into());
        }
        if let Some(channel) = &self.channel {
            and("channel = ?", channel.clone().into());
        }
        if let Some(run) = &self.run {
            and("events.run_id = ?", run.as_str().to_owned().into());
        }
        if let Some(since) = self.since {
            and("at >= ?", micros(since).into());
        }
        (condition, values)
    }
}

/// Statistics of one channel's outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// The channel.
    pub channel: ChannelName,
    /// Pending deliveries.
    pub pending: i64,
    /// Deliveries given up.
    pub dead: i64,
    /// When the event of the oldest pending delivery was observed.
    pub oldest_pending: Option<Timestamp>,
}

/// The result of [`SqliteStore::retry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retried {
    /// The number of deliveries that are due now.
    pub due: usize,
    /// The number of deliveries skipped, by channel.
    pub skipped: Vec<(String, u64)>,
}

impl SqliteStore {
    /// Deliveries, latest first, at most `limit`.
    pub async fn deliveries(&self, filter: DeliveryFilter, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        let read = move |db: &rusqlite::Connection| {
            let (condition, values) = filter.condition();
            let sql = format!(
                "SELECT deliveries.id, event_id, {KIND}, events.run_id, channel, state, \
                 attempts + (owner NOT NULL), at, due_at, settled_at, last_error, answer FROM deliveries JOIN events ON events.id = event_id \
                 WHERE {condition} ORDER BY deliveries.id DESC LIMIT {limit}"
            );
            db.prepare(&sql)?.query_map(params_from_iter(values), read_delivery)?.collect()
        };
        self.queue.call(read).await
    }

    /// Makes undelivered deliveries to `channels` due now, with the full retry schedule again. Enables those of the
    /// channels that were disabled. Skips deliveries to other channels, because nothing would send them.
    pub async fn retry(
        &self,
        filter: DeliveryFilter,
        channels: &[ChannelName],
        now: Timestamp,
    ) -> Result<Retried, StoreError> {
        let channels = json_list(channels);
        let retry = move |db: &rusqlite::Connection| {
            let (condition, mut values) = filter.condition();
            // A superseded delivery is sent only if it is requested by its number.
            let by_number = filter.id.is_some();
            let states = if by_number { "state != 'delivered'" } else { "state IN ('pending', 'dead')" };
            let undelivered = format!(
                "FROM deliveries JOIN events ON events.id = event_id WHERE {condition} AND {states} AND channel"
            );
            values.push(channels.into());
            let others = format!(
                "SELECT channel, count(*) {undelivered} NOT IN (SELECT value FROM json_each(?)) GROUP BY channel"
            );
            let skipped = db
                .prepare(&others)?
                .query_map(params_from_iter(values.clone()), |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
                })?
                .collect::<Result<_, _>>()?;
            let meant = format!("SELECT deliveries.id {undelivered} IN (SELECT value FROM json_each(?))");
            let named = format!("SELECT json_group_array(channel) FROM deliveries WHERE id IN ({meant})");
            let named: String = db.query_row(&named, params_from_iter(values.clone()), |row| row.get(0))?;
            channels::release(db, &named)?;
            let update = format!(
                "UPDATE deliveries SET state = 'pending', attempts = 0, cut_off = 0, due_at = {}, settled_at = NULL \
                 WHERE owner IS NULL AND id IN ({meant})",
                micros(now)
            );
            let mut due = db.execute(&update, params_from_iter(values))?;
            if !by_number {
                let named = vec![named.into()];
                due -= supersede(db, AMONG, named, By::Time, now)?;
            }
            Ok(Retried { due, skipped })
        };
        let retried = self.queue.call(retry).await?;
        self.filled.send_modify(|count| *count += 1);
        Ok(retried)
    }

    /// Sends events since then again, with the same ids, to these channels, whatever happened to earlier deliveries.
    /// Skips warnings about runs that have ended since. With `anew`, also sends events that a channel wants but never
    /// got, except warnings about the channel itself. Returns the number of deliveries.
    pub async fn resend(
        &self,
        since: Timestamp,
        channels: Vec<Route>,
        anew: bool,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let resend = move |db: &rusqlite::Connection| {
            let mut count = 0;
            for Route { channel, events } in &channels {
                let named = json_list(std::slice::from_ref(channel));
                channels::release(db, &named)?;
                if anew {
                    let wanted = events.as_ref().map_or_else(
                        || "json_valid(payload)".to_owned(),
                        |kinds| {
                            let quoted: Vec<String> = kinds.iter().map(|kind| format!("'{kind}'")).collect();
                            format!("{KIND} IN ({})", quoted.join(", "))
                        },
                    );
                    let about = "CASE WHEN json_valid(payload) THEN payload ->> '$.data.channel' END";
                    let insert = format!(
                        "INSERT OR IGNORE INTO deliveries (event_id, channel, state, attempts, due_at, run_id) \
                         SELECT id, ?1, 'dead', 0, ?3, iif({KIND} GLOB 'run.*', run_id, NULL) FROM events \
                         WHERE at >= ?2 AND {wanted} AND {about} IS NOT ?1 ORDER BY at"
                    );
                    db.execute(&insert, params![channel, micros(since), micros(now)])?;
                }
                // The row of a delivery in flight stays as it is, because it is being sent.
                count += db.execute(
                    "UPDATE deliveries SET state = 'pending', attempts = 0, cut_off = 0, due_at = ?3, settled_at = NULL \
                     WHERE channel = ?1 AND owner IS NULL \
                     AND event_id IN (SELECT id FROM events WHERE at >= ?2)",
                    params![channel, micros(since), micros(now)],
                )?;
                count -= supersede(db, AMONG, vec![named.into()], By::Time, now)?;
            }
            Ok(count)
        };
        let count = self.queue.call(resend).await?;
        self.filled.send_modify(|count| *count += 1);
        Ok(count)
    }

    /// Records deliveries that were made, of these events to these channels. Nobody may be sending from this store yet.
    pub async fn were_made(
        &self,
        made: Vec<(EventId, ChannelName)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let record = move |db: &rusqlite::Connection| {
            let mut record = db.prepare_cached(
                "UPDATE deliveries SET state = 'delivered', attempts = attempts + 1, cut_off = 0, owner = NULL, \
                 lease_until = NULL, settled_at = ?3 WHERE event_id = ?1 AND channel = ?2 AND state = 'pending'",
            )?;
            for (event, channel) in made {
                record.execute(params![event.as_str(), channel, micros(now)])?;
            }
            Ok(())
        };
        self.queue.call(record).await
    }

    /// Whether the store has any delivery for a channel of this name.
    pub async fn had_channel(&self, name: String) -> Result<bool, StoreError> {
        self.queue
            .call(move |db| db.prepare_cached("SELECT 1 FROM deliveries WHERE channel = ?1")?.exists([name]))
            .await
    }

    /// Statistics of the outbox, by channel.
    pub async fn stats(&self) -> Result<Vec<Stats>, StoreError> {
        self.queue
            .call(|db| {
                db.prepare_cached(
                    "SELECT channel, sum(state = 'pending'), sum(state = 'dead'), min(iif(state = 'pending', at, NULL)) \
                     FROM deliveries JOIN events ON events.id = event_id WHERE state IN ('pending', 'dead') GROUP BY channel",
                )?
                .query_map((), |row| {
                    Ok(Stats {
                        channel: row.get(0)?,
                        pending: row.get(1)?,
                        dead: row.get(2)?,
                        oldest_pending: row.get::<_, Option<i64>>(3)?.and_then(timestamp),
                    })
                })?
                .collect()
            })
            .await
    }

    /// One run.
    pub async fn run(&self, id: RunId) -> Result<Option<Watched>, StoreError> {
        self.queue.call(move |db| find_run(db, &id)).await
    }

    /// The number of ended runs by the API's last status; `LOST` if the end did not come from the API.
    pub async fn ended_by_status(&self) -> Result<Vec<(String, i64)>, StoreError> {
        self.queue
            .call(|db| {
                db.prepare_cached(
                    "SELECT iif(ended IN ('SUCCEEDED', 'FAILED', 'CANCELED'), status, 'LOST') AS word, count(*) \
                     FROM runs WHERE ended NOT NULL GROUP BY word",
                )?
                .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
            })
            .await
    }
}

/// Deliveries to the channels in a list.
const AMONG: &str = "channel IN (SELECT value FROM json_each(?))";

/// Names as a parameter for `json_each`.
fn json_list(names: &[ChannelName]) -> String {
    names.iter().map(|name| &**name).collect::<serde_json::Value>().to_string()
}

pub(super) fn read_delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let time = |column| row.get::<_, Option<i64>>(column).map(|at| at.and_then(timestamp));
    let state = match row.get_ref(5)?.as_str()? {
        "pending" => DeliveryState::Pending,
        "delivered" => DeliveryState::Delivered,
        "superseded" => DeliveryState::Superseded,
        _ => DeliveryState::Dead,
    };
    Ok(Delivery {
        id: row.get(0)?,
        event_id: row.get(1)?,
        kind: row.get::<_, Option<String>>(2)?.unwrap_or_default(),
        run_id: row.get(3)?,
        channel: row.get(4)?,
        state,
        attempts: row.get(6)?,
        at: time(7)?,
        due_at: time(8)?.filter(|_| state == DeliveryState::Pending),
        settled_at: time(9)?,
        last_error: row.get(10)?,
        answer: row.get(11)?,
    })
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::run::EventKind;
    use crate::store::testing::{at, claim, end, settle, states};
    use crate::store::{Finished, Follows, Outbox as _, Outcome, Owner, Route, Settlement};

    /// The receiver refuses everything from now on.
    async fn refuse(store: &SqliteStore, second: i64) {
        let (ops, me) = ("ops".into(), Owner("me".into()));
        let claimed = store.claim(claim(&ops, &me, second, 1)).await.unwrap();
        let dead = Outcome::Dead { error: "HTTP 410".into() };
        let follows = Follows { disable: Some("f".into()), ..Follows::default() };
        let settlement = Settlement { follows, ..dead.into() };
        let finished = store.finish(&claimed[0], &me, at(second), settlement).await.unwrap();
        assert_eq!(finished, Finished::Recorded);
    }

    #[tokio::test]
    async fn the_dead_are_tried_again_and_the_delivered_are_sent_again() {
        let store = SqliteStore::in_memory().unwrap();
        end(&store, "a", 10).await;
        settle(&store, 11, Outcome::Delivered).await;
        end(&store, "b", 20).await;
        refuse(&store, 21).await;
        let (delivered, dead) = (DeliveryState::Delivered, DeliveryState::Dead);
        assert_eq!(states(&store).await, [("b".into(), dead, 1), ("a".into(), delivered, 1)]);
        assert_eq!(store.stats().await.unwrap()[0].dead, 1);
        assert_eq!(store.disabled(&"ops".into(), "f").await.unwrap().as_deref(), Some("HTTP 410"));
        let retried = |due, skipped| Retried { due, skipped };
        let nothing = store.retry(DeliveryFilter::default(), &["new".into()], at(30)).await.unwrap();
        assert_eq!(nothing, retried(0, vec![("ops".to_owned(), 1)]), "nobody would send it");
        assert!(store.disabled(&"ops".into(), "f").await.unwrap().is_some());
        let all = store.retry(DeliveryFilter::default(), &["ops".into()], at(30)).await.unwrap();
        assert_eq!(all, retried(1, Vec::new()));
        assert_eq!(store.disabled(&"ops".into(), "f").await.unwrap(), None, "asked for, it is used again");
        let pending = DeliveryState::Pending;
        assert_eq!(states(&store).await, [("b".into(), pending, 0), ("a".into(), delivered, 1)]);
        assert_eq!(store.stats().await.unwrap()[0].oldest_pending, Some(at(20)));
        // Resends existing events; and, to a new channel that is named, events that it never had.
        let wishes = |name: &str, events| Route { channel: name.into(), events };
        assert_eq!(store.resend(at(5), vec![wishes("ops", None)], false, at(40)).await.unwrap(), 2);
        assert_eq!(store.resend(at(5), vec![wishes("new", None)], false, at(40)).await.unwrap(), 0);
        let failed = Some(vec![EventKind::RunFailed]);
        let canceled = Some(vec![EventKind::RunCanceled]);
        // An event that cannot be read keeps no other from being sent.
        let damage = "INSERT INTO events (id, run_id, at, payload) SELECT 'evt_x', 'x', at, '{\"type\":' FROM events LIMIT 1";
        store.queue.call(move |db| db.execute(damage, ())).await.unwrap();
        assert_eq!(store.resend(at(5), vec![wishes("new", canceled)], true, at(40)).await.unwrap(), 0);
        assert_eq!(store.resend(at(5), vec![wishes("new", failed)], true, at(40)).await.unwrap(), 2);
        let only =
            DeliveryFilter { channel: Some("new".into()), since: Some(at(15)), ..DeliveryFilter::default() };
        let found = store.deliveries(only, 99).await.unwrap();
        assert_eq!(
            (found.len(), found[0].run_id.as_deref(), found[0].kind.as_str()),
            (1, Some("b"), "run.failed")
        );
    }

    #[tokio::test]
    async fn a_disabled_channel_is_disabled_as_it_was_configured() {
        let (store, ops) = (SqliteStore::in_memory().unwrap(), "ops".into());
        end(&store, "a", 10).await;
        refuse(&store, 11).await;
        assert_eq!(store.disabled(&ops, "f").await.unwrap().as_deref(), Some("HTTP 410"));
        assert_eq!(store.disabled(&ops, "another url").await.unwrap(), None);
    }
}
