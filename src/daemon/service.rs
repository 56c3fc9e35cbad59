//! Messages to the service manager by the protocol of `sd_notify(3)`. Without a service manager, nothing is sent.
//!
//! Every send is non-blocking, because the daemon must never wait for a manager that does not read its socket.
//! Important states are queued in order and sent until they are accepted. A refused watchdog message is dropped,
//! because the next one is as good. Called by the daemon's loop.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::{debug, info, warn};

use crate::run::printable;

/// Pause before a refused state is sent again. It doubles with each refusal, up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Maximum length of a status line, in characters. systemd ignores messages of more than 4096 bytes
/// (`NOTIFY_BUFFER_MAX`).
const LONGEST_STATUS: usize = 900;

/// Maximum number of queued messages. The oldest is dropped, because later ones describe the current state.
const LONGEST_QUEUE: usize = 64;

/// The service manager, if there is one. Cheap to clone.
#[derive(Clone)]
pub(super) struct Manager {
    shared: Arc<Shared>,
}

struct Shared {
    address: Option<SocketAddr>,
    waiting: Mutex<Waiting>,
}

/// Messages that the manager has not accepted yet.
#[derive(Default)]
struct Waiting {
    messages: VecDeque<Message>,
    /// Whether a task is sending them.
    busy: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Message {
    /// Whether it is a status line only, which a newer one replaces.
    is_status: bool,
    text: String,
}

impl Manager {
    /// The manager that `$NOTIFY_SOCKET` names.
    pub(super) fn of_environment() -> Self {
        Self::at(std::env::var_os("NOTIFY_SOCKET").as_deref())
    }

    /// The manager at a path, or at an abstract address if it begins with `@`.
    fn at(path: Option<&OsStr>) -> Self {
        let address = path.filter(|path| !path.is_empty()).and_then(|path| {
            let address = match path.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(path),
            };
            address.inspect_err(|error| warn!("NOTIFY_SOCKET cannot be used: {error}")).ok()
        });
        Self { shared: Arc::new(Shared { address, waiting: Mutex::default() }) }
    }

    /// The daemon is ready.
    pub(super) fn ready(&self, status: &str) {
        self.state(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
    }

    /// The daemon is reading its configuration again.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.state(&[NotifyState::Reloading, now]),
            Err(error) => debug!("cannot read the monotonic clock: {error}"),
        }
    }

    /// The daemon is stopping.
    pub(super) fn stopping(&self) {
        self.state(&[NotifyState::Stopping]);
    }

    /// Whether there is a service manager.
    pub(super) fn is_there(&self) -> bool {
        self.shared.address.is_some()
    }

    /// The status line for `systemctl status`.
    pub(super) fn status(&self, status: &str) {
        let text = NotifyState::Status(&line(status)).to_string();
        self.shared.queue(Message { is_status: true, text });
        self.send_waiting();
    }

    /// A watchdog message. Dropped if the manager does not accept it at once.
    pub(super) fn alive(&self) {
        if self.shared.lock().messages.is_empty()
            && let Err(error) = self.shared.send(&NotifyState::Watchdog.to_string())
        {
            debug!("the service manager did not accept a watchdog message: {error}");
        }
    }

    fn state(&self, states: &[NotifyState<'_>]) {
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        self.shared.queue(Message { is_status: false, text: lines.join("\n") + "\n" });
        self.send_waiting();
    }

    /// Sends queued messages. If the manager does not accept them, a task continues.
    fn send_waiting(&self) {
        if self.shared.address.is_none() || self.shared.lock().busy || self.shared.send_all() {
            return;
        }
        // Without a runtime, the next state tries again.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        self.shared.lock().busy = true;
        warn!("the service manager does not read its socket; still trying");
        let shared = Arc::clone(&self.shared);
        runtime.spawn(async move {
            let mut pause = FIRST_PAUSE;
            while !shared.send_all() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            info!("the service manager reads its socket again");
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, message: Message) {
        if self.address.is_none() {
            return;
        }
        let mut waiting = self.lock();
        if message.is_status && waiting.messages.back().is_some_and(|last| last.is_status) {
            waiting.messages.pop_back();
        } else if waiting.messages.len() >= LONGEST_QUEUE {
            waiting.messages.pop_front();
        }
        waiting.messages.push_back(message);
    }

    /// Sends queued messages in order. Returns whether all were accepted.
    fn send_all(&self) -> bool {
        let mut waiting = self.lock();
        while let Some(message) = waiting.messages.front() {
            match self.send(&message.text) {
                Err(error) if is_full(&error) => return false,
                Err(error) => debug!("cannot notify the service manager: {error}"),
                Ok(()) => {}
            }
            waiting.messages.pop_front();
        }
        waiting.busy = false;
        true
    }

    /// Sends one message without blocking. Uses a new socket each time, because the manager may have made its own
    /// again.
    fn send(&self, text: &str) -> io::Result<()> {
        let Some(address) = &self.address else { return Ok(()) };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(text.as_bytes(), address).map(|_| ())
    }
}

/// Whether the manager may accept the same message later.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::NOBUFS)
}

/// A single line of limited length: a line break would begin another assignment.
fn line(status: &str) -> String {
    printable(status, LONGEST_STATUS)
}

/// Interval between watchdog messages: half of the service manager's timeout.
pub(super) fn sign_of_life_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2).filter(|every| !every.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager's socket that accepts no more messages, and its client.
    fn full(dir: &std::path::Path) -> (UnixDatagram, Manager, usize) {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        let filled = (0..1_000_000).take_while(|_| sender.send_to(b"filler", &path).is_ok()).count();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (socket, Manager::at(Some(path.as_os_str())), filled)
    }

    fn next(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[tokio::test]
    async fn a_manager_that_does_not_read_holds_nothing_up_and_gets_every_state_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, manager, filled) = full(dir.path());
        // On this thread, so that a blocking send would never return.
        manager.ready("0 runs");
        manager.reloading();
        manager.alive();
        for count in 1..=1000 {
            manager.status(&format!("{count} runs"));
        }
        manager.ready("3 runs");
        manager.stopping();
        let read = tokio::task::spawn_blocking(move || {
            assert!((0..filled).all(|_| next(&socket) == "filler"));
            (0..5).map(|_| next(&socket)).collect::<Vec<_>>()
        });
        let read = read.await.unwrap();
        assert_eq!(read[0], "READY=1\nSTATUS=0 runs\n");
        assert!(read[1].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{read:?}");
        assert_eq!(read[2..], ["STATUS=1000 runs", "READY=1\nSTATUS=3 runs\n", "STOPPING=1\n"]);
        // It is accepted again.
        while manager.shared.lock().busy {
            tokio::task::yield_now().await;
        }
        assert!(manager.shared.send_all());
    }

    #[tokio::test]
    async fn a_sign_of_life_that_is_refused_is_not_sent_late() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, manager, filled) = full(dir.path());
        manager.alive();
        assert!((0..filled).all(|_| next(&socket) == "filler"));
        manager.alive();
        assert_eq!(next(&socket), "WATCHDOG=1");
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 16]).is_err());
    }

    #[test]
    fn a_status_is_one_line_that_systemd_takes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(Some(path.as_os_str()));
        manager.status(&format!("x\nMAINPID=1\r\n{}", "é".repeat(5000)));
        let status = next(&socket);
        assert!(status.starts_with("STATUS=x MAINPID=1 é") && status.lines().count() == 1, "{status}");
        assert!(status.len() < 4096, "{}", status.len());
    }

    #[test]
    fn abstract_addresses_and_no_address() {
        let name = format!("runwatch-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let manager = Manager::at(Some(OsStr::new(&format!("@{name}"))));
        manager.stopping();
        assert_eq!(next(&socket), "STOPPING=1\n");
        assert!(!Manager::at(None).is_there() && !Manager::at(Some(OsStr::new(""))).is_there());
        Manager::at(None).ready("nobody");
    }
}
