//! The daemon on the built binary: it watches the configured runs, notifies, keeps serving, and restores its state.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::support::bin::{Running, runwatch};
use crate::support::body::run;
use crate::support::stub::{Answer, Stub, answer, error};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A daemon on this state, with quick polling and a webhook to this receiver.
fn daemon(state: &Path, api: &Stub, receiver: &Stub, runs: &[&str]) -> Running {
    let runs = runs.iter().map(|id| format!("[[run]]\nid = \"{id}\"\n")).collect::<Vec<_>>().concat();
    let webhook = format!("[[notify.webhook]]\nurl = \"{}\"\nsecret = \"{SECRET}\"\n", receiver.url());
    runwatch(&["daemon"])
        .api(api)
        .env("STATE_DIRECTORY", state)
        .quick(&format!("grace = \"0s\"\n{webhook}{runs}"))
        .spawn()
}

fn stop(daemon: Running) -> String {
    daemon.signal(Signal::TERM);
    let output = daemon.wait();
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stderr
}

#[test]
fn watches_each_run_to_its_end_and_keeps_serving() {
    let state = tempfile::tempdir().unwrap();
    let api =
        Stub::with([run().ok(), run().ok(), run().status("SUCCEEDED").ok(), run().status("FAILED").ok()]);
    let receiver = Stub::with([answer(204, &[], ""), answer(204, &[], "")]);
    let daemon = daemon(state.path(), &api, &receiver, &["a", "b"]);
    let mut kinds: Vec<_> = [receiver.next(), receiver.next()]
        .iter()
        .map(|asked| serde_json::from_slice::<serde_json::Value>(&asked.body).unwrap()["type"].to_string())
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["\"run.failed\"", "\"run.succeeded\""]);
    let log = stop(daemon);
    assert!(log.contains("watching") && log.contains("FAILED") && log.contains("stopped"), "{log}");
}

#[test]
fn what_was_told_is_not_told_again_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let (api, receiver) = (Stub::with([run().status("FAILED").ok()]), Stub::with([answer(204, &[], "")]));
    let first = daemon(state.path(), &api, &receiver, &["a"]);
    receiver.next();
    stop(first);
    // A second run, so that there is something to wait for.
    let (api, receiver) = (Stub::with([run().status("CANCELED").ok()]), Stub::with([answer(204, &[], "")]));
    let second = daemon(state.path(), &api, &receiver, &["a", "b"]);
    let told: serde_json::Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!((&told["type"], &told["data"]["run_id"]), (&"run.canceled".into(), &"b".into()));
    stop(second);
}

#[test]
fn what_could_not_be_told_is_told_after_a_restart_under_the_same_id() {
    let state = tempfile::tempdir().unwrap();
    let (api, receiver) = (Stub::with([run().status("FAILED").ok()]), Stub::with([error(500)]));
    let first = daemon(state.path(), &api, &receiver, &["a"]);
    let attempt = receiver.next();
    let log = stop(first);
    assert!(log.contains("deliveries_pending=1"), "{log}");
    let (api, receiver) = (Stub::with([]), Stub::with([answer(204, &[], "")]));
    let second = daemon(state.path(), &api, &receiver, &["a"]);
    let again = receiver.next();
    assert_eq!((again.header("webhook-id"), &again.body), (attempt.header("webhook-id"), &attempt.body));
    stop(second);
}

#[test]
fn a_refused_key_and_an_unknown_status_end_nothing() {
    let state = tempfile::tempdir().unwrap();
    let api = Stub::with([
        error(401),
        error(401),
        error(401),
        run().status("PAUSED").ok(),
        run().status("FAILED").ok(),
    ]);
    let receiver = Stub::with([answer(204, &[], "")]);
    let daemon = daemon(state.path(), &api, &receiver, &["a"]);
    let told: serde_json::Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!(told["type"], "run.failed");
    let log = stop(daemon);
    assert!(log.contains("the API accepts the key again"), "{log}");
}

#[test]
fn a_key_file_that_is_rotated_is_noticed() {
    let state = tempfile::tempdir().unwrap();
    let key = state.path().join("key");
    std::fs::write(&key, "old\n").unwrap();
    // The old key is refused for as long as it comes.
    let api = Stub::then_forever([run().ok()], error(401));
    let config = format!("[api]\napi_key_file = {key:?}\n[[run]]\nid = \"a\"\n[[notify.log]]\n");
    let daemon = runwatch(&["daemon"])
        .api(&api)
        .env("STATE_DIRECTORY", state.path().join("state"))
        .without("DATAFRAMER_API_KEY")
        .quick(&config)
        .spawn();
    for _ in 0..3 {
        assert_eq!(api.next().header("authorization"), Some("Bearer old"));
    }
    std::fs::write(&key, "new\n").unwrap();
    // Some requests may have been on their way.
    let mut carried = (0..100).map(|_| api.next().header("authorization").unwrap().to_owned());
    assert_eq!(carried.find(|key| key != "Bearer old").as_deref(), Some("Bearer new"));
    let log = stop(daemon);
    assert!(log.contains("401") && !log.contains("Bearer"), "{log}");
}

#[test]
fn a_receiver_that_never_answers_holds_the_end_up_for_a_while_only() {
    let state = tempfile::tempdir().unwrap();
    let (api, receiver) = (Stub::with([run().status("FAILED").ok()]), Stub::with([Answer::Silence]));
    let daemon = daemon(state.path(), &api, &receiver, &["a"]);
    receiver.next();
    let began = Instant::now();
    let log = stop(daemon);
    assert!(began.elapsed() < Duration::from_secs(20), "{log}");
    assert!(log.contains("deliveries_pending=1"), "{log}");
}

#[test]
fn what_was_given_up_is_asked_about_again_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    // Found once, then gone; after the restart it is there.
    let (api, receiver) = (Stub::then_forever([run().ok()], error(404)), Stub::with([answer(204, &[], "")]));
    let first = daemon(state.path(), &api, &receiver, &["a"]);
    let told: serde_json::Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!((&told["type"], &told["data"]["reason"]), (&"run.lost".into(), &"deleted".into()));
    stop(first);
    let api = Stub::with([run().ok(), run().status("SUCCEEDED").ok()]);
    let receiver = Stub::with([answer(204, &[], "")]);
    let second = daemon(state.path(), &api, &receiver, &["a"]);
    let told: serde_json::Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!(told["type"], "run.succeeded");
    stop(second);
}

#[test]
fn a_state_directory_that_cannot_be_used_is_said() {
    let output = runwatch(&["daemon"]).config("state_dir = \"/dev/null/state\"\n").run();
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stderr.contains("cannot keep the state in /dev/null/state"), "{output:?}");
}
