//! A small HTTP/1.1 server, on a Unix socket or on a port of this machine.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Health;
use crate::BoxFuture;
use crate::http::{Accept, accept_all};

/// Larger requests are not read where nothing else is said: a hundred thousand runs are smaller.
const LARGEST_REQUEST: usize = 64 << 20;

/// Connections at once; more wait.
const CONNECTIONS: usize = 64;

/// How long the headers of a request may take, and its body: a connection that says nothing is not kept.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a request is answered with.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
}

impl Answer {
    /// 200 and a JSON value.
    pub fn json(value: &impl Serialize) -> Self {
        Self::with(StatusCode::OK, value)
    }

    /// An error in words.
    pub fn error(status: u16, error: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::with(status, &Health { error: error.into() })
    }

    /// Text of some type.
    pub fn text(status: u16, content_type: &'static str, text: String) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, content_type, body: text.into() }
    }

    fn with(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(text) => Self { status, content_type: "application/json", body: (text + "\n").into() },
            Err(error) => Self::text(500, "text/plain", error.to_string()),
        }
    }
}

/// Answers requests.
pub trait Serve: Send + Sync + 'static {
    /// The largest body that is read, in bytes.
    fn largest_request(&self) -> usize {
        LARGEST_REQUEST
    }

    /// Answers one.
    fn answer(&self, asked: Asked) -> BoxFuture<'_, Answer>;
}

/// A request.
#[derive(Debug)]
pub struct Asked {
    /// `GET`, …
    pub method: Method,
    /// As it came, still encoded.
    pub path: String,
    /// As it came, still encoded; empty if there is none.
    pub query: String,
    /// The whole body.
    pub body: Bytes,
}

/// A server that ends when it is dropped; its socket goes with it.
#[derive(Debug)]
pub struct Server {
    task: AbortHandle,
    socket: Option<PathBuf>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(socket) = &self.socket {
            // Gone already is as good.
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// Serves on a Unix socket with these permissions. One that nobody listens on any more is replaced.
///
/// The caller owns the place: two daemons are kept apart by their state's lock.
pub fn serve_unix(path: &Path, mode: u32, serve: Arc<dyn Serve>) -> io::Result<Server> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon listens there"));
            }
            std::fs::remove_file(path)?;
        }
        _ => {}
    }
    // Under another name until its permissions are right.
    let new = path.with_extension("new");
    if new.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket()) {
        std::fs::remove_file(&new)?;
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(&new, path)?;
    Ok(Server { task: spawn(listener, serve), socket: Some(path.to_owned()) })
}

/// Serves on a port; gives the address too, for port 0.
pub async fn serve_tcp(address: SocketAddr, serve: Arc<dyn Serve>) -> io::Result<(Server, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((Server { task: spawn(listener, serve), socket: None }, address))
}

fn spawn(listener: impl Accept, serve: Arc<dyn Serve>) -> AbortHandle {
    accept_all(listener, CONNECTIONS, move |stream| connection(stream, Arc::clone(&serve)))
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send, serve: Arc<dyn Serve>) {
    let service = service_fn(|request: Request<Incoming>| {
        let serve = Arc::clone(&serve);
        async move { Ok::<_, io::Error>(answer(request, &*serve).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever broke it off knows.
    let _ = connection.await;
}

async fn answer(request: Request<Incoming>, serve: &dyn Serve) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = timeout(PATIENCE, Limited::new(body, serve.largest_request()).collect()).await;
    let Answer { status, content_type, body } = match body {
        Ok(Ok(body)) => {
            let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
            serve.answer(Asked { method: head.method, path, query, body: body.to_bytes() }).await
        }
        Ok(Err(error)) => Answer::error(400, format!("the request cannot be read: {error}")),
        Err(_) => Answer::error(408, "the request did not come to its end"),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
