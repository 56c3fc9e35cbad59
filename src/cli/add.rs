//! `runwatch add`: asks the daemon to watch runs.

use std::time::Duration;

use clap::Args;

use super::complete;
use super::exit::Exit;
use super::flags::{Global, duration};
use super::named::{Named, named, resolve};
use super::out::Out;
use super::socket::{Failure, connect, end};
use crate::control::NewRun;
use crate::run::RunId;
use crate::run::text::one_line;

/// `runwatch add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Run ids or run URLs, also with commas between them; `@FILE` or `-` (standard input) for a list with one per line
    #[arg(required = true, value_name = "RUN", value_parser = named, add = complete::runs())]
    pub(super) runs: Vec<Named>,

    /// Name of the run, for people; for one run only
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,

    /// Notify through these channels only [default: all]
    #[arg(long, value_name = "CHANNEL", value_delimiter = ',', add = complete::channels())]
    pub(super) notify: Option<Vec<String>>,

    /// Warn if a run has not finished this long after its creation: 30m, 2h
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration)]
    pub(super) deadline: Option<Duration>,
}

/// Asks the daemon to watch runs.
pub(super) async fn run(out: &Out, global: &Global, args: &AddArgs) -> Exit {
    end(out, try_add(out, global, args).await)
}

async fn try_add(out: &Out, global: &Global, args: &AddArgs) -> Result<Exit, Failure> {
    let runs = match resolve(&args.runs).await {
        Ok(runs) => runs,
        Err(exit) => return Ok(exit),
    };
    if args.name.is_some() && runs.len() > 1 {
        out.error("--name is for one run; add the others by themselves");
        return Ok(Exit::Usage);
    }
    // Less than a second would be none.
    let deadline = args.deadline.map(|deadline| deadline.max(Duration::from_secs(1)).as_secs());
    let run = |id: &RunId| NewRun {
        id: id.clone(),
        name: args.name.clone(),
        notify: args.notify.clone(),
        deadline_seconds: deadline,
    };
    let added = connect(global).await?.add(runs.iter().map(run).collect()).await?;
    for run in &added.runs {
        match &run.finished {
            None => out.say(&format!("{} is watched", run.id)),
            Some(status) => out.say(&format!("{} has ended already: {}", run.id, one_line(status.as_str()))),
        }
    }
    out.finish();
    Ok(Exit::Succeeded)
}
