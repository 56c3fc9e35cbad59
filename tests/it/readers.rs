//! Readers that disappear, on the built binary: a closed pipe, a closed terminal. The verdict counts what was seen, and
//! a quiet command ends if nobody can read it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::support::bin::{Running, Runwatch, runwatch};
use crate::support::body::run;
use crate::support::need;
use crate::support::stub::{Answer, Stub};

/// Polls so rarely that nothing more is printed within the time of a test.
const RARE: &str =
    "[poll]\ninitial_interval = \"1h\"\nmax_interval = \"1h\"\nbatch = \"never\"\nmax_in_flight = 1\n";

fn going() -> Answer {
    run().ok()
}

fn ended(status: &str) -> Answer {
    run().status(status).ok()
}

/// A reader that takes lines until one has this in it, and then closes the pipe.
#[track_caller]
fn leave_after(running: &mut Running, word: &str) {
    let mut lines = BufReader::new(running.take_stdout()).lines();
    assert!(lines.any(|line| line.unwrap().contains(word)), "`{word}` never came");
}

#[test]
fn a_closed_pipe_never_turns_what_was_seen_into_success() {
    for (end, code) in [
        (ended("FAILED"), 1),
        (ended("CANCELED"), 3),
        (ended("SUCCEEDED"), 0),
        (crate::support::stub::error(404), 5),
    ] {
        // The second run goes on, and nothing more is said of it; it is polled once more at the end.
        let stub = Stub::with([end, going(), going()]);
        let mut running = runwatch(&["watch", "a", "b", "--grace", "0s"]).api(&stub).config(RARE).spawn();
        leave_after(&mut running, "b PROCESSING");
        let output = running.wait();
        assert_eq!((output.code, output.stderr.as_str()), (Some(code), ""), "{output:?}");
    }
}

#[test]
fn a_quiet_watch_ends_when_its_reader_goes() {
    let stub = Stub::with([going(), going()]);
    let mut running = runwatch(&["watch", "a"]).api(&stub).config(RARE).spawn();
    leave_after(&mut running, "a PROCESSING");
    let began = Instant::now();
    assert_eq!(running.wait().code, Some(0), "nothing ended badly");
    assert!(began.elapsed().as_secs() < 30, "it noticed at its next write");
}

#[test]
fn a_run_that_has_failed_since_is_seen_by_the_last_poll() {
    let stub = Stub::with([going(), ended("FAILED")]);
    let mut running = runwatch(&["watch", "a"]).api(&stub).config(RARE).spawn();
    leave_after(&mut running, "a PROCESSING");
    assert_eq!(running.wait().code, Some(1));
}

#[test]
fn a_file_is_no_reader_that_could_go() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().join("file"), "/dev/null".into()] {
        let file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
        let stub = Stub::then_forever([going(), going(), going(), going()], ended("FAILED"));
        let output = runwatch(&["watch", "a"]).api(&stub).quick("").stdout(file).run();
        assert_eq!(output.code, Some(1), "{}: {output:?}", path.display());
    }
}

#[test]
fn a_wait_goes_on_while_somebody_reads_either_stream() {
    // Standard error is closed, and the result is read.
    let stub = Stub::then_forever([going(), going(), going()], ended("FAILED"));
    let mut running = runwatch(&["wait", "a"]).api(&stub).quick("").spawn();
    drop(running.take_stderr());
    let output = running.wait();
    assert_eq!((output.code, output.stdout.contains("a FAILED")), (Some(1), true), "{output:?}");
    // The result is not read, and the exit code counts.
    let stub = Stub::then_forever([going(), going(), going()], ended("FAILED"));
    let mut running = runwatch(&["wait", "a"]).api(&stub).quick("").spawn();
    drop(running.take_stdout());
    assert_eq!(running.wait().code, Some(1));
}

#[test]
fn a_wait_ends_when_nobody_reads_either_stream() {
    let stub = Stub::with([going()]);
    let mut running = runwatch(&["wait", "a"]).api(&stub).config(RARE).spawn();
    let mut stderr = BufReader::new(running.take_stderr());
    stderr.read_line(&mut String::new()).unwrap();
    drop((running.take_stdout(), stderr));
    assert_eq!(running.wait().code, Some(129));
}

/// A command that does not ignore SIGHUP, although the tests may be run by nohup.
fn hearing_hangups(command: Runwatch) -> Option<Runwatch> {
    Some(command.under(&need::program("env")?, &["--default-signal=HUP"]))
}

#[test]
fn a_hangup_ends_what_runs_in_the_foreground() {
    for command in ["watch", "wait"] {
        let stub = Stub::with([going()]);
        let Some(running) = hearing_hangups(runwatch(&[command, "a"]).api(&stub).config(RARE)) else {
            return;
        };
        let running = running.spawn();
        stub.next();
        running.signal(Signal::HUP);
        assert_eq!(running.wait().code, Some(129), "{command}");
    }
}

#[test]
fn nohup_outlives_a_hangup() {
    let stub = Stub::then_forever([going()], ended("SUCCEEDED"));
    let shell = std::path::Path::new("/bin/sh");
    let config = "[poll]\ninitial_interval = \"500ms\"\n";
    let running = runwatch(&["wait", "a"])
        .api(&stub)
        .config(config)
        .under(shell, &["-c", "trap '' HUP; exec \"$0\" \"$@\""])
        .spawn();
    stub.next();
    running.signal(Signal::HUP);
    let output = running.wait();
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn a_terminal_that_is_closed_ends_a_quiet_watch() {
    // A process without a controlling terminal gets no SIGHUP: it has only the descriptor to see it by.
    for command in ["watch", "wait"] {
        let stub = Stub::with([going()]);
        let (master, slave) = terminal();
        let running = runwatch(&[command, "a"]).api(&stub).config(RARE).env("TERM", "dumb");
        let Some(running) = hearing_hangups(running) else { return };
        let running =
            running.stdout(Stdio::from(slave.try_clone().unwrap())).stderr(Stdio::from(slave)).spawn();
        let mut first = [0; 1];
        let mut master = std::fs::File::from(master);
        master.read_exact(&mut first).unwrap();
        drop(master);
        assert_eq!(running.wait().code, Some(129), "{command}");
    }
}

#[test]
fn nohup_on_a_terminal_watches_on_when_it_is_closed() {
    for command in ["watch", "wait"] {
        for closed in [false, true] {
            let stub = Stub::then_forever([going(), going()], ended("FAILED"));
            let (master, slave) = terminal();
            let running = runwatch(&[command, "a"])
                .api(&stub)
                .config("[poll]\ninitial_interval = \"200ms\"\n")
                .env("TERM", "dumb")
                .under(std::path::Path::new("/bin/sh"), &["-c", "trap '' HUP; exec \"$0\" \"$@\""])
                .stdout(Stdio::from(slave.try_clone().unwrap()))
                .stderr(Stdio::from(slave))
                .spawn();
            // At the second request, the streams have been looked at.
            stub.next();
            stub.next();
            let master = (!closed).then_some(master);
            let code = running.wait().code;
            drop(master);
            assert_eq!(code, Some(1), "{command}, closed: {closed}");
        }
    }
}

/// Both ends of a pseudo-terminal.
fn terminal() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    (master, slave)
}

#[test]
fn a_list_that_is_asked_for_again_and_again_ends_with_its_reader() {
    let stub = Stub::then_forever([], crate::support::stub::error(503));
    let config = "[poll]\nerror_initial_interval = \"50ms\"\nerror_max_interval = \"100ms\"\n";
    let mut running = runwatch(&["watch", "--latest"]).api(&stub).config(config).spawn();
    stub.next();
    drop(running.take_stdout());
    assert_eq!(running.wait().code, Some(0));
}

#[test]
fn status_tells_what_it_saw_through_a_closed_pipe() {
    let stub = Stub::with([ended("FAILED")]);
    let mut running = runwatch(&["status", "a", "--exit-code"]).api(&stub).config(RARE).spawn();
    drop(running.take_stdout());
    assert_eq!(running.wait().code, Some(1));
}

#[test]
fn a_demo_ends_with_its_reader() {
    let mut running = runwatch(&["demo", "--length", "10m"]).spawn();
    leave_after(&mut running, "PENDING");
    assert_eq!(running.wait().code, Some(0), "no run has ended");
}

#[test]
fn what_the_last_poll_brings_counts_in_every_mode() {
    // One poll of each run, then nothing before the deadline; the look at the deadline finds the first one ended.
    let poll =
        |status: &'static str| move |id: &str| if id == "a" { run().status(status).ok() } else { going() };
    for (args, status, code, word) in [
        (&["watch", "a", "b", "--any"][..], "SUCCEEDED", 0, "watch"),
        (&["watch", "a", "b", "--any"], "FAILED", 1, "watch"),
        (&["watch", "a", "b", "--any"], "CANCELED", 3, "watch"),
        (&["watch", "a", "b"], "SUCCEEDED", 124, "watch"),
        (&["watch", "a", "b"], "FAILED", 1, "watch"),
        (&["wait", "a", "b"], "SUCCEEDED", 124, "wait"),
        (&["wait", "a", "b", "--fail-fast"], "SUCCEEDED", 124, "wait"),
        (&["wait", "a", "b", "--fail-fast"], "FAILED", 1, "wait"),
    ] {
        let answers = poll(status);
        let stub = Stub::with([going(), going(), answers("a"), answers("b")]);
        let args = [args, &["--timeout", "500ms"]].concat();
        let output = runwatch(&args).api(&stub).config(RARE).run();
        assert_eq!(output.code, Some(code), "{word} {args:?} {status}: {output:?}");
    }
}
