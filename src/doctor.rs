//! What can be wrong around a watch: key, API, clocks, desktop, state and channels, each looked at without telling anybody.
//!
//! Looked at from where it matters: a daemon makes these checks in its own surroundings (`daemon::verbs::doctor`), since what
//! another user's environment has says nothing of it. `runwatch doctor` makes them where no daemon answers.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use crate::api::{ApiClient, Listed, PollErrorKind, RunSource as _};
use crate::app;
use crate::clock;
use crate::config::{ChannelKind, Config, ConfiguredChannel, Discover};
use crate::control::Finding;
use crate::http;
use crate::notify::desktop;
use crate::run::{DoubtKind, RunId};
use crate::span;

/// More than this between two clocks spoils signatures and the times in messages.
const MOST_SKEW: Duration = Duration::from_secs(30);

/// How long a connection to a webhook's host may take.
const CONNECT: Duration = Duration::from_secs(5);

/// An id that no run has.
const NO_RUN: &str = "00000000-0000-0000-0000-000000000000";

/// What was found, before it is put into words for the socket.
enum State {
    /// All is well; what was found.
    Well(String),
    /// It is not there, and may not have to be.
    Absent(String),
    /// Something is wrong, and what to do about it.
    Wrong(String, String),
}

fn finding(what: impl Into<String>, state: State) -> Finding {
    match state {
        State::Well(found) => Finding::well(what, found),
        State::Absent(found) => Finding::absent(what, found),
        State::Wrong(found, remedy) => Finding::wrong(what, found, remedy),
    }
}

/// Looks at everything that a configuration points to. `state_dir` is where the state is kept.
pub async fn examine(config: &Config, state_dir: Option<&Path>) -> Vec<Finding> {
    let channels = async {
        let mut findings = Vec::new();
        // Side by side: each that cannot be reached takes its time.
        let mut looked = tokio::task::JoinSet::new();
        for (at, channel) in config.channels.iter().cloned().enumerate() {
            let retry_delays = config.retry_delays.clone();
            looked.spawn(async move { (at, self::channel(&retry_delays, &channel).await) });
        }
        while let Some(done) = looked.join_next().await {
            findings.extend(done.ok());
        }
        findings.sort_by_key(|(at, _)| *at);
        findings.into_iter().map(|(_, finding)| finding).collect::<Vec<_>>()
    };
    let discovered = async {
        match &config.discover {
            Some(discover) => self::discover(config, discover).await,
            None => None,
        }
    };
    let (mut findings, discovered, session, channels) =
        tokio::join!(api(config), discovered, session(), channels);
    findings.extend(discovered);
    findings.push(session);
    findings.push(state(state_dir));
    findings.extend(channels);
    findings
}

/// The key, the API and the clocks, by one request about a run that is not there.
async fn api(config: &Config) -> Vec<Finding> {
    let client = match ApiClient::new(&app::api_settings(config)) {
        Ok(client) => client,
        Err(error) => {
            let remedy = "set DATAFRAMER_API_KEY, or api_key_file in [api]".to_owned();
            return vec![finding("key", State::Wrong(error.to_string(), remedy))];
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
            finding("key", State::Wrong(message, "take a valid key from your DataFramer account".to_owned())),
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
        let found = format!("{} apart from the API's", span::human(skew));
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

/// The list of all runs, and which of them would be found.
async fn discover(config: &Config, discover: &Discover) -> Option<Finding> {
    // Without a key there is nothing to add to what was said of it.
    let client = ApiClient::new(&app::api_settings(config)).ok()?;
    let now = clock::wall();
    let going = |listed: &Listed| listed.run.status.terminal().is_none();
    let listed =
        client.list_runs(|listed: &mut Listed| going(listed) && discover.matches(&listed.run, now)).await;
    let state = match listed {
        Ok(found) => State::Well(match found.runs.len() {
            1 => "1 run that goes on matches".to_owned(),
            runs => format!("{runs} runs that go on match"),
        }),
        Err(error) => State::Wrong(
            format!("the list of runs cannot be had: {}", error.message),
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

fn state(dir: Option<&Path>) -> Finding {
    let state = match dir {
        None => State::Wrong(
            "there is no place for the daemon's state".to_owned(),
            "set state_dir in the configuration, or HOME".to_owned(),
        ),
        Some(dir) => match writable(dir) {
            Ok(true) => State::Well(format!("{} can be written", dir.display())),
            Ok(false) => State::Absent(format!("{} is not there yet; the daemon makes it", dir.display())),
            Err(error) => State::Wrong(
                format!("{}: {error}", dir.display()),
                "let the daemon's user write there, or set state_dir".to_owned(),
            ),
        },
    };
    finding("state", state)
}

/// Whether a directory is there; an error if it is and cannot be written, or cannot be made.
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

/// A channel, without telling anything through it.
async fn channel(retry_delays: &[Duration], configured: &ConfiguredChannel) -> Finding {
    let what = format!("channel {}", configured.name);
    let try_it = || format!("try it: runwatch notify test {}", configured.name);
    if let Err(error) = app::channel(configured, retry_delays) {
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
        ChannelKind::Command(settings) if is_program(&settings.program) => State::Well(try_it()),
        ChannelKind::Command(settings) => State::Wrong(
            format!("{} is no program here", settings.program),
            "give the whole path of one that may be executed".to_owned(),
        ),
        ChannelKind::Log => State::Well("always there".to_owned()),
        ChannelKind::Unusable(why) => State::Wrong(why.clone(), "fix its configuration".to_owned()),
    };
    finding(what, state)
}

/// Connects to a webhook's host and asks nothing of its path: the receiver is not bothered.
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
