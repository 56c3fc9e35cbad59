//! Times for people: relative on a terminal, absolute elsewhere and with `--utc`.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::stream::Stream;
use crate::{clock, words};

/// How times are shown.
#[derive(Debug, Clone, Copy, Args)]
pub struct Times {
    /// Show absolute times in UTC on a terminal, instead of relative ones
    #[arg(long)]
    utc: bool,
}

impl Times {
    /// Formats a time, for a column.
    pub(super) fn short(self) -> impl Fn(Timestamp) -> String {
        let is_relative = !self.utc && Stream::Stdout.is_terminal();
        let now = clock::wall();
        move |at| if is_relative { relative(at, now) } else { words::time(at) }
    }

    /// Formats a time, on a terminal with the absolute one before the relative one.
    pub(super) fn long(self) -> impl Fn(Timestamp) -> String {
        let is_relative = !self.utc && Stream::Stdout.is_terminal();
        let now = clock::wall();
        move |at| {
            let absolute = words::time(at);
            if is_relative { format!("{absolute} ({})", relative(at, now)) } else { absolute }
        }
    }
}

/// `5 min ago`, `in 2 h`, or the date if that is 30 days away or more.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    let (distance, is_past) = (at.duration_since(now).unsigned_abs(), at <= now);
    if distance < Duration::from_secs(1) {
        return "now".to_owned();
    }
    let seconds = distance.as_secs();
    let amount = match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        172_800..2_592_000 => format!("{} days", seconds / 86_400),
        _ => return at.strftime("%Y-%m-%d").to_string(),
    };
    if is_past { format!("{amount} ago") } else { format!("in {amount}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_further_away_the_coarser() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let at = |seconds: i64| relative(now + jiff::SignedDuration::from_secs(seconds), now);
        let past = [0, -59, -60, -300, -7199, -7200, -172_799, -172_800].map(at);
        assert_eq!(
            past,
            ["now", "59 s ago", "1 min ago", "5 min ago", "1 h ago", "2 h ago", "47 h ago", "2 days ago"]
        );
        assert_eq!([1, 300].map(at), ["in 1 s", "in 5 min"]);
        assert_eq!(at(-2_592_000), "2026-12-16");
    }
}
