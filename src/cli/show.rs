//! `runwatch show`: shows a run of the daemon and the deliveries about it.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;

use super::complete;
use super::exit::Exit;
use super::flags::{Global, ListFormat, Output, run_id};
use super::list::{progress, standing};
use super::out::Out;
use super::socket::{Failure, connect, end};
use super::times::Times;
use super::{deliveries, report, setup};
use crate::control::Run;
use crate::run::RunId;
use crate::run::text::one_line;
use crate::store::DeliveryFilter;
use crate::{span, words};

/// `runwatch show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A run id or run URL
    #[arg(value_name = "RUN", value_parser = run_id, add = complete::watched_runs())]
    pub(super) run: RunId,

    #[command(flatten)]
    times: Times,

    #[command(flatten)]
    pub(super) output: Output,
}

/// Shows one run.
pub(super) async fn run(out: &Out, global: &Global, args: &ShowArgs) -> Exit {
    end(out, try_show(global, args).await)
}

async fn try_show(global: &Global, args: &ShowArgs) -> Result<Exit, Failure> {
    let client = connect(global).await?;
    let run = client.run(&args.run).await?;
    let filter = DeliveryFilter { run: Some(args.run.clone()), ..DeliveryFilter::default() };
    let told = client.deliveries(&filter, 1000).await?;
    let text = match args.output.format {
        ListFormat::Json => report::line(&serde_json::json!({ "run": run, "deliveries": told.deliveries })),
        ListFormat::Text => {
            let mut text = described(&run, args.times.long());
            if !told.deliveries.is_empty() {
                text.push('\n');
                text.push_str(&deliveries::listed(&told.deliveries, args.times.short()));
            }
            text
        }
    };
    setup::print_result(&text)?;
    Ok(Exit::Succeeded)
}

fn described(run: &Run, time: impl Fn(jiff::Timestamp) -> String) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = writeln!(text, "{name:10} {}", one_line(&value));
        }
    };
    let time = |at: Option<jiff::Timestamp>| at.map(&time);
    line("run", Some(run.id.to_string()));
    line("name", run.name.clone());
    line("status", Some(standing(run)));
    line("samples", words::samples(progress(run)));
    line("created", time(run.created_at));
    line("completed", time(run.completed_at));
    line("watched", time(Some(run.watched_at)));
    line("end seen", time(run.ended_at));
    line("left", run.seconds_left.map(|left| format!("about {}", span::human(Duration::from_secs(left)))));
    line(
        "deadline",
        run.deadline_seconds
            .map(|after| format!("{} after its creation", span::human(Duration::from_secs(after)))),
    );
    line("channels", run.notify.as_ref().map(|names| names.join(", ")));
    let from = match run {
        Run { found: true, .. } => "[discover]",
        Run { added: true, .. } => "runwatch add",
        Run { .. } => "the configuration",
    };
    line("from", Some(from.to_owned()));
    line("trouble", run.trouble.clone());
    text
}
