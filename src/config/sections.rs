//! Reads every section except the channels, and checks settings that concern several of them.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::Problems;
use super::key::{KeySource, is_denied, is_world_readable};
use super::reader::{Section, expected_words, find_word};
use super::url::{DEFAULT, base_url};
use super::{Api, Config, Daemon, Environment, Log, LogFormat, Overrides, Poll};
use super::{channels, discover, mask, proxy, runs};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use reqwest::header::{HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::DeValue;

use crate::http::{host_name, know_proxies};
use crate::notify::RetrySchedule;
use crate::poll::{Alerts, Curve, Mode, Policy};
use crate::secret::{KnownSecrets, Secret};

/// Reads the whole document; `None` if a setting without a default is invalid. `runs` is what the document had at `run`.
pub(super) fn read<'s>(
    root: &Section<'s>,
    runs: Option<Spanned<DeValue<'s>>>,
    env: Environment<'_>,
    overrides: &Overrides,
) -> Option<Config> {
    let api = api(root.table("api"), env, overrides);
    let poll = poll(root.table("poll"), overrides);
    let alerts = alerts(root.table("alerts"));
    let retry_delays = delivery(root.table("delivery"));
    let daemon = daemon(root.table("daemon"));
    let log = log(root.table("log"), env, overrides);
    let state_dir = root.path("state_dir").map(|(path, span)| {
        if path.is_relative() {
            let title =
                "`state_dir` is relative: the daemon and the commands look for it where each was started";
            root.problems.check_error(span, title, "write the whole path, beginning with /");
        }
        path
    });
    let channels = channels::read(root, env, root.problems);
    let (runs, mut choices) = runs::read(root, runs, &channels);
    let discover = discover::read(root, &channels, daemon.keep);
    choices.extend(discover.iter().map(|discover| discover.notify.clone()));
    runs::warn_of_unused(&channels, &choices, root.problems);
    root.unknown_keys();
    proxy::check(env, api.as_ref().map(|api| &api.base_url), root.problems);
    let channels: Vec<_> = channels.list.into_iter().map(|(channel, _)| channel).collect();
    let api = api?;
    let known = KnownSecrets::default();
    known.learn(|redactor| {
        know_proxies(redactor, env);
        for (name, value) in &api.headers {
            redactor.add_header(name, value.expose());
        }
        for channel in &channels {
            channel.kind.know(redactor);
        }
    });
    let runs = runs.into();
    Some(Config { api, poll, alerts, retry_delays, daemon, log, state_dir, runs, discover, channels, known })
}

fn api(section: Section<'_>, env: Environment<'_>, overrides: &Overrides) -> Option<Api> {
    let allow_http = section.boolean("allow_http", false) || overrides.allow_http;
    let file = section.path("api_key_file");
    let key = match &overrides.api_key_file {
        Some(path) => KeySource::File(path.clone()),
        None => KeySource::find(file.as_ref().map(|(path, _)| path.clone()), env),
    };
    let key = check_key(key, file, env, overrides, section.problems);
    let base_url = base(&section, allow_http, env, overrides);
    let email = email(&section, env);
    let ca_file = section.ca_file().map(|(path, wrong)| {
        if let Some((span, wrong)) = wrong {
            section.problems.error(span, wrong, "");
        }
        path
    });
    // Read even if the base URL is invalid, so that they do not count as unknown keys.
    let connect_timeout = section.duration("connect_timeout", Duration::from_secs(10));
    let request_timeout = section.duration("request_timeout", Duration::from_secs(30));
    let headers = headers(&section, env);
    section.finish();
    let base_url = base_url?;
    Some(Api { base_url, key, ca_file, connect_timeout, request_timeout, email, headers })
}

/// The user's e-mail address, for `--mine`: the environment, then the file. Both are checked.
fn email(section: &Section<'_>, env: Environment<'_>) -> Option<String> {
    let (wrong, help) = ("is not an e-mail address", "expected one such as \"ana@example.com\"");
    let in_file = section.string("email").map(|(email, span)| {
        if !is_email(email) {
            section.problems.check_error(span, format!("`email` {wrong}"), help);
        }
        email.to_owned()
    });
    let in_env = env("DATAFRAMER_EMAIL").filter(|email| !email.trim().is_empty());
    if in_env.as_deref().is_some_and(|email| !is_email(email)) {
        section.problems.warning(None, format!("DATAFRAMER_EMAIL {wrong}"), help);
    }
    in_env.or(in_file)
}

fn is_email(text: &str) -> bool {
    let ends = text.trim().split_once('@');
    ends.is_some_and(|(name, host)| {
        !name.is_empty() && !host.is_empty() && !text.trim().contains(char::is_whitespace)
    })
}

/// The flag, then the environment, then the file. All are checked, because a value that is overridden today may apply
/// tomorrow.
fn base(
    section: &Section<'_>,
    allow_http: bool,
    env: Environment<'_>,
    overrides: &Overrides,
) -> Option<reqwest::Url> {
    let problems = section.problems;
    let in_file = section.string("base_url").map(|(text, span)| {
        base_url(text, allow_http, "allow_http = true in [api]")
            .map_err(|error| problems.error(span, format!("`base_url`: {error}"), ""))
            .ok()
    });
    let elsewhere = |from: &str, text: String| {
        base_url(&text, allow_http, "--allow-http")
            .map_err(|error| problems.error_elsewhere(format!("{from}: {error}"), ""))
            .ok()
    };
    let in_env = env("DATAFRAMER_BASE_URL").filter(|text| !text.trim().is_empty());
    let in_env = in_env.map(|text| elsewhere("DATAFRAMER_BASE_URL", text));
    let flag = overrides.base_url.clone().map(|text| elsewhere("--base-url", text));
    let default = || match section.span_of("base_url") {
        // A wrong type was reported already.
        Some(_) => None,
        None => elsewhere("the default base URL", DEFAULT.to_owned()),
    };
    flag.or(in_env).or(in_file).unwrap_or_else(default)
}

/// From the file, then from the environment in the official SDK's format: lines of `Name: value`; other lines are
/// skipped.
fn headers(section: &Section<'_>, env: Environment<'_>) -> Vec<(String, Secret)> {
    let in_file = section.pairs("headers").into_iter().map(|(name, value, span)| {
        section.problems.inline_secret(&span);
        if let Err(error) = check_header(&name, value) {
            section.problems.error(span, format!("`headers`: {error}"), "");
        }
        (name, Secret::new(value))
    });
    let lines = env("DATAFRAMER_CUSTOM_HEADERS").unwrap_or_default();
    let in_env = lines.lines().filter_map(|line| {
        let Some((name, value)) = line.split_once(':') else {
            if !line.trim().is_empty() {
                let title = "DATAFRAMER_CUSTOM_HEADERS: a line without a colon is passed over";
                section.problems.warning(None, title, "expected lines such as Name: value");
            }
            return None;
        };
        let (name, value) = (name.trim(), value.trim());
        if let Err(error) = check_header(name, value) {
            section.problems.error_elsewhere(format!("DATAFRAMER_CUSTOM_HEADERS: {error}"), "");
        }
        Some((name.to_owned(), Secret::new(value)))
    });
    in_file.chain(in_env).collect()
}

/// Whether HTTP allows a header.
fn check_header(name: &str, value: &str) -> Result<(), String> {
    let shown = mask::quoted(name);
    HeaderName::try_from(name)
        .map_err(|_| format!("`{shown}` is not a header name; expected letters, digits and dashes"))?;
    HeaderValue::from_str(value)
        .map_err(|_| format!("the value of `{shown}` cannot be sent; expected text without line breaks"))?;
    Ok(())
}

/// Checks the key's file that the configuration or a flag names: whether it can be read, and by whom. Returns the key's source.
fn check_key(
    key: KeySource,
    in_file: Option<(PathBuf, Range<usize>)>,
    env: Environment<'_>,
    overrides: &Overrides,
    problems: &Problems,
) -> KeySource {
    let span = match (&overrides.api_key_file, in_file) {
        (Some(_), _) => None,
        (None, Some((path, span))) if key == KeySource::File(path.clone()) => Some(span),
        _ => return key,
    };
    let KeySource::File(path) = &key else { return key };
    if is_world_readable(path) {
        let shown = mask::path(path);
        problems.warning(
            span.clone(),
            format!("everybody on this machine can read the API key in {shown}"),
            format!("chmod 600 {shown}"),
        );
    }
    let Err(error) = key.read() else { return key };
    let Some(span) = span else {
        problems.error_elsewhere(format!("--api-key-file: {error}"), "");
        return key;
    };
    let error = format!("`api_key_file`: {error}");
    if overrides.service || !is_denied(path) {
        problems.error(span, error, "");
        return key;
    }
    // Users may not read the service's key, and can use a key of their own.
    if let own @ KeySource::Environment(Some(_)) = KeySource::find(None, env) {
        problems.warning(Some(span), error, "the key in DATAFRAMER_API_KEY is used instead");
        own
    } else {
        problems.error(span, error, "let this user read it, or set DATAFRAMER_API_KEY");
        key
    }
}

fn poll(section: Section<'_>, overrides: &Overrides) -> Poll {
    let defaults = Poll::default();
    let Policy { healthy, error, price } = defaults.policy;
    let jitter = section.number("jitter", healthy.jitter, 0.0..=1.0);
    let policy = Policy {
        healthy: Curve {
            initial: section.duration("initial_interval", healthy.initial),
            multiplier: section.number("multiplier", healthy.multiplier, 1.0..=10.0),
            max: section.duration("max_interval", healthy.max),
            jitter,
        },
        error: Curve {
            initial: section.duration("error_initial_interval", error.initial),
            max: section.duration("error_max_interval", error.max),
            jitter,
            ..error
        },
        price: section.one_of("eagerness", &EAGERNESS).unwrap_or(price),
    };
    let poll = Poll {
        policy,
        batch: section.one_of("batch", &BATCHES).unwrap_or(defaults.batch),
        requests_per_minute: section.integer(
            "requests_per_minute",
            defaults.requests_per_minute,
            1..=600_000,
        ),
        max_in_flight: section.integer("max_in_flight", defaults.max_in_flight, 1..=1000),
        grace: overrides.grace.unwrap_or(section.duration_or_zero("grace", defaults.grace)),
        unknown_status_after: section.duration("unknown_status_after", defaults.unknown_status_after),
    };
    for (curve, initial_key, max_key) in [
        (policy.healthy, "initial_interval", "max_interval"),
        (policy.error, "error_initial_interval", "error_max_interval"),
    ] {
        if curve.initial > curve.max
            && let Some(span) = section.span_of(initial_key).or_else(|| section.span_of(max_key))
        {
            let title = format!("`{initial_key}` is longer than `{max_key}`");
            section.problems.error(span, title, "the first interval must not be above the longest");
        }
    }
    section.finish();
    poll
}

fn alerts(section: Section<'_>) -> Alerts {
    let unreachable_after = section.duration_or_zero("unreachable_after", Duration::from_mins(15));
    let alerts = Alerts {
        stalled_after: section.optional_duration("stalled_after"),
        overdue_after: section.optional_duration("overdue_after"),
        // Zero in the file means never.
        unreachable_after: Some(unreachable_after).filter(|after| !after.is_zero()),
        remind_every: section.duration("remind_every", Duration::from_hours(6)),
    };
    section.finish();
    alerts
}

fn delivery(section: Section<'_>) -> Vec<Duration> {
    let delays = section.durations("retry_delays", RetrySchedule::suggested());
    if section.is_empty_list("retry_delays") {
        section.problems.check_error(
            section.span_of("retry_delays").unwrap_or_default(),
            "`retry_delays` is empty: an event is given up after one attempt",
            "leave it out for ten attempts over three days",
        );
    }
    if delays.len() > MOST_RETRIES {
        section.problems.error(
            section.span_of("retry_delays").unwrap_or_default(),
            format!("`retry_delays` has {} pauses", delays.len()),
            format!("expected {MOST_RETRIES} at most"),
        );
    }
    section.finish();
    delays
}

fn daemon(section: Section<'_>) -> Daemon {
    let listen = section.string("listen").and_then(|(text, span)| {
        let address = text.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback());
        if address.is_none() {
            let title = format!("`{}` is not an address of this machine", mask::quoted(text));
            section.problems.error(
                span,
                title,
                "expected 127.0.0.1 or [::1] and a port, such as 127.0.0.1:9464",
            );
        }
        address
    });
    let daemon = Daemon {
        keep: section.duration("keep", Duration::from_hours(30 * 24)),
        listen,
        listen_names: listen_names(&section),
        watch_dir: section.path("watch_dir").map(|(path, _)| path),
        socket_for_group: section.one_of("socket_mode", &SOCKET_MODES).unwrap_or(false),
    };
    section.finish();
    daemon
}

/// The names in `listen_names`, in the form that `Host` headers are compared with.
fn listen_names(section: &Section<'_>) -> Vec<String> {
    let texts = section.strings("listen_names").unwrap_or_default();
    let name = |(text, span): (&str, Range<usize>)| {
        let name = host_name(text);
        if name.is_none() {
            let title = format!("invalid name `{}` in `listen_names`", mask::quoted(text));
            section.problems.error(
                span,
                title,
                "expected a host name without scheme, port or *, such as \"host.example\"",
            );
        }
        name
    };
    let names: Vec<String> = texts.into_iter().filter_map(name).collect();
    if let Some(span) = section.span_of("listen_names").filter(|_| section.span_of("listen").is_none()) {
        section.problems.warning(Some(span), "`listen_names` has no effect without `listen`", "");
    }
    names
}

/// Maximum number of retries.
const MOST_RETRIES: usize = 50;

/// The price of a request in seconds of delay, by eagerness. `off` ignores the counts.
pub const EAGERNESS: [(&str, Option<f64>); 4] =
    [("off", None), ("low", Some(10.0)), ("normal", Some(2.0)), ("high", Some(0.5))];

const BATCHES: [(&str, Mode); 3] = [("auto", Mode::Auto), ("never", Mode::Never), ("always", Mode::Always)];

/// Whether the socket's group may use it, by the socket's mode.
const SOCKET_MODES: [(&str, bool); 2] = [("0600", false), ("0660", true)];

const FORMATS: [(&str, LogFormat); 4] = [
    ("auto", LogFormat::Auto),
    ("text", LogFormat::Text),
    ("json", LogFormat::Json),
    ("journald", LogFormat::Journald),
];

impl Default for Poll {
    fn default() -> Self {
        let curve = |multiplier| Curve {
            initial: Duration::from_secs(1),
            multiplier,
            max: Duration::from_mins(1),
            jitter: 0.1,
        };
        Self {
            policy: Policy { healthy: curve(1.5), error: curve(2.0), price: Some(2.0) },
            batch: Mode::Auto,
            requests_per_minute: 120,
            max_in_flight: 8,
            grace: Duration::from_mins(1),
            unknown_status_after: Duration::from_mins(30),
        }
    }
}

fn log(section: Section<'_>, env: Environment<'_>, overrides: &Overrides) -> Log {
    let level_in_file = section.string("level").filter(|(text, span)| {
        let valid = is_level(text);
        if !valid {
            let title = format!("`{}` is not a log level", mask::quoted(text));
            section.problems.error(span.clone(), title, LEVELS);
        }
        valid
    });
    let format_in_file = section.one_of("format", &FORMATS);
    let from_env = |name: &str| env(name).filter(|text| !text.trim().is_empty());
    let level_in_env = from_env("RUNWATCH_LOG").filter(|text| {
        let valid = is_level(text);
        if !valid {
            let title = format!("RUNWATCH_LOG: `{}` is not a log level", mask::quoted(text));
            section.problems.error_elsewhere(title, LEVELS);
        }
        valid
    });
    let format_in_env = from_env("RUNWATCH_LOG_FORMAT").and_then(|text| {
        let format = find_word(&text, &FORMATS);
        if format.is_none() {
            section.problems.error_elsewhere(
                format!("RUNWATCH_LOG_FORMAT: `{}` is not a log format", mask::quoted(&text)),
                expected_words(&FORMATS),
            );
        }
        format
    });
    section.finish();
    Log {
        level: overrides
            .log_level
            .clone()
            .or(level_in_env)
            .or(level_in_file.map(|(text, _)| text.to_owned())),
        format: overrides.log_format.or(format_in_env).or(format_in_file).unwrap_or_default(),
    }
}

const LEVELS: &str =
    "expected error, warn, info, debug or trace, or levels by module such as info,runwatch::api=debug";

/// Whether a text is a level, or levels by module. The parser alone would take a misspelt level for a module.
pub fn is_level(text: &str) -> bool {
    // The parser reads an empty level as `error`.
    let is_level = |level: &str| !level.is_empty() && level.parse::<LevelFilter>().is_ok();
    let is_word =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_module = |module: &str| module.split("::").all(is_word);
    let is_bare = |part: &str| is_level(part) && part.parse::<u8>().is_err();
    let known = |part: &str| match part.split_once('=') {
        Some((module, level)) => is_module(module) && is_level(level),
        None => is_bare(part) || (part.contains("::") && is_module(part)),
    };
    let mut parts = text.split(',').map(str::trim);
    let levels = text.split(',').filter(|part| is_bare(part.trim())).count();
    parts.all(known) && levels <= 1 && text.parse::<Targets>().is_ok()
}
