//! Copies the readable rows of a damaged database into a new one.
//!
//! A damaged page hides its rows, and SQLite stops reading there. So a table is read from both ends, and the gap in
//! between is split and read again. Rows that runwatch cannot have written are skipped, because they would count as
//! damage again.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi, params_from_iter};

use super::between::between;
use super::files::{make, resolved};
use super::schema::{SCHEMA, schema_of};
use super::sqlite::leave_files;
use super::sqlite::unusable_at;
use super::{StoreError, StoreErrorKind};

/// Maximum number of reads in one table of one source, because each may fail at once.
const ATTEMPTS: u32 = 8000;

/// Every table. Events come before their deliveries.
const TABLES: [Table; 7] = [
    Table { name: "runs", key: "id", rows: "runs", rules: &[] },
    Table { name: "removed_runs", key: "id", rows: "removed runs", rules: &[] },
    Table { name: "events", key: "id", rows: "events", rules: &[("payload", "json_valid(payload)")] },
    Table {
        name: "deliveries",
        key: "id",
        rows: "deliveries",
        rules: &[
            ("attempts", "attempts BETWEEN 0 AND 1000000000"),
            ("claims", "claims BETWEEN 0 AND 1000000000000"),
            ("cut_off", "cut_off BETWEEN 0 AND 1000000000"),
        ],
    },
    Table { name: "channels", key: "name", rows: "channels", rules: &[] },
    Table { name: "disabled_channels", key: "name", rows: "disabled channels", rules: &[] },
    Table { name: "moments", key: "name", rows: "remembered times", rules: &[] },
];

struct Table {
    name: &'static str,
    key: &'static str,
    /// What messages call its rows.
    rows: &'static str,
    /// Conditions on columns that runwatch keeps beyond the schema's.
    rules: &'static [(&'static str, &'static str)],
}

/// What was read from a damaged database.
#[derive(Debug, Default)]
pub struct Salvaged {
    parts: Vec<Part>,
}

/// What was read from one table.
#[derive(Debug)]
struct Part {
    rows: &'static str,
    saved: u64,
    /// Rows that runwatch cannot have written, or that lack the row they refer to.
    refused: u64,
    /// Whether a part could not be read.
    has_gaps: bool,
}

impl Salvaged {
    /// What could not be read, for people; `None` if everything could.
    pub fn lost(&self) -> Option<String> {
        let of = |part: &Part| match (part.has_gaps, part.refused) {
            (false, 0) => None,
            (true, _) if part.saved == 0 => Some(format!("the {}", part.rows)),
            (true, _) => Some(format!("some {}", part.rows)),
            (false, refused) => Some(format!("{refused} of the {}", part.rows)),
        };
        let lost: Vec<String> = self.parts.iter().filter_map(of).collect();
        (!lost.is_empty()).then(|| lost.join(", "))
    }
}

impl fmt::Display for Salvaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let saved: Vec<String> =
            self.parts.iter().map(|part| format!("{} {}", part.saved, part.rows)).collect();
        f.write_str(&saved.join(", "))
    }
}

/// Copies the readable data of the database at a path, which no process has open, into a new file. Leaves the database
/// as it is. Blocks.
pub fn salvage(database: &Path, to: &Path) -> Result<Salvaged, StoreError> {
    copy_readable(&[&open(database, "unix")?], to)
}

/// The same for a database that this process has open as `live`. Data that `live` does not see, because another process
/// changed the files, is read from the files. After that, the database is not locked any more.
pub(super) fn salvage_open(live: &Connection, database: &Path, to: &Path) -> Result<Salvaged, StoreError> {
    match open(database, "unix-none") {
        Ok(files) => copy_readable(&[live, &files], to),
        Err(_) => copy_readable(&[live], to),
    }
}

/// The file system by SQLite's name: `unix-none` ignores locks.
fn open(database: &Path, file_system: &str) -> Result<Connection, StoreError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags_and_vfs(resolved(database), flags, file_system)?;
    leave_files(&connection);
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
    Ok(connection)
}

/// Removes the file after an error.
fn copy_readable(from: &[&Connection], to: &Path) -> Result<Salvaged, StoreError> {
    make(to).map_err(|error| unusable_at(to, &error))?;
    // Reads a file that is cut off, or with a broken schema, as far as possible.
    let lenient = |is_so| {
        for source in from {
            let _ = source.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, is_so);
        }
    };
    lenient(true);
    let copied = copy_tables(from, to).and_then(|salvaged| {
        let is_readable = salvaged.parts.iter().any(|part| part.saved > 0 || !part.has_gaps);
        let message = "nothing in it can be read".to_owned();
        if is_readable { Ok(salvaged) } else { Err(StoreError { kind: StoreErrorKind::Corrupt, message }) }
    });
    lenient(false);
    copied.inspect_err(|_| drop(std::fs::remove_file(to)))
}

fn copy_tables(from: &[&Connection], path: &Path) -> Result<Salvaged, StoreError> {
    let to = open(path, "unix")?;
    to.execute_batch("PRAGMA synchronous = FULL; BEGIN")?;
    // Uses the database's schema version; the upgrade happens when the file is opened.
    let version = |db: &&Connection| db.query_row("PRAGMA user_version", (), |row| row.get::<_, i64>(0)).ok();
    let version = from.iter().find_map(version).and_then(|version| usize::try_from(version).ok());
    let version = version.filter(|version| (1..=SCHEMA).contains(version)).unwrap_or(SCHEMA);
    to.execute_batch(&schema_of(version))?;
    let mut salvaged = Salvaged::default();
    for table in &TABLES {
        let wanted = columns(&to, table.name)?;
        if wanted.is_empty() {
            // That version had no such table.
            continue;
        }
        let mut part = Part { rows: table.rows, saved: 0, refused: 0, has_gaps: true };
        for from in from {
            if part.has_gaps {
                let wanted = wanted.clone();
                let more = Copy { from, to: &to, table, wanted, attempts: 0 }.run()?;
                part = Part { saved: part.saved + more.saved, ..more };
            }
        }
        salvaged.parts.push(part);
    }
    to.execute_batch(&format!("PRAGMA user_version = {version}; COMMIT"))?;
    to.close().map_err(|(_, error)| StoreError::from(error))?;
    Ok(salvaged)
}

fn columns(db: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut select = db.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = select.query_map([table], |row| row.get(0))?;
    names.collect()
}

/// The copy of one table.
struct Copy<'c> {
    from: &'c Connection,
    to: &'c Connection,
    table: &'c Table,
    /// The columns of the new table.
    wanted: Vec<String>,
    attempts: u32,
}

/// The range between two keys, both excluded; `None` is the end of the table.
type Range = (Option<Value>, Option<Value>);

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

/// How far a read came.
enum Reached {
    /// To the end of the range.
    End,
    /// Nothing is readable after this key; `None` if nothing is readable at all.
    Key(Option<Value>),
}

impl Copy<'_> {
    fn run(mut self) -> Result<Part, StoreError> {
        let mut part = Part { rows: self.table.rows, saved: 0, refused: 0, has_gaps: false };
        let there = columns(self.from, self.table.name).unwrap_or_default();
        self.wanted.retain(|column| there.contains(column));
        if !self.wanted.iter().any(|column| column == self.table.key) {
            part.has_gaps = true;
            return Ok(part);
        }
        self.ranges(&mut part, VecDeque::from([(None, None)]))?;
        for (column, rule) in self.table.rules {
            if self.wanted.iter().any(|wanted| wanted == column) {
                let delete = format!("DELETE FROM {} WHERE NOT ({rule})", self.table.name);
                let deleted = self.to.execute(&delete, ())? as u64;
                part.saved -= deleted;
                part.refused += deleted;
            }
        }
        Ok(part)
    }

    /// Copies the rows in these ranges. The widest come first, so that one unreadable page does not use up all
    /// attempts.
    fn ranges(&mut self, part: &mut Part, mut ranges: VecDeque<Range>) -> Result<(), StoreError> {
        while let Some((low, high)) = ranges.pop_front() {
            let Reached::Key(last) = self.read(part, Direction::Up, low.as_ref(), high.as_ref())? else {
                continue;
            };
            let low = last.or(low);
            let Reached::Key(first) = self.read(part, Direction::Down, low.as_ref(), high.as_ref())? else {
                continue;
            };
            let high = first.or(high);
            part.has_gaps = true;
            if let Some(middle) = between(low.as_ref(), high.as_ref())
                && self.attempts < ATTEMPTS
            {
                self.one(part, &middle)?;
                ranges.push_back((low, Some(middle.clone())));
                ranges.push_back((Some(middle), high));
            }
        }
        Ok(())
    }

    fn select(&self) -> String {
        format!("SELECT {}, {} FROM {}", self.table.key, self.wanted.join(", "), self.table.name)
    }

    /// Copies the row with this key, if it exists.
    fn one(&mut self, part: &mut Part, key: &Value) -> Result<(), StoreError> {
        let sql = format!("{} WHERE {} = ?1", self.select(), self.table.key);
        self.copy(part, &sql, &[key]).map(drop)
    }

    fn read(
        &mut self,
        part: &mut Part,
        direction: Direction,
        low: Option<&Value>,
        high: Option<&Value>,
    ) -> Result<Reached, StoreError> {
        let key = self.table.key;
        let mut bounds = Vec::new();
        let mut limits = Vec::new();
        for (sign, limit) in [('>', low), ('<', high)] {
            if let Some(limit) = limit {
                limits.push(limit);
                bounds.push(format!("{key} {sign} ?{}", limits.len()));
            }
        }
        let bounds =
            if bounds.is_empty() { String::new() } else { format!(" WHERE {}", bounds.join(" AND ")) };
        let order = match direction {
            Direction::Up => "ASC",
            Direction::Down => "DESC",
        };
        let sql = format!("{}{bounds} ORDER BY {key} {order}", self.select());
        self.copy(part, &sql, &limits)
    }

    /// Copies rows until one cannot be read. An error concerns the new file.
    fn copy(&mut self, part: &mut Part, sql: &str, parameters: &[&Value]) -> Result<Reached, StoreError> {
        self.attempts += 1;
        let marks = vec!["?"; self.wanted.len()].join(", ");
        let insert = format!("INSERT INTO {} ({}) VALUES ({marks})", self.table.name, self.wanted.join(", "));
        let mut insert = self.to.prepare_cached(&insert)?;
        let mut last = None;
        let Ok(mut select) = self.from.prepare_cached(sql) else { return Ok(Reached::Key(None)) };
        let Ok(mut rows) = select.query(params_from_iter(parameters)) else { return Ok(Reached::Key(None)) };
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(Reached::End),
                Err(_) => return Ok(Reached::Key(last)),
            };
            let Ok(key) = row.get_ref(0).map(Value::try_from) else { return Ok(Reached::Key(last)) };
            last = key.ok().or(last);
            let values = (1..=self.wanted.len()).map(|column| row.get_ref(column).ok().and_then(owned));
            let Some(values) = values.collect::<Option<Vec<Value>>>() else {
                part.refused += 1;
                continue;
            };
            match insert.execute(params_from_iter(values)) {
                Ok(_) => part.saved += 1,
                Err(error) => part.refused += refused(error)?,
            }
        }
    }
}

/// A value of a row, unless it is invalid text.
fn owned(value: ValueRef<'_>) -> Option<Value> {
    Value::try_from(value).ok()
}

/// Whether the new file refuses the row; any other error concerns the file. A row that exists already is not lost.
fn refused(error: rusqlite::Error) -> Result<u64, StoreError> {
    match &error {
        rusqlite::Error::SqliteFailure(failure, _) if failure.code == ErrorCode::ConstraintViolation => {
            let is_there = [
                ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
                ffi::SQLITE_CONSTRAINT_ROWID,
                ffi::SQLITE_CONSTRAINT_UNIQUE,
            ];
            Ok(u64::from(!is_there.contains(&failure.extended_code)))
        }
        _ => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "salvage_tests.rs"]
mod tests;
