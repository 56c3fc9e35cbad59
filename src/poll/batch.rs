//! When one request for the list of all runs is worth more than one for each run that is due. Pure.
//!
//! The list has every run of the company, so that it can be long where few of them are watched; a run by itself is a
//! request, of which a minute has only so many.

use std::time::Duration;

/// A second of reading is as dear as a second of the budget: so many bytes.
const BYTES_A_SECOND: f64 = 200_000.0;

/// Before a list was read its length is not known: so many runs have to be due for it to be tried.
const TRY_FROM: usize = 20;

/// A budget above this makes a request no cheaper: what waits for a list waits for time, not for requests.
const PLENTY: u32 = 600;

/// No spacing is longer.
const LONGEST: Duration = Duration::from_mins(1);

/// How much the last answer counts against those before it.
const NEWS: f64 = 0.3;

/// Whether the list is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Where it is cheaper.
    #[default]
    Auto,
    /// Not at all.
    Never,
    /// Wherever something is due that it can tell.
    Always,
}

/// What the two ways have cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Costs {
    /// The mean length of an answer about one run, in bytes.
    run: Option<f64>,
    /// How long reading the list takes, in seconds: by its length, or as it did.
    list: Option<f64>,
    took: Option<Duration>,
}

impl Costs {
    /// Takes in the length of an answer about one run.
    pub fn saw_run(&mut self, bytes: usize) {
        let bytes = bytes as f64;
        self.run = Some(self.run.map_or(bytes, |mean| mean + NEWS * (bytes - mean)));
    }

    /// Takes in the length of a list, and how long it took.
    pub fn saw_list(&mut self, bytes: usize, took: Duration) {
        self.list = Some((bytes as f64 / BYTES_A_SECOND).max(took.as_secs_f64()));
        self.took = Some(took);
    }

    /// How long a list may well take.
    pub fn list_took(&self) -> Option<Duration> {
        self.took.map(|took| took.saturating_mul(2))
    }

    /// How many runs have to be due at about the same time for one list to be better than asking about each of them; `None` if
    /// it never is.
    pub fn list_from(&self, mode: Mode, requests_per_minute: u32) -> Option<usize> {
        match (mode, self.ratio(requests_per_minute)) {
            (Mode::Never, _) => None,
            (Mode::Always, _) => Some(1),
            (Mode::Auto, None) => Some(TRY_FROM),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive, and beyond all counting is as good as the largest"
            )]
            // For one alone it never is: what has ended is confirmed by itself.
            (Mode::Auto, Some(runs)) => Some((runs as usize + 1).max(2)),
        }
    }

    /// How far apart lists are worth their price: runs that are due in between wait for the next, or are taken along before their
    /// time. As for a single run (`√(2·price/h)`, with a run that may end within two seconds and a list in place of a request).
    pub fn spacing(&self, price: f64, requests_per_minute: u32) -> Duration {
        let lists = self.ratio(requests_per_minute.min(PLENTY)).unwrap_or(1.0);
        Duration::try_from_secs_f64(2.0 * (price * lists).sqrt()).unwrap_or(LONGEST).min(LONGEST)
    }

    /// So many requests about one run are as dear as a list; `None` before there was one. Each costs the time to read it, and
    /// its share of the budget.
    fn ratio(&self, requests_per_minute: u32) -> Option<f64> {
        let share = 60.0 / f64::from(requests_per_minute.max(1));
        let run = self.run.unwrap_or_default() / BYTES_A_SECOND;
        Some((self.list? + share) / (run + share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheaper_way_is_taken() {
        let mut costs = Costs::default();
        let auto = |costs: &Costs| costs.list_from(Mode::Auto, 120);
        assert_eq!(auto(&costs), Some(TRY_FROM), "to find out");
        costs.saw_run(1000);
        // A short list is worth it for a few runs, one of a large company for many only.
        costs.saw_list(60_000, Duration::ZERO);
        assert_eq!(auto(&costs), Some(2));
        costs.saw_list(30_000_000, Duration::ZERO);
        assert_eq!(auto(&costs), Some(299));
        // For one run it is worth nothing, however short.
        costs.saw_list(10, Duration::ZERO);
        assert_eq!(auto(&costs), Some(2));
        costs.saw_list(30_000_000, Duration::ZERO);
        // Where requests are plenty, bytes are what counts.
        assert_eq!(costs.list_from(Mode::Auto, 1200), Some(2729));
        // Runs with thousands of files are dear by themselves.
        for _ in 0..50 {
            costs.saw_run(3_000_000);
        }
        assert_eq!(auto(&costs), Some(10));
        // So is a short list that takes long.
        let mut slow = Costs::default();
        slow.saw_list(1000, Duration::from_secs(20));
        assert_eq!(auto(&slow), Some(42));
        assert_eq!((costs.list_from(Mode::Never, 120), costs.list_from(Mode::Always, 120)), (None, Some(1)));
    }

    #[test]
    fn dear_lists_are_far_apart() {
        let mut costs = Costs::default();
        assert_eq!(costs.spacing(1.0, 120), Duration::from_secs(2));
        costs.saw_run(1000);
        costs.saw_list(1_000_000, Duration::ZERO);
        let spacing = |price| costs.spacing(price, 120).as_secs();
        assert_eq!((spacing(0.5), spacing(2.0), spacing(10.0)), (4, 9, 20));
        assert_eq!(costs.spacing(f64::MAX, 120), LONGEST);
        assert_eq!(costs.spacing(2.0, 600_000), costs.spacing(2.0, 600), "an absurd budget changes nothing");
        let mut short = Costs::default();
        short.saw_run(1000);
        short.saw_list(200 * 600, Duration::ZERO);
        assert!(short.spacing(2.0, 600_000) < Duration::from_secs(8));
    }
}
