//! The polling schedule for runs of every kind, in virtual time: results do not get worse than recorded. `cargo bench
//! --bench replay` shows more.

#[path = "../../benches/replay/trace.rs"]
mod trace;

use trace::{Trace, parse, replay_all};

/// How much worse requests and delay may get: one part in twenty.
const MORE: f64 = 1.05;

fn traces() -> [(&'static str, Vec<Trace>); 5] {
    [
        ("mix", parse(include_str!("../fixtures/traces/mix.jsonl"))),
        ("few", parse(include_str!("../fixtures/traces/few.jsonl"))),
        ("late", parse(include_str!("../fixtures/traces/late.jsonl"))),
        ("fail", parse(include_str!("../fixtures/traces/fail.jsonl"))),
        ("none", parse(include_str!("../fixtures/traces/none.jsonl"))),
    ]
}

#[test]
fn requests_and_delay_stay_as_recorded() {
    // Requests a run and mean seconds of delay at `low`, `normal` and `high`. After a change for the better, record what the
    // failure prints.
    let recorded = [
        ("mix", [(15.5, 16.9), (21.3, 9.2), (29.8, 6.9)]),
        ("few", [(31.4, 24.8), (44.7, 17.3), (65.1, 10.3)]),
        ("late", [(16.2, 22.1), (20.7, 13.8), (28.2, 10.2)]),
        ("fail", [(25.6, 30.3), (30.5, 20.8), (39.1, 16.8)]),
        ("none", [(16.6, 40.8), (24.7, 24.7), (37.7, 13.8)]),
    ];
    let measured = traces().map(|(name, traces)| {
        // Ten of each, so that the jitter does not decide.
        let traces: Vec<Trace> = (0..10).flat_map(|_| traces.clone()).collect();
        let at = [10.0, 2.0, 0.5].map(|price| {
            fastrand::seed(7);
            let all = replay_all(&traces, Some(price), false);
            assert!(all.quantile(0.99) <= 120.0, "{name} at {price}: {} s late", all.quantile(0.99));
            ((all.requests * 10.0).round() / 10.0, (all.mean * 10.0).round() / 10.0)
        });
        (name, at)
    });
    for ((name, now), (_, then)) in measured.iter().zip(&recorded) {
        for ((requests, delay), (requests_then, delay_then)) in now.iter().zip(then) {
            let is_no_worse = *requests <= requests_then * MORE && *delay <= delay_then * MORE;
            assert!(is_no_worse, "{name}: {measured:#?}");
        }
    }
}
