//! HTTP requests to the daemon's socket: which are refused, with which message, and what is logged.

use crate::support::body::run;
use crate::support::daemon::{Home, ask, stop};
use crate::support::stub::Stub;

const ID: &str = "5eed0000-0000-4000-8000-000000000101";

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
        ("GET /v1/deliveries?limit=1&limit=2", 422, "`limit` is given twice"),
        ("GET /v1/deliveries?channel=a&state=dead&channel=b", 422, "`channel` is given twice"),
        ("GET /v1/deliveries?run=a&run=a", 422, "`run` is given twice"),
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
