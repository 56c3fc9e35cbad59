//! The command line: one definition for parsing, help, man pages and completions.
//!
//! The commands and nothing else: what each takes stands beside it, what they share in `flags`.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use super::add::AddArgs;
use super::backup::StateVerb;
use super::daemon::DaemonArgs;
use super::deliveries::DeliveriesVerb;
use super::flags::Global;
use super::list::ListArgs;
use super::manual;
use super::remove::RemoveArgs;
use super::runs::RunsArgs;
use super::show::ShowArgs;
use super::status::StatusArgs;
use super::wait::WaitArgs;
use super::watch::WatchArgs;

/// Tells you when your DataFramer runs have finished
#[derive(Debug, Parser)]
#[command(name = "runwatch", version, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What is asked for.
    #[command(subcommand)]
    pub command: Verb,

    #[command(flatten)]
    pub(super) global: Global,
}

impl Cli {
    /// The command line with everything that its help shows.
    pub(super) fn described() -> clap::Command {
        manual::described(Self::command())
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Watch runs until they end, with live progress and notifications
    Watch(WatchArgs),
    /// Wait for runs in a CI job: quiet, bounded, with a result to act on
    Wait(WaitArgs),
    /// Show the status of runs, once
    Status(StatusArgs),
    /// List the runs of the account, the newest first
    Runs(RunsArgs),
    /// Watch the configured runs in the background and notify
    Daemon(DaemonArgs),
    /// Watch runs in the daemon
    Add(AddArgs),
    /// Stop watching runs
    Remove(RemoveArgs),
    /// List the runs that the daemon watches
    List(ListArgs),
    /// Show one run of the daemon, and the deliveries about it
    Show(ShowArgs),
    /// List, show, retry and resend deliveries
    #[command(subcommand)]
    Deliveries(DeliveriesVerb),
    /// Reload the daemon's configuration
    Reload,
    /// Work with the daemon's state
    #[command(subcommand)]
    State(StateVerb),
    /// Check key, API, clock, desktop, state, channels and daemon
    Doctor(super::doctor::DoctorArgs),
    /// Work with the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Work with notification channels
    #[command(subcommand)]
    Notify(NotifyVerb),
    /// Serve a simulated DataFramer API on this machine
    #[cfg(feature = "simulator")]
    Simulate(super::simulate::SimulateArgs),
    /// Watch three simulated runs to their end, in fifteen seconds, without an account
    #[cfg(feature = "simulator")]
    Demo(super::demo::DemoArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write one for each command into a directory
    Man {
        /// Where to; standard output if not given
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Show help for a command, or the exit codes
    Help {
        /// A command, or `exit-codes`
        #[arg(value_name = "COMMAND|exit-codes", add = super::complete::topics())]
        topic: Vec<String>,
    },
}

/// `runwatch config …`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Check a configuration file, without the network, and show every problem
    Check {
        /// The file; by default the one that runwatch would use
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Create a commented configuration file
    Init(super::config_init::InitArgs),
    /// Show every setting in effect and where it came from, with secrets hidden
    Show(super::config_show::ShowArgs),
    /// Print the path of the configuration file in use
    Path,
}

/// `runwatch notify …`.
#[derive(Debug, Subcommand)]
pub enum NotifyVerb {
    /// List the configured channels
    List(super::notify_list::ChannelsArgs),
    /// Send a test event through channels, and show how it went
    Test {
        /// Channels by name; all by default
        #[arg(value_name = "CHANNEL", add = super::complete::channels())]
        channels: Vec<String>,
    },
}
