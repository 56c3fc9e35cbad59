//! `[discover]`: which runs of the account to watch although nobody named them.

use std::sync::Arc;
use std::time::Duration;

use ::glob::{MatchOptions, Pattern};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::channels::Channels;
use super::reader::Section;
use super::runs::chosen_channels;
use super::{glob, mask};
use crate::run::{Run, printable};
use crate::span::{self, SpanError};

/// The default interval, and the shortest one.
const INTERVAL: Duration = Duration::from_mins(1);
const SHORTEST: Duration = Duration::from_secs(1);

/// `[discover]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discover {
    /// Time within which a new run is discovered.
    pub interval: Duration,
    /// Runs that ended since then are notified although nobody watched them.
    pub announce_past: Option<Since>,
    /// The channels to notify; `None` for all.
    pub notify: Option<Vec<Arc<str>>>,
    /// Globs for the name of the spec, of which one must match; if empty, any name or none matches.
    pub spec_name: Vec<Pattern>,
    /// The same for the user who started it.
    pub created_by_email: Vec<Pattern>,
    /// The same for the seed dataset.
    pub dataset_name: Vec<Pattern>,
    /// Only runs created since then.
    pub created_after: Option<Since>,
}

/// A time in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// A fixed time.
    At(Timestamp),
    /// A time relative to now.
    Ago(Duration),
}

impl Discover {
    /// Whether a run is wanted.
    pub fn matches(&self, run: &Run, now: Timestamp) -> bool {
        let details = run.details.as_deref();
        let created_since =
            |since: &Since| run.created_at.is_some_and(|created| created >= since.before(now));
        one_of(&self.spec_name, details.and_then(|details| details.spec_name.as_deref()))
            && one_of(&self.created_by_email, details.and_then(|details| details.created_by_email.as_deref()))
            && one_of(&self.dataset_name, details.and_then(|details| details.dataset_name.as_deref()))
            && self.created_after.as_ref().is_none_or(created_since)
    }
}

impl Since {
    /// The absolute time, given `now`.
    pub fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        }
    }

    /// Parses a time (RFC 3339), a day (its start in UTC) or a duration.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::At(at));
        }
        let told = printable(text, 40);
        if let Ok(day) = text.parse::<Date>() {
            // The parser accepts any text that starts with a day.
            if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
                return Err(format!("`{told}` says no zone; add Z for UTC, or an offset such as +01:00"));
            }
            let midnight = TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0));
            return midnight.map(Self::At).map_err(|_| format!("`{told}` is out of range"));
        }
        span::parse(text).map(Self::Ago).map_err(|error| match error {
            SpanError::Unreadable(_) => format!("`{told}` is neither a time nor a length of time"),
            error => error.to_string(),
        })
    }
}

fn one_of(globs: &[Pattern], text: Option<&str>) -> bool {
    // Names are not paths, and people write names and addresses in any case.
    let options = MatchOptions {
        case_sensitive: false,
        require_literal_separator: false,
        require_literal_leading_dot: false,
    };
    globs.is_empty() || text.is_some_and(|text| globs.iter().any(|glob| glob.matches_with(text, options)))
}

/// Reads the table; `None` if it is missing. `keep` is how long ended runs are stored.
pub(super) fn read(root: &Section<'_>, channels: &Channels, keep: Duration) -> Option<Discover> {
    let there = root.span_of("discover").is_some();
    let section = root.table("discover");
    let discover = Discover {
        interval: section.duration("interval", INTERVAL),
        announce_past: since(&section, "announce_past"),
        notify: chosen_channels(&section, channels),
        spec_name: glob::read(&section, "spec_name", glob::Of::Name),
        created_by_email: glob::read(&section, "created_by_email", glob::Of::Address),
        dataset_name: glob::read(&section, "dataset_name", glob::Of::Name),
        created_after: since(&section, "created_after"),
    };
    if let Some(Since::Ago(ago)) = discover.announce_past
        && ago > keep
        && let Some(span) = section.span_of("announce_past")
    {
        let title = "`announce_past` goes back further than `keep` in [daemon]";
        section.problems.error(span, title, format!("expected at most {}", span::human(keep)));
    }
    if let Some(span) = section.span_of("interval").filter(|_| discover.interval < SHORTEST) {
        let title = format!("`interval` is shorter than {}", span::human(SHORTEST));
        section.problems.error(span, title, "the list of all runs is not fetched more often");
    }
    section.finish();
    there.then_some(discover)
}

fn since(section: &Section<'_>, key: &'static str) -> Option<Since> {
    let (text, span) = section.string(key)?;
    let help = "expected a time such as \"2026-11-01T09:00:00Z\", a day such as \"2026-11-01\", or a length of time \
                such as \"2h\"";
    let wrong = |error: String| {
        section.problems.error(span, mask::strike(&format!("`{key}`: {error}"), text), help);
    };
    Since::parse(text).map_err(wrong).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse};
    use crate::run::{Details, Progress, RunStatus};

    fn discover(text: &str) -> Result<Option<Discover>, String> {
        let parsed = parse(Some((std::path::Path::new("c"), text)), &|_| None, &Overrides::default());
        parsed.map(|loaded| loaded.config.discover).map_err(|report| format!("{:?}", report.problems))
    }

    fn run(spec: &str, by: &str, created: i64) -> Run {
        Run {
            status: RunStatus::Processing,
            progress: Progress::default(),
            created_at: Timestamp::from_second(created).ok(),
            completed_at: None,
            spec_id: None,
            details: Some(Box::new(Details {
                spec_name: Some(spec.to_owned()),
                created_by_email: Some(by.to_owned()),
                ..Details::default()
            })),
        }
    }

    #[test]
    fn without_the_table_nothing_is_found_and_with_an_empty_one_everything_is() {
        assert_eq!(discover("[api]\n").unwrap(), None);
        let all = discover("[discover]\n").unwrap().unwrap();
        assert_eq!((all.interval, &all.announce_past), (Duration::from_mins(1), &None));
        let nothing_known = Run { created_at: None, details: None, ..run("", "", 0) };
        assert!(all.matches(&nothing_known, Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn every_glob_that_is_set_has_to_match() {
        let text =
            "[discover]\nspec_name = [\"nightly-*\", \"weekly\"]\ncreated_by_email = \"*@example.com\"\n";
        let some = discover(text).unwrap().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        for (spec, by, matches) in [
            ("nightly-a/b", "Ana@Example.com", true),
            ("Weekly", "ana@example.com", true),
            ("weekly-2", "ana@example.com", false),
            ("nightly-1", "ana@example.org", false),
        ] {
            assert_eq!(some.matches(&run(spec, by, 0), now), matches, "{spec} by {by}");
        }
        let unnamed = Run { details: None, ..run("", "", 0) };
        assert!(!some.matches(&unnamed, now), "what has no name matches no glob");
        let seeds = discover("[discover]\ndataset_name = \"*\"\n").unwrap().unwrap();
        assert!(!seeds.matches(&run("s", "a", 0), now), "nor does a run without seeds have any");
    }

    #[test]
    fn a_moment_is_a_time_a_day_or_so_long_ago() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (text, second) in
            [("1970-01-02T01:00:00+01:00", 86_400), ("1970-01-02", 86_400), ("1h 30m", 1_000_000 - 5400)]
        {
            let since = discover(&format!("[discover]\ncreated_after = \"{text}\"\n")).unwrap().unwrap();
            assert_eq!(since.created_after.unwrap().before(now).as_second(), second, "{text}");
            assert!(since.matches(&run("s", "a", second), now));
            assert!(!since.matches(&run("s", "a", second - 1), now));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (line, told) in [
            ("spec_name = \"[a\"", "is not a glob"),
            ("spec_name = \"\"", "is empty"),
            ("dataset_name = []", "has nothing in it"),
            ("spec_name = 7", "integer"),
            ("created_after = \"yesterday\"", "neither a time nor a length"),
            ("announce_past = \"60d\"", "further than `keep`"),
            ("created_after = \"2026-11-01T09:00:00\"", "says no zone"),
            ("created_after = \"-2h\"", "is negative"),
            ("announce_past = \"0s\"", "no time at all"),
            ("interval = \"0s\"", "no time at all"),
            ("interval = \"999ms\"", "shorter than 1s"),
            ("notify = [\"nobody\"]", "there is no channel `nobody`"),
            ("spec = \"x\"", "unknown key `spec`"),
        ] {
            let error = discover(&format!("[discover]\n{line}\n")).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
        let twice = "[[notify.log]]\n[[notify.log]]\n[discover]\nnotify = [\"nobody\"]\n";
        let error = discover(twice).unwrap_err();
        assert!(error.contains("\"the channels are: log\""), "each is named once: {error}");
    }
}
