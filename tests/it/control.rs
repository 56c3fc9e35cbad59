//! The daemon's control socket on the built binary: the commands that use it, and curl.

use rustix::process::Signal;

use crate::support::body::run;
use crate::support::daemon::{Home, ask, stop};
use crate::support::stub::{Stub, answer, error};

const ID: &str = "5eed0000-0000-4000-8000-000000000101";

fn webhook(receiver: &Stub, more: &str) -> String {
    format!("[[notify.webhook]]\nurl = \"{}\"\nunsigned = true\n{more}\n", receiver.url())
}

fn no_content() -> crate::support::stub::Answer {
    answer(204, &[], "")
}

#[test]
fn a_run_is_added_watched_listed_shown_and_removed() {
    let api = Stub::then_forever([], run().samples(5, 1, 200).ok());
    let home = Home::new(&api);
    home.configure("[[notify.log]]\n");
    let daemon = home.start();
    let added = home.run(&["add", ID, "--name", "nightly", "--notify", "log", "--deadline", "2h"]);
    assert_eq!(
        (added.code, added.stdout.as_str()),
        (Some(0), format!("{ID} is watched\n").as_str()),
        "{added:?}"
    );
    api.next();
    home.wait_for("STATUS=1 run, 0 finished, 0 deliveries pending");
    let listed = home.run(&["list", "--output", "json"]).json();
    let only = &listed["runs"][0];
    assert_eq!((only["id"].as_str(), only["name"].as_str()), (Some(ID), Some("nightly")), "{listed}");
    assert_eq!((only["deadline_seconds"].as_u64(), only["added"].as_bool()), (Some(7200), Some(true)));
    let status = home.run(&["daemon", "status"]);
    assert!(
        status.code == Some(0) && status.stdout.contains("runs       1 active, 0 finished"),
        "{status:?}"
    );
    assert_eq!(home.run(&["daemon", "status", "-o", "json"]).json()["going"], 1);
    let table = home.run(&["list"]);
    assert!(table.stdout.starts_with("RUN") && table.stdout.contains("nightly"), "{table:?}");
    let shown = home.run(&["show", ID]);
    assert!(shown.stdout.contains("deadline   2h after its creation"), "{shown:?}");
    let removed = home.run(&["remove", ID]);
    assert_eq!(
        (removed.code, removed.stdout.as_str()),
        (Some(0), format!("{ID} is no longer watched\n").as_str())
    );
    assert_eq!(home.run(&["list", "--all"]).stdout, "no runs\n");
    let missing = home.run(&["remove", ID]);
    assert_eq!(missing.code, Some(5), "{missing:?}");
    assert!(missing.stderr.contains("does not know the run"), "{missing:?}");
    stop(daemon);
}

#[test]
fn what_was_added_is_durable_when_the_command_returns() {
    let (api, receiver) = (Stub::then_forever([], error(500)), Stub::with([no_content()]));
    let home = Home::new(&api);
    home.configure(&webhook(&receiver, ""));
    let daemon = home.start();
    assert_eq!(home.run(&["add", ID, "--name", "nightly"]).code, Some(0));
    daemon.signal(Signal::KILL);
    daemon.wait();
    let api = Stub::with([run().status("FAILED").ok()]);
    let home = home.with_api(&api.url());
    let daemon = home.start();
    let told: serde_json::Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!((&told["type"], &told["data"]["run_name"]), (&"run.failed".into(), &"nightly".into()));
    // One that has ended is not watched again.
    let again = home.run(&["add", ID]);
    assert_eq!(again.stdout, format!("{ID} has ended already: FAILED\n"), "{again:?}");
    stop(daemon);
}

#[test]
fn without_a_daemon_it_is_said_how_to_start_one() {
    let api = Stub::with([]);
    let home = Home::new(&api);
    for args in [&["list"][..], &["add", ID], &["reload"], &["deliveries", "list"]] {
        let output = home.run(args);
        assert_eq!(output.code, Some(69), "{output:?}");
        assert!(
            output.stderr.contains("no daemon listens on") && output.stderr.contains("runwatch daemon"),
            "{output:?}"
        );
    }
}

#[test]
fn the_socket_is_the_owners_or_the_groups() {
    use std::os::unix::fs::PermissionsExt as _;
    let api = Stub::with([]);
    let home = Home::new(&api);
    for (config, mode) in [("", 0o600), ("[daemon]\nsocket_mode = \"0660\"\n", 0o660)] {
        home.configure(config);
        let daemon = home.start();
        let permissions = std::fs::metadata(home.socket()).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, mode);
        stop(daemon);
        assert!(!home.socket().exists(), "it goes with the daemon");
    }
    // One that a killed daemon has left is replaced.
    let daemon = home.start();
    daemon.signal(Signal::KILL);
    daemon.wait();
    assert!(home.socket().exists());
    stop(home.start());
}

#[test]
fn deliveries_are_listed_retried_and_sent_again() {
    let api = Stub::with([run().status("FAILED").ok()]);
    // Gone, then, asked again, there.
    let receiver = Stub::with([answer(410, &[], ""), no_content()]);
    let other = Stub::with([no_content(), no_content(), no_content(), no_content()]);
    let home = Home::new(&api);
    home.configure(&[webhook(&receiver, "name = \"ops\""), webhook(&other, "name = \"other\"")].concat());
    let daemon = home.start();
    home.run(&["add", ID]);
    let first = receiver.next();
    // The other channel is told of the end, and of the channel that was given up on.
    let mut told: Vec<serde_json::Value> =
        (0..2).map(|_| serde_json::from_slice(&other.next().body).unwrap()).collect();
    told.sort_by_key(|told| told["type"].to_string());
    assert_eq!((&told[0]["type"], &told[1]["type"]), (&"delivery.failed".into(), &"run.failed".into()));
    assert_eq!(told[0]["data"]["channel"], "ops");
    assert_eq!(told[0]["data"]["event_id"].as_str(), first.header("webhook-id"));
    let dead = home.run(&["deliveries", "list", "--state", "dead"]);
    assert!(dead.stdout.contains("run.failed") && dead.stdout.contains("410 Gone"), "{dead:?}");
    let number = dead.stdout.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let shown = home.run(&["deliveries", "show", &number]);
    assert!(
        shown.stdout.contains("state     dead") && shown.stdout.contains(first.header("webhook-id").unwrap())
    );
    // A number that is not what the other conditions say is mistyped.
    let other_channel = home.run(&["deliveries", "retry", &number, "--channel", "other"]);
    assert_eq!(other_channel.code, Some(2), "{other_channel:?}");
    assert!(other_channel.stderr.contains(&format!("it is dead, to `ops`, about {ID}")), "{other_channel:?}");
    let retried = home.run(&["deliveries", "retry", &number]);
    assert_eq!(retried.stdout, "1 delivery is due now\n", "{retried:?}");
    let again = receiver.next();
    assert_eq!((again.header("webhook-id"), &again.body), (first.header("webhook-id"), &first.body));
    home.wait_for("0 deliveries pending");
    let resent = home.run(&["deliveries", "resend", "--since", "1h", "--channel", "other"]);
    assert_eq!(resent.stdout, "2 deliveries are due now\n", "{resent:?}");
    other.next();
    other.next();
    home.wait_for("0 deliveries pending");
    assert!(home.run(&["show", ID]).stdout.contains("delivered"));
    stop(daemon);
}

#[test]
fn a_disabled_channel_stays_so_over_a_restart_until_it_is_configured_anew() {
    let api =
        Stub::with([run().status("FAILED").ok(), run().status("FAILED").ok(), run().status("FAILED").ok()]);
    let gone = Stub::with([answer(410, &[], "")]);
    let home = Home::new(&api);
    let config = webhook(&gone, "events = [\"run.failed\"]");
    home.configure(&config);
    let daemon = home.start();
    home.run(&["add", "a"]);
    gone.next();
    stop(daemon);
    let daemon = home.start();
    home.run(&["add", "b"]);
    home.wait_for("2 finished, 0 deliveries pending");
    let log = stop(daemon);
    assert!(
        log.contains("the channel webhook is disabled (http://127.0.0.1") && log.contains("410"),
        "{log}"
    );
    let receiver = Stub::with([no_content()]);
    home.configure(&webhook(&receiver, "events = [\"run.failed\"]"));
    let daemon = home.start();
    home.run(&["add", "c"]);
    receiver.next();
    stop(daemon);
}

#[test]
fn a_reload_takes_all_of_a_configuration_or_nothing() {
    let api = Stub::then_forever([], run().ok());
    let (old, new) = (Stub::with([]), Stub::with([]));
    let home = Home::new(&api);
    home.configure(&format!("{}[[run]]\nid = \"a\"\n", webhook(&old, "")));
    let daemon = home.start();
    // A bad one is refused in full, by command and by signal.
    home.configure("[[run]]\nid = \"b\"\n[[run]]\nid = \"\"\n");
    let refused = home.run(&["reload"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(
        refused.stderr.contains("the old one kept") && refused.stderr.contains("config.toml:"),
        "{refused:?}"
    );
    daemon.signal(Signal::HUP);
    let reloading = home.wait_for("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    home.wait_for("READY=1");
    let runs = || {
        let listed = home.run(&["list", "--output", "json"]).json();
        listed["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(runs(), ["a"]);
    // A good one is taken: runs, channels and all.
    home.run(&["add", "added"]);
    home.configure(&format!("{}[[run]]\nid = \"b\"\nname = \"second\"\n", webhook(&new, "")));
    let reloaded = home.run(&["reload"]);
    assert_eq!(reloaded.stdout, "reloaded: 2 active runs, 0 ended, 1 channels\n", "{reloaded:?}");
    assert_eq!(runs(), ["added", "b"]);
    let (status, body) = ask(&home.socket(), "GET /v1/status");
    assert!(status == 200 && body.contains("\"going\":2"), "{body}");
    let log = stop(daemon);
    assert!(log.contains("the configuration is refused"), "{log}");
}

#[test]
fn files_dropped_into_a_directory_are_watched() {
    let api = Stub::with([run().status("SUCCEEDED").ok(), run().status("FAILED").ok()]);
    let receiver = Stub::with([no_content(), no_content()]);
    let home = Home::new(&api);
    home.configure(&webhook(&receiver, ""));
    let spool = home.path("spool");
    std::fs::create_dir(&spool).unwrap();
    std::fs::write(spool.join("there-before"), "").unwrap();
    let daemon = home.start_with(&["--watch-dir", spool.to_str().unwrap()]);
    receiver.next();
    std::fs::write(spool.join("dropped-in"), "anything").unwrap();
    let told: serde_json::Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!((&told["type"], &told["data"]["run_id"]), (&"run.failed".into(), &"dropped-in".into()));
    stop(daemon);
}

#[test]
fn an_api_that_is_out_of_reach_is_told_and_makes_it_not_ready() {
    let api = Stub::then_forever([], error(500));
    let receiver = Stub::with([no_content()]);
    let home = Home::new(&api);
    let more = "[alerts]\nunreachable_after = \"1ms\"\n[[run]]\nid = \"a\"\n";
    home.configure(&format!("{}{more}", webhook(&receiver, "")));
    let daemon = home.start();
    let told: serde_json::Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!((&told["type"], &told["data"]["reason"]), (&"api.unreachable".into(), &"no_answer".into()));
    let log = stop(daemon);
    assert!(log.contains("API unreachable since"), "{log}");
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let api = Stub::with([error(404), error(401)]);
    let home = Home::new(&api);
    home.configure("[[notify.log]]\n[[notify.command]]\ncommand = [\"/nowhere/program\"]\n");
    let daemon = home.start();
    let output = home.run(&["doctor"]);
    assert_eq!(output.code, Some(78), "{output:?}");
    for part in [
        "ok      key: the API accepts it",
        "ok      API: http://127.0.0.1",
        "ok      state: ",
        "ok      daemon: version ",
        "ok      channel log: always there",
        "WRONG   channel command: /nowhere/program is not a program here\n        give the whole path",
    ] {
        assert!(output.stdout.contains(part), "`{part}` is missing: {}", output.stdout);
    }
    stop(daemon);
    home.configure("");
    let output = home.run(&["doctor"]);
    assert!(output.stdout.contains("WRONG   key: "), "{output:?}");
    assert!(output.stdout.contains("-       daemon: no daemon listens on"), "{output:?}");
}

#[test]
fn a_stop_waits_for_what_is_under_way_and_no_longer() {
    // A command that takes a minute is killed, and its test fails.
    let api = Stub::with([run().status("FAILED").ok()]);
    let receiver = Stub::with([crate::support::stub::Answer::Silence]);
    let home = Home::new(&api);
    home.configure(&format!("{}[[run]]\nid = \"a\"\n", webhook(&receiver, "")));
    let daemon = home.start();
    receiver.next();
    let log = stop(daemon);
    assert!(log.contains("deliveries_pending=1"), "{log}");
}

#[test]
fn a_run_whose_channel_is_gone_is_told_to_the_others() {
    let api = Stub::then_forever([run().ok()], run().status("FAILED").ok());
    let (old, new) = (Stub::with([]), Stub::with([no_content()]));
    let home = Home::new(&api);
    home.configure(&webhook(&old, "name = \"old\""));
    // It does not end before the configuration has changed.
    std::fs::write(
        home.path("config.toml"),
        webhook(&old, "name = \"old\"\n[poll]\ninitial_interval = \"500ms\""),
    )
    .unwrap();
    let daemon = home.start();
    home.run(&["add", "a", "--notify", "old"]);
    home.configure(&webhook(&new, "name = \"new\""));
    assert_eq!(home.run(&["reload"]).code, Some(0));
    let told: serde_json::Value = serde_json::from_slice(&new.next().body).unwrap();
    assert_eq!(told["type"], "run.failed");
    let log = stop(daemon);
    assert!(log.contains("channels of the run are not configured: old"), "{log}");
}

#[test]
fn what_is_to_be_told_to_a_channel_that_is_gone_is_given_up() {
    let api = Stub::then_forever([run().status("FAILED").ok()], error(500));
    let receiver = Stub::then_forever([], error(500));
    let home = Home::new(&api);
    home.configure(&format!("{}[[run]]\nid = \"a\"\n", webhook(&receiver, "")));
    let daemon = home.start();
    receiver.next();
    home.wait_for("1 delivery pending");
    home.configure("[[run]]\nid = \"a\"\n");
    stop(daemon);
    let daemon = home.start();
    home.wait_for("1 finished, 0 deliveries pending");
    let dead = home.run(&["deliveries", "list", "--state", "dead"]);
    assert!(dead.stdout.contains("the channel is not configured any more"), "{dead:?}");
    let doctor = home.run(&["doctor"]).stdout;
    assert!(doctor.contains("deliveries: 1 given up, the last to "), "{doctor}");
    stop(daemon);
}

#[test]
fn a_file_that_stays_in_the_directory_is_not_told_again_after_the_purge() {
    let api = Stub::with([run().status("SUCCEEDED").ok(), run().status("FAILED").ok()]);
    let receiver = Stub::with([no_content(), no_content()]);
    let home = Home::new(&api);
    let spool = home.path("spool");
    std::fs::create_dir(&spool).unwrap();
    std::fs::write(spool.join("a"), "").unwrap();
    home.configure(&format!("{}[daemon]\nkeep = \"1ms\"\n", webhook(&receiver, "")));
    let args = ["--watch-dir", spool.to_str().unwrap()];
    let daemon = home.start_with(&args);
    receiver.next();
    home.wait_for("1 finished, 0 deliveries pending");
    stop(daemon);
    // The first thing a daemon does is to purge.
    for _ in 0..2 {
        stop(home.start_with(&args));
    }
    let daemon = home.start_with(&args);
    std::fs::write(spool.join("b"), "").unwrap();
    let told: serde_json::Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!(told["data"]["run_id"], "b");
    stop(daemon);
}
