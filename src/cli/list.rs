//! `runwatch list`: lists the daemon's runs.

use std::time::Duration;

use clap::Args;

use super::exit::Exit;
use super::flags::{Global, ListFormat, Output};
use super::out::Out;
use super::socket::{Failure, connect, end};
use super::table::{self, Column};
use super::{report, setup};
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
            let rows: Vec<_> = runs.runs.iter().map(row).collect();
            table::for_stdout(&COLUMNS, &rows)
        }
    };
    setup::print_result(&text)?;
    Ok(Exit::Succeeded)
}

const COLUMNS: [Column; 6] = [
    Column::whole("RUN"),
    Column::whole("NAME").cut(8).rank(1),
    Column::whole("STATUS"),
    Column::whole("SAMPLES"),
    Column::whole("LEFT").rank(3),
    Column::whole("TROUBLE").cut(12).rank(2),
];

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

/// A run's status, and how its watch ended, in a few words.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pictures::compare;

    #[test]
    fn fits_the_terminal() {
        let rows = [
            ["3c90c3cc-0d44-4b50-8888-8dd25736052a", "nightly-tickets", "PROCESSING", "54/200", "5m 10s", ""],
            [
                "77aa01bc-0d44-4b50-8888-8dd25736052a",
                "",
                "not seen yet",
                "",
                "",
                "503 Service Unavailable from the gateway",
            ],
        ];
        let rows = rows.map(|row| row.map(str::to_owned));
        let drawn = [None, Some(120), Some(80), Some(40)].map(|width| {
            let of = width.map_or("a pipe".to_owned(), |width| width.to_string());
            format!("{of}\n{}", table::render(&COLUMNS, &rows, width, false))
        });
        compare("list.txt", &drawn.concat());
    }
}
