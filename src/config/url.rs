//! Checks URLs of the API and of webhooks.

use reqwest::Url;

use super::mask;
use crate::http::is_loopback;

/// Parses the API's base URL, with or without `/api/dataframer` or a trailing slash. The result has neither.
///
/// The error says what is wrong and what was expected, and quotes nothing. `allow` says how to allow http.
pub(super) fn base_url(text: &str, allow_http: bool, allow: &str) -> Result<Url, String> {
    let mut url = web_url(text, allow_http, DEFAULT, allow)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("the URL has a query or a fragment; expected a base URL such as {DEFAULT}"));
    }
    let path = url.path().trim_end_matches('/');
    if path.split('/').any(|segment| segment == "runs") {
        return Err(format!("this is the URL of a run; expected the base URL, such as {DEFAULT}"));
    }
    let prefix = path.strip_suffix("/api/dataframer").unwrap_or(path).trim_end_matches('/').to_owned();
    url.set_path(&prefix);
    Ok(url)
}

/// The default base URL.
pub(super) const DEFAULT: &str = "https://df-api.dataframer.ai";

/// Parses a URL to send to: https, http to this machine, or any http if that is allowed. `example` is an example for
/// messages, and `allow` says how to allow http.
pub(super) fn web_url(text: &str, allow_http: bool, example: &str, allow: &str) -> Result<Url, String> {
    let text = text.trim();
    let expected = format!("expected a URL such as {example}");
    if text.is_empty() {
        return Err(format!("the URL is empty; {expected}"));
    }
    if !text.contains("://") {
        return Err(format!("the URL has no scheme; {expected}, beginning with https://"));
    }
    if text.split(['?', '#']).next().is_some_and(|address| address.matches("://").count() > 1) {
        return Err(format!("there are two URLs in one; {expected}"));
    }
    let url = Url::parse(text).map_err(|error| format!("this is not a URL ({error}); {expected}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("the scheme `{}` is not known; expected https", mask::quoted(url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL has a user name or password in it; take them out".to_owned());
    }
    if url.scheme() == "http" && !allow_http && !is_loopback(&url) {
        return Err(format!(
            "the URL is not encrypted, and secrets are sent there; use https, or allow http with {allow}"
        ));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_every_form_of_the_base_url() {
        for text in [
            "https://df-api.dataframer.ai",
            "https://df-api.dataframer.ai/",
            "https://df-api.dataframer.ai/api/dataframer",
            " https://df-api.dataframer.ai/api/dataframer/ ",
        ] {
            assert_eq!(
                base_url(text, false, "--allow-http").unwrap().as_str(),
                "https://df-api.dataframer.ai/",
                "{text}"
            );
        }
        let behind = base_url("https://gw.example.com/df/api/dataframer/", false, "").unwrap();
        assert_eq!(behind.as_str(), "https://gw.example.com/df");
        assert_eq!(base_url("http://127.0.0.1:8080", false, "").unwrap().as_str(), "http://127.0.0.1:8080/");
        assert!(base_url("http://df.internal", true, "").is_ok());
    }

    #[test]
    fn refuses_the_rest_in_words() {
        for (text, said) in [
            ("", "is empty"),
            ("df-api.dataframer.ai", "beginning with https://"),
            ("htps://df-api.dataframer.ai", "`htps` is not known"),
            ("https://", "not a URL"),
            ("https://https://df-api.dataframer.ai", "two URLs"),
            ("https://df api", "not a URL"),
            ("https://me:hunter2@df-api.dataframer.ai", "user name or password"),
            ("https://df-api.dataframer.ai/?key=hunter2", "a query"),
            ("https://df-api.dataframer.ai/api/dataframer/runs/abc/", "URL of a run"),
            ("http://df-api.dataframer.ai", "allow http with --allow-http"),
            ("hunter2hunter2://x", "the scheme `hunter2…`"),
            ("http://hunter2hunter2/x", "not encrypted"),
        ] {
            let error = base_url(text, false, "--allow-http").unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains("hunter2h"), "{error}");
        }
    }
}
