//! What asks the daemon about runs: `add`, `remove`, `list`, `show` and `reload`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{Global, ListFormat};
use super::daemon_args::{AddArgs, ListArgs, RemoveArgs, ShowArgs};
use super::exit::Exit;
use super::out::Out;
use super::setup::{self, environment};
use super::{deliveries, table};
use crate::control::{self, Client, ClientError, NewRun, Run};
use crate::run::{Progress, RunStatus};
use crate::store::DeliveryFilter;
use crate::{daemon, span, words};

/// A connection to the daemon.
pub(super) fn connect(global: &Global) -> Result<Client, Failure> {
    // The configuration says only where the state is; one that cannot be read is no reason to find no daemon.
    let loaded = crate::config::load(global.config(), &environment, &global.overrides(None)).ok();
    let state_dir = loaded.and_then(|loaded| loaded.config.state_dir);
    Ok(Client::connect(&candidates(state_dir.as_deref()))?)
}

/// Where the daemon's socket may be, given the configured state directory.
pub(super) fn candidates(state_dir: Option<&Path>) -> Vec<PathBuf> {
    control::candidates(&environment, daemon::directory(state_dir, &environment))
}

/// Why a command of the socket failed.
pub(super) enum Failure {
    /// The daemon, or that there is none.
    Client(ClientError),
    /// Said already.
    Said(Exit),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<Exit> for Failure {
    fn from(exit: Exit) -> Self {
        Self::Said(exit)
    }
}

/// Ends a command of the socket.
pub(super) fn end(out: &Out, result: Result<Exit, Failure>) -> Exit {
    match result {
        Ok(exit) | Err(Failure::Said(exit)) => exit,
        Err(Failure::Client(error)) => {
            out.error(&error);
            match error {
                ClientError::NotFound(_) => Exit::NotFound,
                ClientError::Refused(_) => Exit::Usage,
                ClientError::NoDaemon(_)
                | ClientError::Forbidden(_)
                | ClientError::Unavailable(_)
                | ClientError::Broken(_) => Exit::Internal,
            }
        }
    }
}

/// Has runs watched.
pub(super) async fn add(out: &Out, global: &Global, args: &AddArgs) -> Exit {
    end(out, try_add(out, global, args).await)
}

async fn try_add(out: &Out, global: &Global, args: &AddArgs) -> Result<Exit, Failure> {
    if args.name.is_some() && args.runs.len() > 1 {
        out.error("--name is for one run; add the others by themselves");
        return Ok(Exit::Usage);
    }
    // Less than a second would be none.
    let deadline = args.deadline.map(|deadline| deadline.max(Duration::from_secs(1)).as_secs());
    let run = |id: &crate::run::RunId| NewRun {
        id: id.clone(),
        name: args.name.clone(),
        notify: args.notify.clone(),
        deadline_seconds: deadline,
    };
    let added = connect(global)?.add(args.runs.iter().map(run).collect()).await?;
    for run in &added.runs {
        match &run.finished {
            None => out.say(&format!("{} is watched", run.id)),
            Some(status) => out.say(&format!("{} has ended already: {status}", run.id)),
        }
    }
    out.finish();
    Ok(Exit::Succeeded)
}

/// Has runs watched no more.
pub(super) async fn remove(out: &Out, global: &Global, args: &RemoveArgs) -> Exit {
    end(out, try_remove(out, global, args).await)
}

async fn try_remove(out: &Out, global: &Global, args: &RemoveArgs) -> Result<Exit, Failure> {
    let client = connect(global)?;
    let mut missing = None;
    for id in &args.runs {
        match client.remove(id).await {
            Ok(run) => {
                let again = if run.added {
                    ""
                } else {
                    "; the configuration names it, and the next start or reload will watch it again"
                };
                out.say(&format!("{id} is watched no more{again}"));
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

/// Lists the runs.
pub(super) async fn list(out: &Out, global: &Global, args: &ListArgs) -> Exit {
    end(out, try_list(global, args).await)
}

async fn try_list(global: &Global, args: &ListArgs) -> Result<Exit, Failure> {
    let mut runs = connect(global)?.runs().await?;
    let ended = runs.runs.iter().filter(|run| run.ended.is_some()).count();
    if !args.all {
        runs.runs.retain(|run| run.ended.is_none());
    }
    let text = match args.output.format {
        ListFormat::Json => json(&runs),
        ListFormat::Text if runs.runs.is_empty() && args.all => "no runs\n".to_owned(),
        ListFormat::Text if runs.runs.is_empty() => {
            format!("no runs are going, {ended} have ended (see --all)\n")
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

fn standing(run: &Run) -> String {
    let status = run.status.as_ref().map_or("not seen yet", RunStatus::as_str);
    match run.ended.as_deref() {
        None | Some("finished") => status.to_owned(),
        Some(why) => format!("{status} ({why})"),
    }
}

fn progress(run: &Run) -> Progress {
    Progress { completed: run.samples_completed, failed: run.samples_failed, total: run.number_of_samples }
}

/// Shows one run.
pub(super) async fn show(out: &Out, global: &Global, args: &ShowArgs) -> Exit {
    end(out, try_show(global, args).await)
}

async fn try_show(global: &Global, args: &ShowArgs) -> Result<Exit, Failure> {
    let client = connect(global)?;
    let run = client.run(&args.run).await?;
    let filter = DeliveryFilter { run: Some(args.run.clone()), ..DeliveryFilter::default() };
    let told = client.deliveries(&filter, 1000).await?;
    let text = match args.output.format {
        ListFormat::Json => json(&serde_json::json!({ "run": run, "deliveries": told.deliveries })),
        ListFormat::Text => {
            let mut text = described(&run);
            if !told.deliveries.is_empty() {
                text.push('\n');
                text.push_str(&deliveries::listed(&told.deliveries));
            }
            text
        }
    };
    setup::print_result(&text)?;
    Ok(Exit::Succeeded)
}

fn described(run: &Run) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = writeln!(text, "{name:10} {value}");
        }
    };
    let time = |at: Option<jiff::Timestamp>| at.map(words::time);
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

/// Has the configuration read again.
pub(super) async fn reload(out: &Out, global: &Global) -> Exit {
    let result = async {
        let answer = connect(global)?.reload().await;
        match answer {
            Ok(answer) => out.say(&format!("reloaded: {}", answer.message)),
            Err(ClientError::Refused(problems)) => {
                out.error(format_args!("the configuration is refused, and the old one kept:\n{problems}"));
                return Ok(Exit::Config);
            }
            Err(error) => return Err(Failure::from(error)),
        }
        out.finish();
        Ok(Exit::Succeeded)
    };
    end(out, result.await)
}

/// JSON on one line. Structs of strings and numbers always serialise; the fallback is valid JSON all the same.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned()) + "\n"
}
