//! `Retry-After`, in both its forms (RFC 9110, section 10.2.3).

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// Maximum wait: a wrong date must not stop a watch for a week.
const MAX: Duration = Duration::from_secs(3600);

/// How long the server wants no requests, at most one hour; `None` without a readable value.
///
/// A date is compared with the answer's own `Date`, so that wrong clocks do not matter. Without one, it is compared
/// with `now`.
pub fn retry_after(headers: &HeaderMap, now: jiff::Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are certainly more than an hour.
        return Some(text.parse().map_or(MAX, Duration::from_secs).min(MAX));
    }
    let date = |text: &str| jiff::Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok();
    let until = date(text)?;
    let from = headers.get(DATE).and_then(|text| date(text.to_str().ok()?)).unwrap_or(now);
    Some(Duration::try_from(until.duration_since(from)).unwrap_or(Duration::ZERO).min(MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(retry_after_text: &str, date: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after_text.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        let now = "2026-11-23T10:00:00Z".parse().unwrap();
        retry_after(&headers, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn reads_seconds() {
        assert_eq!(read("17", None), Some(17));
        assert_eq!(read(" 0 ", None), Some(0));
        assert_eq!(read("999999", None), Some(3600));
        assert_eq!(read("99999999999999999999999", None), Some(3600));
    }

    #[test]
    fn reads_dates() {
        assert_eq!(read("Mon, 23 Nov 2026 10:02:00 GMT", None), Some(120));
        assert_eq!(read("Mon, 23 Nov 2026 09:00:00 GMT", None), Some(0));
        assert_eq!(read("Tue, 24 Nov 2026 10:00:00 GMT", None), Some(3600));
        // The server's clock is a day behind: its own Date decides.
        assert_eq!(read("Sun, 22 Nov 2026 10:00:30 GMT", Some("Sun, 22 Nov 2026 10:00:00 GMT")), Some(30));
    }

    #[test]
    fn passes_over_the_rest() {
        for text in ["", "soon", "-5", "1.5", "2026-11-23T10:00:00Z"] {
            assert_eq!(read(text, None), None, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), jiff::Timestamp::UNIX_EPOCH), None);
    }
}
