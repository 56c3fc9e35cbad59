//! Replays traces of runs through the very schedule that the product uses, in virtual time, and prints what it costs:
//! requests a run, and how long after the end it was noticed.
//!
//! `cargo bench --bench replay` makes traces of several populations, seeded; `cargo bench --bench replay -- FILE…` reads
//! others beside them: JSON lines, plain or gzip, one run a line,
//! `{"created":0,"attach":0,"samples":N,"progress":[[t,completed,failed],…],"end":t}`, times in seconds.
//! `-- --only FILE…` leaves its own populations out.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench that cannot run says so by ending")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts made of shares, all of them small and positive"
)]

mod company;
mod mixed;
mod populations;
mod trace;

use std::io::Read as _;

use runwatch::poll::Mode;
use trace::{Trace, replay_all};

fn main() {
    // The runs are the same each time; the jitter is the schedule's own.
    fastrand::seed(7);
    let files: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let only = std::env::args().any(|arg| arg == "--only");
    let mut populations = Vec::new();
    if !only {
        let own = populations::all(400).into_iter().chain(mixed::all(400));
        populations.extend(own.map(|(name, traces)| (name.to_owned(), traces)));
    }
    populations
        .extend(files.iter().map(|file| (file.rsplit('/').next().unwrap_or(file).to_owned(), read(file))));
    println!(
        "{:18} {:8} {:>9} {:>7} {:>7} {:>7} {:>7} {:>9}",
        "population", "policy", "requests", "mean s", "p50 s", "p95 s", "p99 s", "cost s"
    );
    for (name, traces) in &populations {
        show(name, "backoff", traces, None, false);
        for (policy, price) in [("low", 10.0), ("normal", 2.0), ("high", 0.5)] {
            show(name, policy, traces, Some(price), false);
        }
        for (policy, price) in [("normal+", 2.0), ("high+", 0.5)] {
            show(name, policy, traces, Some(price), true);
        }
    }
    if only {
        return;
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

/// Traces that say nothing of earlier runs get some, which took as long within a quarter.
fn read(file: &str) -> Vec<Trace> {
    let bytes = std::fs::read(file).unwrap();
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    let mut traces = trace::parse(&text);
    populations::remember(&mut traces);
    traces
}

fn show(population: &str, policy: &str, traces: &[Trace], price: Option<f64>, history: bool) {
    let all = replay_all(traces, price, history);
    println!(
        "{population:18} {policy:8} {:9.1} {:7.1} {:7.1} {:7.1} {:7.1} {:9.1}",
        all.requests,
        all.mean,
        all.quantile(0.5),
        all.quantile(0.95),
        all.quantile(0.99),
        all.mean + 2.0 * all.requests
    );
}
