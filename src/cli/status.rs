//! `runwatch status`: one poll a run, and what it said.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::level_filters::LevelFilter;

use super::args::{Global, StatusArgs, StatusOutput};
use super::exit::Exit;
use super::screen::Screen;
use super::verdict::{Cut, Gate, Judged, judge};
use super::{out, report, setup};
use crate::api::{ApiClient, PollErrorKind, RunSource};
use crate::poll::{FinalRun, Trouble};
use crate::run::{DoubtKind, Ending, Observation, Patience, RunId, RunState, Subject, observe};
use crate::{app, clock};

/// Asks once about each run.
pub(super) async fn run(global: &Global, args: &StatusArgs) -> Exit {
    status(global, args).await.unwrap_or_else(|exit| exit)
}

async fn status(global: &Global, args: &StatusArgs) -> Result<Exit, Exit> {
    let config = setup::configure(global, None, LevelFilter::WARN, &Screen::default())?;
    let client = Arc::new(ApiClient::new(&app::api_settings(&config)).map_err(setup::refuse)?);
    let mut seen = HashSet::new();
    let ids: Vec<RunId> = args.runs.iter().filter(|id| seen.insert(*id)).cloned().collect();
    let mut runs = Vec::new();
    // As many at once as the budget would allow in flight, in the order asked for.
    for batch in ids.chunks(config.poll.max_in_flight as usize) {
        let mut polls = JoinSet::new();
        for (at, id) in batch.iter().enumerate() {
            let (client, id) = (Arc::clone(&client), id.clone());
            let name = config.runs.iter().find(|run| run.id == id).and_then(|run| run.name.clone());
            let subject = Subject { id, name };
            polls.spawn(async move { (at, ask(&client, subject).await) });
        }
        let mut asked = polls.join_all().await;
        asked.sort_by_key(|(at, _)| *at);
        runs.extend(asked.into_iter().map(|(_, run)| run));
    }
    let (judged, exit) = judge(runs, &Gate::default(), Cut::AllEnded);
    for judged in &judged {
        if let Some(reason) = &judged.reason {
            out::error(format_args!("{}: {reason}", judged.run.subject.label()));
        }
    }
    setup::print_result(&match args.output {
        StatusOutput::Text => report::text(&judged),
        StatusOutput::Json => {
            report::json(&judged, exit, |judged| Some(client.run_url(&judged.run.subject.id)))
        }
    })?;
    Ok(if args.exit_code { exit } else { readable(&judged) })
}

/// Without `--exit-code` only what could not be read counts.
fn readable(judged: &[Judged]) -> Exit {
    let unreadable = |verdict: &Exit| matches!(verdict, Exit::KeyRefused | Exit::NotFound | Exit::Unknown);
    Exit::worst(judged.iter().map(|judged| judged.verdict).filter(unreadable))
}

async fn ask(client: &ApiClient, subject: Subject) -> FinalRun {
    let mut state = RunState::new(clock::wall());
    let (mut body, mut trouble) = (None, None);
    match client.poll(&subject.id).await {
        Ok(answer) => {
            // One answer ends a run only by its status; nothing else is waited for here.
            let patience =
                Patience { grace: std::time::Duration::MAX, unknown_after: None, refused_ends: false };
            state = observe(&state, &Observation::Answer(answer.run), clock::now(), &patience).state;
            body = Some(answer.body);
        }
        Err(error) => {
            state.ended = Some(match error.kind {
                PollErrorKind::Doubt(DoubtKind::KeyRefused) => Ending::KeyRefused,
                PollErrorKind::Doubt(DoubtKind::Missing | DoubtKind::NoSuchPage) => Ending::NeverFound,
                _ => Ending::Unknowable,
            });
            trouble = Some(Trouble { message: error.message.as_str().into(), times: 1 });
        }
    }
    FinalRun { subject, state, polls: 1, body, trouble }
}
