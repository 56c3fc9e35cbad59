//! `doctor`: check what this daemon depends on, in its own surroundings: its key, its credentials, its directories.

use std::time::Duration;

use tokio::time::timeout;

use crate::control::Doctor;
use crate::daemon::handle::{Handle, Refusal};
use crate::doctor::examine;
use crate::span;

/// How long all checks together may take. A command waits a little longer.
const BOUND: Duration = Duration::from_secs(45);

impl Handle {
    pub(in crate::daemon) async fn doctor(&self) -> Result<Doctor, Refusal> {
        let config = self.parts_now().config;
        let findings = timeout(BOUND, examine(&config, Some(&self.state_dir))).await;
        let findings = findings.map_err(|_| {
            Refusal::Unavailable(format!("the checks did not end within {}", span::human(BOUND)))
        })?;
        Ok(Doctor { findings })
    }
}
