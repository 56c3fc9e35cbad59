//! What the user wants: a TOML file, then the environment, then flags; the later wins.
//!
//! Owns reading and checking, all problems at once. The result is plain values: nothing here builds clients or channels.

mod channels;
mod diagnostic;
mod discover;
mod glob;
mod key;
mod locate;
mod mask;
mod proxy;
mod reader;
mod runs;
mod sections;
mod url;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use toml::de::DeTable;

use crate::notify::{CommandSettings, SigningSecret};
use crate::poll::{Alerts, Mode, Policy};
use crate::run::{EventKind, RunId};
use crate::secret::{KnownSecrets, REDACTED, Redactor, Secret};
use crate::small_file;

pub use diagnostic::{Problem, Report, Severity};
pub use discover::{Discover, Since};
pub use key::KeySource;
pub use locate::{Located, locate};
pub use runs::name_error;
pub use sections::is_level;

use diagnostic::Problems;
use reader::Section;

/// Looks up an environment variable. Passed in, so that tests need not change the process's own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The API and how to reach it.
    pub api: Api,
    /// How often to ask.
    pub poll: Poll,
    /// `[alerts]`: when to warn about what has not ended.
    pub alerts: Alerts,
    /// The pauses between attempts to tell.
    pub retry_delays: Vec<Duration>,
    /// What concerns the daemon only.
    pub daemon: Daemon,
    /// What is logged and how.
    pub log: Log,
    /// Where the daemon keeps its state; `None` for the place the system has for it.
    pub state_dir: Option<PathBuf>,
    /// The runs that are always watched.
    pub runs: Vec<ConfiguredRun>,
    /// Which runs are found and watched by themselves; `None` for none.
    pub discover: Option<Discover>,
    /// The ways out.
    pub channels: Vec<ConfiguredChannel>,
    /// All secrets that are in it, and those that it points to, once they are read.
    pub known: KnownSecrets,
}

/// `[api]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Scheme, host and path prefix, without `/api/dataframer`.
    pub base_url: Url,
    /// Where the key is.
    pub key: KeySource,
    /// PEM file of certificate authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// For the TCP and TLS handshakes.
    pub connect_timeout: Duration,
    /// For a whole request.
    pub request_timeout: Duration,
    /// Who "mine" is.
    pub email: Option<String>,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
}

/// `[poll]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Poll {
    /// The pauses after answers and after errors.
    pub policy: Policy,
    /// Whether the list of all runs is fetched in place of many runs.
    pub batch: Mode,
    /// For all runs together.
    pub requests_per_minute: u32,
    /// Requests under way at once.
    pub max_in_flight: u32,
    /// How long an id may be unknown to the API before it is called wrong.
    pub grace: Duration,
    /// How long a status may be a word that runwatch does not know.
    pub unknown_status_after: Duration,
}

/// `[daemon]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// How long runs that have ended are kept, with their deliveries.
    pub keep: Duration,
    /// Where metrics and health are served; `None` nowhere. Loopback only.
    pub listen: Option<SocketAddr>,
    /// Names of this machine by which a browser or a scraper may ask there, in lower case. `localhost` and addresses always may.
    pub listen_names: Vec<String>,
    /// Where files whose names are run ids are dropped; `None` nowhere.
    pub watch_dir: Option<PathBuf>,
    /// Whether the socket's group may use it, beside its owner.
    pub socket_for_group: bool,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A level, or levels by module; `None` for the command's own default.
    pub level: Option<String>,
    /// In which form.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// The journal's own protocol where the journal reads along, else text.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// The journal's own protocol, with fields.
    Journald,
}

/// `[[run]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredRun {
    /// The API's id.
    pub id: RunId,
    /// What people call it.
    pub name: Option<Arc<str>>,
    /// The channels that tell of it; `None` for all.
    pub notify: Option<Vec<Arc<str>>>,
    /// How long after its creation it is overdue; `None` as `[alerts]` says.
    pub deadline: Option<Duration>,
}

/// One `[[notify.…]]`.
#[derive(Debug, Clone)]
pub struct ConfiguredChannel {
    /// Its name.
    pub name: Arc<str>,
    /// The events it tells; `None` for all.
    pub events: Option<Vec<EventKind>>,
    /// What kind of channel it is.
    pub kind: ChannelKind,
}

/// The kinds of channel, with what each needs.
#[derive(Debug, Clone)]
pub enum ChannelKind {
    /// `[[notify.webhook]]`.
    Webhook {
        /// Where to. A credential: `Debug` shows the host only by way of [`SecretUrl`].
        url: SecretUrl,
        /// Signed with each of these.
        secrets: Vec<SigningSecret>,
        /// PEM file of certificate authorities to trust beside the system's.
        ca_file: Option<PathBuf>,
    },
    /// `[[notify.desktop]]`.
    Desktop {
        /// How long an event waits for others to be shown together with it.
        gather: Duration,
    },
    /// `[[notify.log]]`.
    Log,
    /// `[[notify.command]]`.
    Command(CommandSettings),
    /// One whose secrets cannot be read here and now; why.
    Unusable(String),
}

impl ChannelKind {
    /// Adds its secrets.
    pub fn know(&self, redactor: &mut Redactor) {
        if let Self::Webhook { url, secrets, .. } = self {
            redactor.add_url(&url.0);
            for secret in secrets {
                redactor.add(secret.text().expose());
            }
        }
    }
}

/// A URL that is a credential: it prints as its scheme and host.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(pub Url);

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{REDACTED}", self.0.origin().ascii_serialization())
    }
}

/// What flags set; each wins over everything else. `Debug` does not show the base URL, which may have a password in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--base-url`.
    pub base_url: Option<String>,
    /// `--api-key-file`.
    pub api_key_file: Option<PathBuf>,
    /// `--allow-http`.
    pub allow_http: bool,
    /// `--log-level`.
    pub log_level: Option<String>,
    /// `--log-format`.
    pub log_format: Option<LogFormat>,
    /// `--grace`.
    pub grace: Option<Duration>,
}

impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base_url, api_key_file, allow_http, log_level, log_format, grace } = self;
        f.debug_struct("Overrides")
            .field("base_url", &base_url.as_ref().map(|_| REDACTED))
            .field("api_key_file", api_key_file)
            .field("allow_http", allow_http)
            .field("log_level", log_level)
            .field("log_format", log_format)
            .field("grace", grace)
            .finish()
    }
}

/// A configuration and what was noticed on the way.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings; no errors.
    pub report: Report,
    /// The file it came from, if there was one.
    pub path: Option<PathBuf>,
}

/// Reads the configuration from where it is: the file meant by `flag`, the environment, or the usual places. Without a file
/// anywhere, the defaults are a configuration too.
///
/// The error is the report with every problem in it.
pub fn load(flag: Option<&Path>, env: Environment<'_>, overrides: &Overrides) -> Result<Loaded, Report> {
    match locate(flag, env) {
        Located::Nowhere(_) => parse(None, env, overrides),
        located => read(located, env, overrides),
    }
}

/// As [`load`], for a service: there must be a file. One that has gone must not pass for an empty one, for that drops every
/// channel and every run.
pub fn load_for_service(
    flag: Option<&Path>,
    env: Environment<'_>,
    overrides: &Overrides,
) -> Result<Loaded, Report> {
    read(locate(flag, env), env, overrides)
}

fn read(located: Located, env: Environment<'_>, overrides: &Overrides) -> Result<Loaded, Report> {
    let refuse = |title: String, help: &str| {
        let problems = Problems::default();
        problems.error_elsewhere(title, help);
        Err(problems.into_report(None))
    };
    let (path, help) = match located {
        Located::Named(path) => (path, "check the path, and that it is a text file you may read"),
        Located::Found(path) => (path, "make it readable for this user, or name another with --config FILE"),
        Located::Hidden(path, error) => {
            let title = format!("cannot look for the configuration file {}: {error}", path.display());
            return refuse(title, "let this user search its directory, or name a file with --config FILE");
        }
        Located::Nowhere(places) => {
            let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
            let title = format!("there is no configuration file: looked for {}", places.join(" and "));
            return refuse(title, "write one (an empty one will do), or name it with --config FILE");
        }
    };
    match small_file::read_text(&path, small_file::LARGE) {
        Ok(text) => parse(Some((&path, &text)), env, overrides),
        Err(error) => refuse(format!("cannot read the configuration file {}: {error}", path.display()), help),
    }
}

/// Reads a configuration from text (and the environment and flags): what [`load`] does once it has the file.
pub fn parse(
    source: Option<(&Path, &str)>,
    env: Environment<'_>,
    overrides: &Overrides,
) -> Result<Loaded, Report> {
    let text = source.map_or("", |(_, text)| text);
    let problems = Problems::of(text);
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    for error in &syntax_errors {
        problems.syntax_error(error.span().unwrap_or(0..0), error.message().replace('\n', "; "));
    }
    let config = sections::read(&Section::root(Some(document.get_ref()), &problems), env, overrides);
    if let Some((path, _)) = source.filter(|(path, _)| key::is_world_readable(path)) {
        problems.warn_of_inline_secret(path);
    }
    let refused = problems.refuse();
    let report = problems.into_report(source);
    match config {
        Some(config) if !refused => {
            Ok(Loaded { config, report, path: source.map(|(path, _)| path.to_owned()) })
        }
        _ => Err(report),
    }
}

#[cfg(test)]
mod secrecy;
#[cfg(test)]
mod tests;
