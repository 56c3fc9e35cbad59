//! Checks the proxy variables of the environment (`HTTPS_PROXY` and the like) before anything is sent.
//!
//! `http` reads them itself and refuses one that it needs but cannot use. Here, an invalid proxy for the API is an
//! error, because nothing can work with it. Every other invalid one is a warning. Values are never shown, because they
//! may contain a password.

use super::Environment;
use super::diagnostic::Problems;
use crate::http::check_proxy;
use reqwest::Url;

/// The variables in the order in which the client reads them.
const VARIABLES: [[&str; 2]; 3] =
    [["HTTPS_PROXY", "https_proxy"], ["HTTP_PROXY", "http_proxy"], ["ALL_PROXY", "all_proxy"]];

/// Reports every invalid proxy, as an error if requests to the API use it.
pub(super) fn check(env: Environment<'_>, api: Option<&Url>, problems: &Problems) {
    let needed = api.and_then(|api| check_proxy(api, env).err());
    for pair in VARIABLES {
        let Some((name, value)) = pair.into_iter().find_map(|name| Some((name, env(name)?))) else {
            continue;
        };
        if let Some(wrong) = wrong(&value) {
            let title = format!("{name} is not a proxy: {wrong}");
            let help = "expected a URL such as http://proxy.example.com:3128";
            if needed == Some(name) {
                problems.check_error_elsewhere(title, help);
            } else {
                problems.warning(None, title, help);
            }
        }
    }
}

/// Why the client cannot use a value, if so.
fn wrong(value: &str) -> Option<&'static str> {
    // An empty value disables the proxy.
    if value.is_empty() {
        return None;
    }
    if value.trim().is_empty() || value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("it has white space or control characters in it");
    }
    if value.starts_with(['"', '\'']) || value.ends_with(['"', '\'']) {
        return Some("it has quotes around it");
    }
    let scheme = value.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !matches!(scheme.as_deref(), None | Some("http" | "https")) {
        return Some("its scheme is neither http nor https");
    }
    // As the client reads it: without a scheme, only a host and a port.
    let Ok(uri) = value.parse::<hyper::Uri>() else { return Some("it is not a URL") };
    let Some(authority) = uri.authority() else { return Some("it has no host") };
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let port = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    if authority.host().is_empty() {
        Some("it has no host")
    } else if port.is_some_and(|(_, port)| port.parse::<u16>().is_err()) {
        Some("its port is not a number from 0 to 65535")
    } else if scheme.is_none() && uri.path().len() > 1 {
        Some("it has no scheme")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_proxies_from_what_is_none() {
        for value in [
            "http://proxy.example.com:3128",
            "https://user:p%40ss@proxy.example.com/",
            "proxy.example.com:3128",
            "user:pass@proxy:3128",
            "proxy",
            "http://[::1]:3128",
            "http://10.0.0.1",
            "",
        ] {
            assert_eq!(wrong(value), None, "{value}");
        }
        for value in [
            "http://",
            "://proxy",
            "/etc/proxy",
            "http://proxy:port",
            "http://proxy:99999",
            "http://[bad",
            "proxy host",
            " http://proxy",
            "\"http://proxy:3128\"",
            "socks5://proxy:1080",
            "ftp://proxy",
            "http//proxy:3128",
            "http:/proxy:3128",
            "http://us er:pass@proxy",
        ] {
            assert!(wrong(value).is_some(), "{value}");
        }
    }
}
