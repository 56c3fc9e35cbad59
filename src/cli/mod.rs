//! The command line: one file per command.
//!
//! Owns everything that a person or a script sees. `args` defines it, `exit` has the exit codes. `foreground` drives what
//! `watch`, `wait` and `demo` share, and `lines`, `live`, `report`, `github`, `azure`, `buildkite`, `junit` and `summary` only
//! receive.

mod add;
mod annotations;
mod args;
mod azure;
mod backup;
mod block;
mod buildkite;
mod check;
mod choose;
mod complete;
mod config_init;
mod config_show;
mod daemon;
mod daemon_status;
mod deliveries;
#[cfg(feature = "simulator")]
mod demo;
mod doctor;
mod exit;
mod files;
mod flags;
mod foreground;
#[cfg(fuzzing)]
pub mod fuzzing;
mod github;
mod guess;
mod help;
mod journal;
mod jsonl;
mod junit;
mod lines;
mod list;
mod live;
mod logging;
mod manual;
mod named;
mod notify_list;
mod notify_test;
mod out;
mod output_file;
mod outputs;
mod pick;
mod picture;
#[cfg(test)]
mod pictures;
mod quiet;
mod readers;
mod reload;
mod remove;
mod report;
mod runs;
mod safe;
mod screen;
mod setup;
mod show;
mod signals;
#[cfg(feature = "simulator")]
mod simulate;
mod socket;
mod status;
mod stream;
mod summary;
mod table;
mod then;
mod threshold;
mod times;
mod unit;
mod verdict;
mod vital;
mod wait;
mod watch;

pub use args::Cli;
pub use exit::Exit;

use args::{ConfigVerb, NotifyVerb, Verb};
use backup::StateVerb;
use daemon::{DaemonArgs, DaemonVerb};
use out::Out;

use crate::blocking;

/// Runs the command line of this process to its end.
pub fn main() -> Exit {
    if let Some(exit) = complete::answer() {
        return exit;
    }
    let args: Vec<_> = std::env::args_os().collect();
    flags::Colours::named(&args).set();
    let cli = match guess::parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            if error.use_stderr() {
                out::stderr(&safe::usage_error(&error));
                return Exit::Usage;
            }
            // Help and version come this way too, and are results.
            let text =
                if console::colors_enabled() { error.render().ansi().to_string() } else { error.to_string() };
            return setup::print_result(&text).err().unwrap_or(Exit::Succeeded);
        }
    };
    // A panic must never read as a verdict.
    std::panic::catch_unwind(|| dispatch(&cli)).unwrap_or(Exit::Internal)
}

fn dispatch(cli: &Cli) -> Exit {
    let global = &cli.global;
    match &cli.command {
        Verb::Watch(args) => block_on(async |out| watch::run(&out, global, args).await),
        Verb::Wait(args) => block_on(async |out| wait::run(&out, global, args).await),
        Verb::Status(args) => block_on(async |out| status::run(&out, global, args).await),
        Verb::Runs(args) => block_on(async |out| runs::run(&out, global, args).await),
        Verb::Daemon(DaemonArgs { verb: Some(DaemonVerb::Status(args)), .. }) => {
            block_on(async |out| daemon_status::run(&out, global, args).await)
        }
        Verb::Daemon(args) => block_on(async |out| daemon::run(&out, global, args).await),
        Verb::Add(args) => block_on(async |out| add::run(&out, global, args).await),
        Verb::Remove(args) => block_on(async |out| remove::run(&out, global, args).await),
        Verb::List(args) => block_on(async |out| list::run(&out, global, args).await),
        Verb::Show(args) => block_on(async |out| show::run(&out, global, args).await),
        Verb::Deliveries(verb) => block_on(async |out| deliveries::run(&out, global, verb).await),
        Verb::State(StateVerb::Backup(args)) => block_on(async |out| backup::run(&out, global, args).await),
        Verb::Reload => block_on(async |out| reload::run(&out, global).await),
        Verb::Doctor(args) => block_on(async |out| doctor::run(&out, global, args).await),
        Verb::Config(ConfigVerb::Check { file }) => check::run(global, file.as_deref()),
        Verb::Config(ConfigVerb::Show(args)) => config_show::run(global, args),
        Verb::Config(ConfigVerb::Path) => config_init::path(global),
        Verb::Config(ConfigVerb::Init(args)) => config_init::init(global, args),
        Verb::Notify(NotifyVerb::List(args)) => block_on(async |out| notify_list::run(&out, global, args)),
        Verb::Notify(NotifyVerb::Test { channels }) => {
            block_on(async |out| notify_test::run(&out, global, channels).await)
        }
        #[cfg(feature = "simulator")]
        Verb::Simulate(args) => block_on(async |_| simulate::run(args).await),
        #[cfg(feature = "simulator")]
        Verb::Demo(args) => block_on(async |out| demo::run(&out, args).await),
        Verb::Completions { shell } => complete::script(*shell),
        Verb::Man { dir } => help::man(dir.as_deref()),
        Verb::Help { topic } => help::help(topic),
    }
}

/// Runs a command on one thread, because commands mostly wait for the network. Another thread writes their output, so
/// that a slow reader does not delay polling.
fn block_on(command: impl AsyncFnOnce(Out) -> Exit) -> Exit {
    let started = Out::start().and_then(|out| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok((out, runtime))
    });
    let (out, runtime) = match started {
        Ok(started) => started,
        Err(error) => {
            let advice = if blocking::is_shortage(&error) { blocking::ADVICE } else { "" };
            out::last_words(&format!("cannot start: {error}{advice}"), out::LAST_WORDS);
            return Exit::Internal;
        }
    };
    let exit = runtime.block_on(command(out.clone()));
    out.finish();
    // Work that hangs outside (a file system, a name server) does not hold up the end.
    runtime.shutdown_background();
    exit
}
