//! Reads everything that is not a run: what an error answer means, and what it says in words.
//!
//! Owns the table from HTTP status to [`PollErrorKind`] and the search for a message in an error body. Pure.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LOCATION};
use serde_json::Value;

use super::wire::looks_like_html;
use super::{PollError, PollErrorKind};
use crate::http::retry_after;
use crate::run::{DoubtKind, printable};

/// The longest message that is taken from a body, in characters.
const MAX_MESSAGE: usize = 200;

/// Makes the error of an answer that is not 2xx.
pub(super) fn poll_error(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: jiff::Timestamp,
) -> PollError {
    let said = message(body).map(|text| format!(": {text}")).unwrap_or_default();
    let redirect = headers.get(LOCATION).and_then(|to| to.to_str().ok()).map(host_of);
    let message = match redirect.filter(|_| status.is_redirection()) {
        Some(to) => format!(
            "the API answered {status}, a redirect to {to}; redirects are not followed: check base_url"
        ),
        None => format!("the API answered {status}{said}"),
    };
    PollError { kind: kind(status, body), message, retry_after: retry_after(headers, now) }
}

fn kind(status: StatusCode, body: &[u8]) -> PollErrorKind {
    match status.as_u16() {
        429 => PollErrorKind::Throttled,
        408 | 425 | 500.. => PollErrorKind::Transient,
        401 | 403 => PollErrorKind::Doubt(DoubtKind::KeyRefused),
        404 | 410 if is_json_object(body) => PollErrorKind::Doubt(DoubtKind::Missing),
        // Not the API's own words: something before it, which may be in the middle of a deployment.
        404 | 410 => PollErrorKind::Doubt(DoubtKind::NoSuchPage),
        _ => PollErrorKind::Doubt(DoubtKind::Rejected),
    }
}

fn is_json_object(body: &[u8]) -> bool {
    matches!(serde_json::from_slice(body), Ok(Value::Object(_)))
}

/// The message in an error body: `error`; `detail` (a string, or its `error`, `message` or `code`); the first field
/// error. `None` for HTML and for anything else.
fn message(body: &[u8]) -> Option<String> {
    if looks_like_html(body) {
        return None;
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else { return None };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let detail = |value: &Value| {
        text(value).or_else(|| ["error", "message", "code"].iter().find_map(|key| text(value.get(key)?)))
    };
    let field_error = |(name, value): (&String, &Value)| {
        value.as_array()?.first()?.as_str().map(|text| format!("{name}: {text}"))
    };
    let found = fields
        .get("error")
        .and_then(text)
        .or_else(|| fields.get("detail").and_then(detail))
        .or_else(|| fields.iter().find_map(field_error))?;
    Some(printable(&found, MAX_MESSAGE)).filter(|text| !text.is_empty())
}

/// The scheme and host of a redirect's target: its path and query may carry secrets.
fn host_of(location: &str) -> String {
    match reqwest::Url::parse(location) {
        Ok(url) => printable(&url.origin().ascii_serialization(), MAX_MESSAGE),
        Err(_) => "another path".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, body: &str) -> PollError {
        let status = StatusCode::from_u16(status).unwrap();
        poll_error(status, &HeaderMap::new(), body.as_bytes(), jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn finds_the_message_in_every_form() {
        for (body, text) in [
            (r#"{"error":"Internal server error"}"#, ": Internal server error"),
            (r#"{"code":"x","error":"why"}"#, ": why"),
            (r#"{"detail":"Not found."}"#, ": Not found."),
            (r#"{"detail":{"message":"deep"}}"#, ": deep"),
            (r#"{"detail":{"code":"deep_code"}}"#, ": deep_code"),
            (r#"{"number_of_samples":["Too many."]}"#, ": number_of_samples: Too many."),
            (r#"{"error":"a\u001b[31mb"}"#, ": a [31mb"),
            ("<html><title>502 Bad Gateway</title></html>", ""),
            ("upstream connect error", ""),
            ("[1]", ""),
            ("", ""),
        ] {
            assert_eq!(
                error(500, body).message,
                format!("the API answered 500 Internal Server Error{text}"),
                "{body}"
            );
        }
    }

    #[test]
    fn knows_what_each_status_means() {
        use DoubtKind::{KeyRefused, Missing, NoSuchPage, Rejected};
        use PollErrorKind::{Doubt, Throttled, Transient};
        let json = r#"{"detail":"x"}"#;
        for (status, body, kind) in [
            (408, json, Transient),
            (425, json, Transient),
            (429, json, Throttled),
            (500, json, Transient),
            (501, json, Transient),
            (502, "<html>", Transient),
            (599, "", Transient),
            (401, json, Doubt(KeyRefused)),
            (403, "<html>", Doubt(KeyRefused)),
            (404, json, Doubt(Missing)),
            (404, "", Doubt(NoSuchPage)),
            (404, "404 page not found", Doubt(NoSuchPage)),
            (404, "[]", Doubt(NoSuchPage)),
            (410, json, Doubt(Missing)),
            (404, "<html>", Doubt(NoSuchPage)),
            (301, "", Doubt(Rejected)),
            (400, json, Doubt(Rejected)),
            (405, json, Doubt(Rejected)),
            (422, json, Doubt(Rejected)),
        ] {
            assert_eq!(error(status, body).kind, kind, "{status} {body}");
        }
    }

    #[test]
    fn a_redirect_names_the_host_and_no_more() {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, "https://login.example.com/sso?token=s3cret".parse().unwrap());
        let error = poll_error(StatusCode::FOUND, &headers, b"", jiff::Timestamp::UNIX_EPOCH);
        assert!(error.message.contains("https://login.example.com;"), "{error}");
        assert!(!error.message.contains("s3cret"), "{error}");
    }
}
