//! The command after `--` of `watch` and `wait`: when it runs, what it gets, and which exit code counts.

use std::io::{BufRead as _, BufReader};

use rustix::process::Signal;

use crate::support::bin::runwatch;
use crate::support::body::run;
use crate::support::stub::{Answer, Stub, error};

fn ended(status: &str) -> Answer {
    run().status(status).samples(193, 7, 200).ok()
}

/// The lines on standard output that begin with a word.
fn lines<'o>(stdout: &'o str, prefix: &str) -> Vec<&'o str> {
    stdout.lines().filter(|line| line.starts_with(prefix)).collect()
}

#[test]
fn the_command_runs_if_the_verdict_is_0_and_its_exit_code_counts() {
    for verb in ["watch", "wait"] {
        for (status, always, command, code, runs) in [
            ("SUCCEEDED", false, "exit 0", 0, true),
            ("SUCCEEDED", false, "exit 3", 3, true),
            ("SUCCEEDED", true, "exit 3", 3, true),
            ("SUCCEEDED", false, "kill -KILL $$", 137, true),
            ("FAILED", false, "exit 0", 1, false),
            ("FAILED", true, "exit 0", 1, true),
            ("FAILED", true, "exit 9", 1, true),
            ("CANCELED", true, "exit 0", 3, true),
        ] {
            let script = format!("echo ran; {command}");
            let mut args = vec![verb, "r"];
            args.extend(always.then_some("--always"));
            args.extend(["--", "sh", "-c", &script]);
            let output = runwatch(&args).api(&Stub::with([ended(status)])).quick("").run();
            assert_eq!(output.code, Some(code), "{args:?} {status}: {output:?}");
            assert_eq!(output.stdout.ends_with("ran\n"), runs, "{args:?} {status}: {output:?}");
        }
    }
}

#[test]
fn the_command_gets_the_variables_of_a_command_channel() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("channel");
    let config = format!(
        "[[run]]\nid = \"r\"\nname = \"nightly\"\n[[notify.command]]\nname = \"hook\"\ncommand = [\"/bin/sh\", \"-c\", 'env > \"{}\"']\n",
        out.display()
    );
    let output = runwatch(&["wait", "r", "--notify", "hook", "--", "env"])
        .api(&Stub::with([ended("SUCCEEDED")]))
        .quick(&config)
        .env("HTTPS_PROXY", "http://user:marker1@127.0.0.1:9")
        .env("no_proxy", "127.0.0.1")
        .env("NOTIFY_SOCKET", "/nowhere/marker2")
        .env("CREDENTIALS_DIRECTORY", "/nowhere/marker3")
        .env("RUNWATCH_STATUS", "marker4")
        .run();
    assert_eq!(output.code, Some(0), "{output:?}");
    let channel = std::fs::read_to_string(out).unwrap();
    let mut of_channel = lines(&channel, "RUNWATCH_");
    // They differ by the moment, and by the details that only the API's last answer has.
    of_channel.retain(|line| !["TIMESTAMP=", "CONFIG=", "BODY="].iter().any(|name| line.contains(name)));
    for line in &of_channel {
        assert!(output.stdout.lines().any(|own| own == *line), "{line}: {output:?}");
    }
    assert!(of_channel.len() >= 9, "{channel}");
    for line in [
        "RUNWATCH_VERDICT=succeeded",
        "RUNWATCH_EXIT_CODE=0",
        "RUNWATCH_RUN_IDS=r",
        "RUNWATCH_TITLE=Run nightly succeeded, 7 samples failed",
        // It often downloads the samples.
        "DATAFRAMER_API_KEY=test-key",
        "HTTPS_PROXY=http://127.0.0.1:9",
    ] {
        assert!(output.stdout.lines().any(|own| own == line), "{line}: {output:?}");
    }
    assert!(!output.stdout.contains("marker"), "{output:?}");
}

#[test]
fn of_several_runs_the_worst_is_described_once() {
    let stub = Stub::with([ended("SUCCEEDED"), ended("FAILED"), ended("SUCCEEDED")]);
    let args = ["wait", "a", "b", "c", "--always", "--", "env"];
    let output = runwatch(&args).api(&stub).quick("max_in_flight = 1\nbatch = \"never\"\n").run();
    assert_eq!(output.code, Some(1), "{output:?}");
    assert_eq!(lines(&output.stdout, "RUNWATCH_RUN_ID="), ["RUNWATCH_RUN_ID=b"]);
    assert_eq!(lines(&output.stdout, "RUNWATCH_EVENT_TYPE="), ["RUNWATCH_EVENT_TYPE=run.failed"]);
    assert_eq!(lines(&output.stdout, "RUNWATCH_RUN_IDS="), ["RUNWATCH_RUN_IDS=a b c"]);
    let title = "RUNWATCH_TITLE=3 runs have ended: 1 failed, 2 succeeded";
    assert_eq!(lines(&output.stdout, "RUNWATCH_TITLE="), [title]);
}

#[test]
fn a_deadline_is_a_verdict_and_a_signal_is_none() {
    let going = || Stub::then_forever([], run().ok());
    let args = ["wait", "r", "--timeout", "200ms", "--always", "--", "env"];
    let output = runwatch(&args).api(&going()).quick("").run();
    assert_eq!(output.code, Some(124), "{output:?}");
    for line in [
        "RUNWATCH_VERDICT=timed_out",
        "RUNWATCH_EXIT_CODE=124",
        "RUNWATCH_STATUS=PROCESSING",
        "RUNWATCH_TITLE=Run r is still active",
    ] {
        assert!(output.stdout.lines().any(|own| own == line), "{line}: {output:?}");
    }
    assert!(!output.stdout.contains("RUNWATCH_EVENT_"), "nothing happened: {output:?}");

    let stub = going();
    let running = runwatch(&["wait", "r", "--always", "--", "echo", "ran"]).api(&stub).quick("").spawn();
    stub.next();
    running.signal(Signal::TERM);
    let output = running.wait();
    assert!(output.code == Some(143) && !output.stdout.contains("ran"), "{output:?}");
}

#[test]
fn signals_reach_the_command_and_its_end_decides() {
    for (signal, name, code) in
        [(Signal::TERM, "TERM", 41), (Signal::HUP, "HUP", 41), (Signal::INT, "INT", 41)]
    {
        if signal == Signal::HUP && is_ignored(signal) {
            // Under nohup, which a shell cannot take back: neither it nor its children get the signal.
            continue;
        }
        let script = format!("trap 'exit 41' {name}; echo ready; while :; do sleep 0.05; done");
        let stub = Stub::with([ended("SUCCEEDED")]);
        let mut running =
            runwatch(&["wait", "r", "-q", "--", "sh", "-c", &script]).api(&stub).quick("").spawn();
        let mut stdout = BufReader::new(running.take_stdout());
        let mut line = String::new();
        while line != "ready\n" {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "it did not start");
        }
        running.signal(signal);
        assert_eq!(running.wait().code, Some(code), "{name}");
    }
}

/// Whether this process, and so every child, ignores the signal.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn a_command_that_cannot_run_is_refused_before_the_wait() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    for (program, code) in [("no-such-program", 127), ("/nowhere/program", 127), (file, 126), ("/", 126)] {
        for verb in ["watch", "wait"] {
            // No request: the stub would fail the test for one.
            let output = runwatch(&[verb, "r", "--", program]).api(&Stub::with([])).run();
            assert_eq!(output.code, Some(code), "{program}: {output:?}");
            assert!(output.stderr.contains(&format!("cannot run the command `{program}`")), "{output:?}");
        }
    }
    // What is gone only at the end, too.
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let stub = Stub::with([ended("SUCCEEDED")]);
    let output = runwatch(&["wait", "r", "--", script.to_str().unwrap()]).api(&stub).quick("").run();
    assert_eq!(output.code, Some(127), "{output:?}");
}

#[test]
fn without_runs_before_them_the_words_are_runs() {
    // Scripts write it so to be safe from options.
    for args in [&["wait", "--", "r"][..], &["watch", "--no-notify", "--", "r"]] {
        let output = runwatch(args).api(&Stub::with([ended("FAILED")])).quick("").run();
        assert_eq!(output.code, Some(1), "{args:?}: {output:?}");
    }
    for args in [&["wait", "--", "-x"][..], &["wait", "--", "--any"], &["watch", "--", "a'b"]] {
        let output = runwatch(args).api(&Stub::with([])).run();
        assert!(output.code == Some(2) && output.stderr.contains("is not a run id"), "{args:?}: {output:?}");
    }
    for args in [&["wait", "r", "--always"][..], &["wait"], &["status", "r", "--", "-x"]] {
        let output = runwatch(args).api(&Stub::with([])).run();
        assert!(output.code == Some(2) && !output.stderr.contains("'-- "), "{args:?}: {output:?}");
    }
}

#[test]
fn a_wait_that_does_not_begin_runs_nothing() {
    let output =
        runwatch(&["wait", "r", "--always", "--", "echo", "ran"]).without("DATAFRAMER_API_KEY").run();
    assert!(output.code == Some(78) && output.stdout.is_empty(), "{output:?}");
    let stub = Stub::with([error(404)]);
    let args = ["wait", "r", "--grace", "0s", "--", "echo", "ran"];
    let output = runwatch(&args).api(&stub).quick("").run();
    assert!(output.code == Some(5) && !output.stdout.contains("ran"), "{output:?}");
}
