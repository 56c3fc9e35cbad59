//! An estimate of a duration and of its uncertainty. Log-logistic, because its probabilities and quantiles are short
//! formulas. Pure.

/// For a log-logistic distribution: its shape times the standard deviation of its logarithm, π/√3.
const SPREAD_BY_SHAPE: f64 = 1.813_799_364_234_218;

/// A log-logistic estimate of a duration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Guess {
    /// Median in seconds.
    pub(super) median: f64,
    /// How steeply the probabilities fall off around the median. Larger: more certain.
    pub(super) shape: f64,
    /// How much of the duration has passed, in seconds.
    pub(super) passed: f64,
}

impl Guess {
    pub(super) fn new(median: f64, spread: f64, passed: f64) -> Self {
        // Converts a standard deviation of the logarithm to a shape.
        let shape = SPREAD_BY_SHAPE / spread;
        Self { median: median.clamp(0.001, 1e12), shape, passed }
    }

    /// The estimate for a run of that age in seconds, from the median and spread of runs like it.
    pub(super) fn of((median, spread): (f64, f64), age: f64) -> Self {
        Self::new(median, spread, age)
    }

    /// Seconds left until the median; negative once it has passed.
    pub(super) fn left(&self) -> f64 {
        self.median - self.passed
    }

    /// The estimate of the remaining time, given that the run has not finished yet.
    pub(super) fn remainder(self) -> Self {
        // Above 1e9 the finished share is 1 anyway. The limit prevents infinity times infinity, which is no number.
        let ended = (self.passed / self.median).powf(self.shape).min(1e9);
        let quantile = |alive: f64| self.median * ((1.0 + ended) / alive - 1.0).powf(1.0 / self.shape);
        let now = self.median * ended.powf(1.0 / self.shape);
        let [early, median, late] = [0.75, 0.5, 0.25].map(|alive| (quantile(alive) - now).max(0.001));
        // The quartiles of a log-logistic are a factor of 9^(1/shape) apart.
        let shape = (9f64.ln() / (late / early).ln()).clamp(0.1, 100.0);
        Self { median, shape, passed: 0.0 }
    }

    /// The average of the logarithms, weighted by certainty. `prior` keeps only `share` of its weight.
    pub(super) fn weighed_with(self, prior: Self, share: f64) -> Self {
        let prior = prior.remainder();
        let weight = |shape: f64| (shape / SPREAD_BY_SHAPE).powi(2);
        let (counts, others) = (weight(self.shape), share * weight(prior.shape));
        let sum = counts + others;
        let median = ((counts * self.median.ln() + others * prior.median.ln()) / sum).exp();
        Self::new(median, (1.0 / sum).sqrt(), 0.0)
    }

    /// Probability per second that the run ends `after` seconds from now, given that it has not ended before.
    pub(super) fn hazard(&self, after: f64) -> f64 {
        let at = (self.passed + after).max(1e-6);
        let power = (at / self.median).powf(self.shape);
        // For large powers the fraction is 1. The check prevents infinity by infinity, which is no number.
        let fraction = if power.is_finite() { power / (1.0 + power) } else { 1.0 };
        self.shape / at * fraction
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_remains_counts_remainder() {
        let young = Guess::new(600.0, 0.3, 0.0).remainder();
        assert!((young.median - 600.0).abs() < 1e-6, "{young:?}");
        let half = Guess::new(600.0, 0.3, 300.0).remainder();
        assert!((300.0..320.0).contains(&half.median) && half.shape < young.shape, "{half:?}");
        let late = Guess::new(600.0, 0.3, 6000.0).remainder();
        assert!((600.0..1200.0).contains(&late.median), "one that is late goes on for long: {late:?}");
    }

    #[test]
    fn the_surer_guess_counts_more() {
        let (sure, unsure) = (Guess::new(100.0, 0.2, 0.0), Guess::new(1000.0, 1.0, 0.0));
        let both = sure.weighed_with(unsure, 1.0);
        assert!((100.0..120.0).contains(&both.median) && both.shape > sure.shape, "{both:?}");
        let other = unsure.weighed_with(sure, 0.1);
        assert!((150.0..800.0).contains(&other.median), "{other:?}");
    }

    proptest! {
        /// The results stay finite for all durations.
        #[test]
        fn stays_finite(
            median in prop_oneof![0.0f64..10.0, 0.0f64..1e15],
            spread in 0.05f64..5.0,
            passed in prop_oneof![0.0f64..10.0, 0.0f64..1e15],
            after in prop_oneof![0.0f64..10.0, 0.0f64..1e9],
        ) {
            let guess = Guess::new(median, spread, passed);
            let both = Guess::new(median, spread, 0.0).weighed_with(guess, 0.3);
            for guess in [guess, guess.remainder(), both] {
                prop_assert!(guess.median > 0.0 && guess.median.is_finite(), "{guess:?}");
                prop_assert!(guess.shape > 0.0 && guess.shape.is_finite(), "{guess:?}");
                let hazard = guess.hazard(after);
                prop_assert!(hazard >= 0.0 && hazard.is_finite(), "{guess:?} {hazard}");
            }
        }
    }
}
