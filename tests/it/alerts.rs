//! The metrics that alert rules use, and the alert rules of the project.

use std::path::Path;
use std::process::Command;

use crate::support::body::run;
use crate::support::daemon::{Home, ask, stop};
use crate::support::need;
use crate::support::stub::Stub;
use crate::support::until::found;

fn metrics(home: &Home) -> String {
    ask(&home.socket(), "GET /metrics").1
}

/// Looks until the metrics have a line like this.
#[track_caller]
fn wait_for(home: &Home, line: &str) -> String {
    found(line, || {
        let text = metrics(home);
        if text.lines().any(|have| have == line) { Ok(text) } else { Err(text) }
    })
}

/// Every outcome that an attempt can have, with its reason.
const ATTEMPTS: [(&str, &str); 7] = [
    ("dead", "disabled"),
    ("dead", "exhausted"),
    ("dead", "undeliverable"),
    ("delivered", "accepted"),
    ("retried", "asked_to_wait"),
    ("retried", "error"),
    ("superseded", "run_ended"),
];

fn attempts(channel: &str, (outcome, reason): (&str, &str)) -> String {
    format!(
        "runwatch_delivery_attempts_total{{channel=\"{channel}\",outcome=\"{outcome}\",reason=\"{reason}\"}}"
    )
}

#[test]
fn counters_begin_at_zero_for_every_channel_there_is() {
    let api = Stub::then_forever([], run().status("PROCESSING").ok());
    let home = Home::new(&api);
    home.configure("[[notify.log]]\n");
    let daemon = home.start();
    let text = metrics(&home);
    for attempt in ATTEMPTS {
        assert!(text.contains(&format!("{} 0\n", attempts("log", attempt))), "{attempt:?}: {text}");
    }
    for series in [
        "runwatch_deliveries_pending",
        "runwatch_deliveries_dead",
        "runwatch_delivery_duration_seconds_count",
    ] {
        assert!(text.contains(&format!("{series}{{channel=\"log\"}} 0\n")), "{series}: {text}");
    }
    for outcome in
        ["answered", "transient_error", "throttled", "key_refused", "not_found", "rejected", "unknown_status"]
    {
        assert!(
            text.contains(&format!("runwatch_polls_total{{outcome=\"{outcome}\"}} 0\n")),
            "{outcome}: {text}"
        );
    }
    // A channel that a reload brings has them too.
    home.configure("[[notify.log]]\n[[notify.log]]\nname = \"second\"\n");
    assert_eq!(home.run(&["reload"]).code, Some(0));
    let text = metrics(&home);
    assert!(text.contains(&format!("{} 0\n", attempts("second", ATTEMPTS[0]))), "{text}");
    stop(daemon);
}

#[test]
fn the_budget_in_the_metrics_is_that_of_the_last_reload() {
    let api = Stub::with([]);
    let home = Home::new(&api);
    let daemon = home.start();
    std::fs::write(home.path("config.toml"), "[poll]\nrequests_per_minute = 30\n").unwrap();
    assert_eq!(home.run(&["reload"]).code, Some(0));
    let text = metrics(&home);
    assert!(text.contains("\nrunwatch_request_budget_per_minute 30\n"), "{text}");
    stop(daemon);
}

#[test]
fn what_never_was_has_no_time() {
    let api = Stub::then_forever([], run().status("FAILED").ok());
    let home = Home::new(&api);
    home.configure(
        "[delivery]\nretry_delays = [\"1ms\"]\n[[notify.command]]\ncommand = [\"false\"]\nevents = [\"run.failed\"]\n",
    );
    let daemon = home.start();
    assert!(!metrics(&home).contains("\nrunwatch_last_poll_timestamp_seconds"), "no poll, no time of one");
    assert_eq!(home.run(&["add", "a"]).code, Some(0));
    let text = wait_for(&home, "runwatch_deliveries_dead{channel=\"command\"} 1");
    // A dead letter is not pending: an alert on the oldest one must not fire for ever.
    assert!(!text.contains("\nrunwatch_oldest_pending_delivery_timestamp_seconds"), "{text}");
    assert!(text.contains("runwatch_deliveries_pending{channel=\"command\"} 0\n"), "{text}");
    assert!(text.contains("\nrunwatch_last_poll_timestamp_seconds "), "{text}");
    stop(daemon);
}

#[test]
fn a_status_that_is_not_known_is_counted_as_such() {
    let api = Stub::then_forever([], run().status("PAUSED").ok());
    let home = Home::new(&api);
    let daemon = home.start();
    assert_eq!(home.run(&["add", "a"]).code, Some(0));
    wait_for(&home, "runwatch_runs{status=\"PAUSED\"} 1");
    let text = metrics(&home);
    assert!(!text.contains("runwatch_polls_total{outcome=\"unknown_status\"} 0\n"), "{text}");
    stop(daemon);
}

#[test]
fn a_refused_configuration_is_in_the_metrics_and_said_where_it_is_asked_about() {
    let api = Stub::with([]);
    let home = Home::new(&api);
    let daemon = home.start();
    assert!(metrics(&home).contains("runwatch_config_last_reload_successful 1\n"));
    home.configure("nonsense = 1\n");
    assert_eq!(home.run(&["reload"]).code, Some(78));
    assert!(metrics(&home).contains("runwatch_config_last_reload_successful 0\n"));
    home.wait_for("0 deliveries pending, the last configuration is refused");
    let (code, said) = ask(&home.socket(), "GET /readyz");
    // It does its work with the old one, as docs/operate.md says.
    assert!(code == 200 && said.contains("the last configuration is refused"), "{code} {said}");
    home.configure("");
    assert_eq!(home.run(&["reload"]).code, Some(0));
    assert!(metrics(&home).contains("runwatch_config_last_reload_successful 1\n"));
    assert_eq!(ask(&home.socket(), "GET /readyz"), (200, "ok\n".to_owned()));
    stop(daemon);
}

#[test]
fn the_rules_are_right_and_name_metrics_that_exist() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alerts.yml");
    let text = std::fs::read_to_string(&rules).unwrap();
    let documented = include_str!("../../docs/operate.md");
    let source = include_str!("../../src/daemon/metrics.rs");
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let names = text.split(|c| !is_name(c)).filter(|word| word.starts_with("runwatch_"));
    assert!(names.clone().count() > 5);
    for name in names {
        assert!(source.contains(&format!("\"{name}\"")), "no metric `{name}`");
        assert!(documented.contains(name), "docs/operate.md does not explain `{name}`");
    }
    let Some(promtool) = need::program("promtool") else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(&rules, dir.path().join("alerts.yml")).unwrap();
    std::fs::write(dir.path().join("test.yml"), include_str!("../alerts/rules_test.yml")).unwrap();
    for args in [["check", "rules", "alerts.yml"], ["test", "rules", "test.yml"]] {
        let output = Command::new(&promtool).args(args).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
