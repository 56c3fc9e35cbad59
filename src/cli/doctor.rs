//! `runwatch doctor`: shows what is wrong, and what to do about it.
//!
//! The checks are in `crate::doctor`. A daemon that answers makes them itself, in its own environment. Otherwise they are made
//! here, and what only the daemon needs may be absent. An API or a key that a flag names is always checked here, and so is
//! a configuration that is not the daemon's.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use tracing::level_filters::LevelFilter;

use super::exit::Exit;
use super::flags::{Global, ListFormat, Output};
use super::out::Out;
use super::report;
use super::setup::{self, environment, path_variable};
use super::socket::candidates;
use super::unit::Unit;
use crate::config;
use crate::control::{Client, ClientError, Finding, FindingState};
use crate::daemon;
use crate::doctor::{Surroundings, examine};
use crate::run::printable;
use crate::run::text::one_line;
use crate::span;
use crate::store::{DeliveryFilter, DeliveryState};

/// Maximum number of dead deliveries to count.
const MOST_GIVEN_UP: u32 = 1000;

/// `runwatch doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    output: Output,
}

/// Shows every finding.
pub(super) async fn run(out: &Out, global: &Global, args: &DoctorArgs) -> Exit {
    let config = setup::configure(global, None, LevelFilter::ERROR, out);
    let state_dir = config.as_ref().ok().and_then(|config| config.state_dir.as_deref());
    let file = config::locate(global.config(), &environment).path().map(Path::to_owned);
    let Daemon { mut itself, checks, exists, failed } = ask(state_dir).await;
    let checks = checks.filter(|checks| is_about(checks, global, file.as_deref()));
    let mut findings = match (checks, &config) {
        (Some(checks), _) => {
            itself.splice(0..0, two_files(checks.file.as_deref(), file.as_deref()));
            checks.findings
        }
        (None, Ok(config)) => {
            let surroundings = if exists && !global.names_an_api() && global.config().is_none() {
                Surroundings::BesideDaemon
            } else {
                let state_dir = daemon::directory(state_dir, &path_variable);
                Surroundings::Command { state_dir }
            };
            examine(config, &surroundings).await
        }
        (None, Err(exit)) => {
            out.error("the configuration cannot be used: fix it first (see `runwatch config check`)");
            // What is known of the daemon does not need it.
            if let Err(exit) = show(args, &itself) {
                return exit;
            }
            return *exit;
        }
    };
    let any_wrong = |findings: &[Finding]| findings.iter().any(|one| one.state == FindingState::Wrong);
    let wrong = any_wrong(&findings) || (!failed && any_wrong(&itself));
    findings.extend(itself);
    if let Err(exit) = show(args, &findings) {
        return exit;
    }
    match (wrong || config.is_err(), failed) {
        (true, _) => Exit::Config,
        (false, true) => Exit::Internal,
        (false, false) => Exit::Succeeded,
    }
}

fn show(args: &DoctorArgs, findings: &[Finding]) -> Result<(), Exit> {
    setup::print_result(&match args.output.format {
        ListFormat::Text => findings.iter().map(shown).collect::<String>(),
        ListFormat::Json => report::line(&serde_json::json!({ "version": 1, "findings": findings })),
    })
}

fn shown(finding: &Finding) -> String {
    let Finding { what, state, found, remedy } = finding;
    let mark = match state {
        FindingState::Ok => "ok     ",
        FindingState::Absent => "-      ",
        FindingState::Wrong => "WRONG  ",
    };
    let remedy = remedy.as_ref().map(|remedy| format!("        {}\n", one_line(remedy))).unwrap_or_default();
    format!("{mark} {}: {}\n{remedy}", one_line(what), one_line(found))
}

/// The answers of a daemon.
struct Daemon {
    /// Its status, or why there is none.
    itself: Vec<Finding>,
    /// The checks in its environment, if it supports them.
    checks: Option<Checks>,
    /// Whether there is a daemon, or should be.
    exists: bool,
    /// Whether it answered that it cannot check now.
    failed: bool,
}

/// The checks that a daemon made.
struct Checks {
    findings: Vec<Finding>,
    /// The configuration they were made with.
    file: Option<PathBuf>,
}

/// Whether the daemon's checks apply: flags may name another API, key or configuration.
fn is_about(checks: &Checks, global: &Global, file: Option<&Path>) -> bool {
    if global.names_an_api() {
        return false;
    }
    global.config().is_none()
        || checks.file.as_deref().zip(file).is_some_and(|(one, other)| is_same_file(one, other))
}

/// A note if the daemon and this user's commands have different configurations.
fn two_files(daemons: Option<&Path>, ours: Option<&Path>) -> Option<Finding> {
    let (daemons, ours) = (daemons?, ours?);
    if is_same_file(daemons, ours) {
        return None;
    }
    let shown = |path: &Path| printable(&path.to_string_lossy(), 1000);
    let found = format!("commands of this user read {}, the daemon reads {}", shown(ours), shown(daemons));
    let remedy = format!("to check yours as well: runwatch doctor --config {}", shown(ours));
    Some(Finding::absent("configuration", found).with_remedy(remedy))
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    one == other || identity(one).is_some_and(|one| Some(one) == identity(other))
}

async fn ask(state_dir: Option<&Path>) -> Daemon {
    match try_to_ask(state_dir).await {
        Ok(daemon) => daemon,
        Err(error) => no_answer(&error).await,
    }
}

async fn try_to_ask(state_dir: Option<&Path>) -> Result<Daemon, ClientError> {
    let client = Client::connect(&candidates(state_dir)).await?;
    let status = client.status().await?;
    let checks = match client.doctor().await {
        Ok(answer) => Some(Checks { findings: answer.findings, file: answer.config }),
        // An older one does not know the question.
        Err(ClientError::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    let socket = client.socket().display();
    let here = if checks.is_some() { "it made these checks itself" } else { "these checks were made here" };
    let mut itself = vec![Finding::well("daemon", format!("version {} on {socket}; {here}", status.version))];
    if checks.is_none() {
        let see = "see its log (journalctl -u runwatch)";
        itself.extend(status.troubles.iter().map(|trouble| Finding::wrong("daemon", trouble, see)));
    }
    itself.extend(given_up(&client).await);
    Ok(Daemon { itself, checks, exists: true, failed: false })
}

/// Why no daemon answered, and whether one exists anyway.
async fn no_answer(error: &ClientError) -> Daemon {
    let (finding, exists) = match error {
        ClientError::NoDaemon(_) => {
            // A socket that was named may be anybody's.
            let unit =
                if path_variable("RUNWATCH_SOCKET").is_some() { None } else { Unit::of_this_machine().await };
            match unit {
                Some(unit) => (unit.without_a_daemon(), true),
                None => (Finding::absent("daemon", error.to_string()), false),
            }
        }
        ClientError::Forbidden(socket) => {
            let found = format!("you may not use {}, so these checks were made here", socket.display());
            let remedy = "`sudo runwatch doctor` asks the daemon; socket_mode = \"0660\" in [daemon] lets its group ask";
            (Finding::absent("daemon", found).with_remedy(remedy), true)
        }
        ClientError::Silent { socket, what, waited } => {
            let waited = span::human(*waited);
            let found =
                format!("the one on {} does not answer: waited {waited} for {what}", socket.display());
            let remedy = "it is stopped or stuck: see its log (journalctl -u runwatch), then: systemctl restart runwatch";
            (Finding::wrong("daemon", found, remedy), true)
        }
        _ => {
            let remedy = "see its log (journalctl -u runwatch); if it stays so: systemctl restart runwatch";
            (Finding::wrong("daemon", error.to_string(), remedy), true)
        }
    };
    let failed = matches!(error, ClientError::Unavailable(_));
    Daemon { itself: vec![finding], checks: None, exists, failed }
}

/// The daemon's dead deliveries, if any.
async fn given_up(client: &Client) -> Option<Finding> {
    let dead = DeliveryFilter { state: Some(DeliveryState::Dead), ..DeliveryFilter::default() };
    let dead = client.deliveries(&dead, MOST_GIVEN_UP).await.ok()?.deliveries;
    let last = dead.first()?;
    let why = last.last_error.as_deref().unwrap_or("it is not known why");
    let found = format!("{} given up, the last to {}: {why}", dead.len(), last.channel);
    let remedy = "`runwatch deliveries list --state dead` shows them; `runwatch deliveries retry NUMBER` sends one after all";
    Some(Finding::absent("deliveries", found).with_remedy(remedy))
}
