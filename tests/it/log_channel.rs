//! The log channel on the built binary: an event is delivered when its line is written.

use std::fs::Permissions;
use std::io::{PipeReader, PipeWriter, Read as _};
use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;

use crate::support::bin::runwatch;
use crate::support::body::run;
use crate::support::daemon::Home;
use crate::support::stub::Stub;
use crate::support::until::found;

const CONFIG: &str = "[[notify.log]]\n[delivery]\nretry_delays = [\"100ms\", \"1h\"]\n[[run]]\nid = \"a\"\n";

fn home() -> (Home, Stub) {
    let api = Stub::with([run().status("FAILED").ok()]);
    let home = Home::new(&api);
    home.configure(CONFIG);
    (home, api)
}

/// A pipe that has no room.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[b'.'; 4096]).is_ok() {}
    while rustix::io::write(&writer, b".").is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// Waits until the one delivery is listed with this.
fn wait_for_delivery(home: &Home, part: &str) -> String {
    found(part, || {
        let shown = home.run(&["deliveries", "show", "1"]).stdout;
        if shown.contains(part) { Ok(shown) } else { Err(shown) }
    })
}

#[test]
fn a_line_that_nobody_can_write_is_not_delivered() {
    let tested =
        runwatch(&["notify", "test"]).config("[[notify.log]]\n").log(std::path::Path::new("/dev/full")).run();
    assert_eq!(tested.code, Some(78), "{tested:?}");
    assert!(tested.stdout.contains("FAILED") && tested.stdout.contains("No space left"), "{tested:?}");
    let (home, _api) = home();
    let notify = home.path("notify");
    let daemon = home.prepared(&["daemon"]).env("NOTIFY_SOCKET", notify);
    let daemon = daemon.log(std::path::Path::new("/dev/full")).spawn();
    home.wait_for("READY=1");
    let shown = wait_for_delivery(&home, "No space left");
    assert!(!shown.contains("delivered"), "{shown}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code, Some(0));
}

#[test]
fn a_line_is_not_delivered_where_standard_error_is_closed() {
    let closed = ["-c", "exec \"$@\" 2>&-", "sh"];
    let tested = runwatch(&["notify", "test"]).config("[[notify.log]]\n");
    let tested = tested.under("/bin/sh".as_ref(), &closed).run();
    assert_eq!(tested.code, Some(78), "{tested:?}");
    assert!(
        tested.stdout.contains("FAILED") && tested.stdout.contains("standard error is closed"),
        "{tested:?}"
    );
    let thrown_away = ["-c", "exec \"$@\" 2>/dev/null", "sh"];
    let tested = runwatch(&["notify", "test"]).config("[[notify.log]]\n");
    let tested = tested.under("/bin/sh".as_ref(), &thrown_away).run();
    assert_eq!(tested.code, Some(0), "what somebody throws away on purpose was written: {tested:?}");
}

#[test]
fn a_line_that_waits_for_a_reader_is_tried_again_and_comes() {
    for format in ["text", "json"] {
        let (home, _api) = home();
        let (mut reader, writer) = full_pipe();
        let notify = home.path("notify");
        let daemon = home.prepared(&["daemon", "--log-format", format]).env("NOTIFY_SOCKET", notify);
        let daemon = daemon.stderr(writer).spawn();
        home.wait_for("READY=1");
        let shown = wait_for_delivery(&home, "nobody reads it");
        assert!(!shown.contains("delivered"), "{shown}");
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        wait_for_delivery(&home, "delivered");
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait().code, Some(0));
        let text = read.join().unwrap();
        assert!(text.contains("run.failed"), "{text}");
    }
}

#[test]
fn a_reader_that_made_the_pipe_non_blocking_loses_nothing() {
    let (home, _api) = home();
    let (mut reader, writer) = full_pipe();
    fcntl_setfl(&writer, fcntl_getfl(&writer).unwrap() | OFlags::NONBLOCK).unwrap();
    let daemon = home.prepared(&["daemon"]).env("NOTIFY_SOCKET", home.path("notify"));
    let daemon = daemon.stderr(writer).spawn();
    home.wait_for("READY=1");
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    wait_for_delivery(&home, "delivered");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code, Some(0));
    let text = read.join().unwrap();
    assert!(text.contains("run.failed") && text.contains("listening"), "{text}");
}

#[test]
fn a_daemon_starts_with_warnings_and_is_refused_with_errors_although_nobody_reads_them() {
    let api = Stub::with([]);
    let home = Home::new(&api);
    let secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    home.configure(&format!("[[notify.webhook]]\nurl = \"http://127.0.0.1:9\"\nsecret = \"{secret}\"\n"));
    std::fs::set_permissions(home.path("config.toml"), Permissions::from_mode(0o644)).unwrap();
    let (mut reader, writer) = full_pipe();
    let daemon = home.prepared(&["daemon"]).env("NOTIFY_SOCKET", home.path("notify")).stderr(writer).spawn();
    home.wait_for("READY=1");
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code, Some(0));
    let text = read.join().unwrap();
    assert!(text.contains("everybody on this machine can read") && text.contains("listening"), "{text}");
    home.configure("[[notify.webhook]]\nurl = 7\n");
    let (_reader, writer) = full_pipe();
    assert_eq!(home.prepared(&["daemon"]).stderr(writer).run().code, Some(78));
}
