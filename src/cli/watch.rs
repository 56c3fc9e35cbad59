//! `runwatch watch`: in the foreground, with live progress and notifications.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;

use super::choose::{Choice, Choosing, choose};
use super::complete;
use super::exit::Exit;
use super::flags::{Global, Pacing, duration, duration_or_zero};
use super::foreground::{EndWhen, View, Watch};
use super::jsonl::Jsonl;
use super::lines::Lines;
use super::live::{Live, url_of};
use super::out::Out;
use super::quiet::Quiet;
use super::readers::Shown;
use super::stream::Stream;
use super::then::Then;
use super::verdict::{Gate, Judged, judge};
use super::{report, setup};
use crate::api::ApiClient;
use crate::app;
use crate::config::ChannelKind;
use crate::notify::desktop;
use crate::run::Subject;

/// `runwatch watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    pub(super) choice: Choice,

    /// End when one run has finished, instead of all
    #[arg(long)]
    pub(super) any: bool,

    /// Give up after this time, for all runs together: 30s, 5m, 2h
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration)]
    pub(super) timeout: Option<Duration>,

    /// How long the API may not know an id before the watch of it ends [default: 1m]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration_or_zero)]
    pub(super) grace: Option<Duration>,

    /// What to print on standard output
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: WatchOutput,

    #[command(flatten)]
    pacing: Pacing,

    /// Notify through these configured channels only
    #[arg(long, value_name = "CHANNEL", value_delimiter = ',', add = complete::channels())]
    pub(super) notify: Option<Vec<String>>,

    /// Do not send notifications
    #[arg(long, conflicts_with = "notify")]
    pub(super) no_notify: bool,

    #[command(flatten)]
    then: Then,
}

/// What `watch` prints on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WatchOutput {
    /// Progress for people
    Text,
    /// One JSON object per event, as it happens
    Jsonl,
}

/// Watches runs to their end.
pub(super) async fn run(out: &Out, global: &Global, args: &WatchArgs) -> Exit {
    watch(out, global, args).await.unwrap_or_else(|exit| exit)
}

async fn watch(out: &Out, global: &Global, args: &WatchArgs) -> Result<Exit, Exit> {
    let began = Instant::now();
    let (then, choice) = args.then.or_runs(&args.choice)?;
    then.check()?;
    let mut config = setup::configure(global, args.grace, LevelFilter::WARN, out)?;
    args.pacing.apply(&mut config);
    let channels = match &args.notify {
        Some(names) => setup::choose_channels(&config, names)?,
        None if args.no_notify => Vec::new(),
        None => setup::usable_channels(&config),
    };
    let unasked = args.notify.is_none() && !args.no_notify;
    let has_desktop = channels.iter().any(|channel| matches!(channel.kind, ChannelKind::Desktop { .. }));
    let extra = unasked && !has_desktop && desktop::is_there().await;
    let source = Arc::new(ApiClient::new(&app::api_settings(&config)).map_err(setup::refuse)?);
    let for_machines = args.output == WatchOutput::Jsonl;
    let url = source.clone();
    let how = Choosing {
        asks: !for_machines,
        patience: args.timeout,
        timed_out: Exit::TimedOut,
        shown: Shown::OnStdout,
    };
    let runs = choose(out, &config, &source, &choice, &how).await?;
    let watch = Watch {
        config: &config,
        runs: &runs,
        extra: extra.then(|| app::default_desktop(&channels)),
        channels,
        channels_win: args.notify.is_some(),
        end_when: if args.any { EndWhen::Any } else { EndWhen::All },
        began,
        timeout: args.timeout,
        keep_bodies: for_machines,
        shown: Shown::OnStdout,
    };
    let mut view: Box<dyn View> = if for_machines {
        Box::new(Jsonl::new(out))
    } else if args.pacing.quiet {
        Box::new(Quiet::on_stdout(out))
    } else {
        view(out, &source, watch.subjects())
    };
    let mut session = watch.run(out, source, view.as_mut()).await?;
    let (judged, exit) = judge(session.ended.runs, &Gate::default(), session.cut);
    for judged in judged.iter().filter(|judged| judged.verdict == Exit::TimedOut) {
        out.error(format_args!("the deadline passed before {} ended", judged.run.watched.subject.label()));
    }
    if for_machines {
        let url = |judged: &Judged| Some(url.run_url(&judged.run.watched.subject.id).into());
        out.say(report::verdict_event(&judged, exit, url).trim_end());
    }
    // Everything has been said by now, or is stuck.
    out.finish();
    if exit == Exit::Succeeded && out.has_failed() {
        return Ok(Exit::Internal);
    }
    Ok(then.run(&judged, exit, session.cut, &app::source(&config), &mut session.signals).await)
}

/// Live progress on a terminal, lines elsewhere.
pub(super) fn view(out: &Out, client: &ApiClient, subjects: Vec<Subject>) -> Box<dyn View> {
    if Stream::Stdout.is_screen() {
        Box::new(Live::new(out, Stream::Stdout, false, linked(client, subjects)))
    } else {
        Box::new(Lines::on_stdout(out, subjects.len()))
    }
}

/// Each run with the URL to link it to.
pub(super) fn linked(client: &ApiClient, subjects: Vec<Subject>) -> Vec<(Subject, Option<Arc<str>>)> {
    let url = url_of(|id| client.run_url(id).into());
    subjects
        .into_iter()
        .map(|subject| (url(&subject.id), subject))
        .map(|(url, subject)| (subject, url))
        .collect()
}
