//! Which tests were skipped in one run of `cargo test`, noted by the tests and read by the closing target `tests/skips.rs`.
//!
//! The runner captures what a test prints and shows none of it where the test passes, so a note goes to a file. The runner's
//! process names the file: both targets are its children. Used through `need`, and by the closing target.

#![allow(dead_code, reason = "each of the two targets uses one half")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is missing and how to get it, with the tests that were skipped for it.
pub type Skips = BTreeMap<(String, String), Vec<String>>;

/// Where notes are kept.
fn dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped")
}

/// Notes of an older run are nobody's any more.
const KEPT: Duration = Duration::from_hours(24);

fn file(runner: i32) -> PathBuf {
    dir().join(runner.to_string())
}

/// The process that runs the targets: `cargo test`, or nextest.
pub fn runner() -> i32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get())
}

/// Notes that a test was skipped.
pub fn note(test: &str, what: &str, remedy: &str) {
    std::fs::create_dir_all(dir()).unwrap();
    let mut file = std::fs::File::options().create(true).append(true).open(file(runner())).unwrap();
    // One write: several tests, or processes, note at the same time.
    file.write_all(format!("{test}\t{what}\t{remedy}\n").as_bytes()).unwrap();
}

/// Everything that was noted under a runner. It is read once; what older runs have left is removed.
pub fn take(runner: i32) -> Skips {
    let mut skips = Skips::new();
    for line in std::fs::read_to_string(file(runner)).unwrap_or_default().lines() {
        let mut parts = line.splitn(3, '\t').map(str::to_owned);
        if let (Some(test), Some(what), Some(remedy)) = (parts.next(), parts.next(), parts.next()) {
            let tests = skips.entry((what, remedy)).or_default();
            if !tests.contains(&test) {
                tests.push(test);
                tests.sort();
            }
        }
    }
    let _ = std::fs::remove_file(file(runner));
    for entry in std::fs::read_dir(dir()).into_iter().flatten().flatten() {
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        if written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > KEPT)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    skips
}

/// What people read at the end; empty if nothing was skipped.
pub fn summary(skips: &Skips) -> String {
    let mut tests: Vec<&String> = skips.values().flatten().collect();
    tests.sort();
    tests.dedup();
    if tests.is_empty() {
        return String::new();
    }
    let count = tests.len();
    let plural = if count == 1 { "1 test".to_owned() } else { format!("{count} tests") };
    let mut lines =
        vec![format!("SKIPPED: {plural} passed without running, in whole or in part. This machine lacks:")];
    for ((what, remedy), tests) in skips {
        lines.push(format!("\n  {what}: {remedy}"));
        lines.extend(tests.iter().map(|test| format!("    {test}")));
    }
    lines.join("\n") + "\n\n  .ci/run installs all of it and runs every test.\n"
}
