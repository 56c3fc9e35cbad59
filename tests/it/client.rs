//! The API client against a server that misbehaves in every way.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runwatch::api::{ApiClient, ApiSettings, PollError, PollErrorKind, RunSource as _};
use runwatch::run::{DoubtKind, RunStatus};
use runwatch::secret::Secret;

use crate::support::body::{fixture, run};
use crate::support::stub::{Answer, Stub, answer, error, json, page};

fn settings(base_url: &str) -> ApiSettings {
    ApiSettings {
        base_url: base_url.parse().unwrap(),
        read_key: Arc::new(|| Ok(Secret::new("hunter2"))),
        headers: Vec::new(),
        ca_file: None,
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(20),
    }
}

fn client(stub: &Stub) -> ApiClient {
    ApiClient::new(&settings(&stub.url())).unwrap()
}

async fn poll_once(stub: &Stub) -> Result<runwatch::api::Answer, PollError> {
    client(stub).poll(&"r1".parse().unwrap()).await
}

async fn error_of(answer: Answer) -> PollError {
    let stub = Stub::with([answer]);
    poll_once(&stub).await.unwrap_err()
}

#[tokio::test]
async fn every_fixture_means_what_its_manifest_says() {
    let manifest: serde_json::Value = serde_json::from_slice(&fixture("manifest.json")).unwrap();
    let fixtures = manifest["fixtures"].as_array().unwrap();
    assert!(fixtures.len() >= 18, "the manifest is there");
    for entry in fixtures {
        let (file, expect) = (entry["file"].as_str().unwrap(), entry["expect"].as_str().unwrap());
        if entry["path"] != "/api/dataframer/runs/{id}/" {
            continue;
        }
        let mut headers: Vec<(&str, &str)> = vec![("Content-Type", "application/json")];
        for (name, value) in entry["headers"].as_object().unwrap() {
            headers.push((name, value.as_str().unwrap()));
        }
        let status = u16::try_from(entry["http_status"].as_u64().unwrap()).unwrap();
        let stub = Stub::with([answer(status, &headers, fixture(file))]);
        let polled = poll_once(&stub).await;
        let said = match &polled {
            Ok(answer) => match &answer.run.status {
                RunStatus::Pending | RunStatus::Processing => "active",
                RunStatus::Succeeded if answer.run.progress.failed.unwrap_or(0) > 0 => {
                    "success_with_failed_samples"
                }
                RunStatus::Succeeded => "success",
                RunStatus::Failed => "failure",
                RunStatus::Canceled => "canceled",
                RunStatus::Unknown(_) => "unknown_status",
            },
            Err(error) => match error.kind {
                PollErrorKind::Transient | PollErrorKind::Throttled => "retry",
                PollErrorKind::Doubt(DoubtKind::KeyRefused) => "auth",
                PollErrorKind::Doubt(DoubtKind::Missing) => "not_found",
                PollErrorKind::Doubt(_) => "bad_request",
            },
        };
        assert_eq!(said, expect, "{file}: {polled:?}");
    }
}

#[tokio::test]
async fn sends_what_the_api_asks_for_and_nothing_else() {
    let stub = Stub::with([run().ok()]);
    let mut settings = settings(&format!("{}/prefix/", stub.url()));
    settings.headers = vec![("X-Team".into(), Secret::new("data"))];
    let client = ApiClient::new(&settings).unwrap();
    client.poll(&"a/b c?é".replace(' ', "").parse().unwrap()).await.unwrap();
    let asked = stub.next();
    assert_eq!(asked.line, "GET /prefix/api/dataframer/runs/a%2Fbc%3F%C3%A9/ HTTP/1.1");
    for (name, value) in [
        ("authorization", "Bearer hunter2"),
        ("accept", "application/json"),
        ("cache-control", "no-cache"),
        ("user-agent", concat!("runwatch/", env!("CARGO_PKG_VERSION"))),
        ("x-team", "data"),
        ("accept-encoding", "gzip"),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
    assert_eq!(asked.header("referer"), None);
}

#[tokio::test]
async fn a_custom_authorization_stands_in_for_the_key_as_in_the_sdk() {
    let stub = Stub::with([run().ok()]);
    let mut settings = settings(&stub.url());
    settings.headers = vec![("authorization".into(), Secret::new("Token abc"))];
    ApiClient::new(&settings).unwrap().poll(&"r".parse().unwrap()).await.unwrap();
    let asked = stub.next();
    let sent: Vec<_> = asked.headers.iter().filter(|(name, _)| name == "authorization").collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1, "Token abc");
}

#[tokio::test]
async fn what_breaks_on_the_way_is_transient() {
    let whole = run().bytes();
    let cut = |keep: usize| {
        let Answer::Bytes(bytes) = json(&whole) else { unreachable!() };
        Answer::Bytes(bytes[..bytes.len() - keep].to_vec())
    };
    for (name, answer) in [
        ("reset", Answer::Reset),
        ("cut in the body", cut(10)),
        ("cut in the head", cut(whole.len() + 10)),
        ("nothing", Answer::Bytes(Vec::new())),
        ("no http", Answer::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())),
        ("html", page(200)),
        ("html that says json", json("<html>SUCCEEDED</html>")),
        ("json that says html", answer(200, &[("Content-Type", "text/html")], "SUCCEEDED")),
        ("half json", json(&whole[..whole.len() / 2])),
        ("a list", json("[]")),
        ("empty", json("")),
        ("no content", answer(204, &[], "")),
        ("server error", error(500)),
        ("bad gateway", page(502)),
        ("request timeout", error(408)),
        ("too early", error(425)),
    ] {
        let error = error_of(answer).await;
        assert_eq!(error.kind, PollErrorKind::Transient, "{name}: {error}");
        assert!(
            !error.message.contains("http://127.0.0.1") && !error.message.contains('<'),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn errors_say_what_happened() {
    assert!(error_of(page(502)).await.message.contains("502 Bad Gateway"));
    assert!(error_of(error(404)).await.message.contains("404 Not Found: as scripted"));
    assert!(error_of(page(200)).await.message.contains("is base_url right?"));
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let client = ApiClient::new(&settings(&closed)).unwrap();
    let error = client.poll(&"r".parse().unwrap()).await.unwrap_err();
    assert!(error.message.contains("cannot connect: Connection refused"), "{error}");
    let client = ApiClient::new(&settings("https://nowhere.invalid")).unwrap();
    let error = client.poll(&"r".parse().unwrap()).await.unwrap_err();
    assert!(error.message.contains("the host name cannot be resolved"), "{error}");
}

#[tokio::test]
async fn retry_after_comes_along_in_both_forms() {
    let wait = |value: &'static str| async move {
        error_of(answer(429, &[("Retry-After", value), ("Date", "Mon, 23 Nov 2026 10:00:00 GMT")], "{}"))
            .await
    };
    let error = wait("17").await;
    assert_eq!((error.kind, error.retry_after), (PollErrorKind::Throttled, Some(Duration::from_secs(17))));
    assert_eq!(wait("Mon, 23 Nov 2026 10:01:00 GMT").await.retry_after, Some(Duration::from_secs(60)));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Stub::with([]);
    let to = format!("{}/api/dataframer/runs/r1/?token=s3cret", elsewhere.url());
    for status in [301, 302, 303, 307, 308] {
        let error = error_of(answer(status, &[("Location", &to)], "")).await;
        assert_eq!(error.kind, PollErrorKind::Doubt(DoubtKind::Rejected));
        assert!(error.message.contains("redirect") && !error.message.contains("s3cret"), "{error}");
    }
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn a_silent_api_is_given_up_on_in_time() {
    let stub = Stub::with([Answer::Silence]);
    let mut settings = settings(&stub.url());
    settings.request_timeout = Duration::from_millis(200);
    let client = ApiClient::new(&settings).unwrap();
    let error = client.poll(&"r".parse().unwrap()).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (PollErrorKind::Transient, "no answer within 200ms"));
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit() {
    let limit = runwatch::api::client::MAX_BODY;
    let padded = |size: usize| {
        let mut body = br#"{"status":"SUCCEEDED","padding":""#.to_vec();
        body.resize(size - 2, b'x');
        body.extend(b"\"}");
        body
    };
    let stub = Stub::with([json(padded(limit))]);
    assert_eq!(poll_once(&stub).await.unwrap().run.status, RunStatus::Succeeded);
    let error = error_of(json(padded(limit + 1))).await;
    assert!(error.message.contains("larger than 16 MiB"), "{error}");
    // Without a length, and out of a decompressor: what comes out is what counts.
    let mut bomb = Vec::new();
    let mut encoder = flate2::write::GzEncoder::new(&mut bomb, flate2::Compression::best());
    encoder.write_all(&padded(limit + 1)).unwrap();
    encoder.finish().unwrap();
    assert!(bomb.len() < 100_000);
    let error = error_of(answer(200, &[("Content-Encoding", "gzip")], &bomb)).await;
    assert!(error.message.contains("larger than 16 MiB"), "{error}");
}

#[tokio::test]
async fn unknown_fields_are_kept_as_they_came() {
    let body = r#"{"status":"SUCCEEDED","new":{"x":[1.50,null]},"id":"r1"}"#;
    let stub = Stub::with([json(body)]);
    assert_eq!(poll_once(&stub).await.unwrap().body, body);
}

#[tokio::test]
async fn a_rotated_key_is_read_again_on_request() {
    let stub = Stub::with([error(401), run().ok()]);
    let keys = Mutex::new(vec!["new", "old"]);
    let mut settings = settings(&stub.url());
    settings.read_key = Arc::new(move || Ok(Secret::new(keys.lock().unwrap().pop().unwrap_or("new"))));
    let client = ApiClient::new(&settings).unwrap();
    let id = "r".parse().unwrap();
    assert_eq!(client.poll(&id).await.unwrap_err().kind, PollErrorKind::Doubt(DoubtKind::KeyRefused));
    client.reload_key().await.unwrap();
    client.poll(&id).await.unwrap();
    assert_eq!(stub.next().header("authorization"), Some("Bearer old"));
    assert_eq!(stub.next().header("authorization"), Some("Bearer new"));
}

/// A TLS server that answers one request, with a certificate of an authority of its own. Gives its port and the
/// authority's certificate.
fn tls_server() -> (u16, String) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut request = [0; 4096];
            // A client that does not trust us hangs up here.
            if tls.read(&mut request).is_ok_and(|read| read > 0) {
                let Answer::Bytes(bytes) = run().ok() else { unreachable!() };
                tls.write_all(&bytes).unwrap();
                tls.conn.send_close_notify();
                drop(tls.flush());
            }
        }
    });
    (port, authority_certificate.pem())
}

#[tokio::test]
async fn an_extra_authority_is_trusted_and_a_strange_one_is_not() {
    let (port, pem) = tls_server();
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    let mut settings = settings(&format!("https://localhost:{port}"));
    let id = "r".parse().unwrap();
    let error = ApiClient::new(&settings).unwrap().poll(&id).await.unwrap_err();
    assert_eq!(error.kind, PollErrorKind::Transient);
    assert!(error.message.contains("certificate"), "{error}");
    settings.ca_file = Some(ca_file);
    assert_eq!(ApiClient::new(&settings).unwrap().poll(&id).await.unwrap().run.status, RunStatus::Processing);
}

#[test]
fn https_goes_through_the_proxy_of_the_environment_and_loopback_does_not() {
    // The proxy only has to see where it is asked to connect to.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let (seen, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut line = String::new();
            BufReader::new(stream.unwrap()).read_line(&mut line).unwrap();
            seen.send(line).unwrap();
        }
    });
    let status = |base_url: &str| {
        crate::support::bin::runwatch(&["status", "r1"])
            .base_url(base_url)
            .env("HTTPS_PROXY", &proxy)
            .env("HTTP_PROXY", &proxy)
            .run()
    };
    status("https://df-api.example.invalid");
    assert_eq!(asked.recv().unwrap(), "CONNECT df-api.example.invalid:443 HTTP/1.1\r\n");
    let stub = Stub::with([run().ok()]);
    assert_eq!(status(&stub.url()).code, Some(0));
    assert!(asked.try_recv().is_err());
}
