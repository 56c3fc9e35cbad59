//! Reads everything that is not a run: what an error answer means, and its message.
//!
//! Owns the table from HTTP status to [`PollErrorKind`], the search for a message in an error body, and the decision
//! whether that body is the API's own. Pure.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LOCATION};
use serde_json::Value;

use super::body::{is_html, looks_like_html, without_bom};
use super::{PollError, PollErrorKind};
use crate::http::retry_after;
use crate::run::{DoubtKind, printable};

/// Maximum length of a message from a body, in characters.
const MAX_MESSAGE: usize = 200;

/// Makes the error for an answer that is not 2xx.
pub(super) fn poll_error(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: jiff::Timestamp,
) -> PollError {
    let said = if is_html(headers) { None } else { message(status, body) };
    let from_api = said.as_ref().is_some_and(|said| said.from_api);
    let message = match (redirect(status, headers), said) {
        (Some(to), _) => format!(
            "the API answered {status}, a redirect to {to}; redirects are not followed: check base_url"
        ),
        (None, Some(said)) if from_api || !status.is_client_error() => {
            format!("the API answered {status}: {}", said.text)
        }
        (None, said) if status.is_client_error() => {
            let said = said.map(|said| format!(": {}", said.text)).unwrap_or_default();
            format!("the answer was {status} with {}, not the API's own{said}", what_it_is(headers, body))
        }
        (None, _) => format!("the API answered {status}"),
    };
    // A redirect carries its information in a header.
    let is_page = !status.is_redirection() && (is_html(headers) || looks_like_html(body));
    PollError {
        kind: kind(status, from_api),
        message,
        from_api,
        is_page,
        retry_after: retry_after(headers, now),
    }
}

fn kind(status: StatusCode, from_api: bool) -> PollErrorKind {
    match status.as_u16() {
        429 => PollErrorKind::Throttled,
        408 | 421 | 425 | 500.. => PollErrorKind::Transient,
        401 | 403 => PollErrorKind::Doubt(DoubtKind::KeyRefused),
        404 | 410 if from_api => PollErrorKind::Doubt(DoubtKind::Missing),
        // Something in front of the API, perhaps during a deployment.
        404 | 410 => PollErrorKind::Doubt(DoubtKind::NoSuchPage),
        _ => PollErrorKind::Doubt(DoubtKind::Rejected),
    }
}

/// The message in an error body.
struct Said {
    text: String,
    from_api: bool,
}

/// Finds the message in an error body. In the order of the API's forms: `error`; `detail` (a string, or its `error`,
/// `message` or `code`); the first field error. Last comes `message`, which only gateways use.
///
/// Gateways use some of these names too. Unlike Spring and RFC 9457, the API repeats no status as a number. Its field
/// errors say that fields are invalid, never that the key or the run is.
fn message(status: StatusCode, body: &[u8]) -> Option<Said> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(without_bom(body)) else { return None };
    let repeats_status =
        ["status", "statusCode", "code"].iter().any(|name| fields.get(*name).is_some_and(Value::is_number));
    let may_be_of_fields = !matches!(status.as_u16(), 401 | 403 | 404 | 410);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let detail = |value: &Value| {
        text(value).or_else(|| ["error", "message", "code"].iter().find_map(|key| text(value.get(key)?)))
    };
    let field_error = |(name, value): (&String, &Value)| {
        value.as_array()?.first()?.as_str().map(|text| format!("{name}: {text}"))
    };
    let said = |text: String, from_api| {
        Some(Said { text: printable(&text, MAX_MESSAGE), from_api }).filter(|said| !said.text.is_empty())
    };
    if let Some(text) = fields.get("error").and_then(text).or_else(|| fields.get("detail").and_then(detail)) {
        return said(text, !repeats_status);
    }
    if let Some(text) = fields.iter().find_map(field_error) {
        return said(text, may_be_of_fields && fields.values().all(Value::is_array));
    }
    said(fields.get("message").or_else(|| fields.get("Message")).and_then(text)?, false)
}

fn redirect(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    headers.get(LOCATION).filter(|_| status.is_redirection())?.to_str().ok().map(host_of)
}

/// What the body is instead of an API error.
fn what_it_is(headers: &HeaderMap, body: &[u8]) -> &'static str {
    if is_html(headers) || looks_like_html(body) {
        "a web page"
    } else if body.iter().all(u8::is_ascii_whitespace) {
        "nothing in it"
    } else if serde_json::from_slice::<serde::de::IgnoredAny>(without_bom(body)).is_ok() {
        "other JSON"
    } else {
        "other text"
    }
}

/// The scheme and host of a redirect's target, because its path and query may contain secrets.
fn host_of(location: &str) -> String {
    match reqwest::Url::parse(location) {
        Ok(url) => printable(&url.origin().ascii_serialization(), MAX_MESSAGE),
        Err(_) => "another path".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::CONTENT_TYPE;

    use super::*;

    fn error(status: u16, body: &str) -> PollError {
        let status = StatusCode::from_u16(status).unwrap();
        poll_error(status, &HeaderMap::new(), body.as_bytes(), jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn finds_the_message_in_every_form() {
        for (body, text) in [
            (r#"{"error":"Internal server error"}"#, "Internal server error"),
            (r#"{"code":"x","error":"why"}"#, "why"),
            (r#"{"detail":"Not found."}"#, "Not found."),
            (r#"{"detail":{"message":"deep"}}"#, "deep"),
            (r#"{"detail":{"code":"deep_code"}}"#, "deep_code"),
            (r#"{"error":"a\u001b[31mb"}"#, "a [31mb"),
            ("\u{feff} {\"error\":\"bom\"}", "bom"),
        ] {
            for status in ["500 Internal Server Error", "403 Forbidden"] {
                let error = error(status[..3].parse().unwrap(), body);
                assert_eq!(error.message, format!("the API answered {status}: {text}"), "{body}");
                assert!(error.from_api, "{body}");
            }
        }
    }

    #[test]
    fn what_is_said_of_fields_is_the_apis_own_unless_the_key_or_the_run_is_refused() {
        let body = r#"{"number_of_samples":["Too many."]}"#;
        for status in [400, 422, 500] {
            let error = error(status, body);
            assert!(error.from_api && error.message.ends_with(": number_of_samples: Too many."), "{error}");
        }
        for status in [401, 403, 404, 410] {
            assert!(!error(status, r#"{"errors":["denied by policy"]}"#).from_api, "{status}");
        }
    }

    #[test]
    fn what_gateways_say_in_the_apis_words_is_not_the_apis_own() {
        for body in [
            r#"{"timestamp":"2026-11-26T10:00:00Z","status":404,"error":"Not Found","path":"/x"}"#,
            r#"{"type":"about:blank","title":"Forbidden","status":403,"detail":"denied by policy"}"#,
            r#"{"statusCode":401,"error":"Unauthorized"}"#,
            r#"{"code":403,"detail":"denied"}"#,
        ] {
            for status in [401, 403, 404] {
                let error = error(status, body);
                assert!(!error.from_api && error.message.contains("not the API's own: "), "{body}: {error}");
            }
        }
    }

    #[test]
    fn what_is_not_the_apis_own_is_told_apart() {
        for (body, what) in [
            ("<html><title>Blocked</title>{\"detail\":\"x\"}</html>", "a web page"),
            ("\u{feff}\n<!DOCTYPE html>", "a web page"),
            ("upstream connect error", "other text"),
            ("{\"error\":\"cut", "other text"),
            ("[1]", "other JSON"),
            ("{}", "other JSON"),
            (r#"{"error":{"code":403}}"#, "other JSON"),
            (r#"{"error":"","detail":null}"#, "other JSON"),
            (r#"{"requests":[17]}"#, "other JSON"),
            (r#""Forbidden""#, "other JSON"),
            ("", "nothing in it"),
            (" \r\n", "nothing in it"),
        ] {
            for status in ["401 Unauthorized", "403 Forbidden", "404 Not Found", "400 Bad Request"] {
                let error = error(status[..3].parse().unwrap(), body);
                assert!(!error.from_api, "{body}");
                assert_eq!(error.message, format!("the answer was {status} with {what}, not the API's own"));
            }
            assert!(!error(500, body).from_api);
            assert_eq!(error(502, body).message, "the API answered 502 Bad Gateway");
        }
        for body in [r#"{"message":"Blocked"}"#, r#"{"Message":"Blocked"}"#] {
            let error = error(403, body);
            let said = "the answer was 403 Forbidden with other JSON, not the API's own: Blocked";
            assert!(!error.from_api && error.message == said, "{error}");
        }
        assert!(!error(403, r#"{"reasons":["x"],"ray":"7"}"#).from_api);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "text/html; charset=utf-8".parse().unwrap());
        let status = StatusCode::FORBIDDEN;
        let error = poll_error(status, &headers, br#"{"detail":"x"}"#, jiff::Timestamp::UNIX_EPOCH);
        assert!(!error.from_api && error.message.contains("a web page"), "{error}");
    }

    #[test]
    fn knows_what_each_status_means() {
        use DoubtKind::{KeyRefused, Missing, NoSuchPage, Rejected};
        use PollErrorKind::{Doubt, Throttled, Transient};
        let json = r#"{"detail":"x"}"#;
        for (status, body, kind) in [
            (408, json, Transient),
            (421, "", Transient),
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
            (404, r#"{"message":"no Route matched with those values"}"#, Doubt(NoSuchPage)),
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
