//! A channel that did not work and does again, on the built binary: what its receiver said, and what was pending for it.

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
