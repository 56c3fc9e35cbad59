//! Notifications from end to end on the built binary: webhooks, commands, the log, and `notify test`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use runwatch::notify::{SigningSecret, verify};

use crate::support::bin::{runwatch, wait_until_gone};
use crate::support::body::run;
use crate::support::stub::{Answer, Asked, Stub, answer};

const ID: &str = "5eed0000-0000-4000-8000-000000000101";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD_SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn api() -> Stub {
    Stub::with([run().ok(), run().status("FAILED").ok()])
}

fn webhook(receiver: &Stub, more: &str) -> String {
    format!(
        "[[notify.webhook]]\nurl = \"{}/hook?token=hunter2\"\nsecret = \"{SECRET}\"\n{more}\n",
        receiver.url()
    )
}

fn no_content() -> Answer {
    answer(204, &[], "")
}

/// Whether a webhook was signed with a secret, just now.
fn is_signed(asked: &Asked, secret: &str) -> bool {
    let timestamp: i64 = asked.header("webhook-timestamp").unwrap().parse().unwrap();
    assert!((timestamp - jiff::Timestamp::now().as_second()).abs() < 60, "the time of the attempt");
    let secret = SigningSecret::parse(secret).unwrap();
    verify(
        &secret,
        asked.header("webhook-id").unwrap(),
        timestamp,
        &asked.body,
        asked.header("webhook-signature").unwrap(),
    )
}

#[test]
fn a_webhook_is_standard() {
    let (api, receiver) = (api(), Stub::with([no_content()]));
    let config = webhook(&receiver, &format!("secrets = [\"{OLD_SECRET}\"]"));
    let output = runwatch(&["watch", ID]).api(&api).quick(&config).run();
    assert_eq!(output.code, Some(1), "{output:?}");
    let asked = receiver.next();
    assert_eq!(asked.line, "POST /hook?token=hunter2 HTTP/1.1");
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert!(asked.header("user-agent").unwrap().starts_with("runwatch/"));
    assert!(
        is_signed(&asked, SECRET) && is_signed(&asked, OLD_SECRET),
        "signed with both, for a change of secrets"
    );
    assert!(asked.header("webhook-id").unwrap().starts_with("evt_"));
    let payload: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(payload["type"], "run.failed");
    assert!(payload["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!(payload["data"]["run_id"], ID);
    assert_eq!(payload["data"]["status"], "FAILED");
    assert_eq!(payload["data"]["samples_completed"], 87);
    assert_eq!(payload["data"]["number_of_samples"], 200);
    assert_eq!(payload["data"]["spec_name"], "support_tickets");
}

#[test]
fn a_receiver_that_fails_is_tried_again_with_the_same_id_and_body() {
    let (api, receiver) = (api(), Stub::with([answer(500, &[], ""), no_content()]));
    let output = runwatch(&["watch", ID]).api(&api).quick(&webhook(&receiver, "")).run();
    assert_eq!(output.code, Some(1), "{output:?}");
    let (first, second) = (receiver.next(), receiver.next());
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body);
    assert!(is_signed(&second, SECRET));
    assert!(output.stderr.contains("answered 500") && output.stderr.contains("retrying in 5"), "{output:?}");
}

#[test]
fn what_cannot_be_delivered_is_said_and_changes_no_verdict() {
    let (api, receiver) = (api(), Stub::with([answer(429, &[("Retry-After", "3000")], "")]));
    let output = runwatch(&["watch", ID]).api(&api).quick(&webhook(&receiver, "")).run();
    assert_eq!(output.code, Some(1), "{output:?}");
    let said = "could not deliver \"Run 5eed0000-0000-4000-8000-000000000101 failed\" through `webhook` (asked to wait)";
    assert!(output.stderr.contains(said), "{output:?}");
    assert!(!output.stderr.contains("hunter2"), "{output:?}");
}

#[test]
fn redirects_carry_nothing_elsewhere_and_410_is_final() {
    let elsewhere = Stub::with([]);
    for redirect in [answer(302, &[("Location", &elsewhere.url())], ""), answer(410, &[], "")] {
        let gone = matches!(&redirect, Answer::Bytes(bytes) if bytes.starts_with(b"HTTP/1.1 410"));
        let (api, receiver) =
            (api(), Stub::with(if gone { vec![redirect] } else { vec![redirect, no_content()] }));
        let output = runwatch(&["watch", ID]).api(&api).quick(&webhook(&receiver, "")).run();
        assert_eq!(output.stderr.contains("wants no more webhooks"), gone, "{output:?}");
    }
    assert!(elsewhere.asked().is_empty());
}

#[test]
fn channels_choose_events_and_runs_choose_channels() {
    let (receiver, other) = (Stub::with([no_content()]), Stub::with([]));
    let config = [
        webhook(&receiver, "name = \"all\""),
        webhook(&other, "name = \"good-news\"\nevents = [\"run.succeeded\"]"),
        webhook(&other, "name = \"not-chosen\""),
        format!("[[run]]\nid = \"{ID}\"\nname = \"nightly\"\nnotify = [\"all\", \"good-news\"]\n"),
    ];
    let output = runwatch(&["watch", ID]).api(&api()).quick(&config.concat()).run();
    assert_eq!(output.stderr.matches("could not").count(), 0, "{output:?}");
    let payload: serde_json::Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!(payload["data"]["run_name"], "nightly");
    // Chosen on the command line, nothing else is told.
    let receiver = Stub::with([]);
    let output = runwatch(&["watch", ID, "--no-notify"]).api(&api()).quick(&webhook(&receiver, "")).run();
    assert_eq!(output.code, Some(1), "{output:?}");
}

#[test]
fn wait_tells_nobody_unless_asked_to() {
    let receiver = Stub::with([]);
    runwatch(&["wait", ID]).api(&api()).quick(&webhook(&receiver, "")).run();
    drop(receiver);
    let receiver = Stub::with([no_content()]);
    runwatch(&["wait", ID, "--notify", "webhook"]).api(&api()).quick(&webhook(&receiver, "")).run();
    assert_eq!(receiver.asked().len(), 1);
}

#[test]
fn a_lost_run_is_told_with_its_reason() {
    let receiver = Stub::with([no_content()]);
    let api = Stub::then_forever([run().ok()], crate::support::stub::error(404));
    runwatch(&["watch", ID, "--grace", "0s"]).api(&api).quick(&webhook(&receiver, "")).run();
    let payload: serde_json::Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!((&payload["type"], &payload["data"]["reason"]), (&"run.lost".into(), &"deleted".into()));
    assert_eq!(payload["data"]["status"], "PROCESSING");
}

#[test]
fn the_log_channel_is_structured() {
    let config = "[[notify.log]]\n[log]\nformat = \"json\"\n";
    let output = runwatch(&["watch", ID]).api(&api()).quick(config).run();
    let line = output
        .stderr
        .lines()
        .find(|line| line.contains("run.failed"))
        .unwrap_or_else(|| panic!("{output:?}"));
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    for (field, value) in [("level", "ERROR"), ("event", "run.failed"), ("run_id", ID), ("status", "FAILED")]
    {
        assert_eq!(event[field], value, "{line}");
    }
    assert_eq!(event["samples_completed"], 87);
    assert!(event["event_id"].as_str().unwrap().starts_with("evt_"));
}

/// A program for the command channel.
fn script(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("script");
    std::fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_command_gets_the_event_and_none_of_our_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let path =
        script(dir.path(), "{ cat; env; echo \"args: $*\"; } > \"$OUT.tmp\"; mv \"$OUT.tmp\" \"$OUT\"\n");
    let config = format!("[[notify.command]]\ncommand = [{path:?}, \"a b\", \"$HOME; exit 1\"]\n");
    let output = runwatch(&["watch", ID]).api(&api()).env("OUT", &out).quick(&config).run();
    assert_eq!(output.stderr, "", "{output:?}");
    let got = std::fs::read_to_string(&out).unwrap();
    let event: serde_json::Value = serde_json::from_str(got.lines().next().unwrap()).unwrap();
    assert_eq!(event["type"], "run.failed");
    for line in [
        "RUNWATCH_EVENT_TYPE=run.failed",
        &format!("RUNWATCH_RUN_ID={ID}"),
        "RUNWATCH_STATUS=FAILED",
        "RUNWATCH_SAMPLES_COMPLETED=87",
        "RUNWATCH_ATTEMPT=1",
        "args: a b $HOME; exit 1",
    ] {
        assert!(got.lines().any(|got| got == line), "{line} in:\n{got}");
    }
    assert!(!got.contains("test-key") && !got.contains("DATAFRAMER_API_KEY"), "{got}");
}

#[test]
fn a_command_that_fails_says_why_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path =
        script(dir.path(), "if [ $RUNWATCH_ATTEMPT = 1 ]; then echo 'no \u{1b}[31mluck' >&2; exit 3; fi\n");
    let config = format!("[[notify.command]]\ncommand = [{path:?}]\n");
    let output = runwatch(&["watch", ID]).api(&api()).quick(&config).run();
    assert!(output.stderr.contains("failed (exit status: 3): no [31mluck; retrying in 5"), "{output:?}");
    assert!(!output.stderr.contains("could not deliver"), "{output:?}");
}

#[test]
fn a_command_that_hangs_is_killed_with_everything_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let path = script(dir.path(), "sleep 1000 &\necho $! >> \"$PIDS\"\nwait\n");
    let config = format!("[[notify.command]]\ncommand = [{path:?}]\ntimeout = \"200ms\"\n");
    let output = runwatch(&["notify", "test"]).env("PIDS", &pids).config(&config).run();
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stdout.contains("did not finish within 200ms and was killed"), "{output:?}");
    for pid in std::fs::read_to_string(&pids).unwrap().lines() {
        wait_until_gone(pid.parse().unwrap());
    }
}

#[test]
fn a_child_that_a_command_leaves_behind_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    // It keeps standard error open, as a program does that goes to the background.
    let path = script(dir.path(), "sleep 1000 &\necho $! > \"$PIDS\"\n");
    let config = format!("[[notify.command]]\ncommand = [{path:?}]\ntimeout = \"50s\"\n");
    let output = runwatch(&["notify", "test"]).env("PIDS", &pids).config(&config).run();
    assert_eq!(output.code, Some(0), "{output:?}");
    let pid: i32 = std::fs::read_to_string(&pids).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    // Still there: what a program leaves running on purpose is its own affair.
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn channels_named_on_the_command_line_win_over_what_the_run_chooses() {
    let api = Stub::with([run().status("FAILED").ok()]);
    let (chosen, named) = (Stub::with([]), Stub::with([no_content()]));
    let config = [
        webhook(&chosen, "name = \"chosen\""),
        webhook(&named, "name = \"named\""),
        format!("[[run]]\nid = \"{ID}\"\nnotify = [\"chosen\"]\n"),
    ];
    let output = runwatch(&["watch", ID, "--notify", "named"]).api(&api).quick(&config.concat()).run();
    assert_eq!(output.code, Some(1), "{output:?}");
    named.next();
    assert!(chosen.asked().is_empty());
}

#[test]
fn a_signal_during_the_deliveries_keeps_the_verdict() {
    let api = Stub::with([run().status("SUCCEEDED").ok()]);
    let receiver = Stub::with([Answer::Silence]);
    let running =
        runwatch(&["wait", ID, "--notify", "webhook"]).api(&api).quick(&webhook(&receiver, "")).spawn();
    receiver.next();
    running.signal(rustix::process::Signal::INT);
    let output = running.wait();
    assert!(matches!(output.code, Some(0 | 130)), "{output:?}");
    assert!(output.stdout.contains("SUCCEEDED"), "the result is not lost: {output:?}");
    assert!(
        output.stderr.contains("could not deliver") && output.stderr.contains("still under way"),
        "{output:?}"
    );
}

#[test]
fn notify_test_says_how_it_went_for_each_channel() {
    let receiver = Stub::with([no_content()]);
    let bad = Stub::with([answer(404, &[], "")]);
    let config =
        [webhook(&receiver, "name = \"good\""), webhook(&bad, "name = \"bad\""), "[[notify.log]]\n".into()];
    let output = runwatch(&["notify", "test"]).config(&config.concat()).run();
    assert_eq!(output.code, Some(78), "{output:?}");
    let asked = receiver.next();
    assert!(is_signed(&asked, SECRET));
    let payload: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(payload["type"], "runwatch.test");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(
        lines[0].starts_with("good") && lines[0].contains(" ok ") && lines[0].ends_with("ms"),
        "{output:?}"
    );
    assert!(
        lines[1].starts_with("bad") && lines[1].contains("FAILED") && lines[1].contains("404"),
        "{output:?}"
    );
    assert!(lines[2].starts_with("log") && lines[2].contains(" ok "), "{output:?}");
    // Only those named, and only those that exist.
    let receiver = Stub::with([no_content()]);
    let config = [webhook(&receiver, "name = \"good\""), "[[notify.log]]\n".into()].concat();
    let output = runwatch(&["notify", "test", "good"]).config(&config).run();
    assert_eq!((output.code, output.stdout.lines().count()), (Some(0), 1), "{output:?}");
    let output = runwatch(&["notify", "test", "nobody"]).config("[[notify.log]]\n").run();
    assert!(
        output.code == Some(2) && output.stderr.contains("no channel `nobody`; configured: log"),
        "{output:?}"
    );
    let output = runwatch(&["notify", "test"]).run();
    assert!(output.code == Some(78) && output.stderr.contains("no channel to test"), "{output:?}");
    for part in ["looked for", "runwatch/config.toml", "runwatch config init", "--config FILE"] {
        assert!(output.stderr.contains(part), "{output:?}");
    }
}

#[test]
fn a_desktop_that_is_not_there_is_said_and_holds_nothing_up() {
    let output = runwatch(&["notify", "test"]).config("[[notify.desktop]]\n").run();
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stdout.contains("no session bus") && output.stdout.contains("systemd/user"), "{output:?}");
    let nowhere = "unix:path=/nowhere/bus";
    let output = runwatch(&["notify", "test"])
        .env("DBUS_SESSION_BUS_ADDRESS", nowhere)
        .config("[[notify.desktop]]\n")
        .run();
    assert!(output.code == Some(78) && output.stdout.contains("the desktop could not show it"), "{output:?}");
}
