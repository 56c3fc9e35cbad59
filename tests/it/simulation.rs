//! Polling, the store and delivery over a year of virtual time, with faults at both ends and random kills. After every
//! step the invariants are checked, and at the end the API's own account against the state and the receivers.
//!
//! One seed is one history. `RUNWATCH_SIMULATION_SEED=7` plays the history of one seed and prints every step,
//! `RUNWATCH_SIMULATION_SEEDS=100000` plays more of them:
//!
//!     RUNWATCH_SIMULATION_SEED=7 cargo test --test it simulation -- --nocapture

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::similar_names,
    clippy::struct_field_names,
    clippy::unchecked_time_subtraction,
    reason = "a simulation that is wrong about a number fails; the names are those of the parts under test"
)]

mod api;
mod ends;
mod ledger;
mod life;
mod plan;
mod receiver;
mod store;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use life::Stage;
use runwatch::store::DeliveryFilter;

/// The number of seeds in the ordinary tests. Seeds 12 and 39 found polls before their `Retry-After`: after a list that
/// failed, and after one that had the run.
const SEEDS: u64 = 400;

/// Plays one seed: what is broken, and a fingerprint of the history.
fn play(seed: u64, talks: bool) -> (Vec<String>, (u64, u64)) {
    let mut stage = Stage::new(seed, talks);
    stage.play();
    life_checks(&stage);
    (stage.world.verdict(), stage.world.history())
}

fn life_checks(stage: &Stage) {
    let rows = store::wait_here(stage.store.deliveries(DeliveryFilter::default(), 9999)).unwrap();
    stage.ledger.outbox(rows);
    ends::check(stage);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn in_a_year_of_faults_and_kills_nothing_is_lost_or_invented() {
    if let Some(seed) = number("RUNWATCH_SIMULATION_SEED") {
        let (broken, (_, steps)) = play(seed, true);
        assert!(broken.is_empty(), "seed {seed}, {steps} steps:\n{}", broken.join("\n"));
        return;
    }
    let seeds = number("RUNWATCH_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let (next, steps) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        let mut failures = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || failures.len() > 3 {
                return failures;
            }
            let (broken, (_, taken)) = play(seed, false);
            steps.fetch_add(taken, Ordering::Relaxed);
            if !broken.is_empty() {
                let first = broken.iter().take(3).cloned().collect::<Vec<_>>().join("\n  ");
                failures.push(format!(
                    "RUNWATCH_SIMULATION_SEED={seed} cargo test --test it simulation -- --nocapture\n  {first}"
                ));
            }
        }
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    eprintln!("{seeds} seeds, {} steps", steps.into_inner());
}

#[test]
fn one_seed_is_one_history() {
    for seed in 1..20 {
        assert_eq!(play(seed, false).1, play(seed, false).1, "seed {seed}");
    }
}
