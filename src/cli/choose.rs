//! Chooses the runs for `watch`, `wait` and `status`: by id, by flags from the API's list, or by asking.
//!
//! Also fetches that list with retries; `runs` prints it.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use glob::{MatchOptions, Pattern};
use tokio::time::{Instant, sleep};

use super::complete;
use super::exit::Exit;
use super::named::{Named, named, resolve};
use super::out::{self, Out};
use super::pick::pick;
use super::readers::{Readers, Shown};
use super::verdict::{Gate, judge};
use crate::api::{ApiClient, Listed, PollError, PollErrorKind};
use crate::config::Config;
use crate::poll::Pace;
use crate::run::{DoubtKind, RunId, printable};
use crate::{span, words};

/// No run is named, and nobody can be asked.
pub(super) const NO_RUNS: &str =
    "which runs? Give their ids, or --latest, --mine or --spec (see `runwatch runs`)";

/// Runs by name, or flags that choose them.
#[derive(Debug, Clone, Default, Args)]
pub struct Choice {
    /// Run ids or run URLs, also with commas between them; `@FILE` or `-` (standard input) for a list with one per line
    #[arg(value_name = "RUN", value_parser = named, add = complete::runs())]
    runs: Vec<Named>,

    /// The newest run, active or finished (with --mine or --spec: the newest of those)
    #[arg(long, conflicts_with = "runs")]
    latest: bool,

    /// Your active runs: created by this address [default: `email` of the configuration]
    #[arg(long, value_name = "EMAIL", conflicts_with = "runs", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    mine: Option<String>,

    /// The active runs of the specs whose names match, such as 'nightly-*'
    #[arg(long, value_name = "GLOB", conflicts_with = "runs", value_parser = spec_glob)]
    spec: Option<Pattern>,
}

impl Choice {
    /// Whether runs are named or chosen by a flag.
    pub(super) fn is_made(&self) -> bool {
        !self.runs.is_empty() || self.is_by_flags()
    }

    fn is_by_flags(&self) -> bool {
        self.latest || self.mine.is_some() || self.spec.is_some()
    }

    /// The runs that these words name.
    pub(super) fn of_words(words: &[OsString]) -> Result<Self, String> {
        let runs: Result<_, _> = words.iter().map(|word| named(&word.to_string_lossy())).collect();
        Ok(Self { runs: runs?, ..Self::default() })
    }
}

/// How to choose runs if none are named.
pub(super) struct Choosing {
    /// Whether to ask a person.
    pub(super) asks: bool,
    /// Maximum time to retry fetching the list; `None` for no limit.
    pub(super) patience: Option<Duration>,
    /// The exit code if that time passes.
    pub(super) timed_out: Exit,
    /// The streams whose readers wait for it. Fetching ends when they have gone.
    pub(super) shown: Shown,
}

/// The chosen runs. The error is an exit code; its reason was shown already.
pub(super) async fn choose(
    out: &Out,
    config: &Config,
    client: &ApiClient,
    choice: &Choice,
    how: &Choosing,
) -> Result<Vec<RunId>, Exit> {
    if !choice.runs.is_empty() {
        return resolve(&choice.runs).await;
    }
    let asks = how.asks && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let by_flags = choice.is_by_flags();
    if !by_flags && !asks {
        out.error(NO_RUNS);
        return Err(Exit::Usage);
    }
    let mine = choice.mine.as_deref().map(|mine| email(config, mine)).transpose()?;
    let latest = choice.latest;
    let wanted = || {
        let (mut newest, mine) = (None, mine.as_deref());
        move |listed: &mut Listed| {
            let ours = mine.is_none_or(|mine| is_of(listed, mine))
                && choice.spec.as_ref().is_none_or(|spec| has_spec(listed, spec));
            if !latest {
                return ours && is_active(listed);
            }
            // The newest come first, says the API; one that comes later and is newer goes before them all the same.
            let wanted = ours && newest.is_none_or(|newest| listed.run.created_at > newest);
            if wanted {
                newest = Some(listed.run.created_at);
            }
            wanted
        }
    };
    let mut readers = Readers::of(how.shown);
    let listed = tokio::select! {
        listed = fetch(out, config, client, how.patience, wanted) => listed,
        // Nobody is left to show a watch to.
        gone = readers.gone() => return Err(judge(Vec::new(), &Gate::default(), gone).1),
    };
    let mut listed = listed.map_err(|error| {
        let exit = refused(out, &error);
        // Only time ends what may pass.
        if may_pass(&error) { how.timed_out } else { exit }
    })?;
    if latest {
        listed.drain(..listed.len().saturating_sub(1));
    }
    let whose = mine.as_ref().map(|mine| format!(" of {mine}")).unwrap_or_default();
    let spec =
        choice.spec.as_ref().map(|spec| format!(" whose spec matches `{}`", printable(spec.as_str(), 60)));
    let whose = whose + &spec.unwrap_or_default();
    if listed.is_empty() {
        let which = if latest { "no runs" } else { "no active runs" };
        out.error(format_args!("{which}{whose} (see `runwatch runs --all`)"));
        return Err(Exit::NotFound);
    }
    if by_flags {
        return Ok(listed.into_iter().map(|listed| listed.id).collect());
    }
    out.finish();
    pick(&listed).await
}

/// The address that `--mine` means: the given one, or the configured one.
pub(super) fn email(config: &Config, given: &str) -> Result<String, Exit> {
    let known = Some(given).filter(|given| !given.is_empty()).or(config.api.email.as_deref());
    known.map(str::to_owned).ok_or_else(|| {
        out::error("whose runs are yours? Say so with --mine EMAIL, DATAFRAMER_EMAIL, or email in [api]");
        Exit::Usage
    })
}

/// A glob of a spec's name.
pub(super) fn spec_glob(text: &str) -> Result<Pattern, String> {
    if text.is_empty() {
        return Err("expected a glob, such as 'nightly-*'".to_owned());
    }
    Pattern::new(text).map_err(|error| format!("{}; expected text with *, ? and [abc] in it", error.msg))
}

/// Whether the name of the run's spec matches, as `[discover]` compares it.
pub(super) fn has_spec(listed: &Listed, spec: &Pattern) -> bool {
    let options = MatchOptions { case_sensitive: false, ..MatchOptions::new() };
    let name = listed.run.details.as_ref().and_then(|details| details.spec_name.as_deref());
    name.is_some_and(|name| spec.matches_with(name, options))
}

/// Whether this address created the run.
pub(super) fn is_of(listed: &Listed, email: &str) -> bool {
    let by = listed.run.details.as_ref().and_then(|details| details.created_by_email.as_deref());
    by.is_some_and(|by| by.eq_ignore_ascii_case(email))
}

/// Whether the run is still active.
pub(super) fn is_active(listed: &Listed) -> bool {
    listed.run.status.terminal().is_none()
}

/// Fetches the list and returns the runs that `wanted` accepts; each attempt starts with a new `wanted`. Transient errors
/// are retried within `patience`, or for ever if it is `None`.
pub(super) async fn fetch<W: FnMut(&mut Listed) -> bool + Send>(
    out: &Out,
    config: &Config,
    client: &ApiClient,
    patience: Option<Duration>,
    wanted: impl Fn() -> W,
) -> Result<Vec<Listed>, PollError> {
    let (policy, began) = (config.poll.policy, Instant::now());
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

/// Shows why fetching the list failed, and returns the exit code.
pub(super) fn refused(out: &Out, error: &PollError) -> Exit {
    out.error(&error.message);
    match error.kind {
        PollErrorKind::Doubt(DoubtKind::KeyRefused) if !error.is_page => Exit::KeyRefused,
        _ => Exit::Unknown,
    }
}
