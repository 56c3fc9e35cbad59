//! `runwatch runs`: lists the runs of the account.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args;
use glob::Pattern;
use jiff::Timestamp;
use tracing::level_filters::LevelFilter;

use super::choose::{email, fetch, has_spec, is_active, is_of, refused, spec_glob};
use super::exit::Exit;
use super::flags::{Global, ListFormat, Output};
use super::out::Out;
use super::table::{self, Column};
use super::times::Times;
use super::{report, setup};
use crate::api::{ApiClient, Listed};
use crate::config::Since;
use crate::run::RunStatus;
use crate::{app, clock, words};

/// Maximum time to retry fetching the list, for commands that do not wait for a run.
pub(super) const ONE_SHOT: Duration = Duration::from_secs(5);

/// `runwatch runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Include finished runs
    #[arg(long)]
    pub(super) all: bool,

    /// List runs with these statuses, active or finished: PENDING, PROCESSING, SUCCEEDED, FAILED, CANCELED
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = status)]
    pub(super) status: Vec<RunStatus>,

    /// List only runs created since then: 2h, 2026-11-01, 2026-11-01T09:00:00Z
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = Since::parse)]
    pub(super) since: Option<Since>,

    /// List only runs of the specs whose names match, such as 'nightly-*'
    #[arg(long, value_name = "GLOB", value_parser = spec_glob)]
    pub(super) spec: Option<Pattern>,

    /// List only yours: created by this address [default: `email` of the configuration]
    #[arg(long, value_name = "EMAIL", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(super) mine: Option<String>,

    /// List at most this many runs
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: u32,

    #[command(flatten)]
    times: Times,

    #[command(flatten)]
    pub(super) output: Output,
}

impl RunsArgs {
    /// Whether the filters other than `--mine` accept a run.
    fn wants(&self, listed: &Listed, now: Timestamp) -> bool {
        let by_status = match self.status.as_slice() {
            [] => self.all || is_active(listed),
            statuses => statuses.contains(&listed.run.status),
        };
        let is_since = |since: Since| listed.run.created_at.is_some_and(|at| at >= since.before(now));
        by_status
            && self.since.is_none_or(is_since)
            && self.spec.as_ref().is_none_or(|spec| has_spec(listed, spec))
    }
}

/// Parses a status. An unknown word is refused, because it would never match.
fn status(word: &str) -> Result<RunStatus, String> {
    match RunStatus::parse(Some(word)) {
        RunStatus::Unknown(_) => {
            Err("expected PENDING, PROCESSING, SUCCEEDED, FAILED or CANCELED".to_owned())
        }
        status => Ok(status),
    }
}

/// Lists the runs.
pub(super) async fn run(out: &Out, global: &Global, args: &RunsArgs) -> Exit {
    runs(out, global, args).await.unwrap_or_else(|exit| exit)
}

async fn runs(out: &Out, global: &Global, args: &RunsArgs) -> Result<Exit, Exit> {
    let config = setup::configure(global, None, LevelFilter::WARN, out)?;
    let client = ApiClient::new(&app::api_settings(&config)).map_err(setup::refuse)?;
    let mine = args.mine.as_deref().map(|mine| email(&config, mine)).transpose()?;
    let beyond = AtomicUsize::new(0);
    let now = clock::wall();
    let wanted = || {
        beyond.store(0, Ordering::Relaxed);
        let (mut left, mine, beyond) = (args.limit, mine.as_deref(), &beyond);
        move |listed: &mut Listed| {
            let wanted = args.wants(listed, now) && mine.is_none_or(|mine| is_of(listed, mine));
            // The newest come first: what is beyond the limit is not kept.
            let kept = wanted && left > 0;
            left -= u32::from(kept);
            beyond.fetch_add(usize::from(wanted && !kept), Ordering::Relaxed);
            kept
        }
    };
    let listed = fetch(out, &config, &client, Some(ONE_SHOT), wanted).await;
    let listed = listed.map_err(|error| refused(out, &error))?;
    let beyond = beyond.into_inner();
    let text = match args.output.format {
        ListFormat::Json => {
            let runs: Vec<_> = listed.iter().map(described).collect();
            report::line(&serde_json::json!({ "version": 1, "runs": runs, "more": beyond }))
        }
        ListFormat::Text if listed.is_empty() && (args.all || !args.status.is_empty()) => {
            "no runs\n".to_owned()
        }
        ListFormat::Text if listed.is_empty() => "no active runs (see --all)\n".to_owned(),
        ListFormat::Text if beyond > 0 => {
            format!("{}… and {beyond} older ones (see --limit)\n", listing(&listed, args.times.short()))
        }
        ListFormat::Text => listing(&listed, args.times.short()),
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

const COLUMNS: [Column; 6] = [
    Column::whole("RUN"),
    Column::whole("STATUS"),
    Column::whole("SAMPLES"),
    Column::whole("CREATED").rank(2),
    Column::whole("SPEC").cut(8).rank(1),
    Column::whole("BY").cut(12).rank(3),
];

/// A table of runs.
fn listing(listed: &[Listed], time: impl Fn(Timestamp) -> String) -> String {
    let rows: Vec<_> = listed.iter().map(|listed| row(listed, &time)).collect();
    table::for_stdout(&COLUMNS, &rows)
}

/// What there is to say about a run: its id, status, samples, creation, spec and creator.
pub(super) fn row(Listed { id, run }: &Listed, time: impl Fn(Timestamp) -> String) -> [String; 6] {
    let details = run.details.as_deref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    [
        id.to_string(),
        run.status.as_str().to_owned(),
        words::samples(run.progress).unwrap_or_default(),
        run.created_at.map(time).unwrap_or_default(),
        text(details.and_then(|details| details.spec_name.as_ref())),
        text(details.and_then(|details| details.created_by_email.as_ref())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pictures::compare;

    #[test]
    fn fits_the_terminal() {
        let rows = [
            [
                "3c90c3cc-0d44-4b50-8888-8dd25736052a",
                "PROCESSING",
                "54, 7 failed",
                "5 min ago",
                "support_tickets",
                "ana@example.com",
            ],
            [
                "77aa01bc-0d44-4b50-8888-8dd25736052a",
                "SUCCEEDED",
                "200",
                "2 days ago",
                "請求書データ",
                "ben@example.com",
            ],
        ];
        let rows = rows.map(|row| row.map(str::to_owned));
        let drawn = [None, Some(120), Some(80), Some(40)].map(|width| {
            let of = width.map_or("a pipe".to_owned(), |width| width.to_string());
            format!("{of}\n{}", table::render(&COLUMNS, &rows, width, false))
        });
        compare("runs.txt", &drawn.concat());
    }
}
