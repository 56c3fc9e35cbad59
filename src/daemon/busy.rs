//! Waits for a port, a socket or a state directory that an earlier daemon is about to release.
//!
//! Decides how long a start waits. A start that gives up exits with code 70, so that a service manager starts the
//! daemon again; 78 would stop it for good. Used only when the daemon starts.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::DaemonError;

/// Maximum time that a start waits for something in use.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether listening on an address fails now but may work later: it is in use, or the network is not up yet.
pub(super) fn may_pass(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// Repeats an attempt while it fails with [`DaemonError::Busy`], for [`PATIENCE`] at most. `None` if the daemon is
/// asked to stop meanwhile.
pub(super) async fn patiently<T>(
    stop: &CancellationToken,
    mut attempt: impl AsyncFnMut() -> Result<T, DaemonError>,
) -> Result<Option<T>, DaemonError> {
    let until = Instant::now() + PATIENCE;
    let mut said = false;
    loop {
        match attempt().await {
            Err(DaemonError::Busy(error)) if Instant::now() < until => {
                if !std::mem::replace(&mut said, true) {
                    warn!("{error}; retrying for {}", crate::span::human(PATIENCE));
                }
            }
            result => return result.map(Some),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = sleep(PAUSE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> DaemonError {
        DaemonError::Busy("in use".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_what_is_released_soon() {
        let released_at = Instant::now() + Duration::from_secs(3);
        let attempt = async || if Instant::now() < released_at { Err(busy()) } else { Ok(7) };
        assert!(matches!(patiently(&CancellationToken::new(), attempt).await, Ok(Some(7))));
        assert!(Instant::now() < released_at + PAUSE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_after_its_time_and_at_once_on_anything_else() {
        let began = Instant::now();
        let result = patiently(&CancellationToken::new(), async || Err::<(), _>(busy())).await;
        assert!(matches!(result, Err(DaemonError::Busy(_))));
        assert!(began.elapsed() >= PATIENCE && began.elapsed() < PATIENCE + PAUSE * 2);
        let began = Instant::now();
        let refused = async || Err::<(), _>(DaemonError::Config("no".to_owned()));
        assert!(matches!(patiently(&CancellationToken::new(), refused).await, Err(DaemonError::Config(_))));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn can_be_asked_to_stop_meanwhile() {
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(matches!(patiently(&stop, async || Err::<(), _>(busy())).await, Ok(None)));
    }
}
