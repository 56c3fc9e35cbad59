//! A server with HTTP/2 over TLS (ALPN), scripted by connection and request, and an authority of its own to trust.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use h2::Reason;
use hyper::Response;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What a server does with a request.
#[derive(Debug, Clone)]
pub enum Act {
    /// Answers 200 with this body.
    Answer(String),
    /// Answers 421: this connection is for another host.
    Misdirected,
    /// Answers, then says that it takes no more requests on this connection (GOAWAY), and closes it.
    AnswerAndGoAway(String),
    /// Says so instead of an answer.
    GoAway,
    /// Resets the request's stream (`RST_STREAM`).
    Reset,
    /// Begins with the body, and falls silent. The connection lives.
    HalfAnAnswer(String),
    /// Reads and writes nothing more on this connection, and keeps it open.
    Freeze,
    /// Closes the connection without a word of TLS.
    Close,
}

/// The server. It ends with the test.
pub struct Http2 {
    pub address: SocketAddr,
    pub ca_file: PathBuf,
    /// The connection of each request, counted from 1.
    requests: Arc<Mutex<Vec<usize>>>,
    _dir: tempfile::TempDir,
}

impl Http2 {
    /// Serves by a script: which connection, and which request on it, both from 1.
    pub fn start(script: impl Fn(usize, usize) -> Act + Send + Sync + 'static) -> Self {
        let (config, pem) = certificate();
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, pem).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, script) = (Arc::clone(&requests), Arc::new(script));
        // On a runtime of its own: a test may stop the clock of the other.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let acceptor = TlsAcceptor::from(config);
                for connection in 1.. {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (acceptor, seen, script) = (acceptor.clone(), Arc::clone(&seen), Arc::clone(&script));
                    tokio::spawn(async move {
                        let act = |request| {
                            seen.lock().unwrap().push(connection);
                            script(connection, request)
                        };
                        serve(acceptor, stream, act).await;
                    });
                }
            });
        });
        Self { address, ca_file, requests, _dir: dir }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The connection that each request came on.
    pub fn connections(&self) -> Vec<usize> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, act: impl Fn(usize) -> Act) {
    let Ok(tls) = acceptor.accept(stream).await else { return };
    let Ok(mut connection) = h2::server::handshake(tls).await else { return };
    let mut kept = Vec::new();
    for request in 1.. {
        let Some(Ok((_, mut respond))) = connection.accept().await else { return };
        let head = || Response::builder().header("content-type", "application/json").body(()).unwrap();
        match act(request) {
            Act::Answer(body) => {
                respond.send_response(head(), false).unwrap().send_data(body.into(), true).unwrap();
            }
            Act::Misdirected => {
                let head = Response::builder().status(421).body(()).unwrap();
                respond.send_response(head, true).unwrap();
            }
            Act::AnswerAndGoAway(body) => {
                respond.send_response(head(), false).unwrap().send_data(body.into(), true).unwrap();
                connection.graceful_shutdown();
            }
            Act::GoAway => connection.abrupt_shutdown(Reason::NO_ERROR),
            Act::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
            Act::HalfAnAnswer(body) => {
                let mut stream = respond.send_response(head(), false).unwrap();
                stream.send_data(body[..body.len() / 2].to_owned().into(), false).unwrap();
                kept.push(stream);
            }
            Act::Close => return,
            Act::Freeze => {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A certificate for `localhost`, and the authority that has signed it.
fn certificate() -> (Arc<rustls::ServerConfig>, String) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    (Arc::new(config), authority_certificate.pem())
}
