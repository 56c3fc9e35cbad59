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
            if let Some(slept) = slept(&mut self.asleep, asleep()) {
                return slept;
            }
        }
    }
}

/// How long the machine was suspended since the last look, if it was.
fn slept(before: &mut Duration, asleep: Duration) -> Option<Duration> {
    let slept = asleep.saturating_sub(std::mem::replace(before, asleep));
    (slept >= SHORTEST).then_some(slept)
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
    use std::sync::Arc;

    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::{Overrides, parse};
    use crate::daemon::state::State;
    use crate::daemon::{Daemon, Reread};
    use crate::poll::{Counters, Update};

    #[tokio::test]
    async fn the_kernel_lets_us_wait_and_nothing_comes_of_itself() {
        let mut resume = Resume::new().unwrap();
        let next = tokio::time::timeout(Duration::from_millis(20), resume.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    #[test]
    fn a_suspension_counts_once_and_the_difference_of_two_readings_never() {
        let mut before = Duration::from_secs(100);
        let asleep = [100_000, 100_999, 101_999, 5000, 6000, 6000].map(Duration::from_millis);
        let found = asleep.map(|asleep| slept(&mut before, asleep).map(|slept| slept.as_millis()));
        assert_eq!(found, [None, None, Some(1000), None, Some(1000), None]);
    }

    #[tokio::test]
    async fn every_run_is_polled_after_a_suspension_on_a_new_connection() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = listener.local_addr().unwrap();
        // Answers one request on a connection, and keeps it open.
        let answered = async || {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(connection.read_u8().await.unwrap());
            }
            let body = r#"{"id":"r","status":"PROCESSING"}"#;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}",
                body.len()
            );
            connection.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
            connection
        };
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[api]\nbase_url = \"http://{api}\"\n[poll]\ninitial_interval = \"1h\"\nmax_interval = \"1h\"\n\
             eagerness = \"off\"\nbatch = \"never\"\n[[run]]\nid = \"r\"\n"
        );
        let file = std::path::Path::new("config.toml");
        let env = |name: &str| (name == "DATAFRAMER_API_KEY").then(|| "key".into());
        let config = parse(Some((file, &text)), &env, &Overrides::default()).unwrap().config;
        let reread = Reread { file: None, read: Arc::new(|| Err("it is not read again".to_owned())) };
        let state = State::open(&dir.path().join("state")).unwrap();
        let (orders, _ordered) = mpsc::channel(1);
        let counters = Arc::new(Counters::default());
        let mut daemon = Daemon::start(config, &state, counters, orders, reread).await.unwrap();
        let mut first = answered().await;
        // Only an answer ends the poll.
        while !matches!(daemon.running.updates.recv().await.unwrap(), Update::Run(run, _) if run.polls > 0) {}
        daemon.resumed(Duration::from_hours(8)).await;
        // The next poll is due in an hour.
        let second = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::select! {
                second = answered() => second,
                Ok(_) = first.read_u8() => panic!("a request came on the old connection"),
            }
        });
        let second = second.await.unwrap();
        drop((first, second));
        let stopped = daemon.running.stop(Duration::ZERO, Duration::ZERO, CancellationToken::new()).await;
        assert!(stopped.is_ok());
    }
}
