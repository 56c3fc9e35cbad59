//! Runs of every kind in one population, as an account has them; other medians, spreads and seeds for each.

use super::populations::Dice;
use super::trace::Trace;

/// What an account's runs are like.
struct Account {
    seed: u64,
    /// Median and spread of the duration in seconds, and of the number of samples.
    lasts: (f64, f64),
    samples: (f64, f64),
    /// Shares of the runs that fail before their work is done, have no counts, have up to seven samples, and are watched from
    /// mid-run on.
    fails: f64,
    uncounted: f64,
    few: f64,
    attached: f64,
}

const USUAL: Account = Account {
    seed: 11,
    lasts: (600.0, 1.3),
    samples: (80.0, 1.8),
    fails: 0.04,
    uncounted: 0.08,
    few: 0.12,
    attached: 0.13,
};

/// Every account with so many traces.
pub(super) fn all(count: usize) -> Vec<(&'static str, Vec<Trace>)> {
    let accounts = [
        ("mixed", USUAL),
        ("mixed, other seed", Account { seed: 12, ..USUAL }),
        ("mixed, long", Account { seed: 13, lasts: (1200.0, 1.0), samples: (300.0, 1.5), ..USUAL }),
        ("mixed, short", Account { seed: 14, lasts: (300.0, 1.1), samples: (40.0, 1.5), ..USUAL }),
        ("mixed, no counts", Account { seed: 15, uncounted: 1.0, ..USUAL }),
        ("mixed, failing", Account { seed: 16, fails: 0.3, ..USUAL }),
    ];
    let traces = |account: &Account| {
        let mut dice = Dice::new(account.seed);
        (0..count).map(|_| account.trace(&mut dice)).collect()
    };
    accounts.iter().map(|(name, account)| (*name, traces(account))).collect()
}

impl Account {
    fn trace(&self, dice: &mut Dice) -> Trace {
        let lasts = dice.log_normal(self.lasts.0, self.lasts.1).clamp(20.0, 21_600.0);
        let few = dice.unit() < self.few;
        let many = dice.log_normal(self.samples.0, self.samples.1).clamp(5.0, 2000.0) as u64;
        let samples = if few { 1 + dice.below(7) } else { many };
        let queue = if dice.unit() < 0.3 { dice.log_normal(0.03, 1.0).min(0.5) } else { 0.01 * dice.unit() };
        // One of ten goes on for long after its last sample.
        let rest =
            if dice.unit() < 0.1 { lasts * (0.02 + 0.13 * dice.unit()) } else { 2f64.min(0.012 * lasts) };
        let work = (lasts * (1.0 - queue) - rest).max(0.3 * lasts);
        let gaps = gaps(samples as usize, dice);
        let whole: f64 = gaps.iter().sum();
        let mut at = queue * lasts;
        let mut progress = Vec::with_capacity(gaps.len());
        for (done, gap) in (1..).zip(&gaps) {
            at += gap / whole * work;
            progress.push((at, done, 0));
        }
        let earlier = dice.earlier(at + rest);
        let share = if dice.unit() < self.fails { 0.05 + 0.9 * dice.unit() } else { 1.0 };
        let end = (at + rest) * share;
        let attach = if dice.unit() < self.attached { end * 0.95 * dice.unit() } else { 0.0 };
        if dice.unit() < self.uncounted {
            progress.clear();
        }
        Trace { created: 0.0, attach, samples, progress, end, earlier }
    }
}

/// The times between samples, one of seven kinds, in no unit.
fn gaps(count: usize, dice: &mut Dice) -> Vec<f64> {
    let mut gaps: Vec<f64> = (0..count).map(|_| -(dice.unit().max(1e-9)).ln()).collect();
    let whole: f64 = gaps.iter().sum();
    match dice.below(7) {
        0 => gaps.iter_mut().for_each(|gap| *gap = 0.7 + 0.3 * *gap),
        1 => {
            let burst = 3 + dice.below(30) as usize;
            for (index, gap) in gaps.iter_mut().enumerate() {
                *gap *= if index.is_multiple_of(burst) { burst as f64 } else { 0.02 };
            }
        }
        2 => {
            // Workers side by side.
            let (workers, spread) = (4 << dice.below(4), 0.3 + 0.7 * dice.unit());
            let mut free = vec![0.0f64; workers];
            let mut ends: Vec<f64> = Vec::with_capacity(count);
            for _ in 0..count {
                free.sort_by(f64::total_cmp);
                free[0] += dice.log_normal(1.0, spread);
                ends.push(free[0]);
            }
            ends.sort_by(f64::total_cmp);
            let before = std::iter::once(0.0).chain(ends.iter().copied());
            gaps = ends.iter().zip(before).map(|(end, before)| end - before).collect();
        }
        3 => {
            // The last 2 % take a tenth to a third of the time.
            let share = 0.1 + 0.25 * dice.unit();
            let from = count - (count / 50).max(1);
            let (head, tail): (f64, f64) = (gaps[..from].iter().sum(), gaps[from..].iter().sum());
            let factor = head.max(0.01) * share / (1.0 - share) / tail.max(1e-9);
            gaps[from..].iter_mut().for_each(|gap| *gap *= factor);
        }
        4 => {
            // A stall.
            let share = 0.05 + 0.4 * dice.unit();
            gaps[dice.below(count as u64) as usize] += whole * share / (1.0 - share);
        }
        5 => {
            // From somewhere on it is up to four times as fast, or as slow.
            let factor = 2f64.powf(4.0 * dice.unit() - 2.0);
            let from = ((0.1 + 0.8 * dice.unit()) * count as f64) as usize;
            gaps[from..].iter_mut().for_each(|gap| *gap *= factor);
        }
        _ => {}
    }
    gaps
}
