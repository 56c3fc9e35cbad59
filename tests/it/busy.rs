//! A start while something it needs is in use: it waits a moment, then exits with a code that makes systemd restart it.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;

use rustix::process::Signal;

use crate::support::bin::Running;
use crate::support::daemon::{Home, stop};
use crate::support::stub::Stub;

/// Reads a log until it has a line with this; gives the rest, to be read on.
fn read_until(daemon: &mut Running, word: &str) -> BufReader<std::process::ChildStderr> {
    let mut log = BufReader::new(daemon.take_stderr());
    let mut read = String::new();
    while !read.contains(word) {
        assert_ne!(log.read_line(&mut read).unwrap(), 0, "never said `{word}`: {read}");
    }
    log
}

/// A home whose daemon serves metrics on a port that somebody else listens on.
fn with_busy_port(api: &Stub) -> (Home, TcpListener) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::new(api);
    home.configure(&format!("[daemon]\nlisten = \"{}\"\n", port.local_addr().unwrap()));
    (home, port)
}

#[test]
fn a_port_that_is_released_soon_is_waited_for() {
    let api = Stub::with([]);
    let (home, port) = with_busy_port(&api);
    let mut daemon = home.spawn();
    let _log = read_until(&mut daemon, "retrying for");
    drop(port);
    home.wait_for("READY=1");
    stop(daemon);
}

#[test]
fn a_port_that_stays_in_use_is_no_mistake_in_the_configuration() {
    let api = Stub::with([]);
    let (home, port) = with_busy_port(&api);
    let ended = home.run(&["daemon"]);
    assert_eq!(ended.code, Some(70), "{ended:?}");
    let address = port.local_addr().unwrap().to_string();
    assert!(ended.stderr.contains(&format!("cannot listen on {address}")), "{ended:?}");
    assert!(!ended.stderr.contains("internal error"), "{ended:?}");
}

#[test]
fn a_daemon_that_waits_for_a_port_can_be_stopped() {
    let api = Stub::with([]);
    let (home, _port) = with_busy_port(&api);
    let mut daemon = home.spawn();
    let _log = read_until(&mut daemon, "retrying for");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code, Some(0));
}

#[test]
fn a_state_that_cannot_be_kept_there_is_a_mistake_at_once() {
    let api = Stub::with([]);
    let home = Home::new(&api);
    std::fs::write(home.state(), "a file where the directory should be").unwrap();
    let ended = home.run(&["daemon"]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(!ended.stderr.contains("retrying for"), "{ended:?}");
}

#[test]
fn a_state_directory_that_is_released_soon_is_waited_for() {
    let api = Stub::with([]);
    let home = Home::new(&api);
    let first = home.start();
    let mut second = home.spawn();
    let _log = read_until(&mut second, "in use by");
    stop(first);
    home.wait_for("READY=1");
    stop(second);
}
