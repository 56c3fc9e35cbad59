//! `runwatch doctor`: looks for what is wrong, and says what to do about it.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use tracing::level_filters::LevelFilter;

use super::exit::Exit;
use super::flags::Global;
use super::out::Out;
use super::setup::{self, path_variable};
use super::socket::candidates;
use crate::api::{ApiClient, Listed, PollErrorKind, RunSource as _};
use crate::config::{ChannelKind, Config, Discover};
use crate::control::{Client, ClientError};
use crate::notify::desktop;
use crate::run::text::one_line;
use crate::run::{DoubtKind, RunId};
use crate::store::{DeliveryFilter, DeliveryState};
use crate::{app, clock, http, span};

/// More than this between two clocks spoils signatures and the times in messages.
const MOST_SKEW: Duration = Duration::from_secs(30);

/// How long a connection to a webhook's host may take.
const CONNECT: Duration = Duration::from_secs(5);

/// So many deliveries that were given up are counted.
const MOST_GIVEN_UP: u32 = 1000;

/// An id that no run has.
const NO_RUN: &str = "00000000-0000-0000-0000-000000000000";

/// One thing that was looked at.
struct Finding {
    what: String,
    state: Health,
}

enum Health {
    /// All is well; what was found.
    Well(String),
    /// It is not there, and may not have to be.
    Absent(String),
    /// Something is wrong, and what to do about it.
    Wrong(String, String),
}

/// Looks at everything.
pub(super) async fn run(out: &Out, global: &Global) -> Exit {
    let config = match setup::configure(global, None, LevelFilter::ERROR, out) {
        Ok(config) => config,
        Err(exit) => {
            out.error("the configuration cannot be used: fix it first (see `runwatch config check`)");
            return exit;
        }
    };
    let mut findings = api(&config).await;
    if let Some(discover) = &config.discover {
        findings.extend(self::discover(&config, discover).await);
    }
    findings.push(session().await);
    findings.push(state(&config));
    findings.extend(self::daemon(&config).await);
    for channel in &config.channels {
        findings.push(self::channel(&config, channel).await);
    }
    let mut text = String::new();
    let mut wrong = 0;
    for Finding { what, state } in &findings {
        let line = match state {
            Health::Well(found) => format!("ok      {what}: {}\n", one_line(found)),
            Health::Absent(found) => format!("-       {what}: {}\n", one_line(found)),
            Health::Wrong(found, remedy) => {
                wrong += 1;
                format!("WRONG   {what}: {}\n        {}\n", one_line(found), one_line(remedy))
            }
        };
        text.push_str(&line);
    }
    if let Err(exit) = setup::print_result(&text) {
        return exit;
    }
    if wrong > 0 { Exit::Config } else { Exit::Succeeded }
}

/// The key, the API and the clocks, by one request about a run that is not there.
async fn api(config: &Config) -> Vec<Finding> {
    let finding = |what: &str, state| Finding { what: what.to_owned(), state };
    let client = match ApiClient::new(&app::api_settings(config)) {
        Ok(client) => client,
        Err(error) => {
            let remedy = "set DATAFRAMER_API_KEY, or api_key_file in [api]".to_owned();
            return vec![finding("key", Health::Wrong(error.to_string(), remedy))];
        }
    };
    let base = config.api.base_url.as_str().trim_end_matches('/');
    let Ok(id) = NO_RUN.parse::<RunId>() else { return Vec::new() };
    let Err(error) = client.poll(&id).await else {
        return vec![finding("API", Health::Well(format!("{base} answers")))];
    };
    let message = error.message;
    let mut findings = match error.kind {
        PollErrorKind::Doubt(DoubtKind::Missing) => vec![
            finding("key", Health::Well("the API accepts it".to_owned())),
            finding("API", Health::Well(format!("{base} answers"))),
        ],
        PollErrorKind::Doubt(DoubtKind::KeyRefused) => vec![
            finding(
                "key",
                Health::Wrong(message, "take a valid key from your DataFramer account".to_owned()),
            ),
            finding("API", Health::Well(format!("{base} answers"))),
        ],
        PollErrorKind::Throttled => {
            vec![finding(
                "API",
                Health::Wrong(message, "lower requests_per_minute in [poll], or wait".to_owned()),
            )]
        }
        _ => {
            let remedy = "check base_url, the network, and HTTPS_PROXY if there is one between".to_owned();
            vec![finding("API", Health::Wrong(format!("{base}: {message}"), remedy))]
        }
    };
    findings.extend(client.clock_skew().map(|skew| {
        let found = format!("{} apart from the API's", span::human(skew));
        finding(
            "clock",
            if skew > MOST_SKEW {
                let remedy =
                    "set the clock (timedatectl set-ntp true): receivers refuse signatures with a wrong time";
                Health::Wrong(found, remedy.to_owned())
            } else {
                Health::Well(found)
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
        Ok(found) => Health::Well(match found.runs.len() {
            1 => "1 run that goes on matches".to_owned(),
            runs => format!("{runs} runs that go on match"),
        }),
        Err(error) => Health::Wrong(
            format!("the list of runs cannot be had: {}", error.message),
            "see the API above; a large company's list may need a longer request_timeout in [api]".to_owned(),
        ),
    };
    Some(Finding { what: "discover".to_owned(), state })
}

async fn session() -> Finding {
    let state = if desktop::is_there().await {
        Health::Well("a notification service answers on the session bus".to_owned())
    } else if desktop::session_bus().is_some() {
        Health::Absent("there is a session bus, and no notification service on it".to_owned())
    } else {
        Health::Absent("there is no session bus here: no desktop notifications".to_owned())
    };
    Finding { what: "desktop".to_owned(), state }
}

fn state(config: &Config) -> Finding {
    let state = match crate::daemon::directory(config.state_dir.as_deref(), &path_variable) {
        None => Health::Wrong(
            "there is no place for the daemon's state".to_owned(),
            "set state_dir in the configuration, or HOME".to_owned(),
        ),
        Some(dir) => match writable(&dir) {
            Ok(true) => Health::Well(format!("{} can be written", dir.display())),
            Ok(false) => Health::Absent(format!("{} is not there yet; the daemon makes it", dir.display())),
            Err(error) => Health::Wrong(
                format!("{}: {error}", dir.display()),
                "let the daemon's user write there, or set state_dir".to_owned(),
            ),
        },
    };
    Finding { what: "state".to_owned(), state }
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

/// The daemon, if there is one, and what it gave up on.
async fn daemon(config: &Config) -> Vec<Finding> {
    let client = match Client::connect(&candidates(config.state_dir.as_deref())).await {
        Ok(client) => client,
        Err(error) => return vec![no_answer(&error)],
    };
    let state = match client.status().await {
        Ok(status) if status.troubles.is_empty() => {
            Health::Well(format!("version {} on {}", status.version, client.socket().display()))
        }
        Ok(status) => {
            Health::Wrong(status.troubles.join("; "), "see its log (journalctl -u runwatch)".to_owned())
        }
        // One that answered this badly is not asked more.
        Err(error) => return vec![no_answer(&error)],
    };
    let mut findings = vec![Finding { what: "daemon".to_owned(), state }];
    findings.extend(given_up(&client).await);
    findings
}

fn no_answer(error: &ClientError) -> Finding {
    let state = match error {
        ClientError::NoDaemon(_) => Health::Absent(error.to_string()),
        ClientError::Forbidden(_) => {
            Health::Absent(format!("{error}; run the doctor as its user to check it as well"))
        }
        _ => Health::Wrong(error.to_string(), "restart it (systemctl restart runwatch)".to_owned()),
    };
    Finding { what: "daemon".to_owned(), state }
}

/// What the daemon gave up telling, if anything.
async fn given_up(client: &Client) -> Option<Finding> {
    let dead = DeliveryFilter { state: Some(DeliveryState::Dead), ..DeliveryFilter::default() };
    let dead = client.deliveries(&dead, MOST_GIVEN_UP).await.ok()?.deliveries;
    let last = dead.first()?;
    let why = last.last_error.as_deref().unwrap_or("it is not known why");
    let state = Health::Absent(format!(
        "{} given up, the last to {}: {why} (see `runwatch deliveries list --state dead`; retry sends them after all)",
        dead.len(),
        last.channel
    ));
    Some(Finding { what: "deliveries".to_owned(), state })
}

/// A channel, without telling anything through it.
async fn channel(config: &Config, configured: &crate::config::ConfiguredChannel) -> Finding {
    let what = format!("channel {}", configured.name);
    let try_it = || format!("try it: runwatch notify test {}", configured.name);
    if let Err(error) = app::channel(configured, &config.retry_delays) {
        return Finding { what, state: Health::Wrong(error.to_string(), "fix its configuration".to_owned()) };
    }
    let state = match &configured.kind {
        ChannelKind::Webhook { url, ca_file, .. } => match reach(&url.0, ca_file.as_deref()).await {
            Ok(()) => Health::Well(format!("{} can be reached", url.0.origin().ascii_serialization())),
            Err(error) => Health::Wrong(error, "check its url, and the network to it".to_owned()),
        },
        ChannelKind::Desktop { .. } if desktop::is_there().await => Health::Well(try_it()),
        ChannelKind::Desktop { .. } => Health::Wrong(
            "there is no notification service to show it".to_owned(),
            "run the daemon in the session (systemd/user/runwatch.service)".to_owned(),
        ),
        ChannelKind::Command(settings) if is_program(&settings.program) => Health::Well(try_it()),
        ChannelKind::Command(settings) => Health::Wrong(
            format!("{} is no program here", settings.program),
            "give the whole path of one that may be executed".to_owned(),
        ),
        ChannelKind::Log => Health::Well("always there".to_owned()),
        ChannelKind::Unusable(why) => Health::Wrong(why.clone(), "fix its configuration".to_owned()),
    };
    Finding { what, state }
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
