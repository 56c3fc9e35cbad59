//! A client whose connections can be dropped.
//!
//! A connection can die without a word: a load balancer fails over, and TCP goes on acknowledging what nobody reads. HTTP/2
//! puts every request on that one connection, so whoever keeps it never gets an answer again. Whoever sends reports what
//! failed, and the next request gets connections of its own. The API client and the webhooks use it.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::{Certificate, Client, ClientBuilder, Url};
use tracing::debug;

use super::{Proxy, SetupError, build, builder, is_http2, proxy_for, read_extra};

/// Which connections a request was sent on: those up to a drop, or those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

/// What one client needs: settings of its own.
type Settings = Box<dyn Fn(ClientBuilder) -> ClientBuilder + Send + Sync>;

/// A client for one host.
pub struct Pool {
    target: Url,
    extra: Vec<Certificate>,
    proxy: Option<Proxy>,
    settings: Settings,
    current: Mutex<(Generation, Client)>,
}

impl Pool {
    /// A client for requests to `target`, as [`client_builder`](super::client_builder) makes it, with more `settings`. The
    /// files are read now, and never again.
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

    /// The proxy that requests go through.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// A request failed. After a time-out, and after an error of HTTP/2, its connection is not used again.
    pub fn failed(&self, error: &reqwest::Error, on: Generation) {
        if !error.is_timeout() && !is_http2(error) {
            // HTTP/1 closes what has broken by itself.
            return;
        }
        self.leave(on);
    }

    /// The connections of a request are not used again. Requests that are under way on them go on.
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
