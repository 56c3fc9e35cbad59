//! What `wait` leaves for CI systems: JUnit XML, a summary, and commands for Azure's agent.

use std::io::Read as _;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use serde_json::json;

use crate::support::bin::runwatch;
use crate::support::body::run;
use crate::support::stub::{Answer, Stub, answer};

/// What nobody wants to be executed or read as markup.
const HOSTILE: &str =
    "x\r\n##vso[task.complete result=Succeeded]y]]><failure/>&amp;\u{1b}[31m\u{202e}\u{0}|![i](u)##[error]z";

fn failed() -> Answer {
    run().status("FAILED").samples(10, 2, 50).set("completed_at", json!("2026-11-20T09:01:00.123456Z")).ok()
}

fn succeeded() -> Answer {
    run().status("SUCCEEDED").samples(193, 7, 200).set("completed_at", json!("2026-11-20T09:44:00Z")).ok()
}

#[test]
fn the_files_have_every_run() {
    let dir = tempfile::tempdir().unwrap();
    let (junit, summary) = (dir.path().join("runs.xml"), dir.path().join("runs.md"));
    std::fs::write(&junit, "from before").unwrap();
    let stub = Stub::with([succeeded(), failed()]);
    let args = ["wait", "a", "b", "--junit", junit.to_str().unwrap(), "--summary", summary.to_str().unwrap()];
    let output = runwatch(&args).api(&stub).quick("max_in_flight = 1\n").run();
    assert_eq!(output.code, Some(1), "{output:?}");
    let xml = std::fs::read_to_string(&junit).unwrap();
    let report = quick_junit::Report::deserialize_from_str(&xml).unwrap();
    assert_eq!((report.tests, report.failures, report.errors), (2, 1, 0), "{xml}");
    let cases = &report.test_suites[0].test_cases;
    assert_eq!([cases[0].name.as_str(), cases[1].name.as_str()], ["a", "b"]);
    assert_eq!(cases[0].time.unwrap().as_secs(), 2639, "{xml}");
    let property =
        |name: &str| cases[1].properties.iter().find(|p| p.name.as_str() == name).map(|p| p.value.as_str());
    assert_eq!(property("verdict"), Some("failed"));
    assert_eq!(property("samples_completed"), Some("10"));
    assert_eq!(property("number_of_samples"), Some("50"));
    assert!(xml.contains(r#"type="failed""#), "{xml}");
    let table = std::fs::read_to_string(&summary).unwrap();
    assert!(table.contains("| a | SUCCEEDED | succeeded | 193 | 7 | 200 |"), "{table}");
    assert!(table.contains("| b | FAILED | failed | 10 | 2 | 50 |"), "{table}");
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_the_wait() {
    let stub = Stub::with([]);
    for option in ["--junit", "--summary"] {
        let output = runwatch(&["wait", "a", option, "/no/such/folder/file"]).api(&stub).quick("").run();
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains("cannot write /no/such/folder/file: No such file"), "{output:?}");
    }
    // A pipe that nobody reads blocks for ever; a directory is no file.
    let dir = tempfile::tempdir().unwrap();
    let (pipe, mode) = (dir.path().join("pipe"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for (path, why) in [(pipe.as_path(), "nobody reads"), (dir.path(), "a directory")] {
        for option in ["--junit", "--summary"] {
            let output = runwatch(&["wait", "a", option, path.to_str().unwrap()]).api(&stub).quick("").run();
            assert_eq!(output.code, Some(2), "{output:?}");
            assert!(output.stderr.contains(why), "{output:?}");
        }
    }
    assert_eq!(stub.asked().len(), 0);
}

#[test]
fn a_pipe_without_a_reader_is_an_error_and_not_a_hang() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = |name: &str| {
        let pipe = dir.path().join(name);
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        pipe
    };
    for option in ["--junit", "--summary"] {
        let pipe = pipe(option);
        let args = ["wait", "a", option, pipe.to_str().unwrap()];
        let stub = Stub::with([succeeded()]);
        let output = runwatch(&args).api(&stub).quick("").run();
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains("it is a pipe that nobody reads"), "{output:?}");
        assert_eq!(stub.asked().len(), 0);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut reader = std::fs::File::from(open(&pipe, flags, Mode::empty()).unwrap());
        let output = runwatch(&args).api(&stub).quick("").run();
        assert_eq!(output.code, Some(0), "{output:?}");
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.contains("193"), "{text}");
    }
    for variable in ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"] {
        let stub = Stub::with([succeeded()]);
        let wait = runwatch(&["wait", "a"]).api(&stub).quick("").env("GITHUB_ACTIONS", "true");
        let output = wait.env(variable, pipe(variable)).run();
        assert_eq!(output.code, Some(70), "{output:?}");
        let why = format!("cannot write to the file in {variable}: it is a pipe that nobody reads");
        assert!(output.stderr.contains(&why), "{output:?}");
    }
    pipe("runwatch.1");
    let output = runwatch(&["man", dir.path().to_str().unwrap()]).run();
    assert_eq!(output.code, Some(70), "{output:?}");
}

#[test]
fn a_wait_that_could_not_begin_leaves_a_result() {
    let dir = tempfile::tempdir().unwrap();
    let junit = dir.path().join("runs.xml");
    let output = runwatch(&["wait", "a", "--junit", junit.to_str().unwrap()])
        .without("DATAFRAMER_API_KEY")
        .env("TF_BUILD", "True")
        .run();
    assert_eq!(output.code, Some(78), "{output:?}");
    let report =
        quick_junit::Report::deserialize_from_str(&std::fs::read_to_string(&junit).unwrap()).unwrap();
    assert_eq!((report.tests, report.errors), (1, 1));
    assert!(
        output
            .stdout
            .starts_with("##vso[task.logissue type=error]the wait could not begin: bad configuration\n"),
        "{output:?}"
    );
    assert!(
        output.stdout.contains("##vso[task.setvariable variable=verdict;isOutput=true]bad_configuration\n")
    );
}

#[test]
fn azure_gets_issues_and_variables_on_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let summary = dir.path().join("runs.md");
    let stub = Stub::with([succeeded(), failed()]);
    let output = runwatch(&["wait", "a", "b", "--summary", summary.to_str().unwrap()])
        .api(&stub)
        .quick("max_in_flight = 1\n")
        .env("TF_BUILD", "True")
        .run();
    assert_eq!(output.code, Some(1), "{output:?}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines[0].starts_with("a SUCCEEDED 193/200"), "{output:?}");
    assert!(lines[2].starts_with("##vso[task.logissue type=warning]a SUCCEEDED (193/200"), "{output:?}");
    assert!(lines[3].starts_with("##vso[task.logissue type=error]b FAILED (10/50"), "{output:?}");
    assert_eq!(lines[4], "##vso[task.setvariable variable=verdict;isOutput=true]failed");
    assert_eq!(lines[10], format!("##vso[task.uploadsummary]{}", summary.display()));
    assert!(!output.stderr.contains("##vso"), "{output:?}");
    // What was asked for in JSON is JSON.
    let stub = Stub::with([succeeded()]);
    let output =
        runwatch(&["wait", "a", "--output", "json"]).api(&stub).quick("").env("TF_BUILD", "True").run();
    assert_eq!(output.json()["verdict"], "succeeded");
}

/// A program in the place of Buildkite's agent, in a folder for `PATH`: it keeps its arguments and its input.
fn agent(script: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buildkite-agent");
    std::fs::write(&path, format!("#!/bin/sh\ncd {}\n{script}\n", dir.path().display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

#[test]
fn buildkite_gets_an_annotation_of_the_build() {
    let agent = agent("echo \"$@\" >arguments; env >environment; cat >body; echo printed");
    let annotated = |name: &str| std::fs::read_to_string(agent.path().join(name)).unwrap_or_default();
    let path = format!("{}:/usr/bin:/bin", agent.path().display());
    for output in [None, Some("json")] {
        let stub = Stub::with([succeeded(), failed()]);
        let args =
            ["wait", "a", "b"].into_iter().chain(output.iter().flat_map(|output| ["--output", output]));
        let result = runwatch(&args.collect::<Vec<_>>())
            .api(&stub)
            .quick("max_in_flight = 1\n")
            .env("BUILDKITE", "true")
            .env("BUILDKITE_JOB_ID", "018f-x")
            .env("PATH", &path)
            .run();
        assert_eq!(result.code, Some(1), "{result:?}");
        assert_eq!(annotated("arguments"), "annotate --style error --context runwatch-018f-x\n");
        assert!(annotated("body").contains("| b | FAILED | failed | 10 | 2 | 50 |"), "{}", annotated("body"));
        assert!(!annotated("environment").contains("DATAFRAMER_API_KEY"), "the agent has no use for the key");
        assert!(!result.stdout.contains("printed"), "{result:?}");
        match output {
            None => assert!(result.stdout.starts_with("a SUCCEEDED 193/200"), "{result:?}"),
            Some(_) => assert_eq!(result.json()["verdict"], "failed"),
        }
    }
    let result = runwatch(&["wait", "a"])
        .without("DATAFRAMER_API_KEY")
        .env("BUILDKITE", "true")
        .env("PATH", &path)
        .run();
    assert_eq!(result.code, Some(78), "{result:?}");
    assert!(annotated("body").contains("The wait could not begin: bad configuration"), "{result:?}");
}

#[test]
fn a_build_that_cannot_be_annotated_changes_no_exit_code() {
    let refuses = agent("exit 3");
    let nothing = tempfile::tempdir().unwrap();
    for (dir, why) in [(&refuses, "exit status: 3"), (&nothing, "No such file")] {
        let stub = Stub::with([succeeded()]);
        let output = runwatch(&["wait", "a"])
            .api(&stub)
            .quick("")
            .env("BUILDKITE", "true")
            .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
            .run();
        assert_eq!(output.code, Some(0), "{output:?}");
        let said = output
            .stderr
            .lines()
            .any(|line| line.contains("the build is not annotated") && line.contains(why));
        assert!(said, "{output:?}");
    }
}

#[test]
fn the_api_gives_no_commands_and_no_markup() {
    let hostile = || run().status(HOSTILE).set("spec_name", HOSTILE.into()).ok();
    let refused = |status| {
        answer(status, &[("Content-Type", "application/json")], json!({ "detail": HOSTILE }).to_string())
    };
    for answer in [hostile(), refused(400), refused(403), refused(404), refused(500)] {
        for format in ["azure", "text", "json"] {
            let dir = tempfile::tempdir().unwrap();
            let junit = dir.path().join("runs.xml");
            let stub = Stub::then_forever([], answer.clone());
            let args =
                ["wait", "##vso[a]", "--timeout", "300ms", "--grace", "0s", "--output", format, "--junit"];
            let output = runwatch(&[&args[..], &[junit.to_str().unwrap()]].concat())
                .api(&stub)
                .quick("")
                .env("TF_BUILD", "True")
                .run();
            for line in output.stdout.lines().chain(output.stderr.lines()) {
                let rest = line.strip_prefix("##vso[task.").filter(|rest| {
                    rest.starts_with("logissue type=") || rest.starts_with("setvariable variable=")
                });
                assert!(!rest.unwrap_or(line).contains("##"), "{output:?}");
            }
            let xml = std::fs::read_to_string(&junit).unwrap();
            let report = quick_junit::Report::deserialize_from_str(&xml).unwrap();
            assert_eq!((report.tests, report.errors + report.failures), (1, 1), "{xml}");
            assert!(!xml.chars().any(|c| c != '\n' && runwatch::run::text::is_hidden(c)), "{xml:?}");
        }
    }
}
