//! The order of a run's events on one channel: each is delivered after the previous one is settled, and the end of a
//! run supersedes its pending warnings.
//!
//! Owns both conditions. Used when rows are written (`runs`), claimed and finished (`outbox`), and made pending again
//! (`admin`).

use std::fmt::Write as _;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::row::micros;
use crate::run::EventKind;

/// True for a pending row of `deliveries` that is the oldest of its run, or about no run.
pub(super) const IS_NEXT: &str = "NOT EXISTS (SELECT 1 FROM deliveries AS earlier WHERE earlier.channel = deliveries.channel \
     AND earlier.run_id = deliveries.run_id AND earlier.id < deliveries.id AND earlier.state = 'pending')";

/// The type of a row of `events`; NULL if it cannot be read.
pub(super) const KIND: &str = "CASE WHEN json_valid(payload) THEN payload ->> '$.type' END";

/// How to decide which of two events is later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// By the order of recording.
    Row,
    /// By the time of the event, because rows added much later are in no order.
    Time,
}

/// Settles warnings that the end of their run supersedes, among the rows in `scope` (a condition on `deliveries`, with
/// its parameters). Leaves out those that are being sent. Returns how many.
pub(super) fn supersede(
    db: &Connection,
    scope: &str,
    mut values: Vec<Value>,
    by: By,
    now: Timestamp,
) -> rusqlite::Result<usize> {
    let later = match by {
        By::Row => "newer.id > deliveries.id",
        By::Time => "ends.at > (SELECT at FROM events WHERE events.id = deliveries.event_id)",
    };
    let sql = format!(
        "UPDATE deliveries SET state = 'superseded', \
         last_error = coalesce(last_error || '; ', '') || 'superseded: the run has ended since', settled_at = ? \
         WHERE {scope} AND state = 'pending' AND owner IS NULL AND run_id NOT NULL \
         AND (SELECT {KIND} FROM events WHERE events.id = event_id) IN ({warnings}) \
         AND EXISTS (SELECT 1 FROM deliveries AS newer JOIN events AS ends ON ends.id = newer.event_id \
                     WHERE newer.channel = deliveries.channel AND newer.run_id = deliveries.run_id \
                     AND newer.id != deliveries.id AND newer.state != 'superseded' \
                     AND {KIND} IN ({ends}) AND {later})",
        warnings = kinds(EventKind::is_overtaken_by_end),
        ends = kinds(EventKind::is_end),
    );
    values.insert(0, micros(now).into());
    db.prepare_cached(&sql)?.execute(params_from_iter(values))
}

/// Event types as an SQL list.
fn kinds(wanted: fn(EventKind) -> bool) -> String {
    let mut list = String::new();
    for kind in EventKind::ALL.into_iter().filter(|kind| wanted(*kind)) {
        let separator = if list.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(list, "{separator}'{kind}'");
    }
    list
}
