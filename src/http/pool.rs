//! An HTTP client that can drop its connections.
//!
//! A connection can die unnoticed: a load balancer fails over, and TCP still acknowledges data that nobody reads.
//! HTTP/2 uses one connection for all requests, so none of them would ever get an answer. After a failure is reported,
//! the next request opens a new connection. Used by the API client and the webhooks.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::{Certificate, Client, ClientBuilder, Url};
use tracing::debug;

use super::{Proxy, SetupError, build, builder, is_http2, proxy_for, read_extra};

/// The connections that a request used: those before a drop, or those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

/// Adds one client's own settings.
type Configure = Box<dyn Fn(ClientBuilder) -> ClientBuilder + Send + Sync>;

/// A client for one host.
pub struct Pool {
    target: Url,
    extra: Vec<Certificate>,
    proxy: Option<Proxy>,
    settings: Configure,
    current: Mutex<(Generation, Client)>,
}

impl Pool {
    /// A client for requests to `target`, made by [`client_builder`](super::client_builder) with additional `settings`.
    /// Files are read now and never again.
    pub fn new(
        target: &Url,
        ca_file: Option<&Path>,
        settings: impl Fn(ClientBuilder) -> ClientBuilder + Send + Sync + 'static,
    ) -> Result<Self, SetupError> {
        let (extra, proxy) = (read_extra(ca_file)?, proxy_for(target)?);
        let client = build(settings(builder(target, &extra, proxy.as_ref())?))?;
        let current = Mutex::new((Generation(0), client));
        Ok(Self { target: target.clone(), extra, proxy, settings: Box::new(settings), current })
    }

    /// The client to send the next request with.
    pub fn client(&self) -> (Generation, Client) {
        self.current().clone()
    }

    /// The proxy for the requests.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// Reports a failed request. After a timeout or an HTTP/2 error, later requests do not use its connection.
    pub fn failed(&self, error: &reqwest::Error, on: Generation) {
        if !error.is_timeout() && !is_http2(error) {
            // HTTP/1 closes a broken connection itself.
            return;
        }
        self.leave(on);
    }

    /// Later requests do not use the connections of this request. Requests in flight on them continue.
    pub fn leave(&self, on: Generation) {
        let mut current = self.current();
        if current.0 != on {
            return;
        }
        let builder = builder(&self.target, &self.extra, self.proxy.as_ref());
        match builder.and_then(|builder| build((self.settings)(builder))) {
            Ok(client) => {
                debug!(host = self.target.host_str(), "the next request opens a new connection");
                *current = (Generation(on.0 + 1), client);
            }
            Err(error) => debug!("cannot open new connections: {error}"),
        }
    }

    fn current(&self) -> MutexGuard<'_, (Generation, Client)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
