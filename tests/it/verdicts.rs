//! Every pair of runs in every mode of `watch` and `wait`, on the built binary: the worst result decides.

use std::collections::VecDeque;
use std::sync::Mutex;

use runwatch::sim::{SimRun, Simulator, SimulatorSettings};

use crate::support::bin::{Output, runwatch};

/// Which code decides, worst first.
const WORST_FIRST: [i32; 11] = [70, 78, 4, 5, 1, 3, 6, 7, 124, 8, 0];

/// The runs, and the code of each by itself. One has 7 of 20 samples failed; one is not there.
const RUNS: [(&str, i32); 6] =
    [("good", 0), ("partial", 0), ("broken", 1), ("stopped", 3), ("missing", 5), ("active", 124)];

fn worst(codes: &[i32]) -> i32 {
    let place = |code: &&i32| WORST_FIRST.iter().position(|other| other == *code).unwrap();
    *codes.iter().min_by_key(place).unwrap_or(&0)
}

/// What decides in this mode: the codes of the runs that were shown to have ended, which may be one where both could.
fn possible(mode: &[&str], pair: [(&str, i32); 2]) -> Vec<i32> {
    let gated = mode.contains(&"--max-failed");
    let codes = pair.map(|(run, code)| if run == "partial" && gated { 6 } else { code });
    let both = worst(&codes);
    let ends: Vec<i32> = if mode.contains(&"--any") {
        let has_finished = |code: &&i32| !matches!(code, 5 | 124);
        codes.iter().filter(has_finished).copied().collect()
    } else if mode.contains(&"--fail-fast") {
        codes.iter().filter(|code| !matches!(code, 0 | 124)).copied().collect()
    } else {
        Vec::new()
    };
    if ends.is_empty() { vec![both] } else { ends }
}

/// The code of a run as its line of a result in text, or of `watch`, shows it; nothing where it is active.
fn shown(output: &Output, run: &str, gated: bool) -> Option<i32> {
    let mut said = output.stdout.lines().filter(|line| line.contains(&format!("{run} ")));
    said.find_map(|line| match line {
        _ if line.contains("SUCCEEDED") => Some(if gated && run == "partial" { 6 } else { 0 }),
        _ if line.contains("FAILED") => Some(1),
        _ if line.contains("CANCELED") => Some(3),
        _ if line.contains("does not know this run") => Some(5),
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_of_each_pair_decides_in_every_mode() {
    let runs = [
        "id=good,duration=0s",
        "id=partial,duration=0s,samples=20,failed=7",
        "id=broken,duration=0s,end=failed",
        "id=stopped,duration=0s,end=canceled",
        "id=active,duration=9h",
    ];
    let runs = runs.iter().map(|text| text.parse::<SimRun>().unwrap()).collect();
    let simulator =
        Simulator::start(SimulatorSettings { runs, ..SimulatorSettings::default() }).await.unwrap();
    let modes: [&[&str]; 5] = [
        &["watch", "--grace", "0s"],
        &["watch", "--any", "--grace", "0s"],
        &["wait", "--grace", "0s"],
        &["wait", "--fail-fast", "--grace", "0s"],
        &["wait", "--max-failed", "2", "--grace", "0s"],
    ];
    let mut cases = VecDeque::new();
    for mode in modes {
        for (at, one) in RUNS.into_iter().enumerate() {
            cases.extend(RUNS[at..].iter().map(|other| (mode, [one, *other])));
        }
    }
    let (cases, url) = (Mutex::new(cases), simulator.url());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((mode, pair)) = { cases.lock().unwrap().pop_front() } {
                    check(&url, mode, pair);
                }
            });
        }
    });
}

fn check(url: &str, mode: &[&str], pair: [(&str, i32); 2]) {
    let gated = mode.contains(&"--max-failed");
    let args = [mode, &["--timeout", "400ms", pair[0].0, pair[1].0]].concat();
    let output = runwatch(&args).base_url(url).quick("").run();
    let code = output.code.unwrap();
    assert!(possible(mode, pair).contains(&code), "{args:?}: {output:?}");
    // What was shown decides: nobody is left to guess, and nothing that was seen is lost.
    let mut seen: Vec<i32> = pair.iter().filter_map(|(run, _)| shown(&output, run, gated)).collect();
    let ended_early = if mode.contains(&"--any") {
        seen.iter().any(|code| *code != 5)
    } else {
        mode.contains(&"--fail-fast") && worst(&seen) != 0
    };
    if ended_early && mode.contains(&"--any") {
        seen.retain(|code| *code != 5);
    } else if !ended_early {
        seen.resize(2, 124);
    }
    assert_eq!(code, worst(&seen), "{args:?}: {output:?}");
}
