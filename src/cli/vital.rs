//! Threads that the process needs: if one ends, by a panic or otherwise, the process ends at once.
//!
//! Without the thread that writes the log, a daemon would continue unnoticed, and its log channel would never deliver again.
//! A sudden end loses nothing: results are stored, and the next start sends what was not delivered.
//! Used by `out` and `journal`.

use std::io;
use std::time::Duration;

use super::exit::Exit;
use super::out::last_words;

/// Starts a thread of this name. It must never end.
pub(super) fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    spawn_with(name, work, end)
}

fn spawn_with(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
    end: fn(&'static str, bool),
) -> io::Result<()> {
    // It is never joined: one that is stuck in a write must not hold up the end.
    let thread = move || {
        let _vital = Vital { name, end };
        work();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(thread).map(drop)
}

struct Vital {
    name: &'static str,
    end: fn(&'static str, bool),
}

impl Drop for Vital {
    fn drop(&mut self) {
        (self.end)(self.name, std::thread::panicking());
    }
}

/// Ends the process. The service manager restarts it.
#[expect(clippy::exit, reason = "no half lives on alone, and an end in order has to be logged")]
fn end(name: &'static str, panicked: bool) {
    let how = if panicked { "panicked" } else { "ended by itself" };
    last_words(&format!("the thread `{name}` {how}; this is a bug in runwatch"), Duration::ZERO);
    std::process::exit(i32::from(Exit::Internal.code()));
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    static ENDED: Mutex<Vec<(&str, bool)>> = Mutex::new(Vec::new());

    #[test]
    fn a_thread_that_panics_or_ends_takes_the_process_with_it() {
        let note = |name, panicked| ENDED.lock().unwrap().push((name, panicked));
        spawn_with("panics", || panic!("as scripted"), note).unwrap();
        spawn_with("ends", || {}, note).unwrap();
        loop {
            let mut ended = ENDED.lock().unwrap().clone();
            ended.sort_unstable();
            if ended.len() >= 2 {
                assert_eq!(ended, [("ends", false), ("panics", true)]);
                return;
            }
            std::thread::yield_now();
        }
    }
}
