//! Routes of the socket and of the metrics port.

use std::sync::Arc;

use hyper::Method;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::info;

use super::handle::{Handle, Refusal};
use crate::BoxFuture;
use crate::control::{
    AddRequest, Added, AddedRun, Answer, Asked, Object, Ping, ResendRequest, RetryRequest, Serve,
};
use crate::http::Hosts;
use crate::run::RunId;
use crate::store::DeliveryFilter;

/// Number of deliveries listed without `limit`.
const DEFAULT_LIMIT: u32 = 100;

/// Maximum number of log lines for the runs of one `add`.
const MOST_LOGGED: usize = 100;

/// The socket, which allows every request.
pub(super) struct Socket(pub(super) Arc<Handle>);

impl Serve for Socket {
    fn answer(&self, asked: Asked) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let Some(path) = asked.path.strip_prefix("/v1/") else { return read_only(&self.0, &asked).await };
            self.do_it(path, &asked).await.unwrap_or_else(Answer::from)
        })
    }
}

impl Socket {
    async fn do_it(&self, path: &str, asked: &Asked) -> Result<Answer, Refusal> {
        let Self(handle) = self;
        let Asked { method, query, body, .. } = asked;
        takes_only_what_it_reads(method, path, asked)?;
        Ok(match (method.as_str(), path) {
            ("GET", "ping") => Answer::json(&Ping { version: env!("CARGO_PKG_VERSION").to_owned() }),
            ("GET", "status") => Answer::json(&handle.status().await),
            ("GET", "doctor") => Answer::json(&handle.doctor().await?),
            ("GET", "runs") => Answer::json(&handle.runs().await?),
            ("POST", "runs") => {
                let added = handle.add(read::<AddRequest>(body)?.runs).await?;
                log_added(&added);
                Answer::json(&added)
            }
            ("GET", "deliveries") => {
                let (filter, limit) = listed(query)?;
                Answer::json(&handle.deliveries(filter, limit).await?)
            }
            ("POST", "deliveries/retry") => Answer::json(&handle.retry(read::<RetryRequest>(body)?).await?),
            ("POST", "deliveries/resend") => {
                Answer::json(&handle.resend(read::<ResendRequest>(body)?).await?)
            }
            ("GET", "state/backup") => handle.backup().await?,
            ("POST", "reload") => Answer::json(&handle.reload().await?),
            (method, path) => match (method, path.strip_prefix("runs/")) {
                ("GET", Some(id)) => Answer::json(&handle.run(&run_id(id)?).await?),
                ("DELETE", Some(id)) => Answer::json(&handle.remove(&run_id(id)?).await?),
                _ => return Err(Refusal::NotFound(format!("there is no {method} /v1/{path}"))),
            },
        })
    }
}

/// Logs which runs were added, or only their number if there are many.
fn log_added(added: &Added) {
    let new: Vec<&AddedRun> = added.runs.iter().filter(|run| run.finished.is_none()).collect();
    for run in new.iter().take(MOST_LOGGED) {
        info!(run_id = run.id.as_str(), "added to the watch list by a command");
    }
    if new.len() > MOST_LOGGED {
        info!(runs = new.len() - MOST_LOGGED, "more were added to the watch list by the same command");
    }
}

/// The port: read-only, and only under names that no web page can have.
pub(super) struct Port(pub(super) Arc<Handle>, pub(super) Hosts);

impl Serve for Port {
    fn hosts(&self) -> Option<&Hosts> {
        Some(&self.1)
    }

    fn largest_request(&self) -> usize {
        0
    }

    fn answer(&self, asked: Asked) -> BoxFuture<'_, Answer> {
        Box::pin(async move { read_only(&self.0, &asked).await })
    }
}

async fn read_only(handle: &Handle, asked: &Asked) -> Answer {
    if !matches!(asked.method, Method::GET | Method::HEAD) {
        return Answer::error(405, "only GET is answered here");
    }
    match asked.path.as_str() {
        "/metrics" => handle.metrics().await,
        // Healthy, unless a restart would help.
        "/healthz" => match handle.stuck().await {
            None => Answer::text(200, "text/plain", "ok\n".to_owned()),
            Some(stuck) => Answer::text(503, "text/plain", format!("{stuck}\n")),
        },
        // Reports problems that do not stop the daemon's work, but stays ready.
        "/readyz" => {
            let stuck = handle.stuck().await.map(str::to_owned);
            let status = if stuck.is_none() && handle.hindrances().is_empty() { 200 } else { 503 };
            let said = if status == 200 { Some("ok".to_owned()) } else { stuck };
            let lines: Vec<String> = said.into_iter().chain(handle.troubles()).collect();
            Answer::text(status, "text/plain", lines.join("\n") + "\n")
        }
        path => Answer::error(404, format!("there is no {path}; there are /metrics, /healthz and /readyz")),
    }
}

/// Rejects a query or a body that would be ignored, because the sender expects an effect.
fn takes_only_what_it_reads(method: &Method, path: &str, asked: &Asked) -> Result<(), Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    if !asked.query.is_empty() && (method, path) != (&Method::GET, "deliveries") {
        return Err(Refusal::Bad(format!("{method} /v1/{path} takes no parameters after `?`")));
    }
    let reads_body = *method == Method::POST && path != "reload";
    if reads_body { Ok(()) } else { read::<Nothing>(&asked.body).map(|_| ()) }
}

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    let read = serde_json::from_slice(body).map(|Object(request)| request);
    read.map_err(|error| Refusal::Bad(format!("the request cannot be read: {error}")))
}

pub(super) fn run_id(segment: &str) -> Result<RunId, Refusal> {
    let id = percent_decode_str(segment).decode_utf8_lossy();
    id.parse().map_err(|error: crate::run::RunIdError| Refusal::Bad(error.to_string()))
}

/// Reads `limit=N` and `filter=JSON`, and for curl `state=`, `channel=` and `run=`. Each at most once.
pub(super) fn listed(query: &str) -> Result<(DeliveryFilter, u32), Refusal> {
    let (mut filter, mut limit) = (DeliveryFilter::default(), DEFAULT_LIMIT);
    let mut seen = Vec::new();
    let bad = |name: &str| Refusal::Bad(format!("the value of `{name}` cannot be read"));
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if seen.contains(&name) {
            return Err(Refusal::Bad(format!("`{name}` is given twice")));
        }
        seen.push(name);
        let value = percent_decode_str(value).decode_utf8().map_err(|_| bad(name))?;
        match name {
            "limit" => limit = value.parse().map_err(|_| bad(name))?,
            "filter" => filter = read(value.as_bytes())?,
            "channel" => filter.channel = Some(value.into_owned()),
            "run" => filter.run = Some(run_id(&value)?),
            "state" => {
                let word = serde_json::Value::from(&*value);
                filter.state = Some(serde_json::from_value(word).map_err(|_| bad(name))?);
            }
            _ => {
                return Err(Refusal::Bad(format!(
                    "there is no `{name}`; there are limit, state, channel and run"
                )));
            }
        }
    }
    if seen.contains(&"filter") && seen.iter().any(|name| !matches!(*name, "filter" | "limit")) {
        return Err(Refusal::Bad("`filter` has all conditions: leave out the others".to_owned()));
    }
    Ok((filter, limit))
}
