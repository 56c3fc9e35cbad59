//! The store on SQLite: opening it and bringing its schema up to date.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::watch;

use super::queue::Queue;
use super::{StoreError, StoreErrorKind};

/// The version of `schema.sql`, kept in `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 1;

/// Runs and outbox in one SQLite database, on disk for a daemon and in memory for a command. Cheap to clone.
#[derive(Clone)]
pub struct SqliteStore {
    pub(super) queue: Queue,
    pub(super) filled: Arc<watch::Sender<u64>>,
}

impl SqliteStore {
    fn on(connection: Connection, blocks: bool) -> Self {
        Self { queue: Queue::new(connection, blocks), filled: Arc::new(watch::Sender::new(0)) }
    }

    /// A store that lives as long as the process.
    pub fn in_memory() -> Result<Self, StoreError> {
        let connection = Connection::open_in_memory()?;
        migrate(&connection)?;
        Ok(Self::on(connection, false))
    }

    /// The store in a file, made if it is not there. Blocks.
    ///
    /// Write-ahead log and `synchronous = FULL`: what was committed survives a power cut.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(path)?;
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        migrate(&connection)?;
        // Whoever held a lease is gone: there is one owner at a time.
        connection
            .execute("UPDATE deliveries SET owner = NULL, lease_until = NULL WHERE owner NOT NULL", ())?;
        Ok(Self::on(connection, true))
    }
}

/// Makes the schema, or refuses one from the future.
fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let version: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    match version {
        0 => connection.execute_batch(&format!(
            "BEGIN; {} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;",
            include_str!("schema.sql")
        ))?,
        SCHEMA_VERSION => {}
        newer => {
            return Err(StoreError {
                kind: StoreErrorKind::Other,
                message: format!(
                    "the state was written by a newer runwatch (schema {newer}, this one knows up to \
                     {SCHEMA_VERSION}); upgrade runwatch, or use another state directory"
                ),
            });
        }
    }
    Ok(())
}
