//! Hostile text on the built binary: text from the API, the command line, a file or the socket never becomes a command
//! for the terminal or for GitHub's runner.

use serde_json::json;

use crate::support::bin::{Output, Runwatch, runwatch};
use crate::support::body::run;
use crate::support::stub::{Answer, Stub, answer};

/// What nobody wants to be executed.
const HOSTILE: &str = "x\r\n::error::pwned\n##[add-mask]all\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\u{202e}\u{200b}\u{61c}%0A::warning::w";

/// The commands that a runner of GitHub Actions would execute: `::command::` at the beginning of a line, `##[command]`
/// anywhere. It passes over characters that are not seen.
fn commands(text: &str) -> Vec<String> {
    let seen = |c: &char| !runwatch::run::text::is_hidden(*c);
    let lines = text.split(['\n', '\r']).map(|line| line.chars().filter(seen).collect::<String>());
    lines.filter(|line| line.trim_start().starts_with("::") || line.contains("##[")).collect()
}

fn hidden(text: &str) -> Vec<char> {
    text.chars().filter(|c| *c != '\n' && runwatch::run::text::is_hidden(*c)).collect()
}

/// Neither stream has a command, but for those that runwatch means, nor a hidden character.
#[track_caller]
fn assert_safe(output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        let meant = |line: &String| {
            let line = line.as_str();
            ["error", "warning", "notice"].iter().any(|level| {
                ["runwatch", "DataFramer run"].iter().any(|title| {
                    line.strip_prefix(&format!("::{level} title={title}::"))
                        .is_some_and(|rest| !rest.contains("::") && !rest.contains("##["))
                })
            })
        };
        let found: Vec<String> = commands(text).into_iter().filter(|line| !meant(line)).collect();
        assert!(found.is_empty(), "{found:?} in {text}");
        assert!(hidden(text).is_empty(), "{:?} in {text:?}", hidden(text));
    }
}

fn in_github(args: &[&str]) -> Runwatch {
    runwatch(args).env("GITHUB_ACTIONS", "true")
}

fn refused(status: u16) -> Answer {
    answer(status, &[("Content-Type", "application/json")], json!({ "detail": HOSTILE }).to_string())
}

fn hostile_run(status: &str) -> Answer {
    let run = run().status(status).set("spec_name", HOSTILE.into()).set("created_by_email", HOSTILE.into());
    run.set("notes", HOSTILE.into()).set("::error::key", HOSTILE.into()).ok()
}

#[test]
fn the_api_gives_no_commands() {
    for args in [
        &["wait", "a##[b]", "--timeout", "300ms", "--grace", "0s"][..],
        &["wait", "::error::a", "--timeout", "300ms", "--output", "text"],
        &["wait", "::error::a", "--timeout", "300ms", "--output", "json", "--log-level", "debug"],
        &["watch", "a", "--timeout", "300ms", "--log-level", "debug", "--log-format", "json"],
        &["status", "##[error]a"],
        &["status", "a", "--output", "json"],
    ] {
        for answer in [
            refused(404),
            refused(403),
            refused(500),
            refused(400),
            hostile_run(HOSTILE),
            hostile_run("##[error]x"),
            hostile_run("SUCCEEDED"),
            answer(200, &[("Content-Type", "text/html")], format!("<title>{HOSTILE}</title>")),
        ] {
            let stub = Stub::then_forever([], answer.clone());
            let output = in_github(args).api(&stub).quick("grace = \"50ms\"\n").run();
            assert_safe(&output);
            if args.contains(&"json") && args[0] != "watch" {
                let report = output.json();
                if let Some(notes) = report["runs"][0]["run"].get("notes") {
                    assert_eq!(notes, HOSTILE, "the same value");
                }
            }
        }
    }
}

#[test]
fn a_list_gives_no_commands() {
    let list = || {
        let mut one =
            run().set("spec_name", HOSTILE.into()).set("created_by_email", HOSTILE.into()).in_list();
        one["id"] = "a##[b]".into();
        crate::support::stub::json(json!([one]).to_string())
    };
    for args in [&["runs"][..], &["runs", "--output", "json"]] {
        let stub = Stub::with([list()]);
        let output = in_github(args).api(&stub).run();
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_safe(&output);
    }
}

#[test]
fn an_argument_makes_no_line_of_its_own() {
    let hostile = "a\n::error::pwned\r##[add-mask]b\u{1b}[2J\u{202e}";
    let spaced = format!(" {hostile} ");
    for args in [
        &[hostile][..],
        &["wait", hostile],
        &["wait", "a", "--timeout", hostile],
        &["wait", "a", "--max-failed", hostile],
        &["wait", "a", "--output", hostile],
        &["wait", "a", "--notify", hostile],
        &["wait", "a", &format!("--{hostile}")],
        &["runs", "--limit", &spaced],
        &["runs", "--limit", "5\u{200b}\n::error::x"],
        &["wait", "a", "--max-failed", "5\u{200b}"],
        &["help", hostile],
        &["watch", hostile, "--latest"],
        &["deliveries", "show", hostile],
        &["notify", "test", hostile],
        &["completions", hostile],
        &["simulate", "--run", hostile],
        &["simulate", "--listen", hostile],
        &["demo", "--length", hostile],
    ] {
        for args in [args.to_vec(), [args, &["--help-me"]].concat()] {
            let output = in_github(&args).base_url("http://127.0.0.1:9").run();
            assert!(matches!(output.code, Some(2 | 78)), "{args:?}: {output:?}");
            assert_safe(&output);
            assert!(!output.stderr.lines().any(|line| line.starts_with("pwned")), "{output:?}");
        }
    }
}

#[test]
fn a_terminal_gets_no_commands_either() {
    // Outside of GitHub, what is no command there stays as it is; what controls a terminal does not.
    let stub = Stub::then_forever([], refused(404));
    let output = runwatch(&["wait", "a", "--grace", "0s"]).api(&stub).quick("").run();
    assert!(hidden(&output.stdout).is_empty() && hidden(&output.stderr).is_empty(), "{output:?}");
    let stub = Stub::with([hostile_run("SUCCEEDED")]);
    let output = runwatch(&["wait", "a", "--output", "json"]).api(&stub).quick("").run();
    assert!(hidden(&output.stdout).is_empty(), "{output:?}");
    assert_eq!(output.json()["runs"][0]["run"]["notes"], HOSTILE);
    assert!(output.stdout.contains("::error::key"), "{output:?}");
}

#[test]
fn what_programs_read_is_printed_as_it_is() {
    for args in [&["completions", "zsh"][..], &["completions", "bash"], &["man"]] {
        let output = in_github(args).run();
        assert_eq!(output.stdout, runwatch(args).run().stdout, "{args:?}");
    }
}

#[test]
fn the_step_summary_is_a_table_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let summary = dir.path().join("summary");
    let stub = Stub::with([hostile_run("SUCCEEDED"), refused(404)]);
    let output = in_github(&["wait", "a\\|b", "![i](u)<b>`@octocat", "--grace", "0s", "--timeout", "5m"])
        .api(&stub)
        .quick("max_in_flight = 1\n")
        .env("GITHUB_STEP_SUMMARY", &summary)
        .run();
    assert_safe(&output);
    let text = std::fs::read_to_string(&summary).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 4, "{text}");
    for row in &rows[2..] {
        assert_eq!(row.matches('|').count(), 8, "{row}");
        assert!(!row.contains(['[', ']', '`', '\\', '@']), "{row}");
    }
}

#[test]
fn many_annotations_are_cut_to_what_the_runner_shows() {
    let stub = Stub::then_forever([], run().status("FAILED").ok());
    let ids: Vec<String> = (0..40).map(|n| format!("r{n}")).collect();
    let args: Vec<&str> =
        ["wait", "--timeout", "5m"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    let output = in_github(&args).api(&stub).quick("batch = \"never\"\n").run();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!((output.code, lines.len()), (Some(1), 10), "{output:?}");
    assert!(lines[9].ends_with("::31 more runs: 31 failed; the step summary has all of them"), "{output:?}");
}

#[test]
fn every_reason_is_told() {
    // Both thresholds, and no number that reads as a rate.
    let partial =
        run().status("SUCCEEDED").samples(193, 7, 200).set("completed_at", json!("2026-11-20T09:00:05Z"));
    let stub = Stub::with([partial.ok()]);
    let args = ["wait", "a", "--max-failed", "2", "--min-completed", "99%", "--timeout", "5m"];
    let output = in_github(&args).api(&stub).quick("").run();
    assert_eq!(
        output.stdout,
        "::error title=DataFramer run::a SUCCEEDED (193/200, 7 failed samples) in 4.8s: 7 of 200 samples failed, more than \
         the 2 allowed (--max-failed); 193 of 200 samples completed, fewer than the 99%25 required (--min-completed)\n"
    );
    // A deadline, by itself and beside a worse verdict.
    for (first, code) in [("PROCESSING", 124), ("FAILED", 1)] {
        let other = run().status(first).ok();
        let stub = Stub::then_forever([other.clone(), run().ok()], run().ok());
        let args = ["wait", "a", "b", "--timeout", "500ms"];
        let output = in_github(&args).api(&stub).quick("max_in_flight = 1\nbatch = \"never\"\n").run();
        assert_eq!(output.code, Some(code), "{output:?}");
        let of_b = output.stdout.lines().find(|line| line.contains("::b ")).unwrap();
        assert!(of_b.ends_with(": the deadline passed before it ended"), "{output:?}");
        assert!(output.stderr.contains("the deadline passed; a longer --timeout may help"), "{output:?}");
    }
}
