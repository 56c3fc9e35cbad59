//! The figures this project holds itself to, measured on whole processes: `cargo bench`, or `cargo bench -- oneshot`.
//!
//! Timings are benchmarks, never tests: these machines are noisy, so that what is compared is measured in one run, in
//! turn, and medians and ratios are printed. See README.md beside this folder.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench that cannot run says so by ending")]

mod cpu;
mod idle;
mod latency;
mod many;
mod oneshot;
mod paced;
mod process;

type Figure = (&'static str, fn());

const FIGURES: [Figure; 8] = [
    ("oneshot", oneshot::run),
    ("cpu", cpu::run),
    ("idle", idle::run),
    ("memory", many::memory),
    ("list", many::list),
    ("startup", many::startup),
    ("latency", latency::latency),
    ("fsync", latency::fsync),
];

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    // The bare loop that the CPU figure compares with is this program again.
    if let [role, url] = &chosen[..]
        && role == "bare-loop"
    {
        return cpu::bare_loop(url);
    }
    for (name, run) in FIGURES {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            println!("\n== {name}");
            run();
        }
    }
}
