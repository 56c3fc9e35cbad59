//! Reads the two clocks. No other file does.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::run::Moment;

/// The current time on both clocks.
pub fn now() -> Moment {
    Moment { mono: Instant::now(), wall: wall() }
}

/// A wall clock, for waits that outlast the process. Tests can set it.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The wall clock, to the microsecond, as the API uses.
pub fn wall() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
