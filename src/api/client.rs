//! The HTTP client for the API.
//!
//! Owns the connection pool, the headers of every request and the API key in use. The scheduler decides what to request
//! and when. [`ApiSettings::read_key`] says where the key comes from.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, DATE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url, Version};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::body;
use super::list::{Element, Entries, Listed, Skipped, Splitter};
use super::wire::{self, NotARun};
use super::{Answer, Listing, PollError, PollErrorKind, RunSource, Wanted, redacted, refusal};
use crate::BoxFuture;
use crate::blocking;
use crate::clock;
use crate::http::{self, Generation, Pool, Proxy};
use crate::run::{RunId, printable};
use crate::secret::{Redactor, Secret};
use crate::span;

/// Maximum size of a body, decompressed: a run with 20,000 files is about 3 MiB.
pub const MAX_BODY: usize = 16 * 1024 * 1024;

/// Maximum size of an error body; a longer one is cut.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// RFC 3986, section 2.3: everything but the unreserved characters is encoded in a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Reads the API key from its source. The error says what is wrong there and what to do.
pub type ReadKey = Arc<dyn Fn() -> Result<Secret, String> + Send + Sync>;

/// The client's settings.
#[derive(Clone)]
pub struct ApiSettings {
    /// Scheme, host and path prefix that `/api/dataframer/runs/…` is appended to; no trailing slash.
    pub base_url: Url,
    /// Reads the key, at the start and whenever it is refused.
    pub read_key: ReadKey,
    /// Extra headers for every request. They replace the client's own.
    pub headers: Vec<(String, Secret)>,
    /// PEM file of certificate authorities to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// For the TCP and TLS handshakes.
    pub connect_timeout: Duration,
    /// For a whole request, from connecting to the last byte of the body.
    pub request_timeout: Duration,
}

/// Why a client cannot be created. Ends the process, because the configuration is wrong.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A missing key, or one that cannot be sent.
    #[error("{0}")]
    Key(String),
    /// A custom header that HTTP does not allow.
    #[error(
        "the custom header `{0}` cannot be sent: a name is letters, digits and dashes, a value has no line breaks"
    )]
    Header(String),
    /// TLS or the extra certificate authorities.
    #[error(transparent)]
    Http(#[from] http::SetupError),
}

/// The API over HTTP.
pub struct ApiClient {
    http: Pool,
    /// URL of the list. A run's URL is built from it, because parsing a whole URL takes a tenth of a poll's time.
    runs: Url,
    key: RwLock<HeaderValue>,
    /// Knows all keys used so far and the custom headers, because an answer may repeat the request.
    redactor: RwLock<Arc<Redactor>>,
    /// Whether a custom `Authorization` header replaces the key, as in the official SDK.
    own_authorization: bool,
    read_key: ReadKey,
    connect_timeout: Duration,
    request_timeout: Duration,
    /// Difference between this machine's clock and the API's at the last answer.
    skew: Mutex<Option<Duration>>,
    /// The unreadable entries of the last list.
    skipped: Mutex<Skipped>,
}

impl ApiClient {
    /// Reads the key and creates the connection pool. Sends nothing.
    pub fn new(settings: &ApiSettings) -> Result<Self, SetupError> {
        let key = (settings.read_key)().map_err(SetupError::Key)?;
        let mut redactor = Redactor::new([key.expose()]);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        for (name, value) in &settings.headers {
            let bad = || SetupError::Header(printable(name, 60));
            redactor.add_header(name, value.expose());
            let name = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let own_authorization = headers.contains_key(AUTHORIZATION);
        let (connect, request) = (settings.connect_timeout, settings.request_timeout);
        let http = Pool::new(&settings.base_url, settings.ca_file.as_deref(), move |builder| {
            builder.default_headers(headers.clone()).connect_timeout(connect).timeout(request)
        })?;
        if let Some(login) = http.proxy().and_then(Proxy::login) {
            redactor.add(login);
            redactor.add(login.split_once(':').map_or(login, |(_, password)| password));
        }
        let mut runs = settings.base_url.clone();
        runs.set_path(&format!("{}/api/dataframer/runs/", runs.path().trim_end_matches('/')));
        Ok(Self {
            http,
            runs,
            key: RwLock::new(bearer(&key)?),
            redactor: RwLock::new(Arc::new(redactor)),
            own_authorization,
            read_key: Arc::clone(&settings.read_key),
            connect_timeout: settings.connect_timeout,
            request_timeout: settings.request_timeout,
            skew: Mutex::default(),
            skipped: Mutex::default(),
        })
    }

    /// The URL that a run is polled at, for people to copy.
    pub fn run_url(&self, id: &RunId) -> Url {
        let mut url = self.runs.clone();
        url.set_path(&format!("{}{}/", self.runs.path(), utf8_percent_encode(id.as_str(), SEGMENT)));
        url
    }

    /// Difference between this machine's clock and the API's at the last answer; `None` if the API gave no time.
    pub fn clock_skew(&self) -> Option<Duration> {
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the list of all runs of the company, newest first, and returns those that `keep` accepts. Streams the
    /// list, so the other runs take no memory.
    pub async fn list_runs(
        &self,
        keep: impl FnMut(&mut Listed) -> bool + Send,
    ) -> Result<Listing, PollError> {
        let mut call = Call::new(self.http.client());
        let listing = self.try_to_list(&mut call, keep).await;
        match &listing {
            Ok(listing) => call.log("the list of runs", format_args!("{} runs wanted", listing.runs.len())),
            Err(error) => call.log("the list of runs", format_args!("{error}")),
        }
        listing
    }

    async fn try_to_list(
        &self,
        call: &mut Call,
        mut keep: impl FnMut(&mut Listed) -> bool + Send,
    ) -> Result<Listing, PollError> {
        let mut response = self.get(self.runs.clone(), call).await?;
        let html = body::is_html(response.headers());
        let (mut splitter, mut listing) = (Splitter::default(), Listing::default());
        let redactor = self.redactor();
        let mut entries = Entries::default();
        let mut take = |element: Element<'_>| {
            let Some(mut listed) = entries.read(element) else { return };
            listing.newest = listing.newest.max(listed.run.created_at);
            if keep(&mut listed) {
                listed.run = redacted::run(&redactor, listed.run);
                listing.runs.push(listed);
            }
        };
        loop {
            let chunk = response.chunk().await.map_err(|error| self.trouble(&error, call))?;
            let Some(chunk) = chunk else { break };
            call.bytes += chunk.len();
            splitter.feed(&chunk, &mut take)?;
        }
        splitter.finish().map_err(|error| if html { self.not_a_run(&NotARun::Html) } else { error })?;
        let skipped = entries.skipped;
        self.warn_of_skipped(&skipped);
        Ok(Listing { bytes: call.bytes, skipped, ..listing })
    }

    /// Warns about unreadable entries, unless the last list had the same ones: lists can come every second.
    fn warn_of_skipped(&self, skipped: &Skipped) {
        let mut last = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        if skipped.count > 0 && *last != *skipped {
            warn!(
                "{}. Skipped runs are polled one by one if they are watched, and are not discovered",
                self.redactor().redact(&skipped.to_string())
            );
        }
        last.clone_from(skipped);
    }

    async fn get_run(&self, id: &RunId) -> Result<Answer, PollError> {
        let mut call = Call::new(self.http.client());
        let answer = self.try_to_get_run(&mut call, id).await;
        match &answer {
            Ok(answer) => call.log(id.as_str(), format_args!("{}", answer.run.status)),
            Err(error) => call.log(id.as_str(), format_args!("{error}")),
        }
        answer
    }

    async fn try_to_get_run(&self, call: &mut Call, id: &RunId) -> Result<Answer, PollError> {
        let response = self.get(self.run_url(id), call).await?;
        let html = body::is_html(response.headers());
        let body = read_body(response, MAX_BODY, &mut call.bytes).await.map_err(|error| match error {
            BodyError::TooLarge => PollError::transient(format!(
                "the answer is larger than {} MiB and was not read",
                MAX_BODY >> 20
            )),
            BodyError::Broken(error) => self.trouble(&error, call),
        })?;
        match wire::read(&body, id.as_str()) {
            Ok((run, body)) => {
                let redactor = self.redactor();
                Ok(Answer { run: redacted::run(&redactor, run), body: redacted::body(&redactor, body) })
            }
            Err(_) if html => Err(self.not_a_run(&NotARun::Html)),
            Err(why) => Err(self.not_a_run(&why)),
        }
    }

    /// Sends one request and returns the answer if it is a success.
    async fn get(&self, url: Url, call: &mut Call) -> Result<Response, PollError> {
        let mut request = call.client.get(url);
        if !self.own_authorization {
            request = request
                .header(AUTHORIZATION, self.key.read().unwrap_or_else(PoisonError::into_inner).clone());
        }
        let response = request.send().await.map_err(|error| self.trouble(&error, call))?;
        call.answered(&response);
        let status = response.status();
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Err(PollError::transient(http::proxy_refused(self.http.proxy())));
        }
        if status == StatusCode::MISDIRECTED_REQUEST {
            // The connection is wrong, not the request (RFC 9110, section 15.5.20).
            self.http.leave(call.generation);
        }
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner) = skew(response.headers());
        if !status.is_success() {
            let headers = response.headers().clone();
            // If the body is cut off, the status alone is enough.
            let body = read_body(response, MAX_ERROR_BODY, &mut call.bytes).await.unwrap_or_default();
            let mut error = refusal::poll_error(status, &headers, &body, clock::wall());
            if !error.from_api {
                error.message += &http::via(self.http.proxy());
            }
            return Err(redacted::error(&self.redactor(), error));
        }
        Ok(response)
    }

    fn redactor(&self) -> Arc<Redactor> {
        Arc::clone(&self.redactor.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn not_a_run(&self, why: &NotARun) -> PollError {
        PollError {
            kind: PollErrorKind::Transient,
            message: why.describe(&http::via(self.http.proxy())),
            from_api: false,
            is_page: matches!(why, NotARun::Html),
            retry_after: None,
        }
    }

    /// A message for a transport error, without the URL. If the connection may be dead, the next request uses a new
    /// one.
    fn trouble(&self, error: &reqwest::Error, call: &Call) -> PollError {
        self.http.failed(error, call.generation);
        let (cause, via) = (http::root_cause(error), http::via(self.http.proxy()));
        let error = PollError::transient(if error.is_timeout() {
            if error.is_connect() {
                format!("no connection within {}{via}", span::human(self.connect_timeout))
            } else if http::is_dead(error) {
                format!("the connection{via} broke: {cause}")
            } else {
                format!("no answer within {}{via}", span::human(self.request_timeout))
            }
        } else if error.is_connect() {
            format!("cannot connect{via}: {cause}")
        } else {
            format!("the connection{via} broke: {cause}")
        });
        redacted::error(&self.redactor(), error)
    }
}

/// One request from its start, for the log.
struct Call {
    client: Client,
    generation: Generation,
    began: Instant,
    status: Option<StatusCode>,
    version: Option<Version>,
    /// Size of the body, decompressed.
    bytes: usize,
}

impl Call {
    fn new((generation, client): (Generation, Client)) -> Self {
        Self { client, generation, began: Instant::now(), status: None, version: None, bytes: 0 }
    }

    fn answered(&mut self, response: &Response) {
        self.status = Some(response.status());
        self.version = Some(response.version());
    }

    /// One line at `debug`, without the key, headers or body.
    fn log(&self, about: &str, answer: fmt::Arguments<'_>) {
        debug!(
            status = self.status.map(|status| status.as_u16()),
            took_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            bytes = self.bytes,
            version = self.version.map(tracing::field::debug),
            "asked for {about}: {answer}"
        );
    }
}

impl RunSource for ApiClient {
    fn poll<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Answer, PollError>> {
        Box::pin(self.get_run(id))
    }

    fn list(&self, wanted: Wanted) -> BoxFuture<'_, Result<Listing, PollError>> {
        Box::pin(async move { self.list_runs(|listed| wanted(listed)).await })
    }

    fn reload_key(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            let read_key = Arc::clone(&self.read_key);
            let read = blocking::run("key", move || read_key());
            let key = read.await.map_err(|error| error.to_string())??;
            let value = bearer(&key).map_err(|error| error.to_string())?;
            // Later answers may still repeat the old key.
            Arc::make_mut(&mut self.redactor.write().unwrap_or_else(PoisonError::into_inner))
                .add(key.expose());
            *self.key.write().unwrap_or_else(PoisonError::into_inner) = value;
            Ok(())
        })
    }
}

fn bearer(key: &Secret) -> Result<HeaderValue, SetupError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).map_err(|_| {
        SetupError::Key(
            "the API key has characters in it that cannot be sent (a line break?); paste it again".to_owned(),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Difference between the time in an answer and this machine's clock.
fn skew(headers: &HeaderMap) -> Option<Duration> {
    let there = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let there = jiff::Timestamp::try_from(there).ok()?;
    Some(clock::wall().duration_since(there).unsigned_abs())
}

enum BodyError {
    TooLarge,
    Broken(reqwest::Error),
}

/// Reads a whole body. Counts decompressed bytes, which stops a gzip bomb too.
async fn read_body(mut response: Response, limit: usize, bytes: &mut usize) -> Result<Bytes, BodyError> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(BodyError::TooLarge);
    }
    let Some(first) = response.chunk().await.map_err(BodyError::Broken)? else { return Ok(Bytes::new()) };
    *bytes += first.len();
    let Some(second) = response.chunk().await.map_err(BodyError::Broken)? else {
        return if first.len() > limit { Err(BodyError::TooLarge) } else { Ok(first) };
    };
    *bytes += second.len();
    let mut body = BytesMut::from(first);
    body.extend_from_slice(&second);
    while body.len() <= limit {
        let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? else {
            return Ok(body.freeze());
        };
        *bytes += chunk.len();
        body.extend_from_slice(&chunk);
    }
    Err(BodyError::TooLarge)
}
