//! Foreign text never shows one of our secrets, whoever repeats it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use crate::support::bin::{Runwatch, runwatch};
use crate::support::body::run;
use crate::support::daemon::{Home, stop};
use crate::support::stub::{Stub, answer};

const KEY: &str = "df_live_Qm9ndXNLZXk-7f3a91c2.e5";
const HEADER: &str = "gateway-secret-0451";

/// A gateway that answers everything with this status, and a body made of the request's `Authorization`.
fn echo(status: u16, content_type: &'static str, body: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut head, mut line) = (String::new(), String::new());
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                head.push_str(&line);
                line.clear();
            }
            let body = body(&head);
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} Whatever\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{body}"
            );
            drop(reader.into_inner().write_all(answer.as_bytes()));
        }
    });
    url
}

fn with_secrets(arguments: &[&str], url: &str) -> Runwatch {
    runwatch(arguments)
        .base_url(url)
        .env("DATAFRAMER_API_KEY", KEY)
        .env("DATAFRAMER_CUSTOM_HEADERS", format!("X-Gateway-Token: {HEADER}"))
}

fn nothing_of_it(text: &str, what: &str) {
    let lower = text.to_lowercase();
    for secret in [KEY, HEADER] {
        for window in secret.to_lowercase().as_bytes().windows(8) {
            let window = std::str::from_utf8(window).unwrap();
            assert!(!lower.contains(window), "{what} shows `{window}`: {text}");
        }
    }
}

#[test]
fn a_gateway_that_repeats_the_request_shows_no_key() {
    let percent = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    let forms: Vec<(&str, String)> = vec![
        ("as it is", format!("{KEY} {HEADER}")),
        ("cut", format!("{}… {}…", &KEY[..20], &HEADER[..12])),
        ("base64", STANDARD.encode(format!("Bearer {KEY}"))),
        ("base64 for URLs", URL_SAFE.encode(KEY)),
        ("percent-encoded", percent(KEY)),
        ("in upper case", KEY.to_uppercase()),
    ];
    for (name, form) in forms {
        for (status, arguments) in [
            (403, vec!["status", "r1"]),
            (401, vec!["wait", "r1", "--timeout", "300ms", "--output", "json"]),
            (400, vec!["runs"]),
            (500, vec!["wait", "r1", "--timeout", "300ms", "--log-format", "json"]),
        ] {
            let value = form.clone();
            let url = echo(status, "application/json", move |_| {
                serde_json::json!({ "error": format!("bad header: {value}") }).to_string()
            });
            let output = with_secrets(&arguments, &url).run();
            let shown = format!("{}{}", output.stdout, output.stderr);
            nothing_of_it(&shown, name);
            for window in form.as_bytes().windows(12) {
                let window = String::from_utf8_lossy(window);
                let plain = window.contains(' ') || window.contains('…');
                assert!(plain || !shown.contains(&*window), "{name} shows `{window}`: {shown}");
            }
            assert!(status == 500 || shown.contains("[REDACTED]"), "{name}: {shown}");
        }
    }
}

#[test]
fn the_whole_request_in_an_answer_is_shown_without_its_secrets() {
    let url = echo(403, "application/json", |head| serde_json::json!({ "detail": head }).to_string());
    let output = with_secrets(&["status", "r1"], &url).run();
    let shown = output.stdout + &output.stderr;
    assert!(shown.contains("[REDACTED]"), "{shown}");
    nothing_of_it(&shown, "the request");
}

#[test]
fn the_body_that_is_passed_through_is_redacted_and_stays_json() {
    let url = echo(200, "application/json", |head| {
        let run = serde_json::json!({
            "id": "r1", "status": "SUCCEEDED", "spec_name": format!("echo {KEY}"), "total_cost": 1.50,
            "debug": { "headers": head, KEY: [HEADER] },
        });
        run.to_string().replace("df_live_", "df\\u005flive\\u005f")
    });
    for arguments in [["status", "r1", "--output", "json"], ["wait", "r1", "--output", "json"]] {
        let output = with_secrets(&arguments, &url).run();
        nothing_of_it(&output.stdout, "the body");
        let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        let run = &report["runs"][0]["run"];
        assert_eq!(run["spec_name"], "echo [REDACTED]");
        assert_eq!((&run["id"], &run["total_cost"]), (&"r1".into(), &1.5.into()));
    }
    let url = echo(200, "application/json", |_| {
        serde_json::json!([{ "id": "r1", "status": "SUCCEEDED", "spec_name": KEY, "created_by_email": HEADER }])
            .to_string()
    });
    for format in ["text", "json"] {
        let output = with_secrets(&["runs", "--all", "--output", format], &url).run();
        assert!(output.stdout.contains("[REDACTED]"), "{}", output.stdout);
        nothing_of_it(&output.stdout, "the list");
    }
}

#[test]
fn the_log_has_a_line_for_each_request_and_no_key_or_body_in_it() {
    let url =
        echo(200, "application/json", |_| r#"{"id":"r1","status":"SUCCEEDED","x":"the body"}"#.to_owned());
    let output = with_secrets(&["wait", "r1", "--log-level", "debug"], &url).run();
    let lines: Vec<&str> = output.stderr.lines().filter(|line| line.contains("asked for r1")).collect();
    assert_eq!(lines.len(), 1, "{}", output.stderr);
    for part in ["DEBUG", "asked for r1: SUCCEEDED", "status=200", "took_ms=", "bytes=47", "version=HTTP/1.1"]
    {
        assert!(lines[0].contains(part), "no {part}: {}", lines[0]);
    }
    assert!(!output.stderr.contains("the body"), "{}", output.stderr);
    nothing_of_it(&output.stderr, "the log");
    let url = echo(503, "application/json", |head| serde_json::json!({ "error": head }).to_string());
    let output = with_secrets(&["wait", "r1", "--log-level", "debug", "--timeout", "300ms"], &url).run();
    assert!(output.stderr.contains("asked for r1: the API answered 503"), "{}", output.stderr);
    assert!(output.stderr.contains("status=503"), "{}", output.stderr);
    nothing_of_it(&output.stderr, "the log");
}

const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const TOKEN: &str = "T0123456-s3cr3t~tok3n";
const PASSWORD: &str = "pr0xy-passw0rd";

/// Every secret of a process that has them all, in several forms.
fn all_secrets() -> String {
    let all = [KEY, HEADER, SIGNING, TOKEN, PASSWORD];
    let forms = all.map(|secret| {
        let percent = secret.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
        let cut = &secret[..9];
        format!("{secret} {percent} {} {} {cut}… ", STANDARD.encode(secret), secret.replace('/', "\\/"))
    });
    forms.concat()
}

fn nothing_of_any(text: &str, what: &str) {
    nothing_of_it(text, what);
    for secret in [SIGNING, TOKEN, PASSWORD] {
        let encoded = STANDARD.encode(secret);
        for form in [secret, encoded.trim_end_matches('=')] {
            for window in form.as_bytes().windows(9) {
                let window = std::str::from_utf8(window).unwrap();
                assert!(!text.contains(window), "{what} shows `{window}`: {text}");
            }
        }
    }
}

#[test]
fn programs_and_receivers_that_repeat_secrets_of_the_process_show_none() {
    let said = all_secrets();
    let receiver =
        Stub::then_forever([], answer(400, &[], serde_json::json!({ "headers": said }).to_string()));
    let api = Stub::with([run().status("FAILED").ok()]);
    let home = Home::new(&api);
    std::fs::write(home.path("said"), &said).unwrap();
    home.configure(&format!(
        "[delivery]\nretry_delays = [\"10ms\"]\n\
         [[notify.command]]\nname = \"program\"\ncommand = [\"sh\", \"-c\", \"cat {} >&2; exit 3\"]\n\
         [[notify.webhook]]\nname = \"hook\"\nurl = \"{}/services/{TOKEN}\"\nsecrets = [\"{SIGNING}\"]\n",
        home.path("said").display(),
        receiver.url(),
    ));
    let prepared = |args: &[&str]| {
        let prepared = home.prepared(args).env("DATAFRAMER_API_KEY", KEY);
        let prepared = prepared.env("HTTPS_PROXY", format!("http://me:{PASSWORD}@127.0.0.1:9"));
        prepared.env("DATAFRAMER_CUSTOM_HEADERS", format!("X-Gateway-Token: {HEADER}"))
    };
    let tested = prepared(&["notify", "test"]).run();
    assert_eq!(tested.stdout.matches("answer: ").count(), 2, "{tested:?}");
    assert!(tested.stdout.contains("[REDACTED]"), "{tested:?}");
    nothing_of_any(&format!("{}{}", tested.stdout, tested.stderr), "notify test");

    let daemon =
        prepared(&["daemon", "--log-level", "debug"]).env("NOTIFY_SOCKET", home.path("notify")).spawn();
    home.wait_for("READY=1");
    home.run(&["add", "5eed0000-0000-4000-8000-000000000101"]);
    home.wait_for("1 finished, 0 deliveries pending");
    let listed = home.run(&["deliveries", "list", "--output", "json"]).stdout;
    assert!(listed.contains("[REDACTED]"), "{listed}");
    nothing_of_any(&listed, "the list");
    nothing_of_any(&stop(daemon), "the log");
}
