//! `runwatch runs`: the runs that the API has.

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
use super::{report, setup, table};
use crate::api::{ApiClient, Listed};
use crate::config::Since;
use crate::run::RunStatus;
use crate::{app, clock, words};

/// How long fetching the list is retried, where nobody waits for a run.
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
    pub(super) output: Output,
}

impl RunsArgs {
    /// Whether a run is listed, apart from whose it is.
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

/// A status by one of the API's words. One that nobody knows would match nothing for ever.
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

/// A table of runs.
pub(super) fn listing(listed: &[Listed]) -> String {
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
