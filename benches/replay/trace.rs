//! A run as it went, and what the product's own schedule makes of it in virtual time. The bench and the test of the schedule
//! share it.

use std::time::Duration;

use jiff::Timestamp;
use runwatch::poll::{Curve, Outlook, Pace, Policy, Prior};
use runwatch::run::{Moment, Progress, RunState};
use runwatch::store::RunDuration;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A run, as it went. Times are in seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// When it was created.
    pub(crate) created: f64,
    /// When the watch of it began.
    pub(crate) attach: f64,
    /// How many samples were asked for.
    pub(crate) samples: u64,
    /// When the counts were what: (time, completed, failed).
    pub(crate) progress: Vec<(f64, u64, u64)>,
    /// When it ended.
    pub(crate) end: f64,
    /// How long earlier runs of its spec took.
    #[serde(default)]
    pub(crate) earlier: Vec<f64>,
}

/// What a policy made of a trace.
pub(crate) struct Outcome {
    pub(crate) requests: u32,
    /// Seconds from the end, or from the first poll if that came later, to the poll that saw it.
    pub(crate) delay: f64,
}

/// What a policy made of many.
pub(crate) struct Summary {
    pub(crate) requests: f64,
    pub(crate) mean: f64,
    delays: Vec<f64>,
}

impl Summary {
    /// The delay that this share of the runs stays below.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index, from 0 on")]
        let index = ((self.delays.len() - 1) as f64 * share).round() as usize;
        self.delays[index]
    }
}

/// Traces as JSON lines, one run a line.
pub(crate) fn parse(text: &str) -> Vec<Trace> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The default schedule at a price.
pub(crate) fn policy(price: Option<f64>) -> Policy {
    let curve = |multiplier| Curve {
        initial: Duration::from_secs(1),
        multiplier,
        max: Duration::from_mins(1),
        jitter: 0.1,
    };
    Policy { healthy: curve(1.5), error: curve(2.0), price }
}

/// Replays all of these at a price; `history` says whether the earlier runs of the spec are known.
pub(crate) fn replay_all(traces: &[Trace], price: Option<f64>, history: bool) -> Summary {
    let outcomes: Vec<Outcome> = traces.iter().map(|trace| replay(trace, price, history)).collect();
    let count = outcomes.len() as f64;
    let requests = outcomes.iter().map(|outcome| f64::from(outcome.requests)).sum::<f64>() / count;
    let mut delays: Vec<f64> = outcomes.iter().map(|outcome| outcome.delay).collect();
    delays.sort_by(f64::total_cmp);
    Summary { requests, mean: delays.iter().sum::<f64>() / count, delays }
}

fn replay(trace: &Trace, price: Option<f64>, history: bool) -> Outcome {
    let policy = policy(price);
    let origin = Instant::now() + Duration::from_hours(10_000);
    let epoch = Timestamp::from_second(1_800_000_000).unwrap();
    let moment = |at: f64| {
        let since = Duration::from_secs_f64(at);
        Moment { mono: origin + since, wall: epoch + since }
    };
    let earlier = trace.earlier.iter().filter(|_| history);
    let prior = Prior::from(
        &earlier.map(|seconds| RunDuration { seconds: *seconds, samples: None }).collect::<Vec<_>>(),
    );
    let (mut pace, mut outlook) = (Pace::new(&policy), Outlook::default());
    let mut state = RunState::new(moment(trace.attach).wall);
    state.created_at = Some(moment(trace.created).wall);
    let (mut at, mut requests, mut started) = (trace.attach, 0, false);
    loop {
        requests += 1;
        if at >= trace.end {
            return Outcome { requests, delay: at - trace.end.max(trace.attach) };
        }
        let now = trace.progress.iter().take_while(|(seen, ..)| *seen <= at).last();
        let (completed, failed) = now.map_or((0, 0), |(_, completed, failed)| (*completed, *failed));
        state.progress =
            Progress { completed: Some(completed), failed: Some(failed), total: Some(trace.samples) };
        // PENDING becomes PROCESSING with the first count.
        let moved = requests == 1 || (!started && completed + failed > 0);
        started |= completed + failed > 0;
        outlook.observe(&state, moment(at));
        let remaining = outlook.remaining(&state, prior.as_ref(), moment(at));
        at += pace.after_answer(&policy, moved, remaining).as_secs_f64();
    }
}
