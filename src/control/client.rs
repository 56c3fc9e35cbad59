//! The commands' side of the socket.
//!
//! The server may not be a real daemon. So the time and size of every answer are limited, and the caller must make text
//! from it safe to print.

use std::error::Error as _;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::wire::{
    AddRequest, Added, Deliveries, Doctor, Health, NewRun, ReloadAnswer, ResendRequest, RetryRequest, Run,
    Runs, Settled, Status,
};
use crate::run::{RunId, printable};
use crate::span;
use crate::store::DeliveryFilter;

/// Maximum time for a daemon's first answer. Detects one that is stopped or stuck.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Pause before connecting again when the queue of connections is full.
const AGAIN: Duration = Duration::from_millis(50);

/// Maximum time for a query. Longer than the daemon waits for its parts, so that its own error arrives.
const QUESTION: Duration = Duration::from_secs(15);

/// Maximum time for an operation: a reload, or adding many runs on a slow disk.
const WORK: Duration = Duration::from_secs(60);

/// Maximum size of an answer, in bytes. A hundred thousand runs are smaller.
const LARGEST_ANSWER: usize = 64 << 20;

/// Maximum size of an error, in bytes.
const LARGEST_ERROR: usize = 64 << 10;

/// Maximum time for a backup.
const BACKUP: Duration = Duration::from_mins(10);

/// Encodes everything but the unreserved characters of RFC 3986, section 2.3.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A client of a daemon.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

/// Why a request to the daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens on these sockets.
    #[error(
        "no daemon listens on {}; start one with `runwatch daemon` or `systemctl start runwatch`, or name another daemon: --config FILE, or RUNWATCH_SOCKET",
        .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
    )]
    NoDaemon(Vec<PathBuf>),
    /// This user may not use the daemon's socket.
    #[error(
        "you may not use {}: be its owner, or set socket_mode = \"0660\" in [daemon] and be in its group",
        .0.display()
    )]
    Forbidden(PathBuf),
    /// The daemon does not answer.
    #[error(
        "the daemon on {} does not answer: waited {} for {what}; it may be stopped or stuck: see its log \
         (journalctl -u runwatch), or restart it",
        .socket.display(), span::human(*.waited)
    )]
    Silent {
        /// Its socket.
        socket: PathBuf,
        /// What the client waited for.
        what: String,
        /// How long the client waited.
        waited: Duration,
    },
    /// The daemon closed the connection without an answer.
    #[error("the daemon on {} closed the connection without an answer: {why}; see its log (journalctl -u runwatch)", .socket.display())]
    Gone {
        /// Its socket.
        socket: PathBuf,
        /// What happened to the connection.
        why: String,
    },
    /// The daemon refused the request, with this message.
    #[error("{0}")]
    Refused(String),
    /// The daemon cannot do it now.
    #[error("{0}")]
    Unavailable(String),
    /// The daemon does not know the subject.
    #[error("{0}")]
    NotFound(String),
    /// The data cannot be written.
    #[error("{0}")]
    Write(io::Error),
    /// The answer is not one of a daemon's.
    #[error("the server on {} does not answer as a daemon does: {why}; see RUNWATCH_SOCKET", .socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with the answer.
        why: String,
    },
}

impl Client {
    /// Connects to the first of these sockets that a daemon listens on, and checks that it answers.
    pub async fn connect(candidates: &[PathBuf]) -> Result<Self, ClientError> {
        let mut forbidden = None;
        for socket in candidates {
            match timeout(SIGN_OF_LIFE, reach(socket)).await {
                Err(_) => return Err(silent(socket, "a connection", SIGN_OF_LIFE)),
                Ok(Err(error)) if error.kind() == ErrorKind::PermissionDenied => {
                    forbidden.get_or_insert_with(|| socket.clone());
                }
                Ok(Err(_)) => {}
                Ok(Ok(_)) => {
                    let client = Self::on(socket)?;
                    client.ping().await?;
                    return Ok(client);
                }
            }
        }
        Err(forbidden.map_or_else(|| ClientError::NoDaemon(candidates.to_vec()), ClientError::Forbidden))
    }

    fn on(socket: &Path) -> Result<Self, ClientError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .tls_certs_only([])
            .no_proxy()
            .no_gzip()
            .redirect(reqwest::redirect::Policy::none());
        let http = http.build().map_err(|error| broken(socket, crate::http::root_cause(&error)))?;
        Ok(Self { http, socket: socket.to_owned() })
    }

    /// The daemon's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Checks that the daemon answers at all. An error for an unknown request counts as an answer.
    async fn ping(&self) -> Result<(), ClientError> {
        let answer = self.send(self.request(Method::GET, "ping"), "an answer", SIGN_OF_LIFE).await?;
        self.read(answer, LARGEST_ERROR, "an answer", SIGN_OF_LIFE).await.map(|_| ())
    }

    /// The daemon's status.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("status").await
    }

    /// The daemon's own checks, which may take a while.
    pub async fn doctor(&self) -> Result<Doctor, ClientError> {
        self.ask(Method::GET, "doctor", None, WORK).await
    }

    /// Every run that the daemon knows.
    pub async fn runs(&self) -> Result<Runs, ClientError> {
        self.get("runs").await
    }

    /// One run.
    pub async fn run(&self, id: &RunId) -> Result<Run, ClientError> {
        self.get(&format!("runs/{}", encoded(id.as_str()))).await
    }

    /// Adds runs to the watch list; durable when this returns.
    pub async fn add(&self, runs: Vec<NewRun>) -> Result<Added, ClientError> {
        self.post("runs", &AddRequest { runs }).await
    }

    /// Removes a run from the watch list.
    pub async fn remove(&self, id: &RunId) -> Result<Run, ClientError> {
        self.ask(Method::DELETE, &format!("runs/{}", encoded(id.as_str())), None, WORK).await
    }

    /// Deliveries, latest first.
    pub async fn deliveries(&self, filter: &DeliveryFilter, limit: u32) -> Result<Deliveries, ClientError> {
        let query = serde_json::to_string(filter).map_err(|error| self.broken(error.to_string()))?;
        self.get(&format!("deliveries?limit={limit}&filter={}", encoded(&query))).await
    }

    /// Makes undelivered deliveries due now.
    pub async fn retry(&self, request: &RetryRequest) -> Result<Settled, ClientError> {
        self.post("deliveries/retry", request).await
    }

    /// Sends events again.
    pub async fn resend(&self, request: &ResendRequest) -> Result<Settled, ClientError> {
        self.post("deliveries/resend", request).await
    }

    /// Reloads the configuration.
    pub async fn reload(&self) -> Result<ReloadAnswer, ClientError> {
        self.ask(Method::POST, "reload", None, WORK).await
    }

    /// Copies the daemon's state into a file. Returns its size in bytes.
    pub async fn backup(&self, to: &mut File) -> Result<u64, ClientError> {
        let what = "the copy of the state";
        let request = self.request(Method::GET, "state/backup");
        let mut response = self.send(request, what, BACKUP).await?;
        let status = response.status();
        if !status.is_success() {
            let body = self.read(response, LARGEST_ERROR, what, BACKUP).await?;
            return Err(self.refused(status, &body, what));
        }
        let mut length = 0;
        loop {
            match response.chunk().await {
                Ok(None) => return Ok(length),
                Ok(Some(chunk)) => {
                    to.write_all(&chunk).map_err(ClientError::Write)?;
                    length += chunk.len() as u64;
                }
                Err(error) => return Err(self.unanswered(&error, what, BACKUP)),
            }
        }
    }

    /// The error for a received file that is not a copy of the state.
    pub fn no_state(&self) -> ClientError {
        self.broken("what it sent is not a copy of a state".to_owned())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None, QUESTION).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_string(body).map_err(|error| self.broken(error.to_string()))?;
        self.ask(Method::POST, path, Some(body), WORK).await
    }

    /// Sends a request and reads the answer, for `patience` at most.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let what = format!("the answer to {method} /v1/{}", path.split('?').next().unwrap_or(path));
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        let response = self.send(request, &what, patience).await?;
        let status = response.status();
        let largest = if status.is_success() { LARGEST_ANSWER } else { LARGEST_ERROR };
        let body = self.read(response, largest, &what, patience).await?;
        if !status.is_success() {
            return Err(self.refused(status, &body, &what));
        }
        serde_json::from_slice(&body).map_err(|error| {
            let came = came(status, &body);
            self.broken(format!("{what} is {came} ({})", printable(&error.to_string(), 200)))
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://runwatch/v1/{path}"))
    }

    /// Sends a request. The timeout includes the body of the answer.
    async fn send(
        &self,
        request: RequestBuilder,
        what: &str,
        patience: Duration,
    ) -> Result<Response, ClientError> {
        let sent = request.timeout(patience).send().await;
        sent.map_err(|error| self.unanswered(&error, what, patience))
    }

    /// Reads a whole answer, up to a limit, because the server may not be a daemon.
    async fn read(
        &self,
        mut response: Response,
        largest: usize,
        what: &str,
        patience: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(None) => return Ok(body),
                Ok(Some(chunk)) if body.len() + chunk.len() > largest => {
                    return Err(self.broken(format!("{what} is longer than {} kB", largest >> 10)));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Err(error) => return Err(self.unanswered(&error, what, patience)),
            }
        }
    }

    fn unanswered(&self, error: &reqwest::Error, what: &str, patience: Duration) -> ClientError {
        if error.is_timeout() {
            return silent(&self.socket, what, patience);
        }
        let why = crate::http::root_cause(error);
        let causes = std::iter::successors(error.source(), |cause| (*cause).source());
        let is_http =
            !causes.filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_parse);
        if is_http {
            ClientError::Gone { socket: self.socket.clone(), why }
        } else {
            self.broken(format!("{what} is not HTTP ({})", printable(&why, 200)))
        }
    }

    /// The daemon's refusal in its words. A refusal without a message does not come from a daemon.
    fn refused(&self, status: StatusCode, body: &[u8], what: &str) -> ClientError {
        let said = serde_json::from_slice::<Health>(body).map(|health| health.error);
        let said = said.ok().filter(|said| !printable(said, 1).is_empty());
        match (status.as_u16(), said) {
            (404, Some(error)) => ClientError::NotFound(error),
            (400..500, Some(error)) => ClientError::Refused(error),
            (500..600, Some(error)) => ClientError::Unavailable(error),
            _ => self.broken(format!("{what} is {}", came(status, body))),
        }
    }

    fn broken(&self, why: String) -> ClientError {
        broken(&self.socket, why)
    }
}

/// Describes an answer that does not come from a daemon: its status and the start of its body.
fn came(status: StatusCode, body: &[u8]) -> String {
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let begins = printable(&String::from_utf8_lossy(body), 200);
    let with = if begins.is_empty() { " with an empty body".to_owned() } else { format!(": {begins}") };
    format!("{}{reason}{with}", status.as_u16())
}

fn broken(socket: &Path, why: String) -> ClientError {
    ClientError::Broken { socket: socket.to_owned(), why }
}

/// Connects to a socket. If its queue is full, tries again shortly.
async fn reach(socket: &Path) -> std::io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(AGAIN).await,
            result => return result,
        }
    }
}

fn silent(socket: &Path, what: &str, waited: Duration) -> ClientError {
    ClientError::Silent { socket: socket.to_owned(), what: what.to_owned(), waited }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}
