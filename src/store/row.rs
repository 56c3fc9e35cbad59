//! Rows of the table of runs, and the codes in them. The codes never change, because old files stay readable for ever.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Row;

use super::{ChannelName, Origin, Watched};
use crate::run::{Ending, Progress, RunState, RunStatus, SpecId, Subject, Terminal};

/// The columns of a run, in the order of reading and writing.
pub(super) const COLUMNS: &str = "id, name, status, samples_completed, samples_failed, number_of_samples, created_at, completed_at, \
                       watched_at, changed_at, progress_at, ended, ended_at, notify, deadline, added, overdue_told_at, \
                       stalled_told_at, spec_id";

/// Reads a run; `None` if its id no longer parses.
pub(super) fn read_run(row: &Row<'_>) -> rusqlite::Result<Option<Watched>> {
    let Ok(id) = row.get_ref(0)?.as_str()?.parse() else { return Ok(None) };
    let name: Option<Arc<str>> = row.get(1)?;
    let status: Option<String> = row.get(2)?;
    let ended: Option<String> = row.get(11)?;
    let notify: Option<String> = row.get(13)?;
    let counted = |column| row.get::<_, Option<i64>>(column).map(|n| n.and_then(|n| u64::try_from(n).ok()));
    let time = |column| row.get::<_, Option<i64>>(column).map(|at| at.and_then(timestamp));
    Ok(Some(Watched {
        subject: Subject { id, name },
        notify: notify
            .and_then(|names| serde_json::from_str::<Vec<String>>(&names).ok())
            .map(|names| names.into_iter().map(ChannelName::from).collect()),
        deadline: counted(14)?.map(Duration::from_micros),
        origin: origin_from(row.get(15)?),
        state: RunState {
            status: status.map(|word| RunStatus::parse(Some(&word))),
            progress: Progress { completed: counted(3)?, failed: counted(4)?, total: counted(5)? },
            created_at: time(6)?,
            completed_at: time(7)?,
            spec_id: row.get::<_, Option<String>>(18)?.as_deref().and_then(SpecId::parse),
            watched_at: time(8)?.unwrap_or(Timestamp::UNIX_EPOCH),
            changed_at: time(9)?,
            progress_at: time(10)?,
            ended: ended.as_deref().and_then(ending_from),
            ended_at: time(12)?,
            overdue_told_at: time(16)?,
            stalled_told_at: time(17)?,
            doubt: None,
        },
    }))
}

/// The codes of endings.
pub(super) const ENDINGS: [(&str, Ending); 8] = [
    ("SUCCEEDED", Ending::Finished(Terminal::Succeeded)),
    ("FAILED", Ending::Finished(Terminal::Failed)),
    ("CANCELED", Ending::Finished(Terminal::Canceled)),
    ("NEVER_FOUND", Ending::NeverFound),
    ("GONE", Ending::Gone),
    ("KEY_REFUSED", Ending::KeyRefused),
    ("UNKNOWABLE", Ending::Unknowable),
    ("REJECTED", Ending::Rejected),
];

pub(super) fn ending_word(ending: Ending) -> &'static str {
    ENDINGS.iter().find(|(_, known)| *known == ending).map_or("UNKNOWABLE", |(word, _)| word)
}

pub(super) fn ending_from(word: &str) -> Option<Ending> {
    ENDINGS.iter().find(|(known, _)| *known == word).map(|(_, ending)| *ending)
}

/// The code of an origin.
pub(super) fn origin_code(origin: Origin) -> i64 {
    match origin {
        Origin::Configured => 0,
        Origin::Added => 1,
        Origin::Found => 2,
    }
}

fn origin_from(code: i64) -> Origin {
    match code {
        0 => Origin::Configured,
        2 => Origin::Found,
        _ => Origin::Added,
    }
}

pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

pub(super) fn timestamp(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros).ok()
}

/// A count within SQLite's range, up to 2^63 - 1.
pub(super) fn count(count: Option<u64>) -> Option<i64> {
    count.map(|count| i64::try_from(count).unwrap_or(i64::MAX))
}
