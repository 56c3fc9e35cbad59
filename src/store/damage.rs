//! Which SQLite errors mean a damaged database, and which are temporary.
//!
//! Damage never goes away: `daemon` sets the file aside and makes a new one. Temporary errors are retried. Also checks
//! an open database: its pages, and the tables that this version needs.

use std::collections::BTreeSet;

use rusqlite::{Connection, Error, ErrorCode, ffi};

use super::schema::NEW;
use super::{StoreError, StoreErrorKind};

/// The kind of an error. [`StoreErrorKind::Other`] may still be damage: see [`missing`].
pub(super) fn kind_of(error: &Error) -> StoreErrorKind {
    match error {
        Error::SqliteFailure(failure, _) | Error::SqlInputError { error: failure, .. } => {
            kind_of_code(failure.extended_code)
        }
        // A row has a value that runwatch never wrote, and stays unreadable.
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Other,
    }
}

/// Whether an error concerns the database, not only one call.
pub(super) fn is_the_databases(error: &Error) -> bool {
    match error {
        Error::SqliteFailure(failure, _) => failure.code != ErrorCode::ConstraintViolation,
        // An unknown name: a mistake in the statement, or in the database.
        Error::SqlInputError { .. } => true,
        other => kind_of(other) == StoreErrorKind::Corrupt,
    }
}

/// The kind by the extended result codes of <https://sqlite.org/rescode.html>.
fn kind_of_code(code: i32) -> StoreErrorKind {
    match code {
        ffi::SQLITE_READONLY_DBMOVED => return StoreErrorKind::Moved,
        // The file system itself is damaged, or the file is too short. A new file may work.
        ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA | ffi::SQLITE_IOERR_SHORT_READ => {
            return StoreErrorKind::Corrupt;
        }
        _ => {}
    }
    match code & 0xff {
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB | ffi::SQLITE_FORMAT | ffi::SQLITE_MISMATCH => {
            StoreErrorKind::Corrupt
        }
        ffi::SQLITE_FULL => StoreErrorKind::Full,
        ffi::SQLITE_READONLY | ffi::SQLITE_PERM => StoreErrorKind::ReadOnly,
        ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN => StoreErrorKind::Io,
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => StoreErrorKind::Busy,
        _ => StoreErrorKind::Other,
    }
}

/// Checks all pages and the schema.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    check_pages(connection)?;
    missing(connection).map_or(Ok(()), Err)
}

/// Checks all pages.
pub(super) fn check_pages(connection: &Connection) -> Result<(), StoreError> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(damaged(&found)) }
}

/// Something that this version needs and the database lacks, as damage. Additional objects are fine. A failed check
/// reports nothing.
pub(super) fn missing(connection: &Connection) -> Option<StoreError> {
    let wanted = Connection::open_in_memory().and_then(|db| {
        db.execute_batch(NEW)?;
        columns(&db)
    });
    let there = columns(connection);
    let (wanted, there) = (wanted.ok()?, there.ok()?);
    let missing = wanted.difference(&there).next()?;
    Some(damaged(&format!("there is no {missing}")))
}

fn damaged(what: &str) -> StoreError {
    StoreError { kind: StoreErrorKind::Corrupt, message: format!("the state is damaged: {what}") }
}

/// Every column of every table, with its type.
fn columns(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let mut select = connection.prepare(
        "SELECT 'column ' || columns.name || ' of the table ' || tables.name || ' (' || columns.type || ', ' \
         || iif(columns.\"notnull\", 'not null', 'null') || ', key ' || columns.pk || ')' \
         FROM pragma_table_list AS tables JOIN pragma_table_info(tables.name) AS columns \
         WHERE tables.schema = 'main' AND tables.type = 'table'",
    )?;
    let rows = select.query_map((), |row| row.get(0))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damage_and_what_passes() {
        use StoreErrorKind as Kind;
        for (code, expected) in [
            (ffi::SQLITE_CORRUPT, Kind::Corrupt),
            (ffi::SQLITE_CORRUPT_INDEX, Kind::Corrupt),
            (ffi::SQLITE_CORRUPT_SEQUENCE, Kind::Corrupt),
            (ffi::SQLITE_NOTADB, Kind::Corrupt),
            (ffi::SQLITE_FORMAT, Kind::Corrupt),
            (ffi::SQLITE_MISMATCH, Kind::Corrupt),
            (ffi::SQLITE_IOERR_CORRUPTFS, Kind::Corrupt),
            (ffi::SQLITE_READONLY_DBMOVED, Kind::Moved),
            (ffi::SQLITE_FULL, Kind::Full),
            (ffi::SQLITE_READONLY, Kind::ReadOnly),
            (ffi::SQLITE_READONLY_DIRECTORY, Kind::ReadOnly),
            (ffi::SQLITE_PERM, Kind::ReadOnly),
            (ffi::SQLITE_IOERR, Kind::Io),
            (ffi::SQLITE_IOERR_FSYNC, Kind::Io),
            (ffi::SQLITE_IOERR_SHORT_READ, Kind::Corrupt),
            (ffi::SQLITE_IOERR_READ, Kind::Io),
            (ffi::SQLITE_CANTOPEN, Kind::Io),
            (ffi::SQLITE_BUSY, Kind::Busy),
            (ffi::SQLITE_BUSY_RECOVERY, Kind::Busy),
            (ffi::SQLITE_LOCKED, Kind::Busy),
            (ffi::SQLITE_PROTOCOL, Kind::Busy),
            (ffi::SQLITE_NOMEM, Kind::Other),
            (ffi::SQLITE_INTERRUPT, Kind::Other),
            (ffi::SQLITE_TOOBIG, Kind::Other),
            (ffi::SQLITE_CONSTRAINT_UNIQUE, Kind::Other),
            (ffi::SQLITE_ERROR, Kind::Other),
        ] {
            assert_eq!(kind_of_code(code), expected, "{}", ffi::code_to_str(code));
        }
    }

    #[test]
    fn what_is_missing_is_damage_and_more_than_is_needed_is_none() {
        let after = |sql: &str| {
            let db = Connection::open_in_memory().unwrap();
            db.execute_batch(&format!("{NEW} {sql}")).unwrap();
            check(&db).map_err(|error| (error.kind, error.message))
        };
        assert_eq!(after(""), Ok(()));
        assert_eq!(after("CREATE TABLE notes (x); ALTER TABLE runs ADD COLUMN colour TEXT"), Ok(()));
        for sql in [
            "DROP TABLE runs",
            "DROP TABLE moments",
            "ALTER TABLE runs DROP COLUMN ended_at",
            "ALTER TABLE deliveries RENAME TO parcels",
            "ALTER TABLE events RENAME COLUMN payload TO load",
            "DROP TABLE moments; CREATE TABLE moments (name TEXT, at INTEGER NOT NULL)",
        ] {
            let (kind, message) = after(sql).unwrap_err();
            assert_eq!(kind, StoreErrorKind::Corrupt, "{sql}");
            assert!(message.contains("there is no column"), "{sql}: {message}");
        }
    }

    #[test]
    fn what_runwatch_never_wrote_is_damage() {
        let db = Connection::open_in_memory().unwrap();
        let read = |sql: &str| kind_of(&db.query_row(sql, (), |row| row.get::<_, u32>(0)).unwrap_err());
        assert_eq!(read("SELECT 'text'"), StoreErrorKind::Corrupt);
        assert_eq!(read("SELECT -1"), StoreErrorKind::Corrupt);
        let text = db.query_row("SELECT CAST(x'ff' AS TEXT)", (), |row| row.get::<_, String>(0));
        assert_eq!(kind_of(&text.unwrap_err()), StoreErrorKind::Corrupt);
        assert_eq!(read("SELECT 1 WHERE 0"), StoreErrorKind::Other, "a bug of ours is no damage");
    }
}
