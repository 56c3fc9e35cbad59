//! `runwatch doctor`: shows what is wrong, and what to do about it.
//!
//! The checks are in `crate::doctor`. A daemon that answers makes them itself, in its own surroundings; else they are made
//! here. A configuration or a key named by a flag is checked here in any case.

use std::path::Path;

use tracing::level_filters::LevelFilter;

use super::exit::Exit;
use super::flags::Global;
use super::out::Out;
use super::setup::{self, path_variable};
use super::socket::candidates;
use crate::control::{Client, ClientError, Finding, FindingState};
use crate::daemon;
use crate::doctor::examine;
use crate::run::text::one_line;
use crate::store::{DeliveryFilter, DeliveryState};

/// So many deliveries that were given up are counted.
const MOST_GIVEN_UP: u32 = 1000;

/// Shows every finding.
pub(super) async fn run(out: &Out, global: &Global) -> Exit {
    let config = setup::configure(global, None, LevelFilter::ERROR, out);
    let state_dir = config.as_ref().ok().and_then(|config| config.state_dir.as_deref());
    let Daemon { itself, checks } = ask(state_dir).await;
    let checks = checks.filter(|_| !global.names_what_to_use());
    if let (Err(exit), None) = (&config, &checks) {
        out.error("the configuration cannot be used: fix it first (see `runwatch config check`)");
        return *exit;
    }
    let mut findings = match (checks, &config) {
        (Some(checks), _) => checks,
        (None, Ok(config)) => examine(config, daemon::directory(state_dir, &path_variable).as_deref()).await,
        (None, Err(_)) => Vec::new(),
    };
    findings.extend(itself);
    let wrong = findings.iter().any(|finding| finding.state == FindingState::Wrong);
    if let Err(exit) = setup::print_result(&findings.iter().map(shown).collect::<String>()) {
        return exit;
    }
    if wrong || config.is_err() { Exit::Config } else { Exit::Succeeded }
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

/// What a daemon says.
struct Daemon {
    /// Of itself, or that there is none.
    itself: Vec<Finding>,
    /// Of its surroundings, where it can be asked that.
    checks: Option<Vec<Finding>>,
}

async fn ask(state_dir: Option<&Path>) -> Daemon {
    let no_answer = |error: &ClientError| Daemon { itself: vec![no_answer(error)], checks: None };
    let client = match Client::connect(&candidates(state_dir)).await {
        Ok(client) => client,
        Err(error) => return no_answer(&error),
    };
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => return no_answer(&error),
    };
    let checks = match client.doctor().await {
        Ok(answer) => Some(answer.findings),
        // An older one does not know the question.
        Err(ClientError::NotFound(_)) => None,
        Err(error) => return no_answer(&error),
    };
    let socket = client.socket().display();
    let here = if checks.is_some() { "it made these checks itself" } else { "these checks were made here" };
    let mut itself = vec![Finding::well("daemon", format!("version {} on {socket}; {here}", status.version))];
    let troubles = status.troubles.iter();
    itself.extend(
        troubles.map(|trouble| Finding::wrong("daemon", trouble, "see its log (journalctl -u runwatch)")),
    );
    itself.extend(given_up(&client).await);
    Daemon { itself, checks }
}

fn no_answer(error: &ClientError) -> Finding {
    match error {
        ClientError::NoDaemon(_) => Finding::absent("daemon", error.to_string()),
        ClientError::Forbidden(_) => {
            Finding::absent("daemon", format!("{error}; run the doctor as its user to check it as well"))
        }
        _ => Finding::wrong("daemon", error.to_string(), "restart it (systemctl restart runwatch)"),
    }
}

/// What the daemon gave up telling, if anything.
async fn given_up(client: &Client) -> Option<Finding> {
    let dead = DeliveryFilter { state: Some(DeliveryState::Dead), ..DeliveryFilter::default() };
    let dead = client.deliveries(&dead, MOST_GIVEN_UP).await.ok()?.deliveries;
    let last = dead.first()?;
    let why = last.last_error.as_deref().unwrap_or("it is not known why");
    let found = format!(
        "{} given up, the last to {}: {why} (see `runwatch deliveries list --state dead`; retry sends them after all)",
        dead.len(),
        last.channel
    );
    Some(Finding::absent("deliveries", found))
}
