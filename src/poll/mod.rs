//! Polling: when to poll, sending the requests, and what the answers mean.
//!
//! `scheduler` is the loop, and the only file that uses all others. Some files decide, without I/O:
//!
//! - `schedule`, `outlook`, `guess` and `prior`: when to poll a run;
//! - `lister` and `batch`: when to fetch the list of all runs;
//! - `places`: which run may be polled while others hang;
//! - `judge`: what an answer means for its run;
//! - `account` (with `limiter`, `throttle`, `outage` and `health`): what it means for all runs;
//! - `alerts`: when to warn.
//!
//! The others do one job each. `slots` keeps the runs in the order in which they are due, `requests` sends requests,
//! `recorder` writes to the store, `histories` reads from it, and `update` defines what observers receive.

mod account;
mod alerts;
mod batch;
mod command;
mod counters;
mod final_poll;
mod guess;
mod health;
mod histories;
mod judge;
mod limiter;
mod lister;
mod outage;
mod outlook;
mod places;
mod prior;
mod recorder;
mod requests;
mod schedule;
mod scheduler;
mod settings;
mod slot;
mod slots;
mod throttle;
mod update;

pub use crate::store::Watched;
pub use alerts::{Alerts, Warning};
pub use batch::{Costs, Mode};
pub use command::Command;
pub use counters::{Counters, SchedulerStats};
pub use health::{Down, Up};
pub use limiter::Limiter;
pub use lister::Discovery;
pub use outage::{Outage, OutagesTold};
pub use outlook::{Outlook, Remaining};
pub use prior::Prior;
pub use schedule::{Curve, Pace, Policy};
pub use scheduler::Scheduler;
pub use settings::Settings;
pub use update::{FINAL_POLL, FinalRun, Found, RunView, Trouble, Update, Updates};
