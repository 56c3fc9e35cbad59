//! The command line: one file a verb.
//!
//! Owns everything that a person or a script sees. `args` is the definition, `exit` the contract; `foreground` drives what
//! `watch`, `wait` and `demo` share, and `lines`, `progress`, `report` and `github` only receive.

mod args;
mod check;
mod daemon;
#[cfg(feature = "simulator")]
mod demo;
mod exit;
mod foreground;
mod github;
mod help;
mod lines;
mod logging;
mod notify_test;
mod out;
mod progress;
mod report;
mod screen;
mod setup;
mod signals;
#[cfg(feature = "simulator")]
mod simulate;
mod status;
mod threshold;
mod verdict;
mod wait;
mod watch;
mod words;

use clap::Parser as _;

pub use args::Cli;
pub use exit::Exit;

use args::{ConfigVerb, NotifyVerb, Verb};

/// Runs the command line of this process to its end.
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are printed this way too, and are no failure.
            let failed = error.use_stderr();
            let _ = error.print();
            return if failed { Exit::Usage } else { Exit::Succeeded };
        }
    };
    // A panic must never read as a verdict.
    std::panic::catch_unwind(|| dispatch(&cli)).unwrap_or(Exit::Internal)
}

fn dispatch(cli: &Cli) -> Exit {
    let global = &cli.global;
    match &cli.command {
        Verb::Watch(args) => block_on(watch::run(global, args)),
        Verb::Wait(args) => block_on(wait::run(global, args)),
        Verb::Status(args) => block_on(status::run(global, args)),
        Verb::Daemon => block_on(daemon::run(global)),
        Verb::Config(ConfigVerb::Check { file }) => check::run(global, file.as_deref()),
        Verb::Notify(NotifyVerb::Test { channels }) => block_on(notify_test::run(global, channels)),
        #[cfg(feature = "simulator")]
        Verb::Simulate(args) => block_on(simulate::run(args)),
        #[cfg(feature = "simulator")]
        Verb::Demo(args) => block_on(demo::run(args)),
        Verb::Completions { shell } => help::completions(*shell),
        Verb::Man { dir } => help::man(dir.as_deref()),
        Verb::Help { topic } => help::help(topic),
    }
}

/// Runs a command on one thread: everything here waits for the network, and one thread wakes the least.
fn block_on(command: impl Future<Output = Exit>) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            out::error(format_args!("cannot start the runtime: {error}"));
            return Exit::Internal;
        }
    };
    let exit = runtime.block_on(command);
    // Work that hangs outside (a file system, a name server) does not hold up the end.
    runtime.shutdown_background();
    exit
}
