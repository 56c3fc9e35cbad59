//! How long a run may take before its counts say anything, from earlier runs of the same spec. Pure.
//!
//! Assumes log-normal durations. If all runs say how many samples they have, the duration is proportional to that
//! number.

use crate::store::RunDuration;

/// Assumed spread of the logarithm within one spec before there are runs of it, and the number of runs that this
/// assumption counts as.
const SPREAD: f64 = 0.5;
const WORTH: f64 = 2.0;

/// An estimate of a run's whole duration, from its creation to its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// Mean of the logarithms of the seconds, and of the seconds per sample if all runs say how many they have.
    whole: (f64, f64),
    each: Option<(f64, f64)>,
}

impl Prior {
    /// Usual duration of runs in general: the median in seconds, and the spread of the logarithm. A larger spread gives
    /// more polls of young runs, a larger median gives fewer.
    pub(super) const BROAD: (f64, f64) = (480.0, 1.5);

    /// The estimate from runs that succeeded; `None` without any.
    pub fn from(earlier: &[RunDuration]) -> Option<Self> {
        let whole: Vec<f64> = earlier.iter().map(|took| took.seconds.max(1.0).ln()).collect();
        let each = earlier.iter().map(|took| {
            let samples = took.samples.filter(|samples| *samples > 0)?;
            Some((took.seconds.max(1.0) / samples as f64).ln())
        });
        Some(Self {
            whole: guess(&whole)?,
            each: each.collect::<Option<Vec<_>>>().and_then(|each| guess(&each)),
        })
    }

    /// Median in seconds and spread of the logarithm, for a run with this many samples.
    pub(super) fn of(&self, samples: Option<u64>) -> (f64, f64) {
        match (self.each, samples.filter(|samples| *samples > 0)) {
            (Some((mean, spread)), Some(samples)) => (mean.exp() * samples as f64, spread),
            _ => (self.whole.0.exp(), self.whole.1),
        }
    }
}

/// The mean, and the spread to expect for the next value.
fn guess(logarithms: &[f64]) -> Option<(f64, f64)> {
    if logarithms.is_empty() {
        return None;
    }
    let count = logarithms.len() as f64;
    let mean = logarithms.iter().sum::<f64>() / count;
    let squares: f64 = logarithms.iter().map(|one| (one - mean).powi(2)).sum();
    let variance = (squares + WORTH * SPREAD * SPREAD) / (count - 1.0 + WORTH);
    Some((mean, (variance * (1.0 + 1.0 / count)).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(seconds: f64, samples: Option<u64>) -> RunDuration {
        RunDuration { seconds, samples }
    }

    #[test]
    fn more_runs_make_it_surer() {
        assert_eq!(Prior::from(&[]), None);
        let one = Prior::from(&[took(600.0, None)]).unwrap().of(None);
        assert!((one.0 - 600.0).abs() < 1e-6 && (0.6..0.8).contains(&one.1), "{one:?}");
        let many = Prior::from(&vec![took(600.0, None); 20]).unwrap().of(Some(7));
        assert!((many.0 - 600.0).abs() < 1e-6 && many.1 < 0.2, "{many:?}");
    }

    #[test]
    fn twice_the_samples_take_twice_the_time() {
        let earlier = [took(100.0, Some(100)), took(1000.0, Some(1000))];
        let (median, spread) = Prior::from(&earlier).unwrap().of(Some(200));
        assert!((median - 200.0).abs() < 1e-6, "{median}");
        let (unknown, wider) = Prior::from(&earlier).unwrap().of(None);
        assert!((unknown - 316.2).abs() < 0.1 && wider > spread, "{unknown}");
        // A run without a number of samples leaves the estimate in seconds.
        let mixed = Prior::from(&[took(100.0, Some(100)), took(100.0, None)]).unwrap();
        assert!((mixed.of(Some(1)).0 - 100.0).abs() < 1e-6);
    }
}
