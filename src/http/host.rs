//! Which `Host` a server on this machine answers to.
//!
//! A web page can let its own name resolve to 127.0.0.1 (DNS rebinding) and then read what is served there. The browser
//! still sends the page's name as `Host`. So only names that no page can have are accepted, and always the whole name
//! is compared. Used by `control`'s server on a port; `config` checks names with it.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::HOST;
use hyper::http::request::Parts;

use crate::run::printable;

/// Maximum length of a DNS name, and of one label (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// The names that a server answers to, besides `localhost`, names below it, and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts {
    names: Vec<String>,
}

/// Why a request is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No `Host`, several, or an invalid one.
    #[error("the request must have exactly one Host header: a name or an address, and perhaps a port")]
    Malformed,
    /// A name that the server does not answer to.
    #[error(
        "the host `{0}` is not answered here: use localhost or an address, or add the name to `listen_names` in [daemon]"
    )]
    Foreign(String),
}

impl Hosts {
    /// Accepts these names, in the form that [`host_name`] returns.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self { names: names.into_iter().collect() }
    }

    /// Checks a request's one `Host` header and, if it has one, the authority of its target.
    pub fn check(&self, head: &Parts) -> Result<(), HostError> {
        let mut headers = head.headers.get_all(HOST).iter();
        let (Some(header), None) = (headers.next(), headers.next()) else { return Err(HostError::Malformed) };
        let header = header.to_str().map_err(|_| HostError::Malformed)?;
        let target = head.uri.authority().map(hyper::http::uri::Authority::as_str);
        [Some(header), target].into_iter().flatten().try_for_each(|host| self.check_one(host))
    }

    fn check_one(&self, host: &str) -> Result<(), HostError> {
        match read(host).ok_or(HostError::Malformed)? {
            Host::Address => Ok(()),
            Host::Name(name) if is_loopback(&name) || self.names.contains(&name) => Ok(()),
            Host::Name(name) => Err(HostError::Foreign(printable(&name, 80))),
        }
    }
}

enum Host {
    Address,
    /// In lower case, without a trailing dot.
    Name(String),
}

/// Parses a host and its port as in `Host` (RFC 9110, section 7.2). No user, no zone, nothing else.
fn read(text: &str) -> Option<Host> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        return is_port(port).then_some(Host::Address);
    }
    let colon = text.find(':').unwrap_or(text.len());
    let (host, port) = text.split_at(colon);
    if !is_port(port) {
        return None;
    }
    if host.parse::<Ipv4Addr>().is_ok() {
        return Some(Host::Address);
    }
    host_name(host).map(Host::Name)
}

/// Empty, or a colon and a number.
fn is_port(text: &str) -> bool {
    let Some(digits) = text.strip_prefix(':') else { return text.is_empty() };
    digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits.is_empty() || digits.parse::<u16>().is_ok())
}

/// A DNS name in lower case and without a trailing dot; `None` if it is invalid.
pub fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    (name.len() <= LONGEST_NAME && name.split('.').all(is_label)).then_some(name)
}

/// `localhost` and the names below it, which nobody can register (RFC 6761, section 6.3).
fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use proptest::prelude::*;

    use super::*;

    fn check(target: &str, hosts: &[&str]) -> Result<(), HostError> {
        let request =
            hosts.iter().fold(Request::builder().uri(target), |request, host| request.header(HOST, *host));
        let (head, ()) = request.body(()).unwrap().into_parts();
        Hosts::new(["host.example".to_owned(), "metrics".to_owned()]).check(&head)
    }

    #[test]
    fn loopback_names_addresses_and_configured_names_are_answered() {
        for host in [
            "localhost",
            "localhost:9464",
            "LocalHost",
            "localhost.",
            "LOCALHOST.:80",
            "a.localhost",
            "127.0.0.1",
            "127.0.0.1:9464",
            "127.0.0.1:",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:9464",
            "[::ffff:127.0.0.1]:1",
            "[2001:DB8::1]",
            "host.example",
            "HOST.Example.:9464",
            "metrics:65535",
        ] {
            assert_eq!(check("/healthz", &[host]), Ok(()), "{host}");
            if !host.ends_with(':') {
                assert_eq!(check(&format!("http://{host}/healthz"), &["localhost"]), Ok(()), "{host}");
            }
        }
    }

    #[test]
    fn foreign_names_are_refused_whole() {
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1.evil.example:9464",
            "localhost.evil",
            "localhost.evil.:9464",
            "notlocalhost",
            "evil-localhost",
            "127.0.0.1.",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "1.host.example",
            "host.example.evil",
            "host",
            "example",
            "xn--lcalhost-54a",
        ] {
            assert!(matches!(check("/", &[host]), Err(HostError::Foreign(_))), "{host}");
            let absolute = check(&format!("http://{host}/healthz"), &["localhost"]);
            assert!(matches!(absolute, Err(HostError::Foreign(_))), "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for host in [
            "",
            ":",
            ":9464",
            "localhost:http",
            "localhost:99999",
            "localhost:-1",
            "localhost:+80",
            "localhost:80:80",
            "localhost@evil.example",
            "evil.example@localhost",
            "a:b@localhost",
            "evil.example#localhost",
            "localhost/evil.example",
            "localhost, evil.example",
            "local host",
            "localhost%00",
            "localhost..",
            ".localhost",
            ".",
            "a..localhost",
            "::1",
            "[::1",
            "::1]",
            "[::1]evil.example",
            "[::1].evil.example",
            "[localhost]",
            "[127.0.0.1]",
            "[fe80::1%25lo]",
            "[::1]:",
            "*",
            "*.localhost",
        ] {
            let expected = if host == "[::1]:" { Ok(()) } else { Err(HostError::Malformed) };
            assert_eq!(check("/", &[host]), expected, "{host}");
        }
        assert_eq!(check("/", &[]), Err(HostError::Malformed));
        assert_eq!(check("/", &["localhost", "localhost"]), Err(HostError::Malformed));
        assert_eq!(check("/", &["localhost", "evil.example"]), Err(HostError::Malformed));
        assert_eq!(check("http://evil@localhost/", &["localhost"]), Err(HostError::Malformed));
        assert_eq!(check("http://localhost/", &[]), Err(HostError::Malformed));
        assert!(check("http://localhost/", &["evil.example"]).is_err());
    }

    proptest! {
        /// Only the whole name decides, whatever surrounds an accepted one.
        #[test]
        fn only_whole_names_count(
            before in "[-a-zA-Z0-9._@:/\\[\\]#%, ]{0,8}",
            name in prop::sample::select(vec!["localhost", "127.0.0.1", "[::1]", "host.example"]),
            after in "[-a-zA-Z0-9._@:/\\[\\]#%, ]{0,8}",
        ) {
            let host = format!("{before}{name}{after}");
            let answered = check("/", &[&host]).is_ok();
            let plain = |text: &str| {
                let text = text.to_ascii_lowercase();
                let whole = [name, &format!("{name}.")].contains(&&*text);
                whole || text.trim_end_matches('.').ends_with(".localhost") || text.parse::<Ipv4Addr>().is_ok()
            };
            let (bare, port) = match host.rfind(':') {
                Some(colon) if !host[colon..].contains(']') => (&host[..colon], &host[colon + 1..]),
                _ => (&*host, ""),
            };
            if answered {
                prop_assert!(port.bytes().all(|byte| byte.is_ascii_digit()), "{host}");
                prop_assert!(plain(bare), "{host}");
            }
        }
    }
}
