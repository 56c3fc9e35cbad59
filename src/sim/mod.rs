//! A simulator of the DataFramer API on loopback, and a receiver of webhooks.
//!
//! For rehearsing a pipeline without paying for a run, for `runwatch demo`, for the tests and the benches. `scenario` says
//! what a run does over time, `faults` what goes wrong, `body` how it looks in JSON; `api` and `receiver` serve it. Knows
//! nothing of the half that watches.

mod answers;
mod api;
mod body;
mod faults;
mod receiver;
mod scenario;
mod serve;

pub use api::{Request, Settings, Simulator};
pub use faults::{Fault, Faults, RetryAfter};
pub use receiver::{Delivered, Receiver};
pub use scenario::SimRun;
