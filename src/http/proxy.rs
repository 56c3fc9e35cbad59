//! Which proxy the environment names for a URL, and which part of it may be shown.
//!
//! Checks the variables with the same matcher as reqwest. A value that reqwest would silently ignore is an error here.
//! The credentials in a proxy's URL are never shown.

use std::env;
use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::{SetupError, is_loopback};
use crate::run::text::printable;
use crate::secret::Redactor;

/// The variables for each scheme, and those for both if none of these is set. The first one set counts.
const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];

/// A proxy for requests.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The variable that names it.
    variable: &'static str,
    /// Scheme, host and port.
    origin: String,
    /// User and password, as they are sent.
    login: Option<String>,
}

impl Proxy {
    /// The variable that names it.
    pub fn variable(&self) -> &'static str {
        self.variable
    }

    /// User and password: a secret.
    pub fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }
}

/// Such as `the proxy http://proxy.example.com:3128`: without user and password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {}", self.origin)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// ` through the proxy …`, or nothing; for messages.
pub fn via(proxy: Option<&Proxy>) -> String {
    proxy.map(|proxy| format!(" through {proxy}")).unwrap_or_default()
}

/// The message for a 407: a proxy requires authentication, and the request did not reach the server.
pub fn proxy_refused(proxy: Option<&Proxy>) -> String {
    const ANSWER: &str = "answered 407 Proxy Authentication Required";
    match proxy {
        Some(proxy) => format!("{proxy} {ANSWER}; check the user and password in {}", proxy.variable),
        None => format!("a proxy on the way {ANSWER}"),
    }
}

/// Checks the proxy that a URL needs, with other variables than the process's own.
///
/// The error names the invalid variable.
pub fn check_proxy(target: &Url, var: impl Fn(&'static str) -> Option<String>) -> Result<(), &'static str> {
    if is_loopback(target) || var("REQUEST_METHOD").is_some() {
        return Ok(());
    }
    match find(target, |name| var(name).map(Into::into)) {
        Err(SetupError::Proxy { variable, .. }) => Err(variable),
        _ => Ok(()),
    }
}

/// The proxy for requests to a URL. `None` for loopback and for hosts in `NO_PROXY`.
///
/// The error names the invalid variable, never its value.
pub fn proxy_for(target: &Url) -> Result<Option<Proxy>, SetupError> {
    // A web server sets HTTP_PROXY for a CGI program from the request's `Proxy` header.
    if is_loopback(target) || env::var_os("REQUEST_METHOD").is_some() {
        return Ok(None);
    }
    find(target, env::var_os)
}

fn find(
    target: &Url,
    var: impl Fn(&'static str) -> Option<std::ffi::OsString>,
) -> Result<Option<Proxy>, SetupError> {
    let first = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| Some((name, var(name)?))).filter(|(_, value)| !value.is_empty())
    };
    let names = if target.scheme() == "https" { HTTPS } else { HTTP };
    let Some((variable, value)) = first(names).or_else(|| first(ALL)) else { return Ok(None) };
    let no =
        first(["NO_PROXY", "no_proxy"]).and_then(|(_, value)| value.into_string().ok()).unwrap_or_default();
    let no = exempt(&no, target);
    let Ok(target) = target.as_str().parse() else { return Ok(None) };
    if Matcher::builder().all("http://proxy.invalid").no(no).build().intercept(&target).is_none() {
        return Ok(None);
    }
    let bad = |why| SetupError::Proxy { variable, why };
    let value = value.into_string().map_err(|_| bad("is not UTF-8"))?;
    let found = Matcher::builder().all(value.as_str()).build().intercept(&target);
    let found = found.ok_or_else(|| bad("is not the URL of a proxy"))?;
    let uri = found.uri();
    let scheme = uri.scheme_str().unwrap_or("http");
    if !matches!(scheme, "http" | "https") {
        return Err(bad("names a SOCKS proxy, which is not supported"));
    }
    let host = uri.host().unwrap_or_default();
    // Credentials that the matcher did not recognise may still be part of the address.
    let address = uri.authority().and_then(|authority| authority.as_str().rsplit('@').next());
    let port = address.and_then(|address| address.strip_prefix(host)).unwrap_or_default();
    let port_is_fine =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    // The parser reads a port alone as an address.
    if host.bytes().all(|byte| byte.is_ascii_digit()) || !port_is_fine {
        return Err(bad("is not the URL of a proxy"));
    }
    let origin = printable(&format!("{scheme}://{host}{port}"), 200);
    let login =
        written_login(&value).map(|written| percent_decode_str(written).decode_utf8_lossy().into_owned());
    Ok(Some(Proxy { variable, origin, login }))
}

/// The user and password in a proxy's URL, as written.
fn written_login(value: &str) -> Option<&str> {
    let (before, _) = value.rsplit_once('@')?;
    Some(before.split_once("://").map_or(before, |(_, login)| login))
}

/// Adds the credentials of all proxies in the environment, whether they are used or not.
pub fn know_proxies(redactor: &mut Redactor, var: impl Fn(&str) -> Option<String>) {
    for value in [HTTPS, HTTP, ALL].concat().into_iter().filter_map(var) {
        let Some(written) = written_login(&value) else { continue };
        let login = percent_decode_str(written).decode_utf8_lossy();
        for login in [written, &login] {
            redactor.add(login);
            redactor.add(login.split_once(':').map_or(login, |(_, password)| password));
        }
    }
}

/// `NO_PROXY` in the form that the matcher reads. Other programs also accept white space between the entries,
/// `*.example.com`, and `host:port`, which applies to that port only.
fn exempt(list: &str, target: &Url) -> String {
    let entry = |entry: &str| {
        let entry = if entry.starts_with("*.") { &entry[1..] } else { entry };
        let (host, port) = match entry.rsplit_once(':') {
            // An IPv6 address without brackets contains colons.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
            _ => return Some(entry.trim_matches(['[', ']']).to_owned()),
        };
        let is_targets = port.is_some() && port == target.port_or_known_default();
        is_targets.then(|| host.trim_matches(['[', ']']).to_owned())
    };
    let entries = list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()).filter_map(entry);
    entries.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_read_as_other_programs_write_it() {
        for (list, target, direct) in [
            ("a.example.com", "https://a.example.com", true),
            ("*.example.com", "https://a.example.com", true),
            ("*.example.com", "https://a.example.org", false),
            ("x,a.example.com:443", "https://a.example.com", true),
            ("a.example.com:8443", "https://a.example.com", false),
            ("a.example.com:8443", "https://a.example.com:8443", true),
            ("localhost 10.0.0.0/8\tb", "https://10.1.2.3", true),
            ("localhost b", "https://b", true),
            ("[fd00::1]", "https://[fd00::1]", true),
            ("[fd00::1]:443", "https://[fd00::1]", true),
            ("[fd00::1]:444", "https://[fd00::1]", false),
            ("fd00::/8", "https://[fd00::1]", true),
            ("example.com:", "https://example.com", false),
            ("*", "https://example.com", true),
        ] {
            let variables = [("HTTPS_PROXY", "http://p:3128"), ("NO_PROXY", list)];
            assert_eq!(found(target, &variables).unwrap().is_none(), direct, "{list} for {target}");
        }
    }

    fn found(target: &str, variables: &[(&str, &str)]) -> Result<Option<(String, Option<String>)>, String> {
        let var =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let proxy = find(&Url::parse(target).unwrap(), var).map_err(|error| error.to_string())?;
        Ok(proxy.map(|proxy| (format!("{}: {proxy}", proxy.variable()), proxy.login().map(str::to_owned))))
    }

    #[test]
    fn finds_the_proxy_that_a_request_goes_through_and_shows_no_password() {
        for (variables, shown, login) in [
            (&[("HTTPS_PROXY", "http://p:3128")][..], "HTTPS_PROXY: the proxy http://p:3128", None),
            (&[("https_proxy", "p:3128")], "https_proxy: the proxy http://p:3128", None),
            (&[("HTTPS_PROXY", ""), ("ALL_PROXY", "https://p/x?y")], "ALL_PROXY: the proxy https://p", None),
            (
                &[("HTTPS_PROXY", "http://me:s3%40cret@[::1]:1")],
                "HTTPS_PROXY: the proxy http://[::1]:1",
                Some("me:s3@cret"),
            ),
            (
                &[("ALL_PROXY", "http://me@home:s3cret@p:1")],
                "ALL_PROXY: the proxy http://p:1",
                Some("me@home:s3cret"),
            ),
            (&[("all_proxy", "me:pass@p:1")], "all_proxy: the proxy http://p:1", Some("me:pass")),
        ] {
            let expected = Ok(Some((shown.to_owned(), login.map(str::to_owned))));
            assert_eq!(found("https://df-api.example.com/x", variables), expected);
        }
        for variables in [
            &[][..],
            &[("HTTP_PROXY", "http://p")],
            &[("HTTPS_PROXY", "http://p"), ("NO_PROXY", "other, example.com")],
            &[("HTTPS_PROXY", "no proxy at all"), ("no_proxy", "*")],
        ] {
            assert_eq!(found("https://df-api.example.com", variables), Ok(None), "{variables:?}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_not_passed_over() {
        for value in [
            "not a url",
            "http://",
            "/proxy",
            "ftp://p:1",
            "http://p:port",
            "3128",
            "http://p:99999",
            "http://u:hunter2 @p",
        ] {
            let error = found("https://h", &[("HTTPS_PROXY", value)]).unwrap_err();
            assert!(
                error.starts_with("HTTPS_PROXY is set, but is not the URL of a proxy; expected"),
                "{value}: {error}"
            );
            assert!(!error.contains("hunter2"));
        }
        for value in ["socks5://p:1080", "socks5h://u:p@p:1080", "socks4://p"] {
            let error = found("https://h", &[("ALL_PROXY", value)]).unwrap_err();
            assert!(error.starts_with("ALL_PROXY is set, but names a SOCKS proxy"), "{value}: {error}");
        }
    }
}
