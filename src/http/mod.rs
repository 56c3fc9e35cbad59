//! What all HTTP clients of runwatch share (TLS, proxies, safe defaults), and what servers on this machine share.

mod accept;
mod host;
mod lookup;
mod pool;
mod proxy;
mod retry_after;

use std::error::Error as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, Url, redirect};

use crate::run::printable;
use crate::small_file;

pub use accept::Accept;
pub use host::{HostError, Hosts, host_name};
pub use pool::{Generation, Pool};
pub use proxy::{Proxy, check_proxy, know_proxies, proxy_for, proxy_refused, via};
pub use retry_after::retry_after;

/// `runwatch/0.1.0`.
pub const USER_AGENT: &str = concat!("runwatch/", env!("CARGO_PKG_VERSION"));

/// Time between pings on an HTTP/2 connection. A firewall or load balancer may forget a connection without closing it.
/// Idle connections are pinged too, so that the next request finds a live one.
const PING_EVERY: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for TCP: sent data must be acknowledged within this time, and an idle peer must answer.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const TCP_KEEPALIVE_RETRIES: u32 = 3;

/// Why a client cannot be created. Ends the process, because the configuration or the machine is at fault.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The extra certificate authorities.
    #[error("cannot use the CA file {path}: {reason}; expected a PEM file with at least one certificate")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// The certificate authorities that the environment names instead of the system's.
    #[error("cannot use the CA file {path} that SSL_CERT_FILE names: {reason}; expected a PEM file")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// A channel's secrets.
    #[error("the channel `{name}` cannot be used: {why}")]
    Channel {
        /// The channel.
        name: String,
        /// What was wrong.
        why: String,
    },
    /// The proxy from the environment.
    #[error("{variable} is set, but {why}; expected a URL such as http://proxy.example.com:3128")]
    Proxy {
        /// The variable that holds it.
        variable: &'static str,
        /// What was wrong.
        why: &'static str,
    },
    /// TLS cannot be set up.
    #[error(
        "cannot set up TLS: {0}; a CA bundle is needed (Debian: the package ca-certificates), or set SSL_CERT_FILE"
    )]
    Tls(String),
}

/// A client builder that follows no redirects (they would send secrets elsewhere, and turn a POST into a GET) and sends
/// no Referer. It honours the proxy environment (`HTTPS_PROXY`, `NO_PROXY`, …) except for loopback. It trusts the
/// system's certificate authorities and those in `ca_file`.
///
/// An invalid proxy for the target in the environment is an error.
pub fn client_builder(target: &Url, ca_file: Option<&Path>) -> Result<ClientBuilder, SetupError> {
    builder(target, &read_extra(ca_file)?, proxy_for(target)?.as_ref())
}

fn builder(target: &Url, extra: &[Certificate], proxy: Option<&Proxy>) -> Result<ClientBuilder, SetupError> {
    // Fails only if a provider is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .dns_resolver(Arc::new(lookup::Lookup))
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .tcp_keepalive(TCP_KEEPALIVE)
        .tcp_keepalive_interval(TCP_KEEPALIVE_INTERVAL)
        .tcp_keepalive_retries(TCP_KEEPALIVE_RETRIES)
        .tcp_user_timeout(TCP_USER_TIMEOUT);
    if proxy.is_none() {
        builder = builder.no_proxy();
    }
    if target.scheme() == "http" && is_loopback(target) {
        // TLS is never used, and reading the system's authorities would only slow down the start.
        return Ok(builder.tls_certs_only(extra.iter().cloned()));
    }
    // The file is opened when the client is built, and opening a pipe would block until something writes to it.
    if let Some(path) = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from) {
        small_file::check_if_there(&path)
            .map_err(|error| SetupError::Authorities { path, reason: error.to_string() })?;
    }
    Ok(builder.tls_certs_merge(extra.iter().cloned()))
}

fn read_extra(ca_file: Option<&Path>) -> Result<Vec<Certificate>, SetupError> {
    ca_file.map(read_certificates).transpose().map(Option::unwrap_or_default)
}

/// Checks that the extra certificate authorities can be used.
pub fn check_ca_file(ca_file: Option<&Path>) -> Result<(), SetupError> {
    ca_file.map_or(Ok(()), |path| read_certificates(path).map(|_| ()))
}

/// Builds the client, and describes what went wrong if that fails.
pub fn build(builder: ClientBuilder) -> Result<Client, SetupError> {
    builder.build().map_err(|error| SetupError::Tls(root_cause(&error)))
}

/// The innermost cause of an error, on one line and without the URL. The outer causes only say that a request was sent.
pub fn root_cause(error: &reqwest::Error) -> String {
    if is_dead(error) {
        return "the other side no longer answers on it".to_owned();
    }
    let Some(mut cause) = error.source() else { return "the request could not be sent".to_owned() };
    let mut prefix = "";
    while let Some(inner) = cause.source() {
        if cause.to_string() == "dns error" {
            prefix = "the host name cannot be resolved: ";
        }
        cause = inner;
    }
    let cause = match cause.to_string().as_str() {
        "tunnel error: proxy authorization required" => {
            "it answered 407 Proxy Authentication Required; check the user and password in its URL".to_owned()
        }
        "tunnel error: unexpected end of file" => "it closed the connection".to_owned(),
        "tunnel error: unsuccessful" => "it refused to connect to the host".to_owned(),
        // The library's message continues with a link for developers.
        eof if eof.starts_with("peer closed connection without sending TLS close_notify") => {
            "the other side closed it".to_owned()
        }
        other => other.to_owned(),
    };
    printable(&format!("{prefix}{cause}"), 200)
}

/// Whether the connection was closed because its pings got no answer.
pub fn is_dead(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.to_string() == "keep-alive timed out" {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether an HTTP/2 connection or stream failed. Such a connection stays in use unless it is dropped.
fn is_http2(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<h2::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether a URL names this machine: `localhost`, 127.0.0.0/8 or `[::1]`.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate>, SetupError> {
    let failed = |reason: String| SetupError::CaFile { path: path.to_owned(), reason };
    let pem = small_file::read(path, small_file::LARGE).map_err(|error| failed(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("it has no certificate in it".to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_loopback() {
        for (url, expected) in [
            ("http://localhost:8080", true),
            ("http://LOCALHOST", true),
            ("http://127.0.0.1", true),
            ("http://127.8.9.1:1", true),
            ("http://[::1]:80", true),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
            ("http://[::2]", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
