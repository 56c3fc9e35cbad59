//! The commands' side of the socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::{
    AddRequest, Added, Deliveries, Health, NewRun, ReloadAnswer, ResendRequest, RetryRequest, Run, Runs,
    Settled, Status,
};
use crate::run::{RunId, printable};
use crate::store::DeliveryFilter;

/// Longer than anything that the daemon does on request takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Speaks to a daemon.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

/// Why the daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is none, or not there.
    #[error(
        "no daemon listens on {}; start one with `runwatch daemon` or `systemctl start runwatch`, or set RUNWATCH_SOCKET",
        .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
    )]
    NoDaemon(Vec<PathBuf>),
    /// There is one, and this user may not speak to it.
    #[error(
        "you may not use {}: be its owner, or set socket_mode = \"0660\" in [daemon] and be in its group",
        .0.display()
    )]
    Forbidden(PathBuf),
    /// It refused, in these words.
    #[error("{0}")]
    Refused(String),
    /// It cannot do it now.
    #[error("{0}")]
    Unavailable(String),
    /// It does not know what was asked about.
    #[error("{0}")]
    NotFound(String),
    /// It could not be understood.
    #[error("the daemon's answer cannot be used: {0}")]
    Broken(String),
}

impl Client {
    /// For the first of these sockets that a daemon listens on. Nothing is sent yet.
    pub fn connect(candidates: &[PathBuf]) -> Result<Self, ClientError> {
        let mut forbidden = None;
        for socket in candidates {
            match std::os::unix::net::UnixStream::connect(socket) {
                Ok(_) => return Self::on(socket),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    forbidden.get_or_insert_with(|| socket.clone());
                }
                Err(_) => {}
            }
        }
        Err(forbidden.map_or_else(|| ClientError::NoDaemon(candidates.to_vec()), ClientError::Forbidden))
    }

    fn on(socket: &Path) -> Result<Self, ClientError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http =
            reqwest::Client::builder().unix_socket(socket).tls_certs_only([]).no_proxy().timeout(TIMEOUT);
        let http = http.build().map_err(|error| ClientError::Broken(crate::http::root_cause(&error)))?;
        Ok(Self { http, socket: socket.to_owned() })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How the daemon stands.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("status").await
    }

    /// Every run it knows.
    pub async fn runs(&self) -> Result<Runs, ClientError> {
        self.get("runs").await
    }

    /// One run.
    pub async fn run(&self, id: &RunId) -> Result<Run, ClientError> {
        self.get(&format!("runs/{}", encoded(id.as_str()))).await
    }

    /// Has runs watched. When this returns, that is durable.
    pub async fn add(&self, runs: Vec<NewRun>) -> Result<Added, ClientError> {
        self.post("runs", &AddRequest { runs }).await
    }

    /// Has a run watched no more.
    pub async fn remove(&self, id: &RunId) -> Result<Run, ClientError> {
        self.ask(Method::DELETE, &format!("runs/{}", encoded(id.as_str())), None).await
    }

    /// Deliveries, the latest first.
    pub async fn deliveries(&self, filter: &DeliveryFilter, limit: u32) -> Result<Deliveries, ClientError> {
        let query = serde_json::to_string(filter).map_err(|error| ClientError::Broken(error.to_string()))?;
        self.get(&format!("deliveries?limit={limit}&filter={}", encoded(&query))).await
    }

    /// Makes undelivered deliveries due now.
    pub async fn retry(&self, request: &RetryRequest) -> Result<Settled, ClientError> {
        self.post("deliveries/retry", request).await
    }

    /// Sends events once more.
    pub async fn resend(&self, request: &ResendRequest) -> Result<Settled, ClientError> {
        self.post("deliveries/resend", request).await
    }

    /// Has the configuration read again.
    pub async fn reload(&self) -> Result<ReloadAnswer, ClientError> {
        self.ask(Method::POST, "reload", None).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_string(body).map_err(|error| ClientError::Broken(error.to_string()))?;
        self.ask(Method::POST, path, Some(body)).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<T, ClientError> {
        let broken = |error: &reqwest::Error| ClientError::Broken(crate::http::root_cause(error));
        let mut request = self.http.request(method, format!("http://runwatch/v1/{path}"));
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        let response = request.send().await.map_err(|error| broken(&error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| broken(&error))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| ClientError::Broken(error.to_string()));
        }
        let error = serde_json::from_slice::<Health>(&body)
            .map_or_else(|_| printable(&String::from_utf8_lossy(&body), 500), |health| health.error);
        Err(match status.as_u16() {
            404 => ClientError::NotFound(error),
            503 => ClientError::Unavailable(error),
            _ => ClientError::Refused(error),
        })
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}
