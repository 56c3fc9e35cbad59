//! Detects that the machine was suspended: timers stop during that time, so deadlines may have passed.
//!
//! Linux wakes a timer that asks for jumps of the wall clock (`timerfd_create(2)`, `TFD_TIMER_CANCEL_ON_SET`) when the
//! machine resumes. So nothing polls the clock, and an idle daemon stays idle.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Minimum length of a suspension. A shorter difference is noise, because the two clocks are not read at the same
/// moment.
const SHORTEST: Duration = Duration::from_secs(1);

/// A time far in the future, because the timer is only needed for clock jumps.
const NEVER: i64 = i64::MAX / 2_000_000_000;

/// Waits for the machine to resume.
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

    /// Returns how long the machine was suspended, once it resumes.
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
            // The clock may only have been set.
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

/// Total suspended time since boot: the difference between two clocks.
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
