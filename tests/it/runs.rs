//! Listing the API's runs on the built binary: `runwatch runs`, and `runwatch watch` without ids.

use crate::support::bin::runwatch;
use crate::support::body::run;
use crate::support::stub::{Stub, answer, error, json, page};

const LIST: &[u8] = include_bytes!("../fixtures/api/runs_list.json");
const GOING: &str = "5eed0000-0000-4000-8000-000000000101";
const NEWEST: &str = "5eed0000-0000-4000-8000-000000000104";
const ENDED: &str = "5eed0000-0000-4000-8000-000000000102";

fn ids(output: &str) -> Vec<&str> {
    output
        .lines()
        .skip(1)
        .filter(|line| !line.starts_with('…'))
        .map(|line| line.split(' ').next().unwrap())
        .collect()
}

#[test]
fn lists_what_goes_on_and_on_request_what_has_ended() {
    for (args, expected) in [
        (&["runs"][..], &[NEWEST, GOING][..]),
        (&["runs", "--limit", "1"], &[NEWEST]),
        (&["runs", "--mine=ANA@example.com", "--limit", "1"], &[NEWEST]),
        (&["runs", "--mine=nobody@example.com"], &[]),
        (&["runs", "--status", "pending,processing"], &[NEWEST, GOING]),
        (&["runs", "--status", "SUCCEEDED", "--since", "2020-01-01", "--limit", "1"], &[ENDED]),
        (&["runs", "--since", "2099-01-01"], &[]),
        (&["runs", "--spec", "support_*"], &[NEWEST, GOING]),
        (&["runs", "--spec", "support"], &[]),
    ] {
        let stub = Stub::with([json(LIST)]);
        let output = runwatch(args).api(&stub).run();
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_eq!(ids(&output.stdout), expected, "{args:?}: {output:?}");
        assert_eq!(stub.next().line, "GET /api/dataframer/runs/ HTTP/1.1");
    }
    let stub = Stub::with([json(LIST)]);
    let all = runwatch(&["runs", "--all", "--output", "json"]).api(&stub).run().json();
    let whole: serde_json::Value = serde_json::from_slice(LIST).unwrap();
    let statuses = |runs: &serde_json::Value| {
        runs.as_array().unwrap().iter().map(|run| run["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&all["runs"]), statuses(&whole));
    assert_eq!(all["runs"][1]["spec_name"], "support_tickets");
}

#[test]
fn a_list_that_cannot_be_had_is_no_empty_list() {
    for (answer, code, said) in [
        (error(401), 4, "401"),
        (error(500), 7, "500"),
        (page(200), 7, "web page"),
        (json(&LIST[..LIST.len() / 2]), 7, "it breaks off"),
        (json("{}"), 7, "it is not a list"),
    ] {
        // No pause is so short that there is time for a second one.
        let stub = Stub::with([answer]);
        let slow = "[poll]\nerror_initial_interval = \"10s\"\n";
        let output = runwatch(&["runs"]).api(&stub).config(slow).run();
        assert_eq!(output.code, Some(code), "{output:?}");
        assert!(output.stderr.contains(said) && output.stdout.is_empty(), "{said}: {output:?}");
    }
}

#[test]
fn watch_latest_and_mine_do_what_they_say() {
    let ended = |id: &str| run().set("id", id.into()).status("SUCCEEDED").ok();
    let stub = Stub::with([json(LIST), ended(NEWEST)]);
    let output = runwatch(&["watch", "--latest"]).api(&stub).quick("").run();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains(NEWEST), "{output:?}");
    let stub = Stub::with([json(LIST), ended(NEWEST), ended(GOING)]);
    let output = runwatch(&["watch", "--mine"])
        .api(&stub)
        .env("DATAFRAMER_EMAIL", "ana@example.com")
        .quick("max_in_flight = 1\n")
        .run();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains(NEWEST) && output.stdout.contains(GOING), "{output:?}");
    let stub = Stub::with([json(LIST)]);
    let output = runwatch(&["watch", "--mine=nobody@example.com"]).api(&stub).quick("").run();
    assert!(output.code == Some(5) && output.stderr.contains("no active runs of nobody@"), "{output:?}");
    let output = runwatch(&["watch", "--mine"]).run();
    assert!(output.code == Some(2) && output.stderr.contains("DATAFRAMER_EMAIL"), "{output:?}");
    // Not on a terminal nobody can be asked.
    let output = runwatch(&["watch"]).run();
    assert!(output.code == Some(2) && output.stderr.contains("which runs?"), "{output:?}");
}

#[test]
fn wait_and_status_choose_as_watch_does() {
    let ended = |id: &str| run().set("id", id.into()).status("SUCCEEDED").ok();
    let ids = |json: &serde_json::Value| {
        json["runs"].as_array().unwrap().iter().map(|run| run["id"].clone()).collect::<Vec<_>>()
    };
    for (args, expected) in [
        (&["wait", "--latest"][..], &[NEWEST][..]),
        (&["wait", "--mine", "ana@example.com"], &[NEWEST, GOING]),
        (&["wait", "--spec", "SUPPORT_*"], &[NEWEST, GOING]),
        (&["status", "--latest"], &[NEWEST]),
        (&["status", "--latest", "--spec", "support_*", "--exit-code"], &[NEWEST]),
    ] {
        let answers = expected.iter().map(|id| ended(id));
        let stub = Stub::with([json(LIST)].into_iter().chain(answers));
        let args = [args, &["--output", "json"]].concat();
        let output = runwatch(&args).api(&stub).quick("max_in_flight = 1\n").run();
        assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
        assert_eq!(ids(&output.json()), expected, "{args:?}: {output:?}");
    }
    // One that has finished ends it; the other does not count.
    let stub = Stub::then_forever([json(LIST), ended(NEWEST)], run().set("id", GOING.into()).ok());
    let args = ["wait", "--any", "--mine=ana@example.com", "--output", "json"];
    let output = runwatch(&args).api(&stub).quick("max_in_flight = 1\n").run();
    assert_eq!(output.code, Some(0), "{output:?}");
    let stub = Stub::with([json(LIST)]);
    let output = runwatch(&["wait", "--spec", "nothing-*", "--output", "json"]).api(&stub).quick("").run();
    assert_eq!((output.code, &output.json()["verdict"]), (Some(5), &"not_found".into()), "{output:?}");
    assert!(output.stderr.contains("no active runs whose spec matches `nothing-*`"), "{output:?}");
    for args in [&["wait"][..], &["status"], &["wait", "r", "--latest"], &["wait", "--spec", "["]] {
        let output = runwatch(args).run();
        assert_eq!(output.code, Some(2), "{args:?}: {output:?}");
    }
}

#[test]
fn passing_trouble_with_the_list_ends_nothing() {
    let ended = run().set("id", NEWEST.into()).status("SUCCEEDED").ok();
    let stub = Stub::with([error(503), page(502), json(&LIST[..99]), json(LIST), ended]);
    let output = runwatch(&["watch", "--latest"]).api(&stub).quick("").run();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains(NEWEST) && output.stderr.contains("asking again"), "{output:?}");
    // Nobody waits longer than was said.
    let stub = Stub::then_forever([], error(503));
    let output = runwatch(&["watch", "--latest", "--timeout", "1s"]).api(&stub).quick("").run();
    assert!(output.code == Some(124) && output.stderr.contains("503"), "{output:?}");
    let stub = Stub::with([answer(429, &[("Retry-After", "3600")], "{}")]);
    let output = runwatch(&["runs"]).api(&stub).quick("").run();
    assert!(output.code == Some(7) && output.stderr.contains("429"), "{output:?}");
    // A key that is refused is no passing trouble.
    let stub = Stub::with([error(401)]);
    assert_eq!(runwatch(&["watch", "--latest"]).api(&stub).quick("").run().code, Some(4));
}

#[test]
fn what_is_beyond_the_limit_is_counted() {
    let limited = |format: &str| {
        let stub = Stub::with([json(LIST)]);
        runwatch(&["runs", "--limit", "1", "--output", format]).api(&stub).run()
    };
    assert!(limited("text").stdout.ends_with("… and 1 older ones (see --limit)\n"), "{:?}", limited("text"));
    assert_eq!(limited("json").json()["more"], 1);
    assert_eq!(runwatch(&["runs", "--limit", "0"]).run().code, Some(2));
}
