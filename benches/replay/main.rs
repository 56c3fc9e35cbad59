//! Replays traces of runs through the very schedule that the product uses, in virtual time, and prints what it costs:
//! requests a run, and how long after the end it was noticed.
//!
//! `cargo bench --bench replay` makes traces of several populations, seeded; `cargo bench --bench replay -- FILE…` reads
//! others: JSON lines, one run a line, `{"created":0,"attach":0,"samples":N,"progress":[[t,completed,failed],…],"end":t}`,
//! times in seconds.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench that cannot run says so by ending")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts made of shares, all of them small and positive"
)]

mod company;
mod populations;

use std::time::Duration;

use jiff::Timestamp;
use runwatch::poll::{Curve, Mode, Outlook, Pace, Policy, Prior};
use runwatch::run::{Moment, Progress, RunState};
use runwatch::store::Took;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A run, as it went.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trace {
    /// When it was created.
    created: f64,
    /// When the watch of it began.
    attach: f64,
    /// How many samples were asked for.
    samples: u64,
    /// When the counts were what.
    progress: Vec<(f64, u64, u64)>,
    /// When it ended.
    end: f64,
    /// What earlier runs of its spec took, in seconds.
    #[serde(default)]
    earlier: Vec<f64>,
}

/// What a policy made of a trace.
struct Outcome {
    requests: u32,
    /// Seconds from the end, or from the first poll if that came later, to the poll that saw it.
    delay: f64,
}

fn main() {
    // The runs are the same each time; the jitter is the schedule's own.
    fastrand::seed(7);
    let files: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let populations: Vec<(String, Vec<Trace>)> = if files.is_empty() {
        populations::all(400).into_iter().map(|(name, traces)| (name.to_owned(), traces)).collect()
    } else {
        files.iter().map(|file| (file.clone(), read(file))).collect()
    };
    println!(
        "{:18} {:8} {:>9} {:>7} {:>7} {:>7} {:>7} {:>9}",
        "population", "policy", "requests", "mean s", "p50 s", "p95 s", "p99 s", "cost s"
    );
    for (name, traces) in &populations {
        show(name, "backoff", traces, None, false);
        for (policy, price) in [("low", 10.0), ("normal", 2.0), ("high", 0.5)] {
            show(name, policy, traces, Some(price), false);
        }
        show(name, "known", traces, Some(2.0), true);
    }
    // Many as one, at more prices: what so many requests buy.
    let counted = |name: &str| name != "no counts";
    let prices = [0.25, 0.5, 1.0, 2.0, 4.0, 10.0, 20.0];
    for (title, chosen) in [("with counts", &counted as &dyn Fn(&str) -> bool), ("all", &|_| true)] {
        let chosen = populations.iter().filter(|(name, _)| chosen(name));
        let traces: Vec<Trace> = chosen.flat_map(|(_, traces)| traces).cloned().collect();
        show(title, "backoff", &traces, None, false);
        for (title, history) in [(title.to_owned(), false), (format!("{title}, known"), true)] {
            for price in prices {
                show(&title, &format!("{price} s"), &traces, Some(price), history);
            }
        }
    }
    many(&populations.iter().flat_map(|(_, traces)| traces.iter().take(150)).cloned().collect::<Vec<_>>());
}

/// Many of these at a time, by the list of all and one by one.
fn many(traces: &[Trace]) {
    const AT_A_TIME: usize = 300;
    let mut order: Vec<&Trace> = traces.iter().collect();
    fastrand::shuffle(&mut order);
    let traces: Vec<Trace> = order.into_iter().cloned().collect();
    println!("\n{AT_A_TIME} runs of one account at a time, {} in all", traces.len());
    println!(
        "{:18} {:8} {:>14} {:>14} {:>7} {:>7} {:>7} {:>7}",
        "batch", "policy", "lists a run", "by id a run", "mean s", "p50 s", "p95 s", "p99 s"
    );
    for (batch, mode, budget) in [
        ("auto", Mode::Auto, 120),
        ("always", Mode::Always, 120),
        ("never", Mode::Never, 120),
        ("never, any budget", Mode::Never, 600_000),
    ] {
        for (policy, price) in [("low", 10.0), ("normal", 2.0), ("high", 0.5)] {
            let mut bill = company::watch(&traces, AT_A_TIME, mode, price, budget);
            bill.delays.sort_by(f64::total_cmp);
            let at = |share: f64| bill.delays[((bill.delays.len() - 1) as f64 * share).round() as usize];
            let count = bill.delays.len() as f64;
            println!(
                "{batch:18} {policy:8} {:14.2} {:14.2} {:7.1} {:7.1} {:7.1} {:7.1}",
                bill.lists as f64 / count,
                bill.by_id as f64 / count,
                bill.delays.iter().sum::<f64>() / count,
                at(0.5),
                at(0.95),
                at(0.99),
            );
        }
    }
}

fn read(file: &str) -> Vec<Trace> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The default schedule at a price.
fn policy(price: Option<f64>) -> Policy {
    let curve = |multiplier| Curve {
        initial: Duration::from_secs(1),
        multiplier,
        max: Duration::from_mins(1),
        jitter: 0.1,
    };
    Policy { healthy: curve(1.5), error: curve(2.0), price }
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
    let prior =
        Prior::from(&earlier.map(|seconds| Took { seconds: *seconds, samples: None }).collect::<Vec<_>>());
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

fn show(population: &str, policy: &str, traces: &[Trace], price: Option<f64>, history: bool) {
    let outcomes: Vec<Outcome> = traces.iter().map(|trace| replay(trace, price, history)).collect();
    let count = outcomes.len() as f64;
    let requests = outcomes.iter().map(|outcome| f64::from(outcome.requests)).sum::<f64>() / count;
    let mut delays: Vec<f64> = outcomes.iter().map(|outcome| outcome.delay).collect();
    delays.sort_by(f64::total_cmp);
    let mean = delays.iter().sum::<f64>() / count;
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share).round() as usize];
    println!(
        "{population:18} {policy:8} {requests:9.1} {mean:7.1} {:7.1} {:7.1} {:7.1} {:9.1}",
        at(0.5),
        at(0.95),
        at(0.99),
        mean + 2.0 * requests
    );
}
