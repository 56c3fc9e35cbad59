//! Requests about the outbox on the socket: which are accepted, and that a mistyped one never selects everything.

use crate::support::body::run;
use crate::support::daemon::{Home, ask, stop};
use crate::support::stub::{Stub, answer, error};

const ID: &str = "5eed0000-0000-4000-8000-000000000101";

fn webhook(receiver: &Stub, name: &str) -> String {
    format!("[[notify.webhook]]\nname = \"{name}\"\nurl = \"{}\"\nunsigned = true\n", receiver.url())
}

fn states(home: &Home) -> Vec<(String, String)> {
    let listed = home.run(&["deliveries", "list", "--output", "json"]).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let deliveries = listed["deliveries"].as_array().unwrap();
    deliveries.iter().map(|delivery| (text(&delivery["channel"]), text(&delivery["state"]))).collect()
}

#[test]
fn what_is_mistyped_is_refused_and_changes_nothing() {
    let api = Stub::with([run().status("FAILED").ok()]);
    let receiver = Stub::with([answer(204, &[], "")]);
    let home = Home::new(&api);
    home.configure(&webhook(&receiver, "ops"));
    let daemon = home.start();
    home.run(&["add", ID]);
    receiver.next();
    home.wait_for("1 finished, 0 deliveries pending");
    for (request, status, said) in [
        ("POST /v1/deliveries/retry\n", 422, "say which"),
        ("POST /v1/deliveries/retry\n{}", 422, "say which"),
        ("POST /v1/deliveries/retry\n{\"all\":false}", 422, "say which"),
        ("POST /v1/deliveries/retry\n{\"run_id\":\"x\"}", 422, "unknown field `run_id`"),
        ("POST /v1/deliveries/retry\n{\"all\":true,\"more\":1}", 422, "unknown field `more`"),
        ("POST /v1/deliveries/retry\n{\"all\":true,\"channel\":\"ops\"}", 422, "`all` means every"),
        ("POST /v1/deliveries/retry\n{\"id\":\"7\"}", 422, "cannot be read"),
        ("POST /v1/deliveries/retry\n{\"id\":999}", 404, "there is no delivery 999"),
        ("POST /v1/deliveries/retry\n{\"id\":1}", 422, "delivery 1 was delivered"),
        ("POST /v1/deliveries/retry\n{\"channel\":\"opps\"}", 422, "there is no channel `opps`"),
        ("POST /v1/deliveries/resend\n{}", 422, "missing field `since`"),
        (
            "POST /v1/deliveries/resend\n{\"since\":\"2026-01-01T00:00:00Z\",\"channel\":\"ops\"}",
            422,
            "unknown field",
        ),
        ("POST /v1/deliveries/resend\n{\"since\":\"2026-01-01T00:00:00Z\",\"channels\":[]}", 422, "is empty"),
        (
            "POST /v1/deliveries/resend\n{\"since\":\"2026-01-01T00:00:00Z\",\"channels\":[\"no\"]}",
            422,
            "no channel `no`",
        ),
        ("GET /v1/deliveries?channel=opps", 422, "there is no channel `opps`"),
        ("GET /v1/deliveries?run_id=x", 422, "there is no `run_id`"),
        ("GET /v1/deliveries?filter=%7B%22run_id%22:1%7D", 422, "unknown field"),
        ("GET /v1/deliveries?limit=many", 422, "`limit`"),
        ("POST /v1/reload\n{\"force\":true}", 422, "unknown field"),
        ("DELETE /v1/runs/x\n{\"force\":true}", 422, "unknown field"),
        ("GET /v1/runs?state=active", 422, "takes no parameters"),
        ("POST /v1/runs\n{\"runs\":[{\"id\":\"x\",\"channels\":[]}]}", 422, "unknown field `channels`"),
    ] {
        let (found, body) = ask(&home.socket(), request);
        assert!(found == status && body.contains(said), "{request}: {found} {body}");
    }
    for args in [
        &["deliveries", "retry", "999"][..],
        &["deliveries", "retry", "--channel", "opps"],
        &["deliveries", "list", "--channel", "opps"],
        &["deliveries", "show", "999"],
    ] {
        let output = home.run(args);
        assert!(output.code != Some(0) && output.stderr.contains("there is no"), "{args:?}: {output:?}");
    }
    assert_eq!(states(&home), [("ops".to_owned(), "delivered".to_owned())]);
    stop(daemon);
}

#[test]
fn what_is_for_a_channel_that_is_gone_is_never_made_pending() {
    let api = Stub::with([run().status("FAILED").ok()]);
    let receiver = Stub::then_forever([], error(500));
    let home = Home::new(&api);
    home.configure(&[webhook(&receiver, "old"), "[[notify.log]]\n".to_owned()].concat());
    let daemon = home.start();
    home.run(&["add", ID]);
    receiver.next();
    home.wait_for("1 finished, 1 delivery pending");
    home.configure("[[notify.log]]\n");
    assert_eq!(home.run(&["reload"]).code, Some(0));
    home.wait_for("1 finished, 0 deliveries pending");
    let all = home.run(&["deliveries", "retry", "--all"]);
    assert_eq!(all.code, Some(0), "{all:?}");
    assert!(all.stdout.contains("0 deliveries are due now") && all.stdout.contains("old"), "{all:?}");
    let listed = home.run(&["deliveries", "list", "--channel", "old", "--output", "json"]).json();
    let number = listed["deliveries"][0]["id"].to_string();
    for args in [&["deliveries", "retry", "--channel", "old"][..], &["deliveries", "retry", &number]] {
        let refused = home.run(args);
        assert!(refused.stderr.contains("there is no channel `old`; configured: log"), "{refused:?}");
        assert_ne!(refused.code, Some(0));
    }
    assert!(!states(&home).iter().any(|(_, state)| state == "pending"), "{:?}", states(&home));
    stop(daemon);
}
