//! Commands against a socket whose server is no longer a daemon: it is stopped, never finishes, or sends wrong answers.

use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use crate::support::bin::{Output, runwatch};
use crate::support::body::run;
use crate::support::daemon::Home;
use crate::support::stub::Stub;

/// Every command that asks the daemon.
const COMMANDS: [&[&str]; 10] = [
    &["add", "a"],
    &["remove", "a"],
    &["list"],
    &["show", "a"],
    &["deliveries", "list"],
    &["deliveries", "show", "1"],
    &["deliveries", "retry", "--all"],
    &["deliveries", "resend", "--since", "1h"],
    &["reload"],
    &["doctor"],
];

/// Serves a socket with this for every connection, after its request has come.
fn serve(path: &Path, answer: impl Fn(UnixStream) + Send + Sync + Clone + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.unwrap(), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while crate::support::stub::read_request(&mut reader).is_some() {
                    answer(stream.try_clone().unwrap());
                }
            });
        }
    });
}

fn ask(socket: &Path, args: &[&str]) -> Output {
    let api = Stub::then_forever([], crate::support::stub::error(404));
    runwatch(args).api(&api).env("RUNWATCH_SOCKET", socket).run()
}

fn respond(mut stream: UnixStream, status: u16, body: &str) {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    // Whoever has heard enough goes away.
    drop(stream.write_all((head + body).as_bytes()));
}

#[test]
fn a_daemon_that_is_stopped_is_found_out_in_seconds() {
    let api = Stub::then_forever([], run().ok());
    let home = Home::new(&api);
    let daemon = home.start();
    daemon.signal(Signal::STOP);
    let began = Instant::now();
    let outputs: Vec<(&[&str], Output)> = std::thread::scope(|scope| {
        let ask = |args: &'static [&'static str]| (args, scope.spawn(|| ask(&home.socket(), args)));
        let asked = COMMANDS.map(ask);
        asked.into_iter().map(|(args, output)| (args, output.join().unwrap())).collect()
    });
    daemon.signal(Signal::CONT);
    assert!(began.elapsed().as_secs() < 40, "{:?}", began.elapsed());
    for (args, output) in outputs {
        let doctor = args == ["doctor"];
        assert_eq!(output.code, Some(if doctor { 78 } else { 69 }), "{args:?}: {output:?}");
        let said = if doctor { &output.stdout } else { &output.stderr };
        let silent = format!("{} does not answer: waited 5s for an answer", home.socket().display());
        assert!(said.contains(&silent), "{args:?}: {output:?}");
    }
}

#[test]
fn a_queue_of_connections_that_is_full_is_no_reason_to_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let _nobody_accepts = UnixListener::bind(&path).unwrap();
    // More than fit into the queue; a blocking connection would hang.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let queued = runtime.block_on(async {
        let mut queued = Vec::new();
        while let Ok(stream) = tokio::net::UnixStream::connect(&path).await {
            queued.push(stream);
        }
        queued
    });
    assert!(!queued.is_empty());
    let output = ask(&path, &["list"]);
    assert_eq!(output.code, Some(69), "{output:?}");
    assert!(output.stderr.contains("waited 5s for a connection"), "{output:?}");
}

#[test]
fn an_answer_that_never_ends_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    for (name, head) in [
        ("ok", "HTTP/1.1 200 OK\r\n\r\n[\""),
        ("error", "HTTP/1.1 422 X\r\n\r\n{\"error\":\""),
        ("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("head", "HTTP/1.1 200 OK\r\nX-Endless: "),
        ("gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"),
    ] {
        let path = dir.path().join(name);
        serve(&path, move |mut stream| {
            let chunk = if name == "chunked" {
                format!("{:x}\r\n{}\r\n", 1 << 16, "x".repeat(1 << 16))
            } else {
                "x".repeat(1 << 16)
            };
            let mut went = stream.write_all(head.as_bytes());
            while went.is_ok() {
                went = stream.write_all(chunk.as_bytes());
            }
        });
        let output = limited(&path, &["list"]);
        assert!(matches!(output.code, Some(69 | 70)), "{name}: {output:?}");
        assert!(output.stderr.len() < 1000, "{name}: {output:?}");
    }
}

/// A command that may take half a gigabyte of memory, and no more.
fn limited(socket: &Path, args: &[&str]) -> Output {
    let shell = "ulimit -v 524288; exec \"$0\" \"$@\"";
    runwatch(args).env("RUNWATCH_SOCKET", socket).under(Path::new("/bin/sh"), &["-c", shell]).run()
}

#[test]
fn a_large_answer_is_read_and_a_larger_one_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str| json!({ "id": "a", "name": name, "status": "PENDING", "watched_at": "2026-11-20T09:00:00Z", "added": true });
    let list = |name: &str, answer: String| {
        let path = dir.path().join(name);
        let alive = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        serve(&path, move |stream| {
            // The sign of life is short.
            let first = !alive.swap(true, std::sync::atomic::Ordering::Relaxed);
            respond(stream, 200, if first { "{}" } else { &answer });
        });
        ask(&path, &["list"])
    };
    let output = list("large", json!({ "runs": vec![run("x"); 20_000] }).to_string());
    assert_eq!((output.code, output.stdout.lines().count()), (Some(0), 20_001));
    let output = list("larger", json!({ "runs": [run(&"x".repeat(70 << 20))] }).to_string());
    assert_eq!(output.code, Some(70), "{output:?}");
    assert!(output.stderr.contains("is longer than 65536 kB"), "{output:?}");
}

#[test]
fn a_backup_that_is_no_state_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    for (name, sent) in [("json", "{}"), ("empty", ""), ("header", "SQLite format 3\0")] {
        let path = dir.path().join(name);
        serve(&path, move |stream| respond(stream, 200, sent));
        let output = ask(&path, &["state", "backup", backup.to_str().unwrap()]);
        assert_eq!(output.code, Some(70), "{name}: {output:?}");
        assert!(output.stderr.contains("what it sent is not a copy of a state"), "{name}: {output:?}");
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|file| file.to_string_lossy().starts_with("backup")), "{left:?}");
    }
}

#[test]
fn a_daemon_that_goes_away_is_no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    serve(&path, |stream| stream.shutdown(std::net::Shutdown::Both).unwrap());
    let output = ask(&path, &["list"]);
    assert_eq!(output.code, Some(69), "{output:?}");
    assert!(output.stderr.contains("closed the connection without an answer"), "{output:?}");
    // One that was killed has left its socket.
    let path = dir.path().join("left");
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(ask(&path, &["list"]).code, Some(69));
}

#[test]
fn what_is_no_answer_of_a_daemons_is_an_internal_error_that_says_what_came() {
    let dir = tempfile::tempdir().unwrap();
    for (name, status, body, said) in [
        ("empty", 302, "", "302 Found with an empty body"),
        ("nothing", 200, "", "200 OK with an empty body"),
        ("none", 204, "", "204 No Content with an empty body"),
        ("forbidden", 403, "", "403 Forbidden with an empty body"),
        ("missing", 404, "", "404 Not Found with an empty body"),
        ("refused", 422, " \n", "422 Unprocessable Entity with an empty body"),
        ("broken", 500, "", "500 Internal Server Error with an empty body"),
        ("busy", 503, "{\"error\":\" \"}", "503 Service Unavailable: {"),
        ("strange", 799, "", "799 with an empty body"),
        ("page", 404, "<h1>nothing here</h1>", "404 Not Found: <h1>nothing here</h1>"),
        ("text", 400, "no such thing", "400 Bad Request: no such thing"),
        ("redirect", 307, "{\"error\":\"moved\"}", "307 Temporary Redirect: {"),
        ("other", 200, "[]", "200 OK: "),
        ("failed", 500, "{\"error\":\"an internal task failed\"}", "an internal task failed"),
    ] {
        let path = dir.path().join(name);
        serve(&path, move |stream| respond(stream, status, body));
        for args in COMMANDS.iter().filter(|args| *args != &["doctor"]) {
            let output = ask(&path, args);
            assert_eq!(output.code, Some(70), "{args:?} {status}: {output:?}");
            assert!(output.stdout.is_empty() && output.stderr.lines().count() == 1, "{output:?}");
            assert!(output.stderr.contains(said), "{args:?} {status}: {output:?}");
            let is_daemons = name == "failed";
            assert!(is_daemons || output.stderr.contains(path.to_str().unwrap()), "{args:?}: {output:?}");
        }
    }
}

#[test]
fn what_is_no_http_is_an_internal_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    serve(&path, |mut stream| stream.write_all(b"\x00\xff\x1b[2J::error::x\r\n\r\n").unwrap());
    let output = ask(&path, &["list"]);
    assert_eq!(output.code, Some(70), "{output:?}");
    assert!(output.stderr.contains("does not answer as a daemon does") && output.stderr.contains("not HTTP"));
}

#[test]
fn what_the_socket_says_is_made_safe() {
    const HOSTILE: &str =
        "x\r\n::error::pwned\n##[add-mask]all\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{202e}\u{200b}\u{61c}";
    let dir = tempfile::tempdir().unwrap();
    let run = json!({
        "id": "a", "name": HOSTILE, "status": HOSTILE, "ended": HOSTILE, "watched_at": "2026-11-20T09:00:00Z",
        "added": true, "trouble": HOSTILE, "notify": [HOSTILE], "finished": HOSTILE,
    });
    let delivery = json!({
        "id": 1, "event_id": HOSTILE, "type": HOSTILE, "kind": HOSTILE, "run_id": HOSTILE, "channel": HOSTILE,
        "state": "dead", "attempts": 1, "last_error": HOSTILE,
    });
    let mut all = run.as_object().unwrap().clone();
    all.extend(
        json!({
            "runs": [run], "deliveries": [delivery], "message": HOSTILE, "version": HOSTILE, "troubles": [HOSTILE],
            "error": HOSTILE, "pid": 1, "started_at": "2026-11-20T09:00:00Z", "api": HOSTILE, "going": 1,
            "deliveries_pending": 1, "findings": [{ "what": HOSTILE, "state": "wrong", "found": HOSTILE, "remedy": HOSTILE }],
        })
        .as_object()
        .unwrap()
        .clone(),
    );
    let text = serde_json::Value::Object(all).to_string();
    let json: [&[&str]; 3] = [
        &["list", "--output", "json"],
        &["show", "a", "--output", "json"],
        &["deliveries", "list", "--output", "json"],
    ];
    for status in [200, 404, 422, 500, 503] {
        let path = dir.path().join(status.to_string());
        let text = text.clone();
        serve(&path, move |stream| respond(stream, status, &text));
        for args in COMMANDS.iter().chain(&json) {
            let api = Stub::then_forever([], crate::support::stub::error(404));
            let output =
                runwatch(args).api(&api).env("RUNWATCH_SOCKET", &path).env("GITHUB_ACTIONS", "true").run();
            for text in [&output.stdout, &output.stderr] {
                let hidden: Vec<char> =
                    text.chars().filter(|c| *c != '\n' && runwatch::run::text::is_hidden(*c)).collect();
                assert!(hidden.is_empty(), "{args:?} {status}: {hidden:?} in {text}");
                assert!(!text.contains("##["), "{args:?} {status}: {text}");
                let begins = |line: &str| line.trim_start().starts_with("::") || line.starts_with("pwned");
                assert!(!text.lines().any(begins), "{args:?} {status}: {text}");
            }
            let multi_line = args == &["reload"] && status != 200;
            let own_line = |line: &str| line.contains("pwned") && line.trim_start().starts_with(':');
            assert!(multi_line || !output.stdout.lines().any(own_line), "{args:?} {status}: {output:?}");
            assert!(multi_line || !output.stderr.lines().any(own_line), "{args:?} {status}: {output:?}");
        }
    }
}

#[test]
fn no_daemon_is_a_code_of_its_own() {
    for args in COMMANDS.iter().filter(|args| *args != &["doctor"]) {
        let output = runwatch(args).env("RUNWATCH_SOCKET", "/nowhere/socket").run();
        assert_eq!(output.code, Some(69), "{args:?}: {output:?}");
        assert!(output.stderr.contains("no daemon listens on /nowhere/socket"), "{args:?}: {output:?}");
    }
}

#[test]
fn reading_the_fake_requests_works() {
    // The fake server above must not be the reason why something passes.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    serve(&path, |stream| respond(stream, 200, "{\"runs\":[]}"));
    let output = ask(&path, &["list"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "no active runs, 0 finished (see --all)\n"));
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}
