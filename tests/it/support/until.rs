//! Waiting for what nobody announces: it is looked for now and then. The only place in which a test sleeps for something real.

use std::time::Duration;

use tokio::time::Instant;

/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked for.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until it is so.
#[track_caller]
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    found(what, || if is_so() { Ok(()) } else { Err(String::new()) });
}

/// Waits until it is found; the error is what was there instead.
#[track_caller]
pub fn found<T>(what: &str, look: impl Fn() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) => assert!(Instant::now() < end, "never {what}: {instead}"),
        }
        std::thread::sleep(PAUSE);
    }
}
