//! Answers of the API, and of a proxy in front of it, in their various forms.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use hyper::{Method, Response, StatusCode};
use serde_json::Value;

use super::body;
use super::faults::RetryAfter;
use super::serve::{Reply, ReplyBody};
use crate::clock;

/// The path of the resources.
pub(super) const PREFIX: &str = "/api/dataframer/runs/";

/// Django redirects a request without the last slash, and answers any other with its page.
pub(super) fn elsewhere(path: &str) -> Reply {
    if !path.starts_with(PREFIX.trim_end_matches('/')) {
        return html(StatusCode::NOT_FOUND, "Not Found");
    }
    let mut reply = empty(StatusCode::MOVED_PERMANENTLY);
    if let (Reply::Answer(response), Ok(to)) = (&mut reply, format!("{path}/").parse()) {
        response.headers_mut().insert(LOCATION, to);
    }
    reply
}

pub(super) fn json(status: StatusCode, body: &Value) -> Reply {
    reply(status, "application/json", Bytes::from(body.to_string()))
}

pub(super) fn html(status: StatusCode, title: &str) -> Reply {
    reply(status, "text/html; charset=utf-8", Bytes::from(body::page(title)))
}

pub(super) fn empty(status: StatusCode) -> Reply {
    reply(status, "application/json", Bytes::new())
}

pub(super) fn not_found() -> Reply {
    json(StatusCode::NOT_FOUND, &body::detail("No Run matches the given query."))
}

pub(super) fn not_allowed(method: &Method) -> Reply {
    json(StatusCode::METHOD_NOT_ALLOWED, &body::detail(&format!("Method \"{method}\" not allowed.")))
}

/// An error as the API answers it; for 502 and above, as a proxy does.
pub(super) fn error(status: StatusCode) -> Reply {
    match status.as_u16() {
        502.. => html(status, &status.to_string()),
        429 => json(status, &body::detail("Request was throttled.")),
        500 => json(status, &serde_json::json!({ "error": "Internal server error" })),
        _ => json(status, &body::detail(status.canonical_reason().unwrap_or("error"))),
    }
}

pub(super) fn with_retry_after(mut reply: Reply, retry_after: Option<RetryAfter>) -> Reply {
    if let (Reply::Answer(response), Some(retry_after)) = (&mut reply, retry_after) {
        let text = match retry_after {
            RetryAfter::Seconds(seconds) => seconds.to_string(),
            RetryAfter::Date(seconds) => {
                let at = clock::wall() + Duration::from_secs(seconds);
                at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
            }
        };
        if let Ok(value) = text.parse() {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
    }
    reply
}

/// The answer, cut in half.
pub(super) fn broken(reply: Reply) -> Reply {
    match reply {
        Reply::Answer(response) => Reply::Answer(response.map(ReplyBody::broken_half)),
        Reply::Reset => Reply::Reset,
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut response = Response::new(ReplyBody::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    Reply::Answer(response)
}
