//! The daemon's control socket on the built binary: the commands that speak to it, and what curl would get.

use rustix::process::Signal;

use crate::support::body::run;
use crate::support::daemon::{Home, ask, ask_port, stop};
use crate::support::need;
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
fn bad_requests_are_refused_in_words() {
    let api = Stub::with([]);
    let home = Home::new(&api);
    let daemon = home.start();
    for (args, code, said) in [
        (&["add", ID, "--notify", "ops"][..], 2, "there is no channel `ops`; configured: none"),
        (&["add", ID, "--name", ""], 2, "is empty"),
        (&["add", "a", "b", "--name", "x"], 2, "--name is for one run"),
        (&["add", "'quoted'"], 2, "quotes"),
        (&["show", ID], 5, "does not know the run"),
        (&["deliveries", "show", "7"], 5, "there is no delivery 7"),
        (&["deliveries", "list", "--run", ID], 5, "does not know the run"),
        (&["deliveries", "retry"], 2, "required"),
        (&["deliveries", "resend", "--since", "1h", "--channel", "ops"], 2, "there is no channel `ops`"),
    ] {
        let output = home.run(args);
        assert_eq!(output.code, Some(code), "{args:?}: {output:?}");
        assert!(output.stderr.contains(said), "{args:?}: {output:?}");
    }
    for (request, status, said) in [
        ("POST /v1/runs\n{", 422, "cannot be read"),
        ("POST /v1/runs\n{\"runs\":[{\"id\":\"..\"}]}", 422, "not a run id"),
        ("POST /v1/runs\n{\"runs\":[],\"more\":1}", 422, "unknown field"),
        ("GET /v1/nothing", 404, "there is no GET /v1/nothing"),
        ("DELETE /v1/runs/%2e%2e", 422, "not a run id"),
        ("GET /v1/deliveries?state=lost", 422, "`state`"),
        ("GET /", 404, "/metrics"),
        // What is said twice, and what is not said by name.
        ("GET /v1/deliveries?limit=1&limit=2", 422, "`limit` is there twice"),
        ("GET /v1/deliveries?channel=a&state=dead&channel=b", 422, "`channel` is there twice"),
        ("GET /v1/deliveries?run=a&run=a", 422, "`run` is there twice"),
        ("GET /v1/deliveries?filter=%7B%22run%22%3A%22a%22%7D&run=b", 422, "`filter`"),
        ("GET /v1/deliveries?filter=%5B1%5D", 422, "expected a JSON object"),
        ("GET /v1/deliveries?filter=%7B%22id%22%3A1%2C%22id%22%3A2%7D", 422, "duplicate field `id`"),
        ("GET /v1/deliveries?run=%ff", 422, "`run`"),
        ("GET /v1/deliveries?%6Cimit=1", 422, "there is no `%6Cimit`"),
        ("POST /v1/deliveries/retry\n[true]", 422, "expected a JSON object"),
        ("POST /v1/deliveries/retry\n[]", 422, "expected a JSON object"),
        ("POST /v1/deliveries/retry\n{\"all\":true,\"all\":true}", 422, "duplicate field `all`"),
        ("POST /v1/deliveries/retry\n{\"all\":true}{}", 422, "trailing characters"),
        ("POST /v1/deliveries/resend\n[\"2026-11-20T09:00:00Z\"]", 422, "expected a JSON object"),
        ("POST /v1/runs\n[[]]", 422, "expected a JSON object"),
        ("POST /v1/runs\n{\"runs\":[[\"a\",null,null,null]]}", 422, "expected a JSON object"),
        ("POST /v1/runs\n{\"runs\":[{\"id\":\"a\",\"id\":\"b\"}]}", 422, "duplicate field `id`"),
        ("POST /v1/deliveries/retry\n{\"run\":\"a\"}", 404, "does not know the run a"),
        ("POST /v1/reload\n[]", 422, "expected a JSON object"),
        ("DELETE /v1/runs/a\n{\"force\":true}", 422, "unknown field"),
    ] {
        let (found, body) = ask(&home.socket(), request);
        assert!(found == status && body.contains(said), "{request}: {found} {body}");
    }
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
    assert_eq!(reloaded.stdout, "reloaded: 2 runs going, 0 ended, 1 channels\n", "{reloaded:?}");
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
fn metrics_and_health() {
    let api = Stub::then_forever([run().status("FAILED").ok()], run().ok());
    let receiver = Stub::with([no_content()]);
    let home = Home::new(&api);
    let more = "[daemon]\nlisten = \"127.0.0.1:0\"\n[[run]]\nid = \"a\"\n";
    home.configure(&format!("{}{more}", webhook(&receiver, "name = \"ops\"")));
    let daemon = home.start();
    receiver.next();
    home.run(&["add", "b"]);
    home.wait_for("2 runs, 1 finished, 0 deliveries pending");
    let (status, text) = ask(&home.socket(), "GET /metrics");
    assert_eq!(status, 200, "{text}");
    for line in [
        "runwatch_delivery_attempts_total{channel=\"ops\",outcome=\"delivered\",reason=\"accepted\"} 1",
        "runwatch_runs{status=\"FAILED\"} 1",
        "runwatch_runs{status=\"PROCESSING\"} 1",
        "runwatch_request_budget_per_minute 60000",
        "runwatch_api_up 1",
        "runwatch_store_up 1",
    ] {
        assert!(text.lines().any(|found| found == line), "`{line}` is missing in\n{text}");
    }
    assert!(text.contains("runwatch_polls_total{outcome=\"answered\"}"), "{text}");
    if let Some(promtool) = need::program("promtool") {
        use std::io::Write as _;
        let mut check = std::process::Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }
    assert_eq!(ask(&home.socket(), "GET /healthz"), (200, "ok\n".to_owned()));
    assert_eq!(ask(&home.socket(), "GET /readyz"), (200, "ok\n".to_owned()));
    let log = stop(daemon);
    let address = log.split("serving metrics on http://").nth(1).and_then(|rest| rest.split('/').next());
    assert!(address.is_some(), "{log}");
}

#[test]
fn the_port_only_looks() {
    let api = Stub::with([]);
    let home = Home::new(&api);
    // A free port: asked of the system, and given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    home.configure(&format!("[daemon]\nlisten = \"{address}\"\n"));
    let daemon = home.start();
    assert_eq!(ask_port(&address, "GET /healthz").0, 200);
    assert_eq!(ask_port(&address, "GET /v1/runs").0, 404);
    assert_eq!(ask_port(&address, "POST /metrics").0, 405);
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
        "WRONG   channel command: /nowhere/program is no program here\n        give the whole path",
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
    assert!(log.contains("channels that are not configured: old"), "{log}");
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

#[test]
fn what_commands_do_is_in_the_log_and_every_request_at_debug() {
    let api = Stub::then_forever([], run().ok());
    for (level, requests) in [("info", false), ("debug", true)] {
        let home = Home::new(&api);
        home.configure(&format!("[log]\nlevel = \"{level}\"\n"));
        let daemon = home.start();
        assert_eq!(home.run(&["add", ID]).code, Some(0));
        ask(&home.socket(), "GET /v1/no%0Asuch%1b[2J");
        assert_eq!(home.run(&["remove", ID]).code, Some(0));
        let log = stop(daemon);
        for line in ["added to the watch list by a command", "removed from the watch list by a command"] {
            assert!(log.lines().any(|said| said.contains(line) && said.contains(ID)), "{line}: {log}");
        }
        let request = |parts: &[&str]| {
            let said = |line: &&str| line.contains("DEBUG") && parts.iter().all(|part| line.contains(part));
            log.lines().filter(said).count() == 1
        };
        let id = format!("path=\"/v1/runs/{ID}\"");
        assert_eq!(
            request(&["method=POST", "path=\"/v1/runs\"", "status=200", "took_ms="]),
            requests,
            "{log}"
        );
        assert_eq!(request(&["method=DELETE", &id, "status=200"]), requests, "{log}");
        assert_eq!(request(&["method=GET", "no%0Asuch", "status=404"]), requests, "{log}");
    }
}
