//! When to ask, and asking.
//!
//! `schedule`, `limiter`, `health`, `alerts` and `outlook` decide, without I/O; `slots` holds the runs in the order in which they are
//! due; `scheduler` is the loop that sends polls, `poller` has what they bring
//! recorded before it is believed, `lister` asks for the list of all runs, `outage` has told what lasts, and `update` is what whoever
//! looks on is told.

mod alerts;
mod batch;
mod counters;
mod health;
mod last_look;
mod limiter;
mod lister;
mod outage;
mod outlook;
mod poller;
mod prior;
mod recorder;
mod schedule;
mod scheduler;
mod slot;
mod slots;
mod throttle;
mod update;

pub use crate::store::Watched;
pub use alerts::{Alerts, Warning};
pub use batch::{Costs, Mode};
pub use counters::{Counters, Standing};
pub use health::{Down, Up};
pub use limiter::Limiter;
pub use lister::Discovery;
pub use outage::{Outage, OutagesTold};
pub use outlook::{Outlook, Remaining};
pub use prior::Prior;
pub use schedule::{Curve, Pace, Policy};
pub use scheduler::{Command, Scheduler, Settings};
pub use update::{FinalRun, Found, LAST_POLL, RunView, Trouble, Update, Updates};
