//! Proxies in the environment: what messages say about them and what they hide.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use crate::support::bin::runwatch;

/// A proxy that answers every request like this.
fn proxy(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            drop(reader.into_inner().write_all(answer.as_bytes()));
        }
    });
    address
}

#[test]
fn an_error_names_the_proxy_and_not_its_password() {
    const REFUSED: &str =
        "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const NO_GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>";
    for (scheme, answer, says) in [
        ("https", REFUSED, "cannot connect through the proxy http://ADDRESS: it answered 407"),
        ("http", REFUSED, "the proxy http://ADDRESS answered 407 Proxy Authentication Required"),
        ("https", FORBIDDEN, "cannot connect through the proxy http://ADDRESS: it refused"),
        ("https", "", "cannot connect through the proxy http://ADDRESS: it closed the connection"),
        ("http", PAGE, "the answer through the proxy http://ADDRESS is a web page"),
        ("http", NO_GATEWAY, "502 Bad Gateway through the proxy http://ADDRESS"),
    ] {
        let address = proxy(answer);
        let url = format!("http://someone:sw0rdfish-99@{address}");
        let output = runwatch(&["status", "r1"])
            .base_url(&format!("{scheme}://df-api.example.invalid"))
            .env("ALL_PROXY", &url)
            .config("[api]\nallow_http = true\n")
            .run();
        let says = says.replace("ADDRESS", &address);
        assert!(output.stdout.contains(&says), "{scheme} {answer}: {output:?}");
        let shown = format!("{}{}", output.stdout, output.stderr);
        assert!(!shown.contains("sw0rdfish") && !shown.contains("someone"), "{shown}");
        if answer == REFUSED {
            assert!(!shown.contains("the API answered"), "{shown}");
        }
    }
}

#[test]
fn a_proxy_that_is_none_is_not_passed_over() {
    for value in ["no proxy at all", "http://p:port", "socks5://someone:sw0rdfish-99@p:1080"] {
        let output = runwatch(&["status", "r1"])
            .base_url("https://df-api.example.invalid")
            .env("https_proxy", value)
            .run();
        assert_eq!(output.code, Some(78), "{value}: {output:?}");
        assert!(output.stderr.contains("https_proxy"), "{output:?}");
        assert!(!output.stderr.contains("sw0rdfish"), "{output:?}");
    }
}
