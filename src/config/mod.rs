//! The configuration: a TOML file, then the environment, then flags; later ones override earlier ones.
//!
//! Reads and checks everything, and reports all problems at once. The result is plain values; this module creates no
//! clients or channels.

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
mod show;
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
pub use sections::{EAGERNESS, is_level};
pub use show::{HIDDEN, Origin, Setting, settings};

use diagnostic::Problems;
use reader::Section;

/// Every setting with its default, and every channel commented out.
pub const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Reads an environment variable. A parameter, so that tests need not change the process's environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// All settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The API and how to reach it.
    pub api: Api,
    /// How often to poll.
    pub poll: Poll,
    /// `[alerts]`: when to warn about active runs.
    pub alerts: Alerts,
    /// Pauses between attempts to deliver an event.
    pub retry_delays: Vec<Duration>,
    /// Settings of the daemon only.
    pub daemon: Daemon,
    /// What to log and how.
    pub log: Log,
    /// The daemon's state directory; `None` for the system's default.
    pub state_dir: Option<PathBuf>,
    /// The runs that are always watched. Shared by copies of the configuration, because there may be many.
    pub runs: Arc<[ConfiguredRun]>,
    /// Which runs to discover; `None` for none.
    pub discover: Option<Discover>,
    /// The notification channels.
    pub channels: Vec<ConfiguredChannel>,
    /// All secrets in it, and those in its files once they are read.
    pub known: KnownSecrets,
}

/// `[api]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Scheme, host and path prefix, without `/api/dataframer`.
    pub base_url: Url,
    /// The source of the key.
    pub key: KeySource,
    /// PEM file of certificate authorities to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// For the TCP and TLS handshakes.
    pub connect_timeout: Duration,
    /// For a whole request.
    pub request_timeout: Duration,
    /// The user's e-mail address, for `--mine`.
    pub email: Option<String>,
    /// Extra headers for every request.
    pub headers: Vec<(String, Secret)>,
}

/// `[poll]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Poll {
    /// Pauses after answers and after errors.
    pub policy: Policy,
    /// Whether one list of all runs may replace many polls.
    pub batch: Mode,
    /// Request budget per minute, for all runs together.
    pub requests_per_minute: u32,
    /// Maximum number of requests in flight.
    pub max_in_flight: u32,
    /// How long the API may not know an id before the id counts as wrong.
    pub grace: Duration,
    /// How long a status may be unknown to runwatch.
    pub unknown_status_after: Duration,
}

/// `[daemon]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// How long to keep ended runs and their deliveries.
    pub keep: Duration,
    /// Address for metrics and health checks; `None` disables them. Loopback only.
    pub listen: Option<SocketAddr>,
    /// Additional host names for that address, in lower case. `localhost` and IP addresses always work.
    pub listen_names: Vec<String>,
    /// Directory for files whose names are run ids; `None` disables it.
    pub watch_dir: Option<PathBuf>,
    /// Whether the socket's group may use it, besides its owner.
    pub socket_for_group: bool,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A level, or levels by module; `None` for the command's default.
    pub level: Option<String>,
    /// The format.
    pub format: LogFormat,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// The journal's own protocol if the output is the journal, else text.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
    /// The journal's own protocol, with fields.
    Journald,
}

impl LogFormat {
    /// Its word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
            Self::Journald => "journald",
        }
    }
}

/// `[[run]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredRun {
    /// The API's id.
    pub id: RunId,
    /// The run's name.
    pub name: Option<Arc<str>>,
    /// The channels to notify; `None` for all.
    pub notify: Option<Vec<Arc<str>>>,
    /// Time after its creation when it becomes overdue; `None` for the value in `[alerts]`.
    pub deadline: Option<Duration>,
}

/// A `[[notify.…]]` table.
#[derive(Debug, Clone)]
pub struct ConfiguredChannel {
    /// Its name.
    pub name: Arc<str>,
    /// The events to send; `None` for all.
    pub events: Option<Vec<EventKind>>,
    /// Its kind.
    pub kind: ChannelKind,
}

/// The kinds of channel, with their settings.
#[derive(Debug, Clone)]
pub enum ChannelKind {
    /// `[[notify.webhook]]`.
    Webhook {
        /// The target URL. It is a credential: `Debug` shows only the host through [`SecretUrl`].
        url: SecretUrl,
        /// Keys to sign with.
        secrets: Vec<SigningSecret>,
        /// PEM file of certificate authorities to trust in addition to the system's.
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
    /// A channel whose secrets cannot be read here and now; the reason.
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

/// Values of flags, which override everything else. `Debug` hides the base URL, which may contain a password.
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
    /// Set by [`load_for_service`]: a service uses the key that its configuration names, and no other.
    pub service: bool,
}

impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base_url, api_key_file, allow_http, log_level, log_format, grace, service } = self;
        f.debug_struct("Overrides")
            .field("base_url", &base_url.as_ref().map(|_| REDACTED))
            .field("api_key_file", api_key_file)
            .field("allow_http", allow_http)
            .field("log_level", log_level)
            .field("log_format", log_format)
            .field("grace", grace)
            .field("service", service)
            .finish()
    }
}

/// A configuration and its warnings.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings; no errors.
    pub report: Report,
    /// The file it was read from, if any.
    pub path: Option<PathBuf>,
}

/// Reads the configuration: the file that `flag` names, the environment, or the default places. Without a file, the
/// defaults apply.
///
/// The error is the report with every problem.
pub fn load(flag: Option<&Path>, env: Environment<'_>, overrides: &Overrides) -> Result<Loaded, Report> {
    match locate(flag, env) {
        Located::Nowhere(_) => parse(None, env, overrides),
        located => read(located, env, overrides),
    }
}

/// Like [`load`], for a service, which needs a file. A missing file must not count as an empty one, because that would
/// remove every channel and every run.
pub fn load_for_service(
    flag: Option<&Path>,
    env: Environment<'_>,
    overrides: &Overrides,
) -> Result<Loaded, Report> {
    read(locate(flag, env), env, &Overrides { service: true, ..overrides.clone() })
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
            let title = format!("cannot search for the configuration file {}: {error}", path.display());
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

/// Reads a configuration from text, the environment and flags, as [`load`] does with a file.
pub fn parse(
    source: Option<(&Path, &str)>,
    env: Environment<'_>,
    overrides: &Overrides,
) -> Result<Loaded, Report> {
    let text = source.map_or("", |(_, text)| text);
    let problems = Problems::of(text);
    let (mut document, syntax_errors) = DeTable::parse_recoverable(text);
    for error in &syntax_errors {
        problems.syntax_error(error.span().unwrap_or(0..0), error.message().replace('\n', "; "));
    }
    // There may be many runs: their tables are freed one by one as they are read.
    let runs = document.get_mut().remove("run");
    let config = sections::read(&Section::root(Some(document.get_ref()), &problems), runs, env, overrides);
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
