//! The webhook channel: Standard Webhooks 1.0.0.
//!
//! Makes one POST request: headers, signatures, and the meaning of each answer. The URL is a credential, so errors show
//! only its scheme and host.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use tokio::time::timeout;

use super::{LONGEST_ANSWER, Notice, Notifier, NotifyError, Retry, SigningSecret};
use crate::BoxFuture;
use crate::clock;
use crate::http::{self, Generation, Pool};
use crate::run::printable;

/// Maximum time for the receiver's answer.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum size of an answer, in bytes, and maximum time to read it.
const MAX_ANSWER: usize = 16 * 1024;
const DRAIN: Duration = Duration::from_millis(500);

/// Settings of a webhook channel.
#[derive(Clone)]
pub struct WebhookSettings {
    /// The target URL.
    pub url: Url,
    /// Keys to sign with; without any, requests are unsigned.
    pub secrets: Vec<SigningSecret>,
    /// PEM file of certificate authorities to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
}

/// Sends events to a URL.
pub struct Webhook {
    http: Pool,
    url: Url,
    secrets: Vec<SigningSecret>,
}

impl Webhook {
    /// Creates the client. Sends nothing.
    pub fn new(settings: WebhookSettings) -> Result<Self, http::SetupError> {
        let http = Pool::new(&settings.url, settings.ca_file.as_deref(), |builder| {
            builder.connect_timeout(Duration::from_secs(10)).timeout(TIMEOUT)
        })?;
        Ok(Self { http, url: settings.url, secrets: settings.secrets })
    }

    async fn post(&self, notice: &Notice) -> Result<(), NotifyError> {
        // The time of the attempt, not of the event, because receivers refuse old timestamps.
        let timestamp = clock::wall().as_second();
        let (generation, client) = self.http.client();
        let mut request = client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("webhook-id", notice.event_id.as_str())
            .header("webhook-timestamp", timestamp);
        if !self.secrets.is_empty() {
            let sign = |secret: &SigningSecret| {
                secret.sign(notice.event_id.as_str(), timestamp, notice.json.as_bytes())
            };
            let signatures: Vec<String> = self.secrets.iter().map(sign).collect();
            request = request.header("webhook-signature", signatures.join(" "));
        }
        let mut response = request
            .body(notice.json.to_string())
            .send()
            .await
            .map_err(|error| self.trouble(&error, generation))?;
        let status = response.status();
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Err(NotifyError::retryable(http::proxy_refused(self.http.proxy())));
        }
        let wait = http::retry_after(response.headers(), clock::wall());
        // Only the status counts. The body is for people, even if it is cut off.
        let answer = said(&mut response).await;
        self.judge(status, wait).map_err(|error| error.with_answer(answer))
    }

    /// The meaning of an answer. Only 2xx is a success; docs/notifications.md has the table.
    fn judge(&self, status: StatusCode, wait: Option<Duration>) -> Result<(), NotifyError> {
        let host = self.host();
        match status {
            _ if status.is_success() => Ok(()),
            StatusCode::GONE => Err(NotifyError::new(
                Retry::Disable,
                format!("{host} answered {status} and wants no more webhooks"),
            )),
            _ if status.is_redirection() => Err(NotifyError::new(
                Retry::NotBefore(wait),
                format!("{host} answered {status}; redirects are not followed: set the final URL"),
            )),
            _ => Err(NotifyError::new(kind_of(status, wait), format!("{host} answered {status}"))),
        }
    }

    fn trouble(&self, error: &reqwest::Error, generation: Generation) -> NotifyError {
        self.http.failed(error, generation);
        let (host, via) = (self.host(), http::via(self.http.proxy()));
        NotifyError::retryable(if error.is_timeout() && !http::is_dead(error) {
            format!("{host} did not answer in time{via}")
        } else if error.is_connect() {
            format!("cannot connect to {host}{via}: {}", http::root_cause(error))
        } else {
            format!("the connection to {host}{via} broke: {}", http::root_cause(error))
        })
    }

    /// Scheme, host and port: the only part of the URL that may be shown.
    fn host(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

impl Notifier for Webhook {
    fn send<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(self.post(notice))
    }
}

/// The kind of a refusal. 401, 403 and 404 are configuration mistakes that either side can fix.
fn kind_of(status: StatusCode, wait: Option<Duration>) -> Retry {
    match (status, wait) {
        (StatusCode::TOO_MANY_REQUESTS, wait) => Retry::SlowDown(wait),
        (StatusCode::SERVICE_UNAVAILABLE, Some(wait)) => Retry::Unavailable(wait),
        (
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY,
            _,
        ) => Retry::Undeliverable,
        (_, wait) => Retry::NotBefore(wait),
    }
}

/// The start of the body, on one line.
async fn said(response: &mut Response) -> String {
    let mut kept = Vec::new();
    let _ = timeout(DRAIN, drain(response, &mut kept)).await;
    printable(&String::from_utf8_lossy(&kept), LONGEST_ANSWER)
}

/// Keeps the start of the body, and reads a little more, so that the connection can be used again.
async fn drain(response: &mut Response, kept: &mut Vec<u8>) {
    let mut read = 0;
    while read < MAX_ANSWER {
        let Ok(Some(chunk)) = response.chunk().await else { return };
        read += chunk.len();
        let room = LONGEST_ANSWER.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(status: u16, wait: Option<u64>) -> Result<(), Retry> {
        let settings = WebhookSettings {
            url: Url::parse("http://127.0.0.1:9/secret/path?token=hunter2").unwrap(),
            secrets: Vec::new(),
            ca_file: None,
        };
        let judged = Webhook::new(settings)
            .unwrap()
            .judge(StatusCode::from_u16(status).unwrap(), wait.map(Duration::from_secs));
        judged.map_err(|error| {
            assert!(error.message.contains("http://127.0.0.1:9"), "{error}");
            assert!(!error.message.contains("secret") && !error.message.contains("hunter2"), "{error}");
            error.retry
        })
    }

    #[test]
    fn every_status_has_its_meaning() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(judge(status, None), Ok(()), "{status}");
        }
        for status in [301, 307, 401, 403, 404, 405, 408, 425, 500, 501, 502, 503, 504] {
            assert_eq!(judge(status, None), Err(Retry::NotBefore(None)), "{status}");
        }
        assert_eq!(judge(410, None), Err(Retry::Disable));
        let nine = Some(Duration::from_secs(9));
        for (status, wait, expected) in [
            (429, Some(9), Retry::SlowDown(nine)),
            (429, None, Retry::SlowDown(None)),
            (503, Some(9), Retry::Unavailable(Duration::from_secs(9))),
            (500, Some(9), Retry::NotBefore(nine)),
            (404, Some(9), Retry::NotBefore(nine)),
            (400, None, Retry::Undeliverable),
            (413, Some(9), Retry::Undeliverable),
            (415, None, Retry::Undeliverable),
            (422, None, Retry::Undeliverable),
        ] {
            assert_eq!(judge(status, wait), Err(expected), "{status}");
        }
    }
}
