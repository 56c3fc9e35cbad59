//! Answers that may mean the end of a watch if they last: what kinds there are, who gave them, and for how long they are borne.
//!
//! Owns the rule that decides when a doubt is an end. One odd answer ends nothing: what something on the way says (a proxy, a
//! firewall) must last far longer than what the API says, and a web page decides nothing at all. Pure; `transition` asks.

use std::time::Duration;

use tokio::time::Instant;

/// The kinds of doubt. Transient errors are none: they say nothing about the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubtKind {
    /// The status is missing or not a word we know.
    UnknownStatus,
    /// 404 from the API itself.
    Missing,
    /// 404 from something in front of the API: a page or nothing, not an answer in the API's form.
    NoSuchPage,
    /// 401 or 403.
    KeyRefused,
    /// A refusal that asking again is unlikely to change (400, 405, a redirect, …).
    Rejected,
}

/// Who gave an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// The API: JSON in its own form.
    Api,
    /// Something on the way, or an API that does not say what is wrong: an empty body, text, other JSON.
    Foreign,
    /// A web page: a firewall, a proxy, a deployment under way.
    Page,
}

/// Something that may mean the end if it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// What it is.
    pub kind: DoubtKind,
    /// The API's own answers that said so.
    by_api: Option<Streak>,
    /// All answers that said so, but for web pages.
    by_any: Option<Streak>,
}

/// Answers of one kind, without one to the contrary in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Streak {
    since: Instant,
    times: u32,
}

/// How long each kind of doubt is borne before it is an end; `None` bears it for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// 404 on an id that has never been seen: it may not be visible yet.
    pub grace: Duration,
    /// A status that nobody here knows, or rejections, on a run that was seen.
    pub unknown_after: Option<Duration>,
    /// Whether a refused key ends the watch (a command) or is waited out (a daemon, whose key may be rotated).
    pub refused_ends: bool,
}

/// What it takes for a doubt to become an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// It has lasted this long, and
    pub for_at_least: Duration,
    /// was said this many times in a row.
    pub times: u32,
}

/// A run that was seen stays gone for this long before it counts as deleted, however short the grace: a replica may lag.
const GONE_AT_LEAST: Duration = Duration::from_secs(10);

/// What something on the way says of a run that was seen counts after this long.
const FOREIGN: Duration = Duration::from_mins(15);

/// And of one that was never seen, after this long: it is more likely a wrong address or key.
const FOREIGN_UNSEEN: Duration = Duration::from_mins(1);

/// So many answers it takes beside the time, where one of them may be odd.
const TIMES: u32 = 3;

impl Patience {
    /// The limit for one kind of doubt, as `said_by` the API itself or by anybody; `None` if it never is an end.
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
    /// A doubt after one more answer; `before` it, if that was of the same kind, it goes on.
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

    /// Whether it is an end by now.
    pub fn is_end(&self, was_seen: bool, now: Instant, patience: &Patience) -> bool {
        self.limits(was_seen, patience).any(|(streak, limit)| {
            now.saturating_duration_since(streak.since) >= limit.for_at_least && streak.times >= limit.times
        })
    }

    /// When it becomes an end, if it would by time: a poll is due then at the latest.
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
