//! A channel that fails and works again, on the built binary: its receiver's answers, and its pending deliveries.

use crate::support::body::run;
use crate::support::daemon::{Home, stop};
use crate::support::stub::{Stub, answer};

const ID: &str = "5eed0000-0000-4000-8000-000000000101";

fn webhook(url: &str) -> String {
    format!("[[notify.webhook]]\nname = \"ops\"\nurl = \"{url}/hook/s3cr3t-t0ken\"\nunsigned = true\n")
}

fn failed_run() -> Stub {
    Stub::with([run().status("FAILED").ok()])
}

#[test]
fn what_was_pending_is_sent_at_once_when_the_channel_was_repaired() {
    // The second pause is five minutes, and 404 asks for an hour.
    let wrong = Stub::then_forever([], answer(404, &[("Retry-After", "3600")], "no such hook"));
    let right = Stub::with([answer(204, &[], "")]);
    let (api, retry) = (failed_run(), "[delivery]\nretry_delays = [\"1h\"]\n");
    let home = Home::new(&api);
    home.configure(&[retry, &webhook(&wrong.url())].concat());
    let daemon = home.start();
    home.run(&["add", ID]);
    let first = wrong.next();
    home.wait_for("1 finished, 1 delivery pending");
    // Other pauses alone change nothing about the channel.
    home.configure(&["[delivery]\nretry_delays = [\"2h\", \"3h\"]\n", &webhook(&wrong.url())].concat());
    assert_eq!(home.run(&["reload"]).code, Some(0));
    home.configure(&[retry, &webhook(&right.url())].concat());
    assert_eq!(home.run(&["reload"]).code, Some(0));
    let second = right.next();
    assert_eq!((second.header("webhook-id"), &second.body), (first.header("webhook-id"), &first.body));
    home.wait_for("1 finished, 0 deliveries pending");
    assert!(wrong.asked().is_empty(), "asked once");
    // What was delivered in the end shows no error of before.
    let listed = home.run(&["deliveries", "list"]).stdout;
    assert!(listed.contains("delivered") && !listed.contains("404"), "{listed}");
    assert!(home.run(&["deliveries", "show", "1"]).stdout.contains("404"));
    stop(daemon);
}

#[test]
fn what_the_receiver_said_is_kept_and_shown_without_the_secret_part_of_its_url() {
    let said = "{\"error\":\"no field \\u001b[2Jtext\",\n \"path\":\"/hook/s3cr3t-t0ken\"}\u{1b}[31m";
    let receiver = Stub::with([answer(400, &[], said)]);
    let api = failed_run();
    let home = Home::new(&api);
    home.configure(&webhook(&receiver.url()));
    let daemon = home.start();
    home.run(&["add", ID]);
    receiver.next();
    home.wait_for("1 finished, 0 deliveries pending");
    let shown = home.run(&["deliveries", "show", "1"]);
    assert!(shown.stdout.contains("state     dead"), "{shown:?}");
    assert!(shown.stdout.contains("answer") && shown.stdout.contains("\"error\":\"no field"), "{shown:?}");
    let listed = home.run(&["deliveries", "list", "--output", "json"]).json();
    let answer = listed["deliveries"][0]["answer"].as_str().unwrap();
    assert!(answer.starts_with("{\"error\"") && !answer.contains('\u{1b}'), "{answer}");
    let log = stop(daemon);
    let line = log.lines().find(|line| line.contains("can never be delivered")).unwrap();
    assert!(line.contains("ops") && line.contains(ID) && line.contains("no field"), "{line}");
    for text in [&log, &shown.stdout, &listed.to_string()] {
        assert!(!text.contains("s3cr3t-t"), "{text}");
    }
}

#[test]
fn what_an_older_version_stored_under_an_id_that_is_refused_today_is_delivered() {
    const OTHER: &str = "5eed0000-0000-4000-8000-000000000102";
    let failed = |id: &str| run().set("id", id.into()).status("FAILED").ok();
    let api = Stub::with([ID, OTHER].map(failed));
    let nobody = Stub::then_forever([], answer(500, &[], ""));
    let home = Home::new(&api);
    let retry = "[delivery]\nretry_delays = [\"1h\"]\n";
    home.configure(&[retry, &webhook(&nobody.url())].concat());
    let daemon = home.start();
    for id in [ID, OTHER] {
        assert_eq!(home.run(&["add", id]).code, Some(0));
        nobody.next();
    }
    home.wait_for("2 finished, 2 deliveries pending");
    stop(daemon);
    let db = rusqlite::Connection::open(home.state().join("runwatch.db")).unwrap();
    // As it was written before such ids were refused.
    let bad = "old\u{202e}id";
    db.execute("PRAGMA foreign_keys = OFF", ()).unwrap();
    for change in [
        "UPDATE events SET payload = replace(payload, ?1, ?2), run_id = ?2 WHERE run_id = ?1",
        "UPDATE deliveries SET run_id = ?2 WHERE run_id = ?1",
        "UPDATE runs SET id = ?2 WHERE id = ?1",
    ] {
        assert_eq!(db.execute(change, [ID, bad]).unwrap(), 1, "{change}");
    }
    drop(db);
    let receiver = Stub::then_forever([], answer(204, &[], ""));
    home.configure(&[retry, &webhook(&receiver.url())].concat());
    let daemon = home.start();
    home.wait_for("0 deliveries pending");
    let mut told: Vec<_> = [receiver.next(), receiver.next()]
        .map(|asked| serde_json::from_slice::<serde_json::Value>(&asked.body).unwrap())
        .map(|event| event["data"]["run_id"].as_str().unwrap().to_owned())
        .into();
    told.sort();
    assert_eq!(told, [OTHER, bad]);
    let log = stop(daemon);
    let line = log.lines().find(|line| line.contains("delivered run.failed of old id")).unwrap_or_default();
    assert!(!line.is_empty() && !log.contains(bad), "{log}");
}

#[test]
fn what_is_stored_and_cannot_be_read_is_given_up_with_a_reason_and_stops_nothing() {
    const OTHER: &str = "5eed0000-0000-4000-8000-000000000102";
    let failed = |id: &str| run().set("id", id.into()).status("FAILED").ok();
    let api = Stub::with([ID, OTHER].map(failed));
    let nobody = Stub::then_forever([], answer(500, &[], ""));
    let home = Home::new(&api);
    home.configure(&["[delivery]\nretry_delays = [\"1h\"]\n", &webhook(&nobody.url())].concat());
    let daemon = home.start();
    for id in [ID, OTHER] {
        assert_eq!(home.run(&["add", id]).code, Some(0));
        nobody.next();
    }
    home.wait_for("2 finished, 2 deliveries pending");
    stop(daemon);
    let db = rusqlite::Connection::open(home.state().join("runwatch.db")).unwrap();
    let change = "UPDATE events SET payload = substr(payload, 1, 40) WHERE run_id = ?1";
    assert_eq!(db.execute(change, [ID]).unwrap(), 1);
    drop(db);
    let receiver = Stub::then_forever([], answer(204, &[], ""));
    home.configure(&[webhook(&receiver.url()), "[[notify.log]]\n".to_owned()].concat());
    let daemon = home.start();
    home.wait_for("0 deliveries pending");
    assert!(String::from_utf8_lossy(&receiver.next().body).contains(OTHER));
    let shown = home.run(&["deliveries", "list", "--state", "dead", "--output", "json"]);
    assert!(shown.stdout.contains("the stored event cannot be read"), "{shown:?}");
    let log = stop(daemon);
    assert!(log.contains("can never be delivered") && log.contains(ID), "{log}");
    let told = log.lines().find(|line| line.contains("event=\"delivery.failed\"")).unwrap_or_default();
    assert!(told.contains(ID), "another channel is told: {log}");
}
