//! Checks what can be wrong around a watch: key, API, clocks, desktop, state and channels. Sends no notification.
//!
//! The checks run where they matter. A daemon makes them in its own environment (`daemon::verbs::doctor`), because
//! another user's environment says nothing about it. `runwatch doctor` makes them itself if no daemon answers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use crate::api::{ApiClient, Listed, PollErrorKind, RunSource as _};
use crate::app;
use crate::blocking;
use crate::clock;
use crate::config::{ChannelKind, Config, ConfiguredChannel, Discover, KeySource};
use crate::control::Finding;
use crate::http;
use crate::notify::desktop;
use crate::run::{DoubtKind, RunId};
use crate::span;

/// Maximum difference between two clocks. A larger one breaks signatures and the times in messages.
const MOST_SKEW: Duration = Duration::from_secs(30);

/// Maximum time to connect to a webhook's host.
const CONNECT: Duration = Duration::from_secs(5);

/// Maximum time of one check, so that a hanging one does not block the others.
const BOUND: Duration = Duration::from_secs(40);

/// Maximum time to check files, because a file system can hang.
const FILES: Duration = Duration::from_secs(5);

/// An id that no run has.
const NO_RUN: &str = "00000000-0000-0000-0000-000000000000";

/// Whose environment is checked.
#[derive(Debug, Clone)]
pub enum Surroundings {
    /// The daemon's own: everything that the configuration names must exist.
    Daemon {
        /// Its state directory.
        state_dir: PathBuf,
    },
    /// A command's, while the daemon does not answer. The daemon has its own key, secrets and directories, so something
    /// missing here is not wrong.
    BesideDaemon,
    /// A command's, without a daemon.
    Command {
        /// The state directory of a daemon of this user.
        state_dir: Option<PathBuf>,
    },
}

impl Surroundings {
    fn beside_daemon(&self) -> bool {
        matches!(self, Self::BesideDaemon)
    }
}

/// The result of a check, before it is converted for the socket.
enum State {
    /// Fine; details.
    Well(String),
    /// Missing, which may be fine.
    Absent(String),
    /// Missing, which is fine; and what to do if it should be there.
    Missing(String, String),
    /// A problem, and what to do about it.
    Wrong(String, String),
}

fn finding(what: impl Into<String>, state: State) -> Finding {
    match state {
        State::Well(found) => Finding::well(what, found),
        State::Absent(found) => Finding::absent(what, found),
        State::Missing(found, remedy) => Finding::absent(what, found).with_remedy(remedy),
        State::Wrong(found, remedy) => Finding::wrong(what, found, remedy),
    }
}

/// Checks everything that a configuration refers to.
pub async fn examine(config: &Config, surroundings: &Surroundings) -> Vec<Finding> {
    let channels = async {
        let mut findings = Vec::new();
        // In parallel, because each unreachable one takes its full time.
        let mut looked = tokio::task::JoinSet::new();
        for (at, channel) in config.channels.iter().cloned().enumerate() {
            let (config, beside_daemon) = (config.clone(), surroundings.beside_daemon());
            looked.spawn(async move { (at, self::channel(&config, &channel, beside_daemon).await) });
        }
        while let Some(done) = looked.join_next().await {
            findings.extend(done.ok());
        }
        findings.sort_by_key(|(at, _)| *at);
        findings.into_iter().map(|(_, finding)| finding).collect::<Vec<_>>()
    };
    let discovered = async {
        match &config.discover {
            Some(discover) => {
                let late = |_| Some(too_late("discover"));
                timeout(BOUND, self::discover(config, discover)).await.unwrap_or_else(late)
            }
            None => None,
        }
    };
    let api = async {
        let late = |_| vec![too_late("API")];
        timeout(BOUND, api(config, surroundings.beside_daemon())).await.unwrap_or_else(late)
    };
    let state = async {
        match surroundings {
            Surroundings::Daemon { state_dir } => Some(state(Some(state_dir.clone())).await),
            Surroundings::Command { state_dir } => Some(state(state_dir.clone()).await),
            // The daemon's state is elsewhere.
            Surroundings::BesideDaemon => None,
        }
    };
    let (mut findings, discovered, session, state, channels) =
        tokio::join!(api, discovered, session(), state, channels);
    findings.extend(discovered);
    findings.push(session);
    findings.extend(state);
    findings.extend(channels);
    findings
}

fn too_late(what: &str) -> Finding {
    let found = format!("no answer within {}", span::human(BOUND));
    finding(what, State::Wrong(found, "check the network, and request_timeout in [api]".to_owned()))
}

/// Checks the key, the API and the clocks with one request about a run that does not exist.
async fn api(config: &Config, beside_daemon: bool) -> Vec<Finding> {
    if let Err(error) = config.api.key.read() {
        let is_absent = matches!(config.api.key, KeySource::Environment(None));
        let state = match (is_absent, beside_daemon) {
            (true, true) => State::Missing(
                "this user has no API key; the daemon reads its own".to_owned(),
                "for commands that ask the API themselves, such as watch: set DATAFRAMER_API_KEY".to_owned(),
            ),
            (true, false) => State::Wrong(
                "there is no API key".to_owned(),
                "set DATAFRAMER_API_KEY, or api_key_file in [api] of the configuration".to_owned(),
            ),
            (false, _) => State::Wrong(error, "write the key there again, alone on one line".to_owned()),
        };
        return vec![finding("key", state)];
    }
    let client = match ApiClient::new(&app::api_settings(config)) {
        Ok(client) => client,
        Err(error) => {
            let remedy = "fix that in [api], or on this machine".to_owned();
            return vec![finding("API", State::Wrong(error.to_string(), remedy))];
        }
    };
    let base = config.api.base_url.as_str().trim_end_matches('/');
    let Ok(id) = NO_RUN.parse::<RunId>() else { return Vec::new() };
    let Err(error) = client.poll(&id).await else {
        return vec![finding("API", State::Well(format!("{base} answers")))];
    };
    let message = error.message;
    let mut findings = match error.kind {
        PollErrorKind::Doubt(DoubtKind::Missing) => vec![
            finding("key", State::Well("the API accepts it".to_owned())),
            finding("API", State::Well(format!("{base} answers"))),
        ],
        PollErrorKind::Doubt(DoubtKind::KeyRefused) => vec![
            finding(
                "key",
                State::Wrong(
                    message,
                    "take a valid key from your DataFramer account; after a change of a service's key: systemctl \
                     restart runwatch"
                        .to_owned(),
                ),
            ),
            finding("API", State::Well(format!("{base} answers"))),
        ],
        PollErrorKind::Throttled => {
            vec![finding(
                "API",
                State::Wrong(message, "lower requests_per_minute in [poll], or wait".to_owned()),
            )]
        }
        _ => {
            let remedy = "check base_url, the network, and HTTPS_PROXY if there is one between".to_owned();
            vec![finding("API", State::Wrong(format!("{base}: {message}"), remedy))]
        }
    };
    findings.extend(client.clock_skew().map(|skew| {
        // The API gives its time in whole seconds.
        let found = if skew <= Duration::from_secs(1) {
            "within a second of the API's".to_owned()
        } else {
            format!("{} apart from the API's", span::human(skew))
        };
        finding(
            "clock",
            if skew > MOST_SKEW {
                let remedy =
                    "set the clock (timedatectl set-ntp true): receivers refuse signatures with a wrong time";
                State::Wrong(found, remedy.to_owned())
            } else {
                State::Well(found)
            },
        )
    }));
    findings
}

/// Fetches the list of all runs, and counts those that discovery would find.
async fn discover(config: &Config, discover: &Discover) -> Option<Finding> {
    // A missing key was reported already.
    let client = ApiClient::new(&app::api_settings(config)).ok()?;
    let now = clock::wall();
    let going = |listed: &Listed| listed.run.status.terminal().is_none();
    let listed =
        client.list_runs(|listed: &mut Listed| going(listed) && discover.matches(&listed.run, now)).await;
    let state = match listed {
        Ok(found) => State::Well(match found.runs.len() {
            1 => "1 active run matches".to_owned(),
            runs => format!("{runs} active runs match"),
        }),
        Err(error) => State::Wrong(
            format!("fetching the list of runs failed: {}", error.message),
            "see the API above; a large company's list may need a longer request_timeout in [api]".to_owned(),
        ),
    };
    Some(finding("discover", state))
}

async fn session() -> Finding {
    let state = if desktop::is_there().await {
        State::Well("a notification service answers on the session bus".to_owned())
    } else if desktop::session_bus().is_some() {
        State::Absent("there is a session bus, and no notification service on it".to_owned())
    } else {
        State::Absent("there is no session bus here: no desktop notifications".to_owned())
    };
    finding("desktop", state)
}

async fn state(dir: Option<PathBuf>) -> Finding {
    let looked = dir.clone();
    let writable = move || looked.as_deref().map(writable).transpose();
    let writable = timeout(FILES, blocking::run("doctor", writable)).await;
    let writable = writable.unwrap_or_else(|_| Err(hangs())).and_then(|writable| writable);
    let state = match dir {
        None => State::Wrong(
            "there is no place for the daemon's state".to_owned(),
            "set state_dir in the configuration, or HOME".to_owned(),
        ),
        Some(dir) => match writable {
            Ok(Some(true)) => State::Well(format!("{} can be written", dir.display())),
            Ok(_) => State::Absent(format!("{} is not there yet; the daemon makes it", dir.display())),
            Err(error) => State::Wrong(
                format!("{}: {error}", dir.display()),
                unless_shortage(&error, "let the daemon's user write there, or set state_dir"),
            ),
        },
    };
    finding("state", state)
}

/// The remedy for an error, unless only threads were missing.
fn unless_shortage(error: &std::io::Error, remedy: &str) -> String {
    let advice =
        if blocking::is_shortage(error) { blocking::ADVICE.trim_start_matches("; ") } else { remedy };
    advice.to_owned()
}

fn hangs() -> std::io::Error {
    std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("the file system did not answer within {}", span::human(FILES)),
    )
}

/// Whether a directory exists; an error if it cannot be written or created.
fn writable(dir: &Path) -> std::io::Result<bool> {
    use rustix::fs::{Access, access};
    if dir.is_dir() {
        access(dir, Access::WRITE_OK | Access::EXEC_OK)?;
        return Ok(true);
    }
    let above = dir.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    access(above, Access::WRITE_OK | Access::EXEC_OK)?;
    Ok(false)
}

/// Checks a channel without sending anything through it.
async fn channel(config: &Config, configured: &ConfiguredChannel, beside_daemon: bool) -> Finding {
    let what = format!("channel {}", configured.name);
    let try_it = || format!("try it: runwatch notify test {}", configured.name);
    if !matches!(configured.kind, ChannelKind::Unusable(_))
        && let Err(error) = app::channel(configured, config)
    {
        return finding(what, State::Wrong(error.to_string(), "fix its configuration".to_owned()));
    }
    let state = match &configured.kind {
        ChannelKind::Webhook { url, ca_file, .. } => match reach(&url.0, ca_file.as_deref()).await {
            Ok(()) => State::Well(format!("{} can be reached", url.0.origin().ascii_serialization())),
            Err(error) => State::Wrong(error, "check its url, and the network to it".to_owned()),
        },
        ChannelKind::Desktop { .. } if desktop::is_there().await => State::Well(try_it()),
        ChannelKind::Desktop { .. } => State::Wrong(
            "there is no notification service to show it".to_owned(),
            "run the daemon in the session (systemd/user/runwatch.service)".to_owned(),
        ),
        ChannelKind::Command(settings) => {
            let program = settings.program.clone();
            let found = timeout(FILES, blocking::run("doctor", move || is_program(&program))).await;
            match found.unwrap_or_else(|_| Err(hangs())) {
                Ok(true) => State::Well(try_it()),
                Ok(false) => State::Wrong(
                    format!("{} is not a program here", settings.shown_program()),
                    "give the whole path of one that may be executed".to_owned(),
                ),
                Err(error) => State::Wrong(
                    format!("{}: {error}", settings.shown_program()),
                    unless_shortage(&error, "check the file system it is on"),
                ),
            }
        }
        ChannelKind::Log => State::Well("always there".to_owned()),
        ChannelKind::Unusable(why) if beside_daemon => State::Missing(
            why.clone(),
            "the daemon has its own copy: `sudo runwatch doctor` has it checked there".to_owned(),
        ),
        ChannelKind::Unusable(why) => {
            State::Wrong(why.clone(), "make the file, and let this user read it".to_owned())
        }
    };
    finding(what, state)
}

/// Connects to a webhook's host without sending a request, so that the receiver is not disturbed.
async fn reach(url: &reqwest::Url, ca_file: Option<&Path>) -> Result<(), String> {
    let host = url.origin().ascii_serialization();
    let builder = http::client_builder(url, ca_file).map_err(|error| error.to_string())?;
    let client = http::build(builder.connect_timeout(CONNECT)).map_err(|error| error.to_string())?;
    let mut root = url.clone();
    root.set_path("/");
    root.set_query(None);
    match timeout(CONNECT, client.head(root).send()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("{host}: {}", http::root_cause(&error))),
        Err(_) => Err(format!("{host} did not answer within {}", span::human(CONNECT))),
    }
}

fn is_program(program: &str) -> bool {
    use rustix::fs::{Access, access};
    let executable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if program.contains('/') {
        return executable(Path::new(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| executable(&dir.join(program)))
}
