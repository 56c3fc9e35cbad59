//! `runwatch simulate`: the simulated API, for rehearsing a pipeline.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::exit::Exit;
use super::flags::duration_or_zero;
use super::signals::Signals;
use super::{out, setup};
use crate::run::{RunId, Terminal};
use crate::secret::Secret;
use crate::sim::{Fault, Faults, RetryAfter, SimRun, Simulator, SimulatorSettings};
use crate::span;

/// `runwatch simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Where to listen, on this machine; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8400", value_parser = loopback)]
    listen: SocketAddr,

    /// A run, as ID or id=ID,end=succeeded|failed|canceled,samples=N,failed=N,queue=D,duration=D,age=D or after=D,
    /// spec=NAME,dataset=NAME,by=EMAIL; repeatable. D is a length of time
    #[arg(long = "run", value_name = "RUN")]
    runs: Vec<SimRun>,

    /// Something that goes wrong: reset, truncate, html or an HTTP status, with how often, such as 503=10%; repeatable
    #[arg(long = "fault", value_name = "FAULT[=SHARE]")]
    faults: Vec<Fault>,

    /// How long every answer takes
    #[arg(long, value_name = "DURATION", default_value = "0s", allow_hyphen_values = true, value_parser = duration_or_zero)]
    latency: Duration,

    /// Retry-After to send with 429 and 503: 5s, or date:5s for an HTTP date
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    retry_after: Option<RetryAfter>,

    /// The one API key to accept; any by default. For tests only: others can see the command line
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,

    /// The same seed gives the same runs and the same faults
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many times faster than the clock the simulated time passes
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "expected an address and a port such as 127.0.0.1:8400".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the simulator serves this machine only; expected 127.0.0.1 or [::1]".to_owned())
    }
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "expected a number such as 10".to_owned())?;
    if (0.001..=1e6).contains(&speed) {
        Ok(speed)
    } else {
        Err("expected a number from 0.001 to 1000000".to_owned())
    }
}

/// Serves until asked to stop.
pub(super) async fn run(args: &SimulateArgs) -> Exit {
    let mut ids = HashSet::new();
    if let Some(twice) = args.runs.iter().find(|run| !ids.insert(&run.id)) {
        out::error(format_args!("two --run have the id {}; give each its own id", twice.id));
        return Exit::Usage;
    }
    let runs = if args.runs.is_empty() { three_runs(Duration::from_secs(30)) } else { args.runs.clone() };
    let settings = SimulatorSettings {
        listen: args.listen,
        runs: runs.clone(),
        faults: Faults { faults: args.faults.clone(), latency: args.latency, retry_after: args.retry_after },
        api_key: args.api_key.as_deref().map(Secret::new),
        seed: args.seed,
        speed: args.speed,
    };
    let simulator = match Simulator::start(settings).await {
        Ok(simulator) => simulator,
        Err(error) => {
            out::error(format_args!(
                "cannot listen on {}: {error}; choose another with --listen",
                args.listen
            ));
            return Exit::Internal;
        }
    };
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            out::error(format_args!("internal error: {error}"));
            return Exit::Internal;
        }
    };
    if let Err(exit) = setup::print_result(&greeting(&simulator, &runs, args)) {
        return exit;
    }
    signals.next().await;
    Exit::Succeeded
}

fn greeting(simulator: &Simulator, runs: &[SimRun], args: &SimulateArgs) -> String {
    let mut text = format!("simulating the DataFramer API at {}\n\n", simulator.url());
    for run in runs {
        let end = match run.end {
            Terminal::Succeeded => "SUCCEEDED",
            Terminal::Failed => "FAILED",
            Terminal::Canceled => "CANCELED",
        };
        let after = (run.after + run.queue + run.duration).saturating_sub(run.age).div_f64(args.speed);
        let _ = writeln!(text, "  {}  {end} in {}", run.id, span::human(after));
    }
    let there = runs.iter().filter(|run| run.after.is_zero());
    let (key, note) = match args.api_key {
        Some(_) => ("<the key>", ""),
        None => ("any", "  # any key is accepted"),
    };
    let _ = write!(
        text,
        "\nin another terminal:\n\n  export DATAFRAMER_BASE_URL={} DATAFRAMER_API_KEY={key}{note}\n  runwatch watch {}\n\nstop with Ctrl-C\n",
        simulator.url(),
        there.map(|run| run.id.as_str()).collect::<Vec<_>>().join(" ")
    );
    text
}

/// Three runs: a success with a failed sample, a failure and a cancellation. The last one ends after `longest`.
pub(super) fn three_runs(longest: Duration) -> Vec<SimRun> {
    let run = |id: &str, end: Terminal, samples: u64, failed: u64, share: f64| -> Option<SimRun> {
        let id: RunId = id.parse().ok()?;
        let (queue, duration) = (longest.mul_f64(0.1), longest.mul_f64(share - 0.1));
        Some(SimRun { end, samples, failed, queue, duration, ..SimRun::new(id) })
    };
    [
        run("5eed0000-0000-4000-8000-00000000000a", Terminal::Succeeded, 120, 1, 1.0),
        run("5eed0000-0000-4000-8000-00000000000b", Terminal::Failed, 80, 0, 0.55),
        run("5eed0000-0000-4000-8000-00000000000c", Terminal::Canceled, 200, 0, 0.8),
    ]
    .into_iter()
    .flatten()
    .collect()
}
