//! Entries for fuzzing (`fuzz/`): rows of the state file with any values.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::{admin, outbox, row};

/// Number of columns of the widest row.
const COLUMNS: usize = 19;

thread_local! {
    static MEMORY: Connection = Connection::open_in_memory().unwrap_or_else(|error| unreachable!("{error}"));
}

/// One value from the start of `data`: a byte for its type, then its content.
fn value(data: &mut &[u8]) -> Value {
    let Some((kind, rest)) = data.split_first() else { return Value::Null };
    *data = rest;
    match kind % 6 {
        0 => Value::Null,
        1 => number(data).map_or(Value::Null, |bytes| Value::Integer(i64::from_le_bytes(bytes))),
        2 => number(data).map_or(Value::Null, |bytes| Value::Real(f64::from_le_bytes(bytes))),
        3 => Value::Integer(i64::from(*kind)),
        4 => Value::Blob(text(data).to_vec()),
        _ => Value::Text(String::from_utf8_lossy(text(data)).into_owned()),
    }
}

fn number(data: &mut &[u8]) -> Option<[u8; 8]> {
    let (number, rest) = data.split_first_chunk()?;
    *data = rest;
    Some(*number)
}

fn text<'d>(data: &mut &'d [u8]) -> &'d [u8] {
    let Some((length, rest)) = data.split_first() else { return &[] };
    let (text, rest) = rest.split_at(usize::from(*length).min(rest.len()));
    *data = rest;
    text
}

/// Reads a row with values from `data` as a run, a claimed delivery and a delivery for people.
pub fn rows(mut data: &[u8]) {
    let values: Vec<Value> = (0..COLUMNS).map(|_| value(&mut data)).collect();
    MEMORY.with(|db| {
        let columns: Vec<String> = (1..=COLUMNS).map(|at| format!("?{at}")).collect();
        let Ok(mut select) = db.prepare_cached(&format!("SELECT {}", columns.join(","))) else { return };
        let Ok(mut rows) = select.query(params_from_iter(values)) else { return };
        if let Ok(Some(found)) = rows.next() {
            let _ = row::read_run(found);
            let _ = outbox::read_claimed(found);
            let _ = admin::read_delivery(found);
        }
    });
}
