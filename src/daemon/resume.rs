//! Notices that the machine was asleep: timers stand still meanwhile, and what was waited for may have happened.
//!
//! Linux wakes a timer that wants to know of jumps of the wall clock (`timerfd_create(2)`, `TFD_TIMER_CANCEL_ON_SET`) when the
//! machine resumes. So nothing has to look at the clock every now and then, and an idle daemon stays asleep.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Shorter than this is no sleep: the two clocks are not read at the same moment.
const SHORTEST: Duration = Duration::from_secs(1);

/// Far in the future: the timer is there for the jumps only.
const NEVER: i64 = i64::MAX / 2_000_000_000;

/// Waits for the machine to wake up.
pub(super) struct Resume {
    timer: AsyncFd<OwnedFd>,
    asleep: Duration,
}

impl Resume {
    pub(super) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        arm(&timer)?;
        #[expect(
            deprecated,
            reason = "what replaces it is `unsafe`; this descriptor is owned and never replaced"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, asleep: asleep() })
    }

    /// Comes back when the machine has slept; with for how long.
    pub(super) async fn next(&mut self) -> Duration {
        loop {
            let Ok(mut guard) = self.timer.readable().await else { return std::future::pending().await };
            let mut buffer = [0; 8];
            match rustix::io::read(self.timer.get_ref(), &mut buffer) {
                Err(Errno::CANCELED) | Ok(_) => {
                    if arm(self.timer.get_ref()).is_err() {
                        return std::future::pending().await;
                    }
                }
                Err(Errno::AGAIN) => {
                    guard.clear_ready();
                    continue;
                }
                Err(_) => return std::future::pending().await,
            }
            // The clock may also just have been set.
            let before = std::mem::replace(&mut self.asleep, asleep());
            let slept = self.asleep.saturating_sub(before);
            if slept >= SHORTEST {
                return slept;
            }
        }
    }
}

fn arm(timer: &OwnedFd) -> io::Result<()> {
    let never = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: NEVER, tv_nsec: 0 },
    };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never)?;
    Ok(())
}

/// How long the machine has slept since it was started: what one clock counts and the other does not.
fn asleep() -> Duration {
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    read(ClockId::Boottime).saturating_sub(read(ClockId::Monotonic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_lets_us_wait_and_nothing_comes_of_itself() {
        let mut resume = Resume::new().unwrap();
        let next = tokio::time::timeout(Duration::from_millis(20), resume.next()).await;
        assert!(next.is_err(), "{next:?}");
    }
}
