//! What the service manager is told, by the protocol of `sd_notify(3)`. Without one, nothing is told and nothing is wrong.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// Up, and working.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reading the configuration again, since now.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!("cannot read the monotonic clock: {error}"),
    }
}

/// On the way out.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Whether there is somebody to tell.
pub(super) fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// What goes on, for `systemctl status`.
pub(super) fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Alive, and moving.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often a sign of life is due: twice in the time after which the service manager loses patience.
pub(super) fn sign_of_life_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2).filter(|every| !every.is_zero())
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!("cannot tell the service manager: {error}");
    }
}
