//! The environment of the programs that runwatch starts: command channels, and the command after `--` of `watch` and
//! `wait`.
//!
//! Two rules apply. Variables for this process only (its secrets, its service manager) are removed. From all others,
//! the user and password of every URL are removed, because a proxy's password does not concern the program.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// Variables of the service manager for this process. A child that used them would report in the daemon's name, or take
/// its sockets (`sd_notify(3)`, `sd_listen_fds(3)`, `sd_watchdog_enabled(3)`, `systemd.exec(5)`).
const SERVICE_MANAGER: [&str; 16] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
    "FDSTORE",
    "CREDENTIALS_DIRECTORY",
    "ENCRYPTED_CREDENTIALS_DIRECTORY",
    "JOURNAL_STREAM",
    "MAINPID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
];

/// Runwatch's variables that hold no secret and that a program needs to call runwatch. All its others are removed.
const OURS: [&str; 6] = [
    "DATAFRAMER_BASE_URL",
    "DATAFRAMER_EMAIL",
    "RUNWATCH_CONFIG",
    "RUNWATCH_SOCKET",
    "RUNWATCH_LOG",
    "RUNWATCH_LOG_FORMAT",
];

/// What starts the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// A command channel, often of a service.
    Channel,
    /// A command line, `runwatch wait RUN -- PROGRAM`. It inherits `DATAFRAMER_*` too, as it would after `&&`, because it
    /// often downloads the run's samples with the same key.
    CommandLine,
}

/// The part of these variables that a program inherits.
pub fn inherited(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    program: Program,
) -> impl Iterator<Item = (OsString, OsString)> {
    variables.into_iter().filter(move |(name, _)| is_inherited(name, program)).map(|(name, value)| {
        let value = without_credentials(value.as_bytes(), is_proxy(&name));
        (name, OsString::from_vec(value))
    })
}

fn is_inherited(name: &OsStr, program: Program) -> bool {
    let Some(name) = name.to_str() else { return true };
    if program == Program::CommandLine && name.starts_with("DATAFRAMER_") {
        return true;
    }
    let is_ours = ["RUNWATCH_", "DATAFRAMER_"].iter().any(|prefix| name.starts_with(prefix));
    if is_ours { OURS.contains(&name) } else { !SERVICE_MANAGER.contains(&name) }
}

/// `HTTPS_PROXY`, `all_proxy`, `npm_config_proxy` and the like, whose URL may lack a scheme.
fn is_proxy(name: &OsStr) -> bool {
    name.to_string_lossy().to_ascii_lowercase().contains("proxy")
}

/// The value without the user and password of any URL in it. From a proxy variable, everything before the last `@` is
/// removed, because its password may contain unescaped characters.
fn without_credentials(value: &[u8], is_proxy: bool) -> Vec<u8> {
    let mut kept = Vec::with_capacity(value.len());
    if is_proxy && let Some(at) = last(value, b'@') {
        let scheme = find_scheme_end(value).filter(|end| *end <= at).unwrap_or(0);
        kept.extend_from_slice(&value[..scheme]);
        kept.extend_from_slice(&value[at + 1..]);
        return kept;
    }
    // `'` may be part of a password (RFC 3986, section 3.2.1); these characters may not.
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'<' | b'>');
    for word in value.split_inclusive(is_end) {
        strip_urls(word, &mut kept);
    }
    kept
}

/// Copies a word without white space, except the credentials of the URLs in it.
fn strip_urls(mut word: &[u8], kept: &mut Vec<u8>) {
    while let Some(scheme) = find_scheme_end(word) {
        kept.extend_from_slice(&word[..scheme]);
        word = &word[scheme..];
        let end = word.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(word.len());
        let authority = &word[..end];
        let credentials = match last(authority, b'@') {
            Some(at) => Some(at),
            // No port: the password contains a `/`, `?` or `#`.
            None if !has_port_or_none(authority) => last(word, b'@'),
            None => None,
        };
        if let Some(at) = credentials {
            word = &word[at + 1..];
        }
    }
    kept.extend_from_slice(word);
}

/// Whether a host without credentials has no port, or a number as its port.
fn has_port_or_none(authority: &[u8]) -> bool {
    if authority.first() == Some(&b'[') {
        return true;
    }
    let Some(colon) = authority.iter().position(|byte| *byte == b':') else { return true };
    // A list of hosts has several ports.
    authority[colon + 1..].iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'.' | b':'))
}

fn last(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().rposition(|byte| *byte == wanted)
}

/// The end of the first `://`.
fn find_scheme_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|window| window == b"://").map(|at| at + 3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(name: &str, value: &str) -> Option<String> {
        let variables = [(OsString::from(name), OsString::from(value))];
        inherited(variables, Program::Channel).next().map(|(_, value)| value.into_string().unwrap())
    }

    #[test]
    fn what_is_addressed_to_this_process_is_left_out() {
        for name in SERVICE_MANAGER {
            assert_eq!(of(name, "x"), None, "{name}");
        }
        for name in [
            "DATAFRAMER_API_KEY",
            "DATAFRAMER_CUSTOM_HEADERS",
            "DATAFRAMER_NEW",
            "RUNWATCH_NEW",
            "RUNWATCH_EVENT_ID",
        ] {
            assert_eq!(of(name, "x"), None, "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "LANG",
            "INVOCATION_ID",
            "STATE_DIRECTORY",
            "RUNWATCH_SOCKET",
            "DATAFRAMER_BASE_URL",
            "Ä",
        ] {
            assert_eq!(of(name, "x").as_deref(), Some("x"), "{name}");
        }
    }

    #[test]
    fn a_command_line_keeps_the_key_and_nothing_else() {
        let of = |name: &str, value: &str| {
            let variables = [(OsString::from(name), OsString::from(value))];
            inherited(variables, Program::CommandLine).next().map(|(_, value)| value.into_string().unwrap())
        };
        assert_eq!(of("DATAFRAMER_API_KEY", "x").as_deref(), Some("x"));
        for name in SERVICE_MANAGER.into_iter().chain(["RUNWATCH_EVENT_ID", "RUNWATCH_RUN_ID"]) {
            assert_eq!(of(name, "x"), None, "{name}");
        }
        assert_eq!(of("HTTPS_PROXY", "http://u:p@proxy").as_deref(), Some("http://proxy"));
    }

    #[test]
    fn credentials_go_and_the_rest_of_a_url_stays() {
        for (name, value, expected) in [
            ("HTTPS_PROXY", "http://user:pass@proxy:3128", "http://proxy:3128"),
            ("https_proxy", "user:pass@proxy:3128", "proxy:3128"),
            ("All_Proxy", "socks5h://user@[::1]:1080/", "socks5h://[::1]:1080/"),
            ("HTTP_PROXY", "http://u:p@ss@proxy", "http://proxy"),
            ("HTTP_PROXY", "http://u:p/s?s#@proxy:1", "http://proxy:1"),
            ("npm_config_https_proxy", "//u:p@proxy", "proxy"),
            ("no_proxy", "localhost,.example,10.0.0.0/8", "localhost,.example,10.0.0.0/8"),
            ("http_proxy", "http://proxy:3128", "http://proxy:3128"),
            (
                "DATABASE_URL",
                "postgres://u:p@h:5432/db?sslmode=require",
                "postgres://h:5432/db?sslmode=require",
            ),
            ("DATABASE_URL", "postgres://u:p/w@h:5432/db", "postgres://h:5432/db"),
            ("MONGO", "mongodb://u:p@a:1,b:2/db", "mongodb://a:1,b:2/db"),
            ("REDIS", "redis://:p@a,redis://:q@b", "redis://a,redis://b"),
            ("TOKEN_URL", "https://token@host/path@1", "https://host/path@1"),
            (
                "JSON",
                "{\"a\":\"http://u:p@h/\", \"b\":\"http://v:q@i/\"}",
                "{\"a\":\"http://h/\", \"b\":\"http://i/\"}",
            ),
            ("LINES", "a http://u:p@h\nb ftp://v:q@i x@y", "a http://h\nb ftp://i x@y"),
            ("MAIL", "ana@example.com", "ana@example.com"),
            ("SEARCH", "https://h/?mail=a@b", "https://h/?mail=a@b"),
            ("SCOPE", "http://h:8080/@scope/pkg", "http://h:8080/@scope/pkg"),
            ("PATH", "/opt//node@18/bin:/usr/bin", "/opt//node@18/bin:/usr/bin"),
            ("EMPTY", "", ""),
        ] {
            assert_eq!(of(name, value).as_deref(), Some(expected), "{name}={value}");
        }
    }

    #[test]
    fn what_is_not_text_goes_through() {
        let value = OsString::from_vec(b"\xff http://u:\xfe@h/\xff".to_vec());
        let (_, value) = inherited([("X".into(), value)], Program::Channel).next().unwrap();
        assert_eq!(value.as_bytes(), b"\xff http://h/\xff");
    }

    proptest! {
        /// For a URL anywhere in a value, and any characters in its user and password.
        #[test]
        fn no_password_is_inherited(
            before in "[a-z0-9 ,;=\"]{0,8}",
            scheme in "[a-z][a-z0-9+.-]{0,6}",
            user in "[a-zA-Z0-9%._~-]{0,6}",
            password in "[a-zA-Z0-9%!$&'()*+,;=:@._~-]{0,6}",
            after in "(:[0-9]{1,5})?(/[a-z/]{0,6})?( .{0,6})?",
        ) {
            let value = format!("{before}{scheme}://{user}:Se{password}Cret@host{after}");
            for name in ["X", "https_proxy"] {
                let inherited = of(name, &value).unwrap();
                prop_assert!(!inherited.contains("Cret") && !inherited.contains(":Se"), "{value} {inherited}");
                prop_assert!(name != "X" || inherited.contains("://host"), "{value} {inherited}");
            }
        }

        /// A proxy's password may be unescaped.
        #[test]
        fn no_proxy_password_is_inherited(
            scheme in "(https?://|socks5://|//|)",
            password in "[ -~]{0,8}",
        ) {
            let value = format!("{scheme}user:Se{password}Cret@host:3128");
            for name in ["HTTPS_PROXY", "Http_Proxy", "all_proxy"] {
                let inherited = of(name, &value).unwrap();
                prop_assert!(!inherited.contains("Cret") && inherited.ends_with("host:3128"), "{value} {inherited}");
            }
        }
    }
}
