//! `runwatch list`: the runs that the daemon knows.

use std::time::Duration;

use clap::Args;

use super::exit::Exit;
use super::flags::{Global, ListFormat, Output};
use super::out::Out;
use super::socket::{Failure, connect, end};
use super::{report, setup, table};
use crate::control::Run;
use crate::run::{Progress, RunStatus};
use crate::{span, words};

/// `runwatch list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Include finished runs
    #[arg(long)]
    pub(super) all: bool,

    #[command(flatten)]
    pub(super) output: Output,
}

/// Lists the runs.
pub(super) async fn run(out: &Out, global: &Global, args: &ListArgs) -> Exit {
    end(out, try_list(global, args).await)
}

async fn try_list(global: &Global, args: &ListArgs) -> Result<Exit, Failure> {
    let mut runs = connect(global).await?.runs().await?;
    let ended = runs.runs.iter().filter(|run| run.ended.is_some()).count();
    if !args.all {
        runs.runs.retain(|run| run.ended.is_none());
    }
    let text = match args.output.format {
        ListFormat::Json => report::line(&runs),
        ListFormat::Text if runs.runs.is_empty() && args.all => "no runs\n".to_owned(),
        ListFormat::Text if runs.runs.is_empty() => {
            format!("no active runs, {ended} finished (see --all)\n")
        }
        ListFormat::Text => {
            let mut rows = vec![["RUN", "NAME", "STATUS", "SAMPLES", "LEFT", "TROUBLE"].map(str::to_owned)];
            rows.extend(runs.runs.iter().map(row));
            table::render(&rows)
        }
    };
    setup::print_result(&text)?;
    Ok(Exit::Succeeded)
}

fn row(run: &Run) -> [String; 6] {
    let samples = words::samples(progress(run)).unwrap_or_default();
    let left = run.seconds_left.filter(|left| *left > 0).map(|left| span::human(Duration::from_secs(left)));
    [
        run.id.to_string(),
        run.name.clone().unwrap_or_default(),
        standing(run),
        samples,
        left.unwrap_or_default(),
        run.trouble.clone().unwrap_or_default(),
    ]
}

/// Where a run stands, in a few words.
pub(super) fn standing(run: &Run) -> String {
    let status = run.status.as_ref().map_or("not seen yet", RunStatus::as_str);
    match run.ended.as_deref() {
        None | Some("finished") => status.to_owned(),
        Some(why) => format!("{status} ({why})"),
    }
}

/// The counts of its samples.
pub(super) fn progress(run: &Run) -> Progress {
    Progress { completed: run.samples_completed, failed: run.samples_failed, total: run.number_of_samples }
}
