//! Metrics and health on the built binary, on the socket and on the port.

use crate::support::body::run;
use crate::support::daemon::{Home, ask, ask_port, stop};
use crate::support::need;
use crate::support::stub::{Stub, answer};
use crate::support::until::until;

#[test]
fn metrics_and_health() {
    let api = Stub::then_forever([run().status("FAILED").ok()], run().ok());
    let receiver = Stub::with([answer(204, &[], "")]);
    let home = Home::new(&api);
    let more = "[daemon]\nlisten = \"127.0.0.1:0\"\n[[run]]\nid = \"a\"\n";
    let webhook =
        format!("[[notify.webhook]]\nname = \"ops\"\nurl = \"{}\"\nunsigned = true\n", receiver.url());
    home.configure(&format!("{webhook}{more}"));
    let daemon = home.start();
    receiver.next();
    home.run(&["add", "b"]);
    home.wait_for("2 runs, 1 finished, 0 deliveries pending");
    // The second run counts before its first answer.
    let polled = "runwatch_runs{status=\"PROCESSING\"} 1";
    until("the second run is polled", || ask(&home.socket(), "GET /metrics").1.contains(polled));
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
    let (daemon, address) = home.start_on_port("");
    assert_eq!(ask_port(&address, "GET /healthz").0, 200);
    assert_eq!(ask_port(&address, "GET /v1/runs").0, 404);
    assert_eq!(ask_port(&address, "POST /metrics").0, 405);
    stop(daemon);
}
