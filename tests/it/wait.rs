//! `wait`, `status` and `watch` on the built binary: what they print, where, and how they handle failures.

use std::io::{BufRead as _, BufReader};

use serde_json::json;

use crate::support::bin::runwatch;
use crate::support::body::run;
use crate::support::stub::{Answer, Stub, error, page};

const ID: &str = "5eed0000-0000-4000-8000-000000000101";

fn partial() -> Answer {
    run()
        .status("SUCCEEDED")
        .samples(193, 7, 200)
        .set("completed_at", json!("2026-11-20T09:44:00Z"))
        .set("priority", json!({ "new": [1.50] }))
        .ok()
}

#[test]
fn the_json_is_as_documented() {
    let stub = Stub::with([run().status("PENDING").ok(), partial()]);
    let output = runwatch(&["wait", ID, "--output", "json"]).api(&stub).quick("").run();
    assert_eq!(output.stdout.matches('\n').count(), 1, "one object on one line");
    let mut report = output.json();
    let body = report["runs"][0]["run"].take();
    assert_eq!(
        report,
        json!({
            "version": 1, "verdict": "succeeded", "exit_code": 0,
            "runs": [{
                "id": ID, "status": "SUCCEEDED", "verdict": "succeeded",
                "samples_completed": 193, "samples_failed": 7, "number_of_samples": 200,
                "created_at": "2026-11-20T09:00:00.123456Z", "completed_at": "2026-11-20T09:44:00Z", "polls": 2,
                "url": format!("{}/api/dataframer/runs/{ID}/", stub.url()), "run": null,
            }],
        })
    );
    assert_eq!(body["priority"], json!({ "new": [1.5] }), "unknown fields are kept");
    assert_eq!(body["runtime_params"]["number_of_samples"], 200);
    assert!(
        output.stderr.contains("warning:") && output.stderr.contains("7 of 200 samples failed"),
        "{output:?}"
    );
}

#[test]
fn a_run_that_was_never_seen_is_null_in_json() {
    let stub = Stub::with([error(404)]);
    let report = runwatch(&["wait", "x", "--grace", "0s", "--output", "json"]).api(&stub).run().json();
    assert_eq!(report["runs"][0]["verdict"], "not_found");
    for field in ["status", "samples_completed", "created_at", "run"] {
        assert!(report["runs"][0][field].is_null(), "{field}");
    }
}

#[test]
fn text_goes_to_people_on_stderr_and_the_result_to_stdout() {
    let stub = Stub::with([run().status("PENDING").samples(0, 0, 200).ok(), run().ok(), partial()]);
    let output = runwatch(&["wait", ID]).api(&stub).quick("").run();
    assert_eq!(output.stdout, format!("{ID} SUCCEEDED 193/200, 7 failed in 43m 59s\n"));
    let words: Vec<&str> = output.stderr.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(
        words,
        [
            format!("{ID} PENDING 0/200"),
            format!("{ID} PROCESSING 87/200, 2 failed"),
            format!("{ID} SUCCEEDED 193/200, 7 failed in 43m 59s"),
            format!("warning: {ID} SUCCEEDED with 7 of 200 samples failed"),
        ]
    );
}

#[test]
fn watch_without_a_terminal_prints_changes_and_nothing_else() {
    let stub = Stub::with([run().ok(), run().ok(), run().ok(), partial()]);
    let output = runwatch(&["watch", ID]).api(&stub).quick("").run();
    let lines: Vec<&str> = output.stdout.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(lines.len(), 3, "{output:?}");
    assert!(
        lines[0].contains("PROCESSING") && lines[1].contains("SUCCEEDED") && lines[2].starts_with("warning")
    );
    assert_eq!(output.stderr, "");
    assert!(!output.stdout.contains('\u{1b}'));
}

#[test]
fn watch_any_ends_with_the_first() {
    let stub = Stub::then_forever([run().ok(), run().status("SUCCEEDED").ok()], run().ok());
    let output = runwatch(&["watch", "a", "b", "--any"]).api(&stub).quick("max_in_flight = 1\n").run();
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn fail_fast_does_not_wait_for_the_others() {
    let stub = Stub::then_forever([run().ok(), run().status("FAILED").ok()], run().ok());
    let args = ["wait", "a", "b", "--fail-fast", "--output", "json"];
    let output = runwatch(&args).api(&stub).quick("max_in_flight = 1\n").run();
    assert_eq!(output.code, Some(1), "{output:?}");
    let verdicts: Vec<_> =
        output.json()["runs"].as_array().unwrap().iter().map(|run| run["verdict"].clone()).collect();
    assert_eq!(verdicts, ["running", "failed"]);
}

#[test]
fn fail_fast_counts_a_run_below_its_threshold_as_bad() {
    let stub = Stub::then_forever([run().ok(), partial()], run().ok());
    let args = ["wait", "a", "b", "--fail-fast", "--max-failed", "0"];
    let output = runwatch(&args).api(&stub).quick("max_in_flight = 1\n").run();
    assert_eq!(output.code, Some(6), "{output:?}");
}

#[test]
fn watch_any_is_not_ended_by_a_run_that_is_not_there() {
    let stub = Stub::with([error(404), run().ok(), run().status("SUCCEEDED").ok()]);
    let args = ["watch", "a", "b", "--any", "--grace", "0s"];
    let output = runwatch(&args).api(&stub).quick("max_in_flight = 1\n").run();
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn a_signal_is_heard_while_nobody_reads_the_result() {
    // More than a pipe takes.
    let stub = Stub::with([run().status("SUCCEEDED").set("notes", "x".repeat(1 << 20).into()).ok()]);
    let mut running = runwatch(&["wait", ID, "--output", "json"]).api(&stub).quick("").spawn();
    let stdout = running.take_stdout();
    let began = tokio::time::Instant::now();
    while rustix::io::ioctl_fionread(&stdout).unwrap() < 1 << 15 {
        assert!(began.elapsed().as_secs() < 60, "nothing was written");
        std::thread::yield_now();
    }
    running.signal(rustix::process::Signal::TERM);
    let output = running.wait();
    assert_eq!(output.code, Some(143), "{output:?}");
}

#[test]
fn watch_ends_when_nobody_reads_it_any_more() {
    // The run never ends.
    let stub = Stub::then_forever([], run().ok());
    let mut running = runwatch(&["watch", ID]).api(&stub).quick("").spawn();
    drop(running.take_stdout());
    let output = running.wait();
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
}

#[test]
fn a_bad_day_is_borne_and_told_in_two_lines() {
    let stub = Stub::with([
        run().ok(),
        page(502),
        Answer::Reset,
        error(500),
        page(200),
        Answer::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"status\":\"SUCC".to_vec()),
        run().ok(),
        run().status("SUCCEEDED").ok(),
    ]);
    let output = runwatch(&["wait", ID]).api(&stub).quick("").run();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.stderr.matches("API unreachable since 20").count(), 1, "{output:?}");
    assert_eq!(output.stderr.matches("API reachable again after").count(), 1, "{output:?}");
}

#[test]
fn a_key_that_is_rotated_in_mid_watch_is_picked_up() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "old").unwrap();
    let stub = Stub::with([run().ok(), error(401), run().status("SUCCEEDED").ok()]);
    // Slow enough between polls for the file to be written after the first.
    let config = "[poll]\ninitial_interval = \"300ms\"\nerror_initial_interval = \"10ms\"\n";
    let running =
        runwatch(&["wait", ID, "--api-key-file", key.to_str().unwrap()]).api(&stub).config(config).spawn();
    assert_eq!(stub.next().header("authorization"), Some("Bearer old"));
    std::fs::write(&key, "new").unwrap();
    let output = running.wait();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(stub.next().header("authorization"), Some("Bearer old"));
    assert_eq!(stub.next().header("authorization"), Some("Bearer new"));
    assert!(!output.stderr.contains("Bearer"), "{output:?}");
}

#[test]
fn the_same_run_twice_is_one_run() {
    let stub = Stub::with([partial()]);
    let url = format!("https://df-api.dataframer.ai/api/dataframer/runs/{ID}/");
    let output = runwatch(&["wait", ID, &url, ID, "--output", "json"]).api(&stub).run();
    assert_eq!(output.json()["runs"].as_array().unwrap().len(), 1);
}

#[test]
fn github_gets_annotations_outputs_and_a_summary() {
    let dir = tempfile::tempdir().unwrap();
    let (outputs, summary) = (dir.path().join("output"), dir.path().join("summary"));
    std::fs::write(&outputs, "before=1\n").unwrap();
    let in_github = |args: &[&str], stub: &Stub| {
        runwatch(args)
            .api(stub)
            .quick("max_in_flight = 1\n")
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_OUTPUT", &outputs)
            .env("GITHUB_STEP_SUMMARY", &summary)
            .run()
    };
    let failed = || {
        run()
            .status("FAILED")
            .samples(10, 2, 50)
            .set("completed_at", json!("2026-11-20T09:01:00.123456Z"))
            .ok()
    };
    let stub = Stub::with([partial(), failed()]);
    let output = in_github(&["wait", "a|b", "c", "--timeout", "5h"], &stub);
    assert_eq!(output.code, Some(1), "{output:?}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "::warning title=DataFramer run::a|b SUCCEEDED (193/200, 7 failed samples) in 43m 59s",
            "::error title=DataFramer run::c FAILED (10/50, 2 failed samples) in 1m",
        ]
    );
    assert_eq!(
        std::fs::read_to_string(&outputs).unwrap(),
        "before=1\nverdict=failed\nstatus=FAILED\nsamples_completed=203\nsamples_failed=9\nnumber_of_samples=250\n\
         duration_seconds=2639\n"
    );
    let table = std::fs::read_to_string(&summary).unwrap();
    assert!(table.contains("| a&#124;b | SUCCEEDED | succeeded | 193 | 7 | 200 | 43m 59s |\n"), "{table}");
    assert!(table.contains("| c | FAILED | failed | 10 | 2 | 50 | 1m |\n"), "{table}");
    // The hint about GitHub's own limit, and a verdict without a status.
    let stub = Stub::with([error(404)]);
    let output = in_github(&["wait", "x", "--grace", "0s"], &stub);
    assert!(output.stderr.starts_with("::notice title=runwatch::no --timeout is set"), "{output:?}");
    assert!(
        output.stdout.contains("::error title=DataFramer run::x was never seen: the API does not know"),
        "{output:?}"
    );
    let stub = Stub::with([partial()]);
    let output = in_github(&["wait", "x", "--timeout", "7h", "--output", "text"], &stub);
    assert!(!output.stdout.contains("::"), "asked for text: {output:?}");
    // The format of the result does not decide who reads the log.
    assert!(output.stderr.starts_with("::notice title=runwatch::--timeout is longer than"), "{output:?}");
    assert!(output.stderr.contains("::warning title=DataFramer run::"), "{output:?}");
}

#[test]
fn machines_are_told_of_a_wait_that_could_not_begin() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = dir.path().join("output");
    let output = runwatch(&["wait", ID, "--output", "json"])
        .without("DATAFRAMER_API_KEY")
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_OUTPUT", &outputs)
        .run();
    assert_eq!(output.code, Some(78), "{output:?}");
    assert_eq!(
        output.json(),
        json!({ "version": 1, "verdict": "bad_configuration", "exit_code": 78, "runs": [] })
    );
    assert!(
        output.stderr.contains("::error title=runwatch::the wait could not begin: bad configuration"),
        "{output:?}"
    );
    assert!(std::fs::read_to_string(&outputs).unwrap().starts_with("verdict=bad_configuration\n"));
}

#[test]
fn a_closed_pipe_is_quiet() {
    for args in [
        &["wait", ID][..],
        &["wait", ID, "--output", "json"],
        &["watch", ID],
        &["help"],
        &["man"],
        &["completions", "bash"],
    ] {
        let network = args.contains(&ID);
        // A watch polls once more when it sees that nobody reads.
        let succeeded = run().status("SUCCEEDED").ok();
        let stub = if network { Stub::then_forever([], succeeded) } else { Stub::with([]) };
        let mut running = runwatch(args).api(&stub).quick("").spawn();
        drop(running.take_stdout());
        let output = running.wait();
        assert_eq!(output.code, Some(0), "{args:?} {output:?}");
        assert!(!output.stderr.contains("pipe"), "{args:?} {output:?}");
    }
}

#[test]
fn a_reader_that_leaves_does_not_turn_a_failure_into_success() {
    let stub = Stub::then_forever([run().ok()], run().status("FAILED").ok());
    let mut running = runwatch(&["watch", ID]).api(&stub).quick("").spawn();
    let mut line = String::new();
    BufReader::new(running.take_stdout()).read_line(&mut line).unwrap();
    assert!(line.contains("PROCESSING"));
    assert_eq!(running.wait().code, Some(1));
}

#[test]
fn no_secret_is_printed_whatever_happens() {
    let stub = Stub::with([error(401), error(401)]);
    let output = runwatch(&["wait", ID, "--log-level", "trace", "--output", "json"])
        .api(&stub)
        .env("DATAFRAMER_API_KEY", "hunter2")
        .env("DATAFRAMER_CUSTOM_HEADERS", "X-Secret: hunter3")
        .quick("[[notify.webhook]]\nurl = \"http://127.0.0.1:9/hunter4\"\nsecret = \"whsec_aHVudGVyNWh1bnRlcjVodW50ZXI1aHVudGVyNQ==\"\n")
        .run();
    assert_eq!(output.code, Some(4), "{output:?}");
    let all = output.stdout + &output.stderr;
    assert!(!all.contains("hunter") && !all.contains("aHVudGVy"), "{all}");
}

#[test]
fn what_decides_the_exit_code_is_shown() {
    // Two runs end at once: whether one of them or both count, nobody is left to guess why.
    for _ in 0..20 {
        let ended = |status| run().status(status).ok();
        let stub = Stub::then_forever([ended("SUCCEEDED")], ended("FAILED"));
        let output = runwatch(&["watch", "a", "b", "--any"]).api(&stub).quick("batch = \"never\"\n").run();
        let failed = output.stdout.contains("FAILED");
        assert_eq!(output.code, Some(i32::from(failed)), "{output:?}");
    }
}

#[test]
fn every_run_is_polled_once_more_when_the_deadline_passes() {
    let stub = Stub::with([run().ok(), run().status("FAILED").ok()]);
    let hourly = "[poll]\neagerness = \"off\"\ninitial_interval = \"1h\"\nmax_interval = \"1h\"\n";
    let output = runwatch(&["wait", ID, "--timeout", "2s"]).api(&stub).config(hourly).run();
    assert_eq!(output.code, Some(1), "{output:?}");
}

#[test]
fn a_result_in_text_gives_its_reasons_once() {
    let said = |args: &[&str], reason: &str| {
        let stub = Stub::then_forever([partial()], run().ok());
        let output = runwatch(args).api(&stub).quick("max_in_flight = 1\nbatch = \"never\"\n").run();
        (output.stdout.matches(reason).count(), output.stderr.matches(reason).count())
    };
    for (reason, args) in [
        ("more than the 2 allowed", &["wait", ID, "--max-failed", "2"][..]),
        ("the deadline passed before it ended", &["wait", ID, "b", "--timeout", "300ms"]),
    ] {
        assert_eq!(said(args, reason), (1, 0), "{reason}");
        assert_eq!(said(&[args, &["--output", "json"]].concat(), reason), (1, 1), "{reason}");
    }
}

#[test]
fn status_says_once_what_went_wrong() {
    let stub = Stub::with([error(404)]);
    let output = runwatch(&["status", "a"]).api(&stub).quick("").run();
    assert_eq!(output.code, Some(5), "{output:?}");
    let said = output.stdout + &output.stderr;
    assert_eq!(said.matches("the API does not know this run").count(), 1, "{said}");
    // What a program reads has it too, and people read it beside that.
    let stub = Stub::with([error(404)]);
    let output = runwatch(&["status", "a", "--output", "json"]).api(&stub).quick("").run();
    assert!(output.json()["runs"][0]["reason"].as_str().unwrap().contains("does not know"), "{output:?}");
    assert_eq!(output.stderr.matches("the API does not know this run").count(), 1, "{output:?}");
}

#[test]
fn status_prints_a_line_a_run_in_the_order_asked_for() {
    let stub = Stub::with([run().ok(), partial()]);
    let output = runwatch(&["status", "a", "b"]).api(&stub).quick("max_in_flight = 1\n").run();
    assert_eq!(output.stdout, "a PROCESSING 87/200, 2 failed\nb SUCCEEDED 193/200, 7 failed in 43m 59s\n");
}

#[test]
fn jsonl_is_one_object_per_event_and_the_verdict_last() {
    let answers = || {
        let (going, more) = (run().samples(1, 0, 4), run().samples(2, 0, 4));
        Stub::with([
            going.ok(),
            error(503),
            error(503),
            more.ok(),
            run().samples(3, 1, 4).status("SUCCEEDED").ok(),
        ])
    };
    let common = ["version", "event", "time"];
    for args in [&["wait", ID, "--max-failed", "0"][..], &["watch", ID]] {
        let stub = answers();
        let output =
            runwatch(&[args, &["--output", "jsonl"]].concat()).api(&stub).quick("batch = \"never\"\n").run();
        let gated = args[0] == "wait";
        assert_eq!(output.code, Some(if gated { 6 } else { 0 }), "{output:?}");
        let lines: Vec<serde_json::Value> =
            output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert!(lines.iter().all(|line| common.iter().all(|key| !line[key].is_null())), "{output:?}");
        // Trouble is said once, whatever is called trouble first: the run, or the whole API.
        let warnings = events.iter().filter(|event| **event == "warning").count();
        assert!(warnings >= 2, "{output:?}");
        events.retain(|event| *event != "warning");
        assert_eq!(events, ["snapshot", "change", "end", "verdict"], "{output:?}");
        let of = |event: &str| lines.iter().find(|line| line["event"] == event).unwrap();
        assert_eq!(
            (&of("snapshot")["run"]["id"], &of("snapshot")["run"]["samples_completed"]),
            (&ID.into(), &1.into())
        );
        assert_eq!(of("end")["run"]["ended"], "finished");
        let verdict = lines.last().unwrap();
        assert_eq!(verdict["verdict"], if gated { "below_threshold" } else { "succeeded" });
        assert_eq!(
            (&verdict["runs"][0]["run"]["status"], &verdict["version"]),
            (&"SUCCEEDED".into(), &1.into())
        );
    }
    // A wait that cannot start has a verdict, too.
    let output = runwatch(&["wait", ID, "-o", "jsonl"]).without("DATAFRAMER_API_KEY").run();
    assert_eq!((output.code, &output.json()["event"]), (Some(78), &"verdict".into()), "{output:?}");
}

#[test]
fn a_wait_goes_on_although_nobody_reads_its_events() {
    let going = || run().samples(1, 0, 4).ok();
    let stub = Stub::with([
        going(),
        run().samples(2, 0, 4).ok(),
        run().samples(3, 0, 4).ok(),
        run().status("FAILED").ok(),
    ]);
    let mut wait = runwatch(&["wait", ID, "-o", "jsonl"]).api(&stub).quick("batch = \"never\"\n").spawn();
    drop(wait.take_stdout());
    assert_eq!(wait.wait().code, Some(1));
}
