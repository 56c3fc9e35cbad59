//! `runwatch status`: polls each run once and shows the answer.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::level_filters::LevelFilter;

use super::choose::{Choice, Choosing, choose};
use super::exit::Exit;
use super::flags::{Global, ListFormat, Output};
use super::out::Out;
use super::readers::Shown;
use super::runs::ONE_SHOT;
use super::verdict::{Cut, Gate, Judged, judge};
use super::{report, setup};
use crate::api::{Answer, ApiClient, PollError, PollErrorKind, RunSource};
use crate::config::Config;
use crate::poll::{FinalRun, Limiter, Trouble, Watched};
use crate::run::{DoubtKind, Ending, Observation, Patience, RunId, RunState, Subject, observe};
use crate::{app, clock};

/// `runwatch status`.
#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = true, args = ["runs", "latest", "mine", "spec"])]
pub struct StatusArgs {
    #[command(flatten)]
    choice: Choice,

    /// Exit by the state of the runs: 8 while one is running, else as `wait` would. Without this flag, only a run that
    /// cannot be read counts (4, 5, 7)
    #[arg(long)]
    pub(super) exit_code: bool,

    #[command(flatten)]
    pub(super) output: Output,
}

/// Polls each run once.
pub(super) async fn run(out: &Out, global: &Global, args: &StatusArgs) -> Exit {
    status(out, global, args).await.unwrap_or_else(|exit| exit)
}

async fn status(out: &Out, global: &Global, args: &StatusArgs) -> Result<Exit, Exit> {
    let config = setup::configure(global, None, LevelFilter::WARN, out)?;
    let client = Arc::new(ApiClient::new(&app::api_settings(&config)).map_err(setup::refuse)?);
    let how =
        Choosing { asks: false, patience: Some(ONE_SHOT), timed_out: Exit::Unknown, shown: Shown::OnStdout };
    let runs = choose(out, &config, &client, &args.choice, &how).await?;
    let runs = ask_all(&config, &client, setup::subjects(&config, &runs)).await;
    let (judged, exit) = judge(runs, &Gate::default(), Cut::OnePoll);
    let text = match args.output.format {
        // Each line says why, too.
        ListFormat::Text => report::text(&judged),
        ListFormat::Json => {
            report::reasons(out, &judged);
            report::json(&judged, exit, |judged| Some(client.run_url(&judged.run.watched.subject.id).into()))
        }
    };
    // What is said on standard error comes first, as people read it.
    out.finish();
    setup::print_result(&text)?;
    Ok(if args.exit_code { exit } else { readable(&judged) })
}

/// Polls every run within the request budget, in the given order. Stops when the API throttles.
async fn ask_all(config: &Config, client: &Arc<ApiClient>, subjects: Vec<Subject>) -> Vec<FinalRun> {
    let mut limiter = Limiter::new(config.poll.requests_per_minute, Instant::now());
    let mut polls = JoinSet::new();
    let mut answers: Vec<Option<Result<Answer, PollError>>> = subjects.iter().map(|_| None).collect();
    let mut silenced = false;
    let mut next = 0;
    while next < subjects.len() || !polls.is_empty() {
        let may_ask = next < subjects.len() && !silenced && polls.len() < config.poll.max_in_flight as usize;
        let at = limiter.next_at(Instant::now());
        tokio::select! {
            biased;
            Some(done) = polls.join_next() => {
                let Ok((asked, answer)): Result<(usize, Result<Answer, PollError>), _> = done else { continue };
                silenced |= matches!(&answer, Err(error) if error.kind == PollErrorKind::Throttled);
                answers[asked] = Some(answer);
            }
            () = sleep_until(at), if may_ask => {
                limiter.spend(Instant::now());
                let (client, id, asked) = (Arc::clone(client), subjects[next].id.clone(), next);
                polls.spawn(async move { (asked, ask(&client, &id).await) });
                next += 1;
            }
            else => break,
        }
    }
    let unasked =
        || Err(PollError::transient("not asked: the API limits requests; try again later".to_owned()));
    let account = |(subject, answer): (Subject, Option<_>)| {
        let polls = u32::from(answer.is_some());
        account(subject, polls, answer.unwrap_or_else(unasked))
    };
    subjects.into_iter().zip(answers).map(account).collect()
}

/// One poll, and a second one with the key read again if the API refuses it, because it may have been rotated.
async fn ask(client: &ApiClient, id: &RunId) -> Result<Answer, PollError> {
    let answer = client.poll(id).await;
    let refused = PollErrorKind::Doubt(DoubtKind::KeyRefused);
    if answer.as_ref().is_err_and(|error| error.kind == refused) && client.reload_key().await.is_ok() {
        return client.poll(id).await;
    }
    answer
}

fn account(subject: Subject, polls: u32, answer: Result<Answer, PollError>) -> FinalRun {
    let mut state = RunState::new(clock::wall());
    let (mut body, mut trouble) = (None, None);
    match answer {
        Ok(answer) => {
            // One answer ends a run only by its status; nothing else is waited for here.
            let patience = Patience { grace: Duration::MAX, unknown_after: None, refused_ends: false };
            state = observe(&state, &Observation::Answer(answer.run), clock::now(), &patience).state;
            body = Some(answer.body);
        }
        Err(error) => {
            state.ended = Some(match error.kind {
                // One answer that is not the API's own says nothing about the run or the key.
                _ if !error.from_api => Ending::Unknowable,
                PollErrorKind::Doubt(DoubtKind::KeyRefused) => Ending::KeyRefused,
                PollErrorKind::Doubt(DoubtKind::Missing | DoubtKind::NoSuchPage) => Ending::NeverFound,
                PollErrorKind::Doubt(DoubtKind::Rejected) => Ending::Rejected,
                _ => Ending::Unknowable,
            });
            trouble = Some(Trouble { message: error.message.as_str().into(), times: 1 });
        }
    }
    let watched = Watched { state, ..Watched::new(subject, clock::wall()) };
    FinalRun { polls, body, trouble, ..FinalRun::new(watched) }
}

/// The exit code without `--exit-code`: only runs that could not be read count.
fn readable(judged: &[Judged]) -> Exit {
    let unreadable = |verdict: &Exit| matches!(verdict, Exit::KeyRefused | Exit::NotFound | Exit::Unknown);
    Exit::worst(judged.iter().map(|judged| judged.verdict).filter(unreadable))
}
