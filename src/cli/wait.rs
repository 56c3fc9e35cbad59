//! `runwatch wait`: a step of a CI job. People read standard error, machines standard output.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;

use super::choose::{Choice, Choosing, NO_RUNS, choose};
use super::complete;
use super::exit::Exit;
use super::files::Files;
use super::flags::{Global, Pacing, duration, duration_or_zero};
use super::foreground::{EndWhen, View, Watch};
use super::jsonl::Jsonl;
use super::lines::Lines;
use super::live::Live;
use super::out::{self, Out};
use super::quiet::Quiet;
use super::readers::Shown;
use super::safe::{in_azure, in_buildkite, in_github};
use super::stream::Stream;
use super::then::Then;
use super::threshold::Threshold;
use super::verdict::{self, Gate, Judged, judge};
use super::watch::linked;
use super::{azure, buildkite, github, report, setup};
use crate::api::ApiClient;
use crate::app;
use crate::config::{Config, ConfiguredChannel};
use crate::run::{RunId, RunState, Subject};

/// `runwatch wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    #[command(flatten)]
    choice: Choice,

    /// Give up after this time, for all runs together: 30s, 5m, 2h
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration)]
    pub(super) timeout: Option<Duration>,

    /// Exit 6 if a run SUCCEEDED with more failed samples than this: a number, or a share of its samples such as 5%
    #[arg(long, value_name = "N|P%", allow_hyphen_values = true)]
    pub(super) max_failed: Option<Threshold>,

    /// Exit 6 if a run SUCCEEDED with fewer completed samples than this: a number, or a share of its samples such as 95%
    #[arg(long, value_name = "N|P%", allow_hyphen_values = true)]
    pub(super) min_completed: Option<Threshold>,

    /// End when one run has finished, instead of all
    #[arg(long, conflicts_with = "fail_fast")]
    pub(super) any: bool,

    /// End as soon as one run has not succeeded, instead of waiting for all
    #[arg(long)]
    pub(super) fail_fast: bool,

    /// What to print on standard output [default: github, azure or buildkite where such a system runs the job, else
    /// text]
    #[arg(short, long, value_name = "FORMAT")]
    pub(super) output: Option<WaitOutput>,

    /// Write the result to a file as JUnit XML, one test case per run
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,

    /// Write a Markdown table of the runs to a file
    #[arg(long, value_name = "FILE")]
    pub(super) summary: Option<PathBuf>,

    /// How long the API may not know an id before the wait for it ends [default: 1m]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration_or_zero)]
    pub(super) grace: Option<Duration>,

    #[command(flatten)]
    pacing: Pacing,

    /// Also notify through these configured channels [default: none]
    #[arg(long, value_name = "CHANNEL", value_delimiter = ',', add = complete::channels())]
    pub(super) notify: Option<Vec<String>>,

    #[command(flatten)]
    then: Then,
}

/// What `wait` prints on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitOutput {
    /// One line a run
    Text,
    /// One JSON object
    Json,
    /// One JSON object per event, as it happens
    Jsonl,
    /// Annotations, outputs and a step summary for GitHub Actions
    Github,
    /// One line a run, and issues and output variables for Azure Pipelines
    Azure,
    /// One line a run, and an annotation for Buildkite, made by `buildkite-agent`
    Buildkite,
}

/// Waits for runs, judges them, and prints the result.
pub(super) async fn run(out: &Out, global: &Global, args: &WaitArgs) -> Exit {
    wait(out, global, args).await.unwrap_or_else(|exit| exit)
}

/// Live progress on a terminal, lines elsewhere. Where the result goes to the same terminal, it has the last word.
fn view(out: &Out, client: &ApiClient, subjects: Vec<Subject>) -> Box<dyn View> {
    if Stream::Stderr.is_screen() {
        Box::new(Live::new(out, Stream::Stderr, Stream::Stdout.is_terminal(), linked(client, subjects)))
    } else {
        Box::new(Lines::on_stderr(out, subjects.len()))
    }
}

/// What a wait needs.
struct Prepared {
    config: Config,
    channels: Vec<ConfiguredChannel>,
    client: Arc<ApiClient>,
    runs: Vec<RunId>,
    then: Then,
}

async fn prepare(
    out: &Out,
    global: &Global,
    args: &WaitArgs,
    then: Then,
    choice: &Choice,
) -> Result<Prepared, Exit> {
    then.check()?;
    let mut config = setup::configure(global, args.grace, LevelFilter::WARN, out)?;
    args.pacing.apply(&mut config);
    let channels = args.notify.as_deref().map(|names| setup::choose_channels(&config, names)).transpose()?;
    // Nothing is built yet; but a channel that cannot be used is refused before hours have been waited.
    channels
        .iter()
        .flatten()
        .try_for_each(|channel| app::channel(channel, &config).map(|_| ()).map_err(setup::refuse))?;
    let client = Arc::new(ApiClient::new(&app::api_settings(&config)).map_err(setup::refuse)?);
    let how =
        Choosing { asks: false, patience: args.timeout, timed_out: Exit::TimedOut, shown: Shown::OnBoth };
    let runs = choose(out, &config, &client, choice, &how).await?;
    Ok(Prepared { config, channels: channels.unwrap_or_default(), client, runs, then })
}

/// Gives machines a result, too, of a wait that could not begin.
async fn could_not_begin(out: &Out, output: WaitOutput, files: &mut Files, exit: Exit) -> Result<(), Exit> {
    if in_github() {
        out.commands(&github::could_not_begin(exit));
        github::write_files(&[], exit, Duration::ZERO)?;
    }
    match output {
        WaitOutput::Json => setup::print_result(&report::json(&[], exit, |_| None))?,
        WaitOutput::Jsonl => setup::print_result(&report::verdict_event(&[], exit, |_| None))?,
        WaitOutput::Azure => {
            out::verbatim(&azure::could_not_begin(exit)).map_err(|error| setup::cannot_print(&error))?;
        }
        WaitOutput::Text | WaitOutput::Github | WaitOutput::Buildkite => {}
    }
    files.write(&[], exit)?;
    if in_buildkite() || output == WaitOutput::Buildkite {
        buildkite::annotate(&[], exit).await;
    }
    Ok(())
}

async fn wait(out: &Out, global: &Global, args: &WaitArgs) -> Result<Exit, Exit> {
    let (then, choice) = args.then.or_runs(&args.choice)?;
    if !choice.is_made() {
        out.error(NO_RUNS);
        return Err(Exit::Usage);
    }
    let in_github = in_github();
    let output = args.output.unwrap_or(match (in_github, in_azure(), in_buildkite()) {
        (true, _, _) => WaitOutput::Github,
        (_, true, _) => WaitOutput::Azure,
        (_, _, true) => WaitOutput::Buildkite,
        _ => WaitOutput::Text,
    });
    let mut files = Files::open(args.junit.as_deref(), args.summary.as_deref())?;
    let began = tokio::time::Instant::now();
    let prepared = match prepare(out, global, args, then, &choice).await {
        Ok(prepared) => prepared,
        Err(exit) => {
            could_not_begin(out, output, &mut files, exit).await?;
            return Err(exit);
        }
    };
    let Prepared { config, channels, client, runs, then } = prepared;
    let hint = github::hint_about_timeout(args.timeout).filter(|_| in_github);
    if let Some(hint) = &hint {
        out.commands(hint);
    }
    let gate = Gate { max_failed: args.max_failed, min_completed: args.min_completed };
    let is_good = |state: &RunState| verdict::is_good(state, &gate);
    let watch = Watch {
        config: &config,
        runs: &runs,
        channels,
        channels_win: true,
        extra: None,
        end_when: match (args.fail_fast, args.any) {
            (true, _) => EndWhen::FirstBad(Box::new(is_good)),
            (_, true) => EndWhen::Any,
            _ => EndWhen::All,
        },
        began,
        timeout: args.timeout,
        keep_bodies: matches!(output, WaitOutput::Json | WaitOutput::Jsonl),
        shown: Shown::OnBoth,
    };
    let mut view: Box<dyn View> = if output == WaitOutput::Jsonl {
        Box::new(Jsonl::new(out))
    } else if args.pacing.quiet {
        Box::new(Quiet::on_stderr(out))
    } else {
        view(out, &client, watch.subjects())
    };
    let mut session = watch.run(out, Arc::clone(&client) as _, view.as_mut()).await?;
    let (judged, exit) = judge(session.ended.runs, &gate, session.cut);
    // The lines of a result in text give the reasons themselves.
    if !matches!(output, WaitOutput::Text | WaitOutput::Azure | WaitOutput::Buildkite) {
        report::reasons(out, &judged);
    }
    if judged.iter().any(|judged| judged.verdict == Exit::TimedOut) {
        out.error("the deadline passed; a longer --timeout may help");
    }
    let waited = began.elapsed();
    // The annotations are commands; the rest must have none.
    let url = |judged: &Judged| Some(client.run_url(&judged.run.watched.subject.id).into());
    let text = match output {
        WaitOutput::Text | WaitOutput::Buildkite => out::on_stdout(&report::text(&judged)).into_owned(),
        WaitOutput::Json => report::json(&judged, exit, url),
        WaitOutput::Jsonl => report::verdict_event(&judged, exit, url),
        WaitOutput::Github => github::commands(&judged, hint.is_some()),
        WaitOutput::Azure => {
            let summary = args.summary.as_deref();
            out::on_stdout(&report::text(&judged)).into_owned()
                + &azure::commands(&judged, exit, waited, summary)
        }
    };
    if in_github && output != WaitOutput::Github {
        out.commands(github::commands(&judged, hint.is_some()).trim_end());
    }
    // The files first: they are there even if nobody reads the rest.
    let written = files.write(&judged, exit);
    let written = if in_github || output == WaitOutput::Github {
        github::write_files(&judged, exit, waited).and(written)
    } else {
        written
    };
    setup::hand_over(out, &text, &mut session.signals).await?;
    // Last, because it takes a request to Buildkite.
    if in_buildkite() || output == WaitOutput::Buildkite {
        buildkite::annotate(&judged, exit).await;
    }
    written?;
    Ok(then.run(&judged, exit, session.cut, &app::source(&config), &mut session.signals).await)
}
