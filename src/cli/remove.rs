//! `runwatch remove`: asks the daemon to stop watching runs.

use clap::Args;

use super::complete;
use super::exit::Exit;
use super::flags::{Global, run_id};
use super::out::Out;
use super::socket::{Failure, connect, end};
use crate::control::ClientError;
use crate::run::RunId;

/// `runwatch remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Run ids or run URLs
    #[arg(required = true, value_name = "RUN", value_parser = run_id, add = complete::watched_runs())]
    pub(super) runs: Vec<RunId>,
}

/// Asks the daemon to stop watching runs.
pub(super) async fn run(out: &Out, global: &Global, args: &RemoveArgs) -> Exit {
    end(out, try_remove(out, global, args).await)
}

async fn try_remove(out: &Out, global: &Global, args: &RemoveArgs) -> Result<Exit, Failure> {
    let client = connect(global).await?;
    let mut missing = None;
    for id in &args.runs {
        match client.remove(id).await {
            Ok(run) => {
                let again = if run.added {
                    ""
                } else {
                    "; the configuration names it, and the next start or reload will watch it again"
                };
                out.say(&format!("{id} is no longer watched{again}"));
            }
            // The others are none the worse for it.
            Err(error @ ClientError::NotFound(_)) => {
                out.error(&error);
                missing = Some(Exit::NotFound);
            }
            Err(error) => return Err(error.into()),
        }
    }
    out.finish();
    Ok(missing.unwrap_or(Exit::Succeeded))
}
