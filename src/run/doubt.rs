//! Answers that end a watch only if they last: their kinds, who gave them, and how long to tolerate them.
//!
//! Owns the rule that decides when a doubt ends a watch. One odd answer never does. Answers from something between
//! runwatch and the API (a proxy, a firewall) must last far longer than the API's own. A web page decides nothing.
//! Pure; used by `transition`.

use std::time::Duration;

use tokio::time::Instant;

/// The kinds of doubt. Transient errors are not among them, because they say nothing about the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubtKind {
    /// The status is missing or unknown.
    UnknownStatus,
    /// 404 from the API itself.
    Missing,
    /// 404 from something in front of the API: a page or an empty body, not the API's own form.
    NoSuchPage,
    /// 401 or 403.
    KeyRefused,
    /// A refusal that a retry is unlikely to change (400, 405, a redirect, …).
    Rejected,
}

/// Who gave an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// The API: JSON in its own form.
    Api,
    /// Something in between, or an API that does not say what is wrong: an empty body, text, other JSON.
    Foreign,
    /// A web page: a firewall, a proxy, a deployment in progress.
    Page,
}

/// A doubt that ends the watch if it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// The kind.
    pub kind: DoubtKind,
    /// The API's own answers of this kind.
    by_api: Option<Streak>,
    /// All answers of this kind, except web pages.
    by_any: Option<Streak>,
}

/// Answers of one kind in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Streak {
    since: Instant,
    times: u32,
}

/// How long to tolerate each kind of doubt before it ends the watch; `None` means forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For 404 on an id that was never seen, because a new run may not be visible yet.
    pub grace: Duration,
    /// For an unknown status or rejections, on a run that was seen.
    pub unknown_after: Option<Duration>,
    /// Whether a refused key ends the watch. A command ends; a daemon waits, because its key may be rotated.
    pub refused_ends: bool,
}

/// When a doubt becomes an end: both conditions must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Minimum time that it lasted.
    pub for_at_least: Duration,
    /// Minimum number of answers in a row.
    pub times: u32,
}

/// Minimum time before a missing run that was seen counts as deleted, however short the grace period. A replica may
/// lag.
const GONE_AT_LEAST: Duration = Duration::from_secs(10);

/// Minimum time for answers from something in between, about a run that was seen.
const FOREIGN: Duration = Duration::from_mins(15);

/// The same for a run that was never seen. It is shorter, because a wrong address or key is more likely.
const FOREIGN_UNSEEN: Duration = Duration::from_mins(1);

/// Minimum number of answers, because a single one may be odd.
const TIMES: u32 = 3;

impl Patience {
    /// The limit for one kind of doubt, as `said_by` the API or anything else; `None` if it never ends the watch.
    pub fn with(&self, kind: DoubtKind, said_by: Authority, was_seen: bool) -> Option<Limit> {
        let lasting = |for_at_least: Duration| Limit {
            for_at_least,
            times: if for_at_least.is_zero() { 1 } else { 2 },
        };
        let own = match kind {
            DoubtKind::Missing | DoubtKind::NoSuchPage if was_seen => {
                Limit { for_at_least: self.grace.max(GONE_AT_LEAST), times: TIMES }
            }
            DoubtKind::Missing | DoubtKind::NoSuchPage => lasting(self.grace),
            DoubtKind::KeyRefused if self.refused_ends => Limit { for_at_least: Duration::ZERO, times: 2 },
            DoubtKind::KeyRefused => return None,
            DoubtKind::Rejected if !was_seen => lasting(self.unknown_after.map(|_| self.grace)?),
            DoubtKind::UnknownStatus | DoubtKind::Rejected => lasting(self.unknown_after?),
        };
        let borne = if was_seen { FOREIGN } else { FOREIGN_UNSEEN };
        match said_by {
            Authority::Api => Some(own),
            Authority::Foreign => {
                Some(Limit { for_at_least: own.for_at_least.max(borne), times: own.times.max(TIMES) })
            }
            Authority::Page => None,
        }
    }
}

impl Doubt {
    /// The doubt after one more answer. It continues `before` if that is of the same kind.
    pub fn grown(before: Option<Self>, kind: DoubtKind, said_by: Authority, now: Instant) -> Self {
        let mut doubt =
            before.filter(|doubt| doubt.kind == kind).unwrap_or(Self { kind, by_api: None, by_any: None });
        let more = |streak: Option<Streak>| {
            let before = streak.unwrap_or(Streak { since: now, times: 0 });
            Some(Streak { times: before.times.saturating_add(1), ..before })
        };
        if said_by == Authority::Api {
            doubt.by_api = more(doubt.by_api);
        }
        if said_by != Authority::Page {
            doubt.by_any = more(doubt.by_any);
        }
        doubt
    }

    /// Whether it ends the watch now.
    pub fn is_end(&self, was_seen: bool, now: Instant, patience: &Patience) -> bool {
        self.limits(was_seen, patience).any(|(streak, limit)| {
            now.saturating_duration_since(streak.since) >= limit.for_at_least && streak.times >= limit.times
        })
    }

    /// When it ends the watch through time alone. A poll is due then at the latest.
    pub fn ends_at(&self, was_seen: bool, patience: &Patience) -> Option<Instant> {
        self.limits(was_seen, patience)
            .filter_map(|(at, limit)| at.since.checked_add(limit.for_at_least))
            .min()
    }

    fn limits(&self, was_seen: bool, patience: &Patience) -> impl Iterator<Item = (Streak, Limit)> {
        let of = |streak: Option<Streak>, said_by| streak.zip(patience.with(self.kind, said_by, was_seen));
        [of(self.by_api, Authority::Api), of(self.by_any, Authority::Foreign)].into_iter().flatten()
    }
}
