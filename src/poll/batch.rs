//! Decides when one request for the list of all runs costs less than polling each due run. Pure.
//!
//! The list contains every run of the company, so it can be long even if few of its runs are watched. A poll returns
//! one run but spends one request of the per-minute budget.

use std::time::Duration;

/// Exchange rate: this many bytes of list cost as much as one second of request budget.
const BYTES_A_SECOND: f64 = 200_000.0;

/// Number of due runs from which the first list is tried, while the length of a list is unknown.
const TRY_FROM: usize = 20;

/// Requests per minute above which a request costs no less. With such a budget, runs wait for time, not for requests.
const PLENTY: u32 = 600;

/// Maximum time between two lists.
const LONGEST: Duration = Duration::from_mins(1);

/// Weight of the last measurement in the moving average, from 0 to 1. Larger: faster adaptation.
const NEWS: f64 = 0.3;

/// Whether to use the list of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// When it costs less than polls.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Whenever a run is due that the list may contain.
    Always,
}

/// Measured costs of both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Costs {
    /// Mean size of an answer about one run, in bytes.
    run: Option<f64>,
    /// Time to read the list, in seconds: the larger of the measured time and the time computed from its size.
    list: Option<f64>,
    took: Option<Duration>,
}

impl Costs {
    /// Records the size of an answer about one run.
    pub fn saw_run(&mut self, bytes: usize) {
        let bytes = bytes as f64;
        self.run = Some(self.run.map_or(bytes, |mean| mean + NEWS * (bytes - mean)));
    }

    /// Records the size of a list and how long it took.
    pub fn saw_list(&mut self, bytes: usize, took: Duration) {
        self.list = Some((bytes as f64 / BYTES_A_SECOND).max(took.as_secs_f64()));
        self.took = Some(took);
    }

    /// Expected duration of a list request.
    pub fn list_took(&self) -> Option<Duration> {
        self.took.map(|took| took.saturating_mul(2))
    }

    /// Minimum number of runs due at about the same time for which one list costs less than a poll of each. `None` if
    /// it never does.
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
            // Never for one run: a list only shows that a run has finished, and a poll has to confirm it.
            (Mode::Auto, Some(runs)) => Some((runs as usize + 1).max(2)),
        }
    }

    /// Minimum time between two lists at a given `price` per second of delay. Runs due in between wait for the next
    /// list or are included early. The formula is that of a single run (`√(2·price/h)`), for a run that may end within
    /// two seconds and a list instead of a request.
    pub fn spacing(&self, price: f64, requests_per_minute: u32) -> Duration {
        let lists = self.ratio(requests_per_minute.min(PLENTY)).unwrap_or(1.0);
        Duration::try_from_secs_f64(2.0 * (price * lists).sqrt()).unwrap_or(LONGEST).min(LONGEST)
    }

    /// How many polls cost as much as one list. `None` before the first list. A poll costs its reading time and its
    /// share of the budget.
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
        // A short list pays off for a few runs, the list of a large company only for many.
        costs.saw_list(60_000, Duration::ZERO);
        assert_eq!(auto(&costs), Some(2));
        costs.saw_list(30_000_000, Duration::ZERO);
        assert_eq!(auto(&costs), Some(299));
        // For one run, no list pays off, however short.
        costs.saw_list(10, Duration::ZERO);
        assert_eq!(auto(&costs), Some(2));
        costs.saw_list(30_000_000, Duration::ZERO);
        // With plenty of requests, only bytes count.
        assert_eq!(costs.list_from(Mode::Auto, 1200), Some(2729));
        // Polls of runs with thousands of files are expensive.
        for _ in 0..50 {
            costs.saw_run(3_000_000);
        }
        assert_eq!(auto(&costs), Some(10));
        // A short list that takes long is expensive too.
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
