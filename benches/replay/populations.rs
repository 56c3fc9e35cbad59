//! Populations of runs, seeded: the ways in which runs go on.

use super::trace::Trace;

/// Every population with so many traces.
pub(super) fn all(count: usize) -> Vec<(&'static str, Vec<Trace>)> {
    let kinds: [(&str, Make); 11] = [
        ("steady", |dice| Shape::drawn(dice).trace(dice)),
        ("queueing", |dice| Shape { queue: dice.log_normal(120.0, 1.0), ..Shape::drawn(dice) }.trace(dice)),
        ("bursts", |dice| Shape { burst: 8 + dice.below(25), ..Shape::drawn(dice) }.trace(dice)),
        ("speed changes", |dice| {
            let factor = 2f64.powf(dice.unit() * 4.0 - 2.0);
            Shape { change: Some((dice.unit() * 0.8 + 0.1, factor)), ..Shape::drawn(dice) }.trace(dice)
        }),
        ("stragglers", |dice| Shape { stragglers: true, ..Shape::drawn(dice) }.trace(dice)),
        ("stalls", |dice| {
            let pause = dice.log_normal(200.0, 1.0);
            Shape { stall: Some((dice.unit() * 0.9, pause)), ..Shape::drawn(dice) }.trace(dice)
        }),
        ("short", |dice| Shape { reached: 0.7 + 0.29 * dice.unit(), ..Shape::drawn(dice) }.trace(dice)),
        ("beyond", |dice| Shape { reached: 1.0 + 0.1 * dice.unit(), ..Shape::drawn(dice) }.trace(dice)),
        ("falling", |dice| Shape { falls: Some(0.2 + 0.7 * dice.unit()), ..Shape::drawn(dice) }.trace(dice)),
        ("attached", |dice| {
            let shape = Shape { queue: dice.log_normal(30.0, 1.0), ..Shape::drawn(dice) };
            let mut trace = shape.trace(dice);
            trace.attach = trace.end * dice.unit() * 0.95;
            trace
        }),
        ("no counts", |dice| Trace { progress: Vec::new(), ..Shape::drawn(dice).trace(dice) }),
    ];
    let population = |(name, make): (&'static str, Make)| {
        let mut dice = Dice::new(7);
        (name, (0..count).map(|_| make(&mut dice)).collect())
    };
    kinds.into_iter().map(population).collect()
}

/// Makes one trace.
type Make = fn(&mut Dice) -> Trace;

/// How far runs of one spec are apart (the spread of the logarithm), and how many there were before.
const SPEC_SPREAD: f64 = 0.25;
const EARLIER: usize = 5;

/// Gives earlier runs of its spec to each that has none.
pub(super) fn remember(traces: &mut [Trace]) {
    let mut dice = Dice::new(7);
    for trace in traces.iter_mut().filter(|trace| trace.earlier.is_empty()) {
        // A run that failed early is one of a spec whose runs take longer.
        let whole = trace.progress.last().map_or(trace.end, |(at, ..)| at.max(trace.end));
        trace.earlier = dice.earlier(whole);
    }
}

/// Seeded chance.
pub(super) struct Dice(fastrand::Rng);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// How long earlier runs of a spec took, of which one took so long.
    pub(super) fn earlier(&mut self, whole: f64) -> Vec<f64> {
        let typical = self.log_normal(whole, SPEC_SPREAD);
        (0..EARLIER).map(|_| self.log_normal(typical, SPEC_SPREAD)).collect()
    }

    pub(super) fn unit(&mut self) -> f64 {
        self.0.f64()
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.u64(0..bound)
    }

    /// The sum of twelve is as good as normal.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    pub(super) fn log_normal(&mut self, median: f64, spread: f64) -> f64 {
        median * (spread * self.normal()).exp()
    }
}

/// What makes a run the one it is.
struct Shape {
    samples: u64,
    /// From the first sample to the last, in seconds, were all well.
    lasts: f64,
    queue: f64,
    /// So many samples are counted at once.
    burst: u64,
    /// At this share of the samples the speed becomes so many times itself.
    change: Option<(f64, f64)>,
    /// The last 2 % take a quarter of the time.
    stragglers: bool,
    /// At this share nothing happens for so long.
    stall: Option<(f64, f64)>,
    /// The share of its samples at which the count ends.
    reached: f64,
    /// At this share a quarter of what was done is taken back and done again.
    falls: Option<f64>,
}

impl Shape {
    /// Durations as they are found: half under ten minutes, with a long tail.
    fn drawn(dice: &mut Dice) -> Self {
        Self {
            samples: dice.log_normal(200.0, 1.0).clamp(5.0, 20_000.0) as u64,
            lasts: dice.log_normal(600.0, 1.3).clamp(20.0, 21_600.0),
            queue: 3.0 * dice.unit(),
            burst: 1,
            change: None,
            stragglers: false,
            stall: None,
            reached: 1.0,
            falls: None,
        }
    }

    fn trace(&self, dice: &mut Dice) -> Trace {
        let count = ((self.samples as f64 * self.reached) as u64).max(1);
        // What is taken back is done again.
        let again = self.falls.map_or(0, |share| (share * count as f64).ceil() as u64 / 4);
        let mut weights: Vec<f64> = (0..count + again).map(|_| -(dice.unit().max(1e-9)).ln()).collect();
        if let Some((share, factor)) = self.change {
            let from = (count as f64 * share) as usize;
            weights[from..].iter_mut().for_each(|weight| *weight /= factor);
        }
        // Otherwise each takes as long as another on average.
        let mut scale = self.lasts / weights.len() as f64;
        if self.stragglers {
            let tail = (count as usize / 50).max(1).min(weights.len());
            let from = weights.len() - tail;
            let (head, end): (f64, f64) = (weights[..from].iter().sum(), weights[from..].iter().sum());
            let factor = (head.max(1.0) / 3.0) / end.max(1e-9);
            weights[from..].iter_mut().for_each(|weight| *weight *= factor);
            scale *= 0.75;
        }
        let mut at = self.queue;
        let mut progress = vec![(0.0, 0, 0)];
        let mut stalled = self.stall;
        let mut falls = self.falls;
        let mut taken_back = 0;
        for (index, weight) in weights.iter().enumerate() {
            at += weight * scale;
            if let Some((share, pause)) = stalled
                && index as f64 >= share * count as f64
            {
                at += pause;
                stalled = None;
            }
            let counted = index as u64 + 1;
            if falls.is_some_and(|share| counted as f64 >= share * count as f64) {
                falls = None;
                taken_back = counted / 4;
            }
            let done = counted - taken_back;
            if done.is_multiple_of(self.burst.max(1)) || counted == count + again {
                let failed = done / 50;
                progress.push((at, done - failed, failed));
            }
        }
        let end = at + dice.log_normal(2.0, 0.7);
        let earlier = dice.earlier(end);
        Trace { created: 0.0, attach: 0.0, samples: self.samples, progress, end, earlier }
    }
}
