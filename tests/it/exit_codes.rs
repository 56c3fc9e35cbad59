//! The exit codes on the built binary: every row of the table, for runs watched to their end and for finished runs.

use rustix::process::Signal;

use crate::support::bin::{Output, runwatch};
use crate::support::body::run;
use crate::support::stub::{Answer, Stub, error};

const ID: &str = "5eed0000-0000-4000-8000-000000000101";

fn going() -> Answer {
    run().ok()
}

fn ended(status: &str) -> Answer {
    run().status(status).ok()
}

/// `wait` against a script of answers.
fn wait(answers: Vec<Answer>, args: &[&str]) -> Output {
    let stub = Stub::with(answers);
    runwatch(&[&["wait", ID], args].concat()).api(&stub).quick("").run()
}

/// `wait` on a run that has ended, and on one that ends while it is watched, both to this code.
#[track_caller]
fn assert_ends(end: &dyn Fn() -> Vec<Answer>, args: &[&str], code: i32) {
    let finished = wait(end(), args);
    assert_eq!(finished.code, Some(code), "finished before: {finished:?}");
    let live = wait([vec![going(), going()], end()].concat(), args);
    assert_eq!(live.code, Some(code), "live: {live:?}");
}

#[test]
fn code_0_succeeded() {
    assert_ends(&|| vec![ended("SUCCEEDED")], &[], 0);
}

#[test]
fn code_1_failed() {
    assert_ends(&|| vec![ended("FAILED")], &[], 1);
}

#[test]
fn code_2_wrong_usage() {
    for args in [
        &["wait"][..],
        &["wait", ""],
        &["wait", ".."],
        &["wait", "'x'"],
        &["wait", "https://example.com/specs/1"],
        &["wait", ID, "--timeout", "0s"],
        &["wait", ID, "--timeout", "-5m"],
        &["wait", ID, "--timeout", "99999999999999999999h"],
        &["wait", ID, "--max-failed", "120%"],
        &["wait", ID, "--output", "xml"],
        &["wait", ID, "--notify", "nobody"],
        &["frobnicate"],
        &["help", "frobnicate"],
        &[],
    ] {
        let output = runwatch(args).base_url("http://127.0.0.1:9").run();
        assert_eq!(output.code, Some(2), "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn code_3_canceled() {
    assert_ends(&|| vec![ended("CANCELED")], &[], 3);
    assert_ends(&|| vec![ended("CANCELLED")], &[], 3);
}

#[test]
fn code_4_key_refused() {
    // Asked once more with the key as it is then, and not a third time.
    assert_ends(&|| vec![error(401), error(401)], &[], 4);
    assert_ends(&|| vec![error(403), error(403)], &[], 4);
}

#[test]
fn code_5_not_found() {
    let never = wait(vec![error(404)], &["--grace", "0s"]);
    assert_eq!(never.code, Some(5), "{never:?}");
    // A replica may lag: one that was seen must stay gone, for ten seconds at the least.
    let stub = Stub::then_forever([going()], error(404));
    let gone = runwatch(&["wait", ID, "--grace", "0s", "--output", "json"]).api(&stub).quick("").run();
    assert_eq!(gone.code, Some(5), "{gone:?}");
    assert_eq!(gone.json()["runs"][0]["status"], "PROCESSING", "the last status is kept");
}

#[test]
fn code_6_below_a_threshold() {
    let end = || vec![run().status("SUCCEEDED").samples(193, 7, 200).ok()];
    assert_ends(&end, &["--max-failed", "6"], 6);
    assert_ends(&end, &["--max-failed", "3%"], 6);
    assert_ends(&end, &["--min-completed", "97%"], 6);
    assert_ends(&end, &["--max-failed", "7", "--min-completed", "96.5%"], 0);
}

#[test]
fn code_7_unknown() {
    let stub = Stub::then_forever([going()], ended("PAUSED"));
    let output = runwatch(&["wait", ID]).api(&stub).quick("unknown_status_after = \"200ms\"\n").run();
    assert_eq!(output.code, Some(7), "{output:?}");
    assert_eq!(output.stderr.matches("PAUSED, which this version").count(), 1, "warned once: {output:?}");
    // At the deadline too.
    let stub = Stub::then_forever([], run().set("status", serde_json::Value::Null).ok());
    let output = runwatch(&["wait", ID, "--timeout", "300ms"]).api(&stub).quick("").run();
    assert_eq!(output.code, Some(7), "{output:?}");
    // And where one poll is all there is.
    let stub = Stub::with([error(502)]);
    let output = runwatch(&["status", ID, "--exit-code"]).api(&stub).run();
    assert_eq!(output.code, Some(7), "{output:?}");
}

#[test]
fn code_8_still_running() {
    let paused = || run().status("PAUSED").ok();
    for (answers, args, code) in [
        (vec![going()], &["status", ID, "--exit-code"][..], 8),
        (vec![going()], &["status", ID], 0),
        (vec![paused()], &["status", ID, "--exit-code"], 7),
        (vec![ended("FAILED")], &["status", ID, "--exit-code"], 1),
        (vec![ended("FAILED")], &["status", ID], 0),
        (vec![ended("SUCCEEDED")], &["status", ID, "--exit-code"], 0),
        (vec![error(404)], &["status", ID], 5),
        // The key is read again once.
        (vec![error(401), error(401)], &["status", ID], 4),
        (vec![error(401), going()], &["status", ID, "--exit-code"], 8),
    ] {
        let stub = Stub::with(answers);
        let output = runwatch(args).api(&stub).run();
        assert_eq!(output.code, Some(code), "{args:?} {output:?}");
    }
}

#[test]
fn code_70_internal_error() {
    // A result that cannot be written cannot be relied on.
    let stub = Stub::with([ended("SUCCEEDED")]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = runwatch(&["wait", ID, "--output", "json"]).api(&stub).stdout(full).run();
    assert_eq!(output.code, Some(70), "{output:?}");
    assert!(output.stderr.contains("No space left"), "{output:?}");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let stub = Stub::with([ended("SUCCEEDED")]);
    let output = runwatch(&["watch", ID]).api(&stub).stdout(full).run();
    assert_eq!(output.code, Some(70), "{output:?}");
}

#[test]
fn code_78_bad_configuration() {
    let bad = |runwatch: crate::support::bin::Runwatch, said: &str| {
        let output = runwatch.run();
        assert_eq!(output.code, Some(78), "{output:?}");
        assert!(output.stderr.contains(said), "{said}: {output:?}");
    };
    bad(runwatch(&["wait", ID]).config("[poll]\nmax_interval = 3\n"), "config.toml:2:16");
    bad(runwatch(&["wait", ID]).without("DATAFRAMER_API_KEY"), "DATAFRAMER_API_KEY");
    bad(runwatch(&["wait", ID]).env("DATAFRAMER_API_KEY", ""), "is empty");
    bad(runwatch(&["wait", ID]).env("DATAFRAMER_API_KEY", "a\nb"), "more than one line");
    bad(runwatch(&["wait", ID, "--api-key-file", "/nowhere/key"]), "/nowhere/key");
    bad(runwatch(&["wait", ID, "--config", "/nowhere/config.toml"]), "/nowhere/config.toml");
    bad(runwatch(&["wait", ID]).base_url("htps://df-api.dataframer.ai"), "htps");
    bad(runwatch(&["wait", ID]).base_url("http://df-api.dataframer.ai"), "not encrypted");
    bad(runwatch(&["wait", ID]).env("DATAFRAMER_CUSTOM_HEADERS", "X Y: z"), "X Y");
    bad(runwatch(&["wait", ID]).config("[api]\nca_file = \"/nowhere/ca.pem\"\n"), "/nowhere/ca.pem");
}

#[test]
fn code_124_the_deadline_passed() {
    let stub = Stub::then_forever([], going());
    let output = runwatch(&["wait", ID, "--timeout", "300ms"]).api(&stub).quick("").run();
    assert_eq!(output.code, Some(124), "{output:?}");
}

#[test]
fn codes_130_and_143_signals() {
    for (signal, code, verdict) in [(Signal::INT, 130, "interrupted"), (Signal::TERM, 143, "terminated")] {
        let stub = Stub::then_forever([], going());
        let running = runwatch(&["wait", ID, "--output", "json"]).api(&stub).quick("").spawn();
        stub.next();
        stub.next();
        running.signal(signal);
        let output = running.wait();
        assert_eq!(output.code, Some(code), "{output:?}");
        assert_eq!(output.json()["verdict"], verdict);
    }
}

#[test]
fn the_worst_of_several_runs_decides() {
    for (statuses, code) in [
        (["SUCCEEDED", "FAILED", "CANCELED"], 1),
        (["SUCCEEDED", "CANCELED", "SUCCEEDED"], 3),
        (["SUCCEEDED", "SUCCEEDED", "SUCCEEDED"], 0),
    ] {
        let stub = Stub::with(statuses.map(ended));
        let output = runwatch(&["wait", "a", "b", "c"]).api(&stub).quick("max_in_flight = 1\n").run();
        assert_eq!(output.code, Some(code), "{output:?}");
    }
}

#[test]
fn watch_and_wait_agree() {
    for (status, code) in [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELED", 3)] {
        let stub = Stub::with([going(), ended(status)]);
        let output = runwatch(&["watch", ID]).api(&stub).quick("").run();
        assert_eq!(output.code, Some(code), "{output:?}");
    }
}

#[test]
fn full_counters_are_no_success() {
    let all_done = || run().samples(200, 0, 200).ok();
    let output = wait(vec![all_done(), all_done(), ended("FAILED")], &[]);
    assert_eq!(output.code, Some(1), "{output:?}");
}

#[test]
fn the_table_is_printed_and_is_in_the_documentation() {
    let output = runwatch(&["help", "exit-codes"]).run();
    assert_eq!(output.code, Some(0));
    let pages = [
        ("README.md", include_str!("../../README.md")),
        ("docs/reference.md", include_str!("../../docs/reference.md")),
    ];
    let man = runwatch(&["man"]).run().stdout;
    for exit in runwatch::cli::Exit::ALL {
        let (code, meaning) = (exit.code(), exit.meaning());
        assert!(output.stdout.contains(&format!("{code:>5}  {meaning}\n")), "help: {code}");
        let row = format!("| {code} | {}{} |", meaning[..1].to_uppercase(), &meaning[1..]);
        for (page, text) in pages {
            assert!(text.contains(&row), "{page}: {code}");
        }
        assert!(man.contains(&format!("\\fB{code}\\fR\n")), "man page: {code}");
    }
}
