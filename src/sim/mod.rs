//! A simulator of the DataFramer API on loopback, and a receiver of webhooks.
//!
//! For rehearsing a pipeline without paying for a run, for `runwatch demo`, and for tests and benches. `scenario`
//! defines a run over time, `faults` are failures on request, and `body` is the JSON. `api` and `receiver` serve it.
//! Knows nothing about polling.

mod answers;
mod api;
mod body;
mod faults;
mod receiver;
mod scenario;
mod serve;

pub use api::{Request, Simulator, SimulatorSettings};
pub use faults::{Fault, Faults, RetryAfter};
pub use receiver::{Delivered, Receiver};
pub use scenario::SimRun;
