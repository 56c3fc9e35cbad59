//! `runwatch wait`: a step of a CI job. People read standard error, machines standard output.

use std::sync::Arc;

use tracing::level_filters::LevelFilter;

use super::args::{Global, WaitArgs, WaitOutput};
use super::exit::Exit;
use super::foreground::{EndWhen, Watch};
use super::lines::Lines;
use super::screen::Screen;
use super::verdict::{Gate, judge};
use super::{github, out, report, setup};
use crate::api::ApiClient;
use crate::app;

/// Waits for runs, judges them, and prints the result.
pub(super) async fn run(global: &Global, args: &WaitArgs) -> Exit {
    wait(global, args).await.unwrap_or_else(|exit| exit)
}

async fn wait(global: &Global, args: &WaitArgs) -> Result<Exit, Exit> {
    let screen = Screen::default();
    let config = setup::configure(global, args.grace, LevelFilter::WARN, &screen)?;
    let channels = match &args.notify {
        Some(names) => setup::choose_channels(&config, names)?,
        None => Vec::new(),
    };
    let client = Arc::new(ApiClient::new(&app::api_settings(&config)).map_err(setup::refuse)?);
    let in_github = std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true");
    let output = args.output.unwrap_or(if in_github { WaitOutput::Github } else { WaitOutput::Text });
    if output == WaitOutput::Github
        && let Some(hint) = github::hint_about_timeout(args.timeout)
    {
        setup::print_result(&hint)?;
    }
    let watch = Watch {
        config: &config,
        runs: &args.runs,
        channels,
        end_when: if args.fail_fast { EndWhen::AllOrFirstBad } else { EndWhen::All },
        timeout: args.timeout,
        keep_bodies: output == WaitOutput::Json,
    };
    let began = tokio::time::Instant::now();
    let mut lines = Lines::on_stderr(watch.subjects().len());
    let session = watch.run(Arc::clone(&client) as _, &mut lines).await?;
    let gate = Gate { max_failed: args.max_failed, min_completed: args.min_completed };
    let (judged, exit) = judge(session.ended.runs, &gate, session.cut);
    for judged in &judged {
        if let Some(reason) = &judged.reason {
            out::error(format_args!("{}: {reason}", judged.run.subject.label()));
        }
    }
    if exit == Exit::TimedOut {
        out::error("the deadline passed; a longer --timeout may help");
    }
    let text = match output {
        WaitOutput::Text => report::text(&judged),
        WaitOutput::Json => {
            report::json(&judged, exit, |judged| Some(client.run_url(&judged.run.subject.id)))
        }
        WaitOutput::Github => github::annotations(&judged),
    };
    setup::print_result(&text)?;
    if output == WaitOutput::Github {
        github::write_files(&judged, exit, began.elapsed())?;
    }
    Ok(exit)
}
