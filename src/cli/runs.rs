//! The runs that the API has: `runwatch runs`, and what `runwatch watch` without ids watches.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::level_filters::LevelFilter;

use super::args::{Global, ListFormat, RunsArgs, WatchArgs};
use super::control::json;
use super::exit::Exit;
use super::out::{self, Out};
use super::readers::{Readers, Shown};
use super::verdict::{Gate, judge};
use super::{setup, table};
use crate::api::{ApiClient, Listed, PollError, PollErrorKind};
use crate::app;
use crate::blocking;
use crate::config::Config;
use crate::poll::Pace;
use crate::run::{DoubtKind, RunId};
use crate::{span, words};

/// How long a list that cannot be had is asked for again where nobody waits for a run.
const ONE_SHOT: Duration = Duration::from_secs(5);

/// So many runs are offered to choose from.
const OFFERED: usize = 20;

/// Lists the runs.
pub(super) async fn run(out: &Out, global: &Global, args: &RunsArgs) -> Exit {
    runs(out, global, args).await.unwrap_or_else(|exit| exit)
}

async fn runs(out: &Out, global: &Global, args: &RunsArgs) -> Result<Exit, Exit> {
    let config = setup::configure(global, None, LevelFilter::WARN, out)?;
    let client = ApiClient::new(&app::api_settings(&config)).map_err(setup::refuse)?;
    let mine = args.mine.as_deref().map(|mine| email(&config, mine)).transpose()?;
    let beyond = AtomicUsize::new(0);
    let wanted = || {
        beyond.store(0, Ordering::Relaxed);
        let (mut left, mine, beyond) = (args.limit, mine.as_deref(), &beyond);
        move |listed: &mut Listed| {
            let wanted = (args.all || is_going(listed)) && mine.is_none_or(|mine| is_of(listed, mine));
            // The newest come first: what is beyond the limit is not kept.
            let kept = wanted && left > 0;
            left -= u32::from(kept);
            beyond.fetch_add(usize::from(wanted && !kept), Ordering::Relaxed);
            kept
        }
    };
    let listed = list(out, &config, &client, Some(ONE_SHOT), wanted).await;
    let listed = listed.map_err(|error| refused(out, &error))?;
    let beyond = beyond.into_inner();
    let text = match args.output.format {
        ListFormat::Json => {
            let runs: Vec<_> = listed.iter().map(described).collect();
            json(&serde_json::json!({ "version": 1, "runs": runs, "more": beyond }))
        }
        ListFormat::Text if listed.is_empty() && args.all => "no runs\n".to_owned(),
        ListFormat::Text if listed.is_empty() => "no run is going (see --all)\n".to_owned(),
        ListFormat::Text if beyond > 0 => {
            format!("{}… and {beyond} older ones (see --limit)\n", listing(&listed))
        }
        ListFormat::Text => listing(&listed),
    };
    out.finish();
    setup::print_result(&text)?;
    Ok(Exit::Succeeded)
}

fn described(listed: &Listed) -> serde_json::Value {
    let Listed { id, run } = listed;
    let details = run.details.as_deref();
    serde_json::json!({
        "id": id,
        "status": run.status,
        "samples_completed": run.progress.completed,
        "samples_failed": run.progress.failed,
        "created_at": run.created_at,
        "completed_at": run.completed_at,
        "spec_name": details.and_then(|details| details.spec_name.as_deref()),
        "dataset_name": details.and_then(|details| details.dataset_name.as_deref()),
        "created_by_email": details.and_then(|details| details.created_by_email.as_deref()),
    })
}

fn listing(listed: &[Listed]) -> String {
    let mut rows = vec![["RUN", "STATUS", "SAMPLES", "CREATED", "SPEC", "BY"].map(str::to_owned)];
    rows.extend(listed.iter().map(|Listed { id, run }| {
        let details = run.details.as_deref();
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        [
            id.to_string(),
            run.status.as_str().to_owned(),
            words::samples(run.progress).unwrap_or_default(),
            run.created_at.map(words::time).unwrap_or_default(),
            text(details.and_then(|details| details.spec_name.as_ref())),
            text(details.and_then(|details| details.created_by_email.as_ref())),
        ]
    }));
    table::render(&rows)
}

/// The runs that `watch` is to watch: those named, or those that the API has and the flags choose, or those chosen here.
pub(super) async fn choose(
    out: &Out,
    config: &Config,
    client: &ApiClient,
    args: &WatchArgs,
) -> Result<Vec<RunId>, Exit> {
    if !args.runs.is_empty() {
        return Ok(args.runs.clone());
    }
    let asks = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !args.latest && args.mine.is_none() && !asks {
        out.error("which runs? Give their ids, or --latest, or --mine (see `runwatch runs`)");
        return Err(Exit::Usage);
    }
    let mine = args.mine.as_deref().map(|mine| email(config, mine)).transpose()?;
    let latest = args.latest;
    let wanted = || {
        let (mut newest, mine) = (None, mine.as_deref());
        move |listed: &mut Listed| {
            let ours = mine.is_none_or(|mine| is_of(listed, mine));
            if !latest {
                return ours && is_going(listed);
            }
            // The newest come first, says the API; one that comes later and is newer goes before them all the same.
            let wanted = ours && newest.is_none_or(|newest| listed.run.created_at > newest);
            if wanted {
                newest = Some(listed.run.created_at);
            }
            wanted
        }
    };
    let mut readers = Readers::of(Shown::OnStdout);
    let listed = tokio::select! {
        listed = list(out, config, client, args.timeout, wanted) => listed,
        // Nobody is left to show a watch to.
        gone = readers.gone() => return Err(judge(Vec::new(), &Gate::default(), gone).1),
    };
    let mut listed = listed.map_err(|error| {
        let exit = refused(out, &error);
        // Only time ends what may pass.
        if may_pass(&error) { Exit::TimedOut } else { exit }
    })?;
    if latest {
        listed.drain(..listed.len().saturating_sub(1));
    }
    let whose = mine.as_ref().map(|mine| format!(" of {mine}")).unwrap_or_default();
    if listed.is_empty() {
        let which = if latest { "there is no run" } else { "no run is going" };
        out.error(format_args!("{which}{whose} (see `runwatch runs --all`)"));
        return Err(Exit::NotFound);
    }
    if latest || args.mine.is_some() {
        return Ok(listed.into_iter().map(|listed| listed.id).collect());
    }
    offer(out, &listed).await
}

/// Has a person choose among the runs that go on.
async fn offer(out: &Out, listed: &[Listed]) -> Result<Vec<RunId>, Exit> {
    let offered = &listed[..listed.len().min(OFFERED)];
    let table = listing(offered);
    let mut lines = table.lines();
    let mut text = format!("    {}\n", lines.next().unwrap_or_default());
    for (number, line) in (1..).zip(lines) {
        let _ = writeln!(text, "{number:>3} {line}");
    }
    if listed.len() > offered.len() {
        let older = listed.len() - offered.len();
        let _ = writeln!(text, "    … and {older} older ones (see `runwatch runs`)");
    }
    out.finish();
    setup::print_result(&text)?;
    loop {
        setup::print_result("Watch which? Numbers (such as 1 3-5), or nothing for all of these: ")?;
        let answer = blocking::run("answer", || {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|read| (read, line))
        });
        let line = match answer.await {
            Ok(Ok((read, line))) if read > 0 => line,
            // Closed: whoever sat there has gone.
            _ => {
                out::error("no answer: nothing is watched");
                return Err(Exit::Usage);
            }
        };
        match chosen(&line, offered) {
            Ok(runs) => return Ok(runs),
            Err(wrong) => out::error(format_args!(
                "`{}` is none of the numbers 1 to {}",
                crate::run::printable(wrong, 40),
                offered.len()
            )),
        }
    }
}

/// The runs that an answer names; the error is the word that names none.
fn chosen<'l>(line: &'l str, offered: &[Listed]) -> Result<Vec<RunId>, &'l str> {
    let words: Vec<&str> = line.split([' ', ',', '\t', '\n', '\r']).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Ok(offered.iter().map(|listed| listed.id.clone()).collect());
    }
    let mut runs = Vec::new();
    for word in words {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let range = first.parse::<usize>().ok().zip(last.parse::<usize>().ok());
        let named = range.and_then(|(first, last)| offered.get(first.checked_sub(1)?..last));
        let named = named.filter(|named| !named.is_empty()).ok_or(word)?;
        runs.extend(named.iter().map(|listed| listed.id.clone()));
    }
    Ok(runs)
}

/// Who "mine" is: the address given, or the configured one.
fn email(config: &Config, given: &str) -> Result<String, Exit> {
    let known = Some(given).filter(|given| !given.is_empty()).or(config.api.email.as_deref());
    known.map(str::to_owned).ok_or_else(|| {
        out::error("whose runs are yours? Say so with --mine=EMAIL, DATAFRAMER_EMAIL, or email in [api]");
        Exit::Usage
    })
}

fn is_of(listed: &Listed, email: &str) -> bool {
    let by = listed.run.details.as_ref().and_then(|details| details.created_by_email.as_deref());
    by.is_some_and(|by| by.eq_ignore_ascii_case(email))
}

fn is_going(listed: &Listed) -> bool {
    listed.run.status.terminal().is_none()
}

/// What the API has of the runs that are `wanted`, by a new choice each time. Where it cannot be had in passing it is asked for
/// again, for as long as there is `patience`; without a bound for ever.
async fn list<W: FnMut(&mut Listed) -> bool + Send>(
    out: &Out,
    config: &Config,
    client: &ApiClient,
    patience: Option<Duration>,
    wanted: impl Fn() -> W,
) -> Result<Vec<Listed>, PollError> {
    let (policy, began) = (app::policy(config), Instant::now());
    let mut pace = Pace::new(&policy);
    loop {
        let error = match client.list_runs(wanted()).await {
            Ok(listing) => return Ok(listing.runs),
            Err(error) => error,
        };
        let wait = pace.after_error(&policy, error.retry_after);
        if !may_pass(&error) || patience.is_some_and(|patience| began.elapsed() + wait >= patience) {
            return Err(error);
        }
        let again = span::human(words::round(wait));
        out.note(&format!("{}; asking again in {again}", error.message.trim_end_matches('.')));
        sleep(wait).await;
    }
}

fn may_pass(error: &PollError) -> bool {
    matches!(error.kind, PollErrorKind::Transient | PollErrorKind::Throttled)
}

fn refused(out: &Out, error: &PollError) -> Exit {
    out.error(&error.message);
    match error.kind {
        PollErrorKind::Doubt(DoubtKind::KeyRefused) => Exit::KeyRefused,
        _ => Exit::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Progress, Run, RunStatus};

    #[test]
    fn an_answer_names_runs_or_means_all() {
        let listed = |id: &str| Listed {
            id: id.parse().unwrap(),
            run: Run {
                status: RunStatus::Processing,
                progress: Progress::default(),
                created_at: None,
                completed_at: None,
                spec_id: None,
                details: None,
            },
        };
        let offered = ["a", "b", "c"].map(listed);
        let ids =
            |line| chosen(line, &offered).map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(ids("2\n"), Ok(vec!["b".to_owned()]));
        assert_eq!(ids(" 3, 1\n"), Ok(vec!["c".to_owned(), "a".to_owned()]));
        assert_eq!(ids("2-3\n"), Ok(vec!["b".to_owned(), "c".to_owned()]));
        assert_eq!(ids("\n").unwrap().len(), 3);
        for (line, wrong) in [
            ("4\n", "4"),
            ("0\n", "0"),
            ("1 x\n", "x"),
            ("-1\n", "-1"),
            ("2-4\n", "2-4"),
            ("0-1\n", "0-1"),
            ("3-2\n", "3-2"),
            ("3-1\n", "3-1"),
        ] {
            assert_eq!(ids(line), Err(wrong), "{line:?}");
        }
    }
}
