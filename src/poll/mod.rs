//! When to ask, and asking.
//!
//! `schedule`, `limiter`, `health` and `speed` decide, without I/O; `slots` holds the runs in the order in which they are
//! due; `scheduler` is the loop that sends polls, `poller` has what they bring
//! recorded before it is believed, and `update` is what whoever looks on is told.

mod health;
mod last_look;
mod limiter;
mod poller;
mod schedule;
mod scheduler;
mod slots;
mod speed;
mod update;

pub use health::{Down, Up};
pub use limiter::Limiter;
pub use schedule::{Curve, Pace, Policy};
pub use scheduler::{Command, Scheduler, Settings};
pub use slots::Watched;
pub use update::{FinalRun, LAST_POLL, RunView, Trouble, Update, Updates};
