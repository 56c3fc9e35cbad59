//! The part of the command line that is about a daemon: its own flags, and the commands that speak to it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::args::{Output, duration, run_id};
use crate::run::RunId;

/// `runwatch daemon`.
#[derive(Debug, Clone, Args)]
pub struct DaemonArgs {
    /// Watch the runs whose ids are the names of files in this directory, and of files that come
    #[arg(long, value_name = "DIR")]
    pub(super) watch_dir: Option<PathBuf>,
}

/// `runwatch add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Run ids or run URLs
    #[arg(required = true, value_name = "RUN", value_parser = run_id)]
    pub(super) runs: Vec<RunId>,

    /// What to call it; for one run
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,

    /// Tell of it through these channels only
    #[arg(long, value_name = "CHANNEL", value_delimiter = ',')]
    pub(super) notify: Option<Vec<String>>,

    /// Tell when it has not ended this long after its creation: 30m, 2h
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration)]
    pub(super) deadline: Option<Duration>,
}

/// `runwatch remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Run ids or run URLs
    #[arg(required = true, value_name = "RUN", value_parser = run_id)]
    pub(super) runs: Vec<RunId>,
}

/// `runwatch list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Those that have ended too
    #[arg(long)]
    pub(super) all: bool,

    #[command(flatten)]
    pub(super) output: Output,
}

/// `runwatch show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A run id or run URL
    #[arg(value_name = "RUN", value_parser = run_id)]
    pub(super) run: RunId,

    #[command(flatten)]
    pub(super) output: Output,
}

/// `runwatch deliveries …`.
#[derive(Debug, Subcommand)]
pub enum DeliveriesVerb {
    /// List deliveries, the latest first
    List {
        #[command(flatten)]
        which: WhichDeliveries,

        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,

        #[command(flatten)]
        output: Output,
    },
    /// Show one delivery
    Show {
        /// Its number, as listed
        #[arg(value_name = "NUMBER")]
        id: i64,
    },
    /// Try deliveries again now that have not succeeded, with all attempts before them; a disabled channel is enabled
    #[command(group = clap::ArgGroup::new("meant").required(true).multiple(true))]
    Retry {
        /// This one
        #[arg(value_name = "NUMBER", group = "meant")]
        id: Option<i64>,

        /// Those to this channel
        #[arg(long, value_name = "CHANNEL", group = "meant")]
        channel: Option<String>,

        /// All of them
        #[arg(long, group = "meant")]
        all: bool,
    },
    /// Send events once more, under their own ids, whatever became of them before
    Resend {
        /// Events of the last so long: 30m, 2h, 7d
        #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration)]
        since: Duration,

        /// To these channels; to all by default
        #[arg(long, value_name = "CHANNEL", value_delimiter = ',')]
        channel: Option<Vec<String>>,
    },
}

/// Which deliveries are meant.
#[derive(Debug, Args)]
pub struct WhichDeliveries {
    /// In this state only
    #[arg(long, value_name = "STATE")]
    pub(super) state: Option<StateArg>,

    /// To this channel only
    #[arg(long, value_name = "CHANNEL")]
    pub(super) channel: Option<String>,

    /// About this run only
    #[arg(long, value_name = "RUN", value_parser = run_id)]
    pub(super) run: Option<RunId>,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateArg {
    /// Still to be tried
    Pending,
    /// The receiver has it
    Delivered,
    /// Given up
    Dead,
}
