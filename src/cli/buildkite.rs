//! The result for Buildkite: an annotation of the build, made by the agent's own program.
//!
//! Buildkite reads no commands from the log: `buildkite-agent annotate` takes Markdown on standard input. An annotation is an
//! extra, so one that cannot be made changes no exit code.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::exit::Exit;
use super::out;
use super::summary::summary;
use super::verdict::Judged;
use crate::notify::environment::{self, Program};

const AGENT: &str = "buildkite-agent";

/// Buildkite refuses larger annotations, in bytes.
const LARGEST_ANNOTATION: usize = 1 << 20;

/// Maximum time for the agent, which repeats failed requests for minutes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Annotates the build with the runs, or with why the wait could not begin if there are none.
pub(super) async fn annotate(judged: &[Judged], exit: Exit) {
    let body = if judged.is_empty() {
        format!("### DataFramer runs\n\nThe wait could not begin: {}\n", exit.meaning())
    } else {
        summary(judged, LARGEST_ANNOTATION)
    };
    match tokio::time::timeout(PATIENCE, agent(style(judged, exit), &body)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => out::error(format_args!("the build is not annotated: {AGENT}: {error}")),
        Err(_) => out::error(format_args!("the build is not annotated: {AGENT} took longer than 30 s")),
    }
}

fn style(judged: &[Judged], exit: Exit) -> &'static str {
    let failed_samples =
        judged.iter().any(|judged| judged.run.watched.state.progress.failed.unwrap_or(0) > 0);
    match exit {
        Exit::Succeeded if !failed_samples => "success",
        Exit::Succeeded | Exit::BelowThreshold => "warning",
        _ => "error",
    }
}

async fn agent(style: &str, body: &str) -> std::io::Result<()> {
    // A context names an annotation: two jobs of a build must not overwrite each other's.
    let job = std::env::var("BUILDKITE_JOB_ID").unwrap_or_default();
    let mut agent = Command::new(AGENT)
        .args(["annotate", "--style", style, "--context", &format!("runwatch-{job}")])
        .env_clear()
        .envs(environment::inherited(std::env::vars_os(), Program::Channel))
        .stdin(Stdio::piped())
        // Standard output is the result's.
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    // An agent that fails may read nothing: its exit status says more than the broken pipe.
    let written = match agent.stdin.take() {
        Some(mut input) => input.write_all(body.as_bytes()).await,
        None => Ok(()),
    };
    let status = agent.wait().await?;
    if status.success() { written } else { Err(std::io::Error::other(status.to_string())) }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::samples::judged;
    use super::*;

    #[test]
    fn the_style_is_that_of_the_worst_run() {
        assert_eq!(style(&[judged(1, Exit::Succeeded, 0)], Exit::Succeeded), "success");
        assert_eq!(style(&[judged(1, Exit::Succeeded, 3)], Exit::Succeeded), "warning");
        assert_eq!(style(&[judged(1, Exit::BelowThreshold, 3)], Exit::BelowThreshold), "warning");
        for exit in [Exit::Failed, Exit::TimedOut, Exit::NotFound] {
            assert_eq!(style(&[judged(1, exit, 0)], exit), "error");
        }
        assert_eq!(style(&[], Exit::Config), "error");
    }
}
