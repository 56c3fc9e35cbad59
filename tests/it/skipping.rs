//! A skipped test is reported at once, and in the summary.

use std::process::{Command, Output};

use crate::support::{need, skips};

/// Has the test below need something.
const VARIABLE: &str = "RUNWATCH_TEST_NEEDS_THE_IMPOSSIBLE";

const TEST: &str = "skipping::needs_what_no_machine_has";

#[test]
fn needs_what_no_machine_has() {
    if std::env::var_os(VARIABLE).is_some() {
        assert_eq!(need::program("runwatch-no-such-program"), None);
    }
}

/// Runs that test alone.
fn run(ci: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([TEST, "--exact"]).env(VARIABLE, "1").env_remove("CI");
    if let Some(ci) = ci {
        command.env("CI", ci);
    }
    command.output().unwrap()
}

#[test]
fn a_skip_is_seen_in_the_ordinary_output_and_in_the_summary() {
    let output = run(None);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("test result: ok. 1 passed"), "{output:?}");
    let line = format!(
        "SKIPPED: {TEST} needs the program `runwatch-no-such-program`: apt-get install runwatch-no-such-program\n"
    );
    assert!(stderr.contains(&line), "{output:?}");
    // That test's runner is this process.
    let skipped = skips::take(std::process::id().try_into().unwrap());
    let summary = skips::summary(&skipped);
    for part in [
        "1 test passed without running",
        "the program `runwatch-no-such-program`: apt-get install runwatch-no-such-program",
        TEST,
    ] {
        assert!(summary.contains(part), "`{part}` is missing: {summary}");
    }
    assert!(skips::take(std::process::id().try_into().unwrap()).is_empty(), "it is read once");
    assert_eq!(skips::summary(&skips::Skips::new()), "");
}

#[test]
fn in_ci_absent_is_a_failure() {
    let output = run(Some("true"));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && stdout.contains("CI must have it"), "{output:?}");
}
