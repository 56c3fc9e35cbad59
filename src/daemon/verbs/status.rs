//! `status`: the daemon's figures, for `runwatch status`, the service manager and Prometheus.
//!
//! If the store or the scheduler hangs, the last known figures are returned.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::timeout;

use crate::control::{Answer, Status};
use crate::daemon::handle::Handle;
use crate::daemon::metrics::{CONTENT_TYPE, Figures};
use crate::poll::Command;

/// Maximum wait for figures. A hanging disk delays only these.
const FIGURES_PATIENCE: Duration = Duration::from_secs(2);

impl Handle {
    pub(in crate::daemon) async fn status(&self) -> Status {
        let parts = self.parts_now();
        let figures = self.figures().await;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started_at,
            api: parts.api.to_string(),
            going: figures.scheduler.runs.values().sum(),
            ended: figures.ended.iter().map(|(_, count)| count.unsigned_abs()).sum(),
            deliveries_pending: figures.outbox.iter().map(|stats| stats.pending).sum(),
            troubles: self.troubles(),
        }
    }

    /// The current figures. Those that are not available in time keep their last value.
    async fn figures(&self) -> Figures {
        let parts = self.parts_now();
        let store = &parts.store;
        let (scheduler, ended, outbox) = tokio::join!(
            timeout(FIGURES_PATIENCE, self.ask(&parts, Command::Stats)),
            timeout(FIGURES_PATIENCE, store.ended_by_status()),
            timeout(FIGURES_PATIENCE, store.stats()),
        );
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(Ok(scheduler)) = scheduler {
            figures.scheduler = scheduler;
        }
        if let Ok(Ok(ended)) = ended {
            figures.ended = ended;
        }
        if let Ok(Ok(outbox)) = outbox {
            figures.outbox = outbox;
        }
        figures.clone()
    }

    /// The text for Prometheus.
    pub(in crate::daemon) async fn metrics(&self) -> Answer {
        let budget = self.parts_now().requests_per_minute;
        let figures = self.figures().await;
        match self.metrics.render(&self.counters, &figures, budget) {
            Ok(text) => Answer::text(200, CONTENT_TYPE, text),
            Err(error) => Answer::error(500, error.to_string()),
        }
    }
}
