//! The metrics port and the socket on the built binary: whom they answer, and that no client can block others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::daemon::{Home, ask_port, stop};
use crate::support::stub::Stub;

/// Connections of each hostile kind.
const OF_EACH: usize = 40;

/// Much less than any connection may last.
const SOON: Duration = Duration::from_secs(5);

/// A daemon that serves on a port of its own, and the port's address.
fn start(more: &str) -> (Home, crate::support::bin::Running, String) {
    let api = Stub::with([]);
    let home = Home::new(&api);
    let (daemon, address) = home.start_on_port(more);
    (home, daemon, address)
}

/// The status of the answer to a raw request.
fn status_of(mut stream: impl Read + Write, request: &str) -> u16 {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("{request:?}: {answer:?}")).parse().unwrap()
}

#[test]
fn a_foreign_host_is_not_answered_on_the_port() {
    let (home, daemon, address) = start("listen_names = [\"Host.Example.\"]");
    let status = |head: &str| {
        status_of(TcpStream::connect(&address).unwrap(), &format!("{head}\r\nConnection: close\r\n\r\n"))
    };
    for path in ["/metrics", "/healthz", "/readyz", "/nothing"] {
        let fine = if path == "/nothing" { 404 } else { 200 };
        for (head, expected) in [
            (format!("GET {path} HTTP/1.1\r\nHost: {address}"), fine),
            (format!("GET {path} HTTP/1.1\r\nhost: LOCALHOST.:1"), fine),
            (format!("GET {path} HTTP/1.1\r\nHost: [::1]:9464"), fine),
            (format!("GET {path} HTTP/1.1\r\nHost: host.EXAMPLE"), fine),
            (format!("GET http://{address}{path} HTTP/1.1\r\nHost: {address}"), fine),
            (format!("GET {path} HTTP/1.1\r\nHost: evil.example"), 403),
            (format!("GET {path} HTTP/1.1\r\nHost: {address}.evil.example"), 400),
            (format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1.evil.example"), 403),
            (format!("GET {path} HTTP/1.1\r\nHost: localhost.evil"), 403),
            (format!("GET {path} HTTP/1.1\r\nHost: evil.host.example"), 403),
            (format!("GET {path} HTTP/1.1\r\nHost: localhost@evil.example"), 400),
            (format!("GET http://evil.example{path} HTTP/1.1\r\nHost: localhost"), 403),
            (format!("GET http://localhost@evil.example{path} HTTP/1.1\r\nHost: localhost"), 400),
            (format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example"), 400),
            (format!("GET {path} HTTP/1.1"), 400),
            (format!("GET {path} HTTP/1.0"), 400),
            (format!("GET {path} HTTP/1.1\r\nHost:"), 400),
        ] {
            assert_eq!(status(&head), expected, "{head}");
        }
    }
    // No page can speak to a Unix socket: whatever host a client makes up is fine there.
    let request = "GET /healthz HTTP/1.1\r\nHost: runwatch\r\nConnection: close\r\n\r\n";
    assert_eq!(status_of(UnixStream::connect(home.socket()).unwrap(), request), 200);
    stop(daemon);
}

/// Streams that hold a server up, each in its way.
fn hostile<S: Read + Write>(connect: impl Fn() -> S) -> Vec<S> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut streams = Vec::new();
    for _ in 0..OF_EACH {
        // Says nothing.
        streams.push(connect());
        // Begins, and no more.
        let mut stream = connect();
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: loc");
        streams.push(stream);
        // Announces a body.
        let mut stream = connect();
        let _ =
            stream.write_all(b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{");
        streams.push(stream);
        // Asks, and stays. It may have been closed already.
        let mut stream = connect();
        let _ = stream.write_all(get("/healthz").as_bytes());
        let _ = stream.read(&mut [0; 1024]);
        streams.push(stream);
        // Asks and asks, and never reads.
        let mut stream = connect();
        let _ = stream.write_all(get("/metrics").repeat(100).as_bytes());
        streams.push(stream);
    }
    streams
}

/// Asks for the health again and again while 200 connections hold the server up, some of them byte by byte.
fn health_is_answered<S: Read + Write + Send>(connect: impl Fn() -> S) {
    let mut streams = hostile(&connect);
    assert_eq!(streams.len(), 200);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for stream in &mut streams {
                    let _ = stream.write_all(b"x");
                }
                std::thread::yield_now();
            }
        });
        for _ in 0..20 {
            let began = Instant::now();
            let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let mut stream = connect();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{read:?} {answer}");
            assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        }
        done.store(true, Ordering::Relaxed);
    });
}

fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    stream
}

fn unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    stream
}

#[test]
fn two_hundred_connections_do_not_keep_health_from_the_port() {
    let (_home, daemon, address) = start("");
    health_is_answered(|| tcp(&address));
    assert_eq!(ask_port(&address, "GET /readyz").0, 200);
    stop(daemon);
}

#[test]
fn two_hundred_connections_do_not_keep_others_from_the_socket() {
    let (home, daemon, _) = start("");
    health_is_answered(|| unix(&home.socket()));
    let listed = home.run(&["list"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    stop(daemon);
}
