//! Reads the two clocks, here and nowhere else.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::run::Moment;

/// This moment on both clocks.
pub fn now() -> Moment {
    Moment { mono: Instant::now(), wall: wall() }
}

/// A wall clock, for parts whose waits outlive the process: a test can move it.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The wall clock, to the microsecond (what the API uses).
pub fn wall() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
