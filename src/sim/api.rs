//! The simulated API: routes, keys and errors, on top of the scenario and its faults.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, USER_AGENT, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::answers::{
    PREFIX, broken, elsewhere, empty, error, html, json, not_allowed, not_found, with_retry_after,
};
use super::body;
use super::faults::{FaultKind, Faults};
use super::scenario::{SimRun, Snapshot, Timeline};
use super::serve::{Handler, Reply, Server, serve};
use crate::clock;
use crate::run::RunId;
use crate::secret::Secret;

/// Maximum number of requests to remember.
const REMEMBERED: usize = 100_000;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct SimulatorSettings {
    /// The address to listen on; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// The runs, oldest first.
    pub runs: Vec<SimRun>,
    /// The faults.
    pub faults: Faults,
    /// The one key that is accepted; `None` accepts any.
    pub api_key: Option<Secret>,
    /// The same seed, scenario and requests give the same answers.
    pub seed: u64,
    /// How many times faster than real time the simulation runs.
    pub speed: f64,
}

impl Default for SimulatorSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            runs: Vec::new(),
            faults: Faults::default(),
            api_key: None,
            seed: 1,
            speed: 1.0,
        }
    }
}

/// A received request.
#[derive(Debug, Clone)]
pub struct Request {
    /// When it was received.
    pub at: Instant,
    /// `GET`, …
    pub method: String,
    /// The path as sent, still encoded.
    pub path: String,
    /// The `User-Agent`.
    pub user_agent: String,
    /// The status of the answer; 0 for a reset.
    pub status: u16,
}

/// The simulated API. It stops when dropped.
#[derive(Debug)]
pub struct Simulator {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: SimulatorSettings,
    started: Instant,
    started_wall: Timestamp,
    changing: Mutex<Changing>,
}

#[derive(Debug)]
struct Changing {
    runs: Vec<Timeline>,
    canceled_after: HashMap<RunId, Duration>,
    random: fastrand::Rng,
    requests: Vec<Request>,
    /// The accepted key, which can be rotated.
    api_key: Option<Secret>,
    faults: Faults,
}

impl Simulator {
    /// Starts the server.
    pub async fn start(settings: SimulatorSettings) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            started: Instant::now(),
            started_wall: clock::wall(),
            changing: Mutex::new(Changing {
                runs: settings.runs.iter().map(|run| Timeline::new(run.clone(), settings.seed)).collect(),
                canceled_after: HashMap::new(),
                random: fastrand::Rng::with_seed(settings.seed),
                requests: Vec::new(),
                api_key: settings.api_key.clone(),
                faults: settings.faults.clone(),
            }),
            settings,
        });
        let server = serve(shared.settings.listen, Arc::clone(&shared)).await?;
        Ok(Self { server, shared })
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// The received requests, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.changing().requests.clone()
    }

    /// Deletes a run, which is not found from now on. Returns false if there was none.
    pub fn delete(&self, id: &RunId) -> bool {
        self.shared.delete(id)
    }

    /// Accepts only this key from now on.
    pub fn rotate_key(&self, key: &str) {
        self.shared.changing().api_key = Some(Secret::new(key));
    }

    /// Uses these faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.changing().faults = faults;
    }
}

impl Handler for Shared {
    async fn handle(self: Arc<Self>, request: hyper::Request<Incoming>) -> Reply {
        let (fault, latency, retry_after) = {
            let mut changing = self.changing();
            let Changing { faults, random, .. } = &mut *changing;
            (faults.strike(random), faults.latency, faults.retry_after)
        };
        if !latency.is_zero() {
            sleep(latency).await;
        }
        let reply = match fault {
            Some(FaultKind::Reset) => Reply::Reset,
            Some(FaultKind::Html) => html(StatusCode::OK, "Welcome"),
            Some(FaultKind::Status(code)) => {
                let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
                let limits = matches!(code, 429 | 503);
                with_retry_after(error(status), retry_after.filter(|_| limits))
            }
            Some(FaultKind::Truncate) => broken(self.answer(&request)),
            None => self.answer(&request),
        };
        self.remember(&request, &reply);
        reply
    }
}

impl Shared {
    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, request: &hyper::Request<Incoming>, reply: &Reply) {
        let header = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        let remembered = Request {
            at: Instant::now(),
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            user_agent: header.unwrap_or_default().to_owned(),
            status: match reply {
                Reply::Answer(response) => response.status().as_u16(),
                Reply::Reset => 0,
            },
        };
        let mut changing = self.changing();
        if changing.requests.len() < REMEMBERED {
            changing.requests.push(remembered);
        }
    }

    /// The API's answer without faults.
    fn answer(&self, request: &hyper::Request<Incoming>) -> Reply {
        if !self.knows_key(request) {
            let mut reply = json(StatusCode::UNAUTHORIZED, &body::detail("Invalid API key."));
            if let Reply::Answer(response) = &mut reply {
                response
                    .headers_mut()
                    .insert(WWW_AUTHENTICATE, hyper::header::HeaderValue::from_static("Bearer"));
            }
            return reply;
        }
        let path = request.uri().path();
        let Some(rest) = path.strip_prefix(PREFIX) else { return elsewhere(path) };
        if rest.is_empty() {
            return if request.method() == Method::GET { self.list() } else { not_allowed(request.method()) };
        }
        let Some(rest) = rest.strip_suffix('/') else { return elsewhere(path) };
        let (id, verb) = rest.split_once('/').unwrap_or((rest, ""));
        let decoded = percent_encoding::percent_decode_str(id).decode_utf8_lossy();
        let id = decoded.parse::<RunId>().ok();
        match (request.method(), verb) {
            (&Method::GET, "") => self.run(id.as_ref()),
            (&Method::DELETE, "") if id.as_ref().is_some_and(|id| self.delete(id)) => {
                empty(StatusCode::NO_CONTENT)
            }
            (&Method::POST, "cancel") => self.cancel(id.as_ref()),
            (&Method::DELETE, "") => not_found(),
            (method, "" | "cancel") => not_allowed(method),
            _ => html(StatusCode::NOT_FOUND, "Not Found"),
        }
    }

    fn knows_key(&self, request: &hyper::Request<Incoming>) -> bool {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(key) = header.and_then(|value| value.strip_prefix("Bearer ")) else { return false };
        self.changing().api_key.as_ref().map_or(!key.trim().is_empty(), |expected| expected.expose() == key)
    }

    fn run(&self, id: Option<&RunId>) -> Reply {
        let changing = self.changing();
        let Some(timeline) = self.find(id, &changing) else { return not_found() };
        let (snapshot, created_at) = self.snapshot(timeline, &changing);
        json(StatusCode::OK, &body::run(timeline, &snapshot, created_at))
    }

    /// All runs, newest first.
    fn list(&self) -> Reply {
        let changing = self.changing();
        let there = changing.runs.iter().rev().filter(|timeline| self.is_there(timeline));
        let mut runs: Vec<_> = there.map(|timeline| (timeline, self.snapshot(timeline, &changing))).collect();
        runs.sort_by_key(|(_, (_, created_at))| Reverse(*created_at));
        let items = runs.iter().map(|(timeline, (snapshot, at))| body::item(timeline, snapshot, *at));
        json(StatusCode::OK, &Value::Array(items.collect()))
    }

    fn cancel(&self, id: Option<&RunId>) -> Reply {
        let mut changing = self.changing();
        let Some(timeline) = self.find(id, &changing).cloned() else { return not_found() };
        let (snapshot, _) = self.snapshot(&timeline, &changing);
        if snapshot.ended_after.is_some() {
            return json(
                StatusCode::BAD_REQUEST,
                &serde_json::json!({ "error": "Only an active run can be canceled." }),
            );
        }
        let age = self.age(&timeline);
        changing.canceled_after.insert(timeline.run.id.clone(), age);
        let (snapshot, created_at) = self.snapshot(&timeline, &changing);
        json(StatusCode::OK, &body::run(&timeline, &snapshot, created_at))
    }

    fn delete(&self, id: &RunId) -> bool {
        let mut changing = self.changing();
        let before = changing.runs.len();
        changing.runs.retain(|timeline| timeline.run.id != *id || !self.is_there(timeline));
        changing.runs.len() < before
    }

    fn find<'c>(&self, id: Option<&RunId>, changing: &'c Changing) -> Option<&'c Timeline> {
        changing.runs.iter().find(|timeline| Some(&timeline.run.id) == id && self.is_there(timeline))
    }

    /// The simulated time since the start.
    fn elapsed(&self) -> Duration {
        let elapsed = self.started.elapsed().as_secs_f64() * self.settings.speed;
        Duration::try_from_secs_f64(elapsed).unwrap_or_default()
    }

    /// Whether the run was created already.
    fn is_there(&self, timeline: &Timeline) -> bool {
        self.elapsed() >= timeline.run.after
    }

    fn age(&self, timeline: &Timeline) -> Duration {
        (self.elapsed() + timeline.run.age).saturating_sub(timeline.run.after)
    }

    fn snapshot(&self, timeline: &Timeline, changing: &Changing) -> (Snapshot, Timestamp) {
        let canceled_after = changing.canceled_after.get(&timeline.run.id).copied();
        let created_at = body::created_at(self.started_wall, &timeline.run, self.settings.speed);
        (timeline.at(self.age(timeline), canceled_after), created_at)
    }
}
