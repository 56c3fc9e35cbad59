//! `status`: the daemon's figures, for `runwatch status`, the service manager and Prometheus.
//!
//! A store or a scheduler that hangs holds nothing up: the last figures are given then.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::timeout;

use crate::control::{Answer, Status};
use crate::daemon::handle::Handle;
use crate::daemon::metrics::{CONTENT_TYPE, Figures};
use crate::poll::Command;

/// How long figures are waited for: a disk that hangs holds up these, and nothing else.
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
            going: figures.standing.runs.values().sum(),
            ended: figures.ended.iter().map(|(_, count)| count.unsigned_abs()).sum(),
            deliveries_pending: figures.outbox.iter().map(|stats| stats.pending).sum(),
            troubles: self.troubles(),
        }
    }

    /// How it stands; what cannot be found out in time is as it last was.
    async fn figures(&self) -> Figures {
        let parts = self.parts_now();
        let store = &parts.store;
        let (standing, ended, outbox) = tokio::join!(
            timeout(FIGURES_PATIENCE, self.ask(&parts, Command::Standing)),
            timeout(FIGURES_PATIENCE, store.ended_by_status()),
            timeout(FIGURES_PATIENCE, store.stats()),
        );
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(Ok(standing)) = standing {
            figures.standing = standing;
        }
        if let Ok(Ok(ended)) = ended {
            figures.ended = ended;
        }
        if let Ok(Ok(outbox)) = outbox {
            figures.outbox = outbox;
        }
        figures.clone()
    }

    /// What Prometheus reads.
    pub(in crate::daemon) async fn metrics(&self) -> Answer {
        let budget = self.parts_now().requests_per_minute;
        let figures = self.figures().await;
        match self.metrics.render(&self.counters, &figures, budget) {
            Ok(text) => Answer::text(200, CONTENT_TYPE, text),
            Err(error) => Answer::error(500, error.to_string()),
        }
    }
}
