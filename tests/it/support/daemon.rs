//! A daemon on the built binary, with its state and socket in a directory of its own, and what it tells its service manager.

use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::bin::{Output, Running, runwatch};
use super::stub::Stub;
use super::until::{found, until};

/// Settings that make polling quick.
const QUICK: &str = "[poll]\ninitial_interval = \"10ms\"\nmax_interval = \"20ms\"\nerror_initial_interval = \"10ms\"\n\
                     error_max_interval = \"20ms\"\nrequests_per_minute = 60000\n";

/// No test waits longer for a word of the daemon's.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where daemons live, one after the other.
pub struct Home {
    dir: tempfile::TempDir,
    manager: UnixDatagram,
    api: String,
}

impl Home {
    /// A new one, for an API.
    pub fn new(api: &Stub) -> Self {
        Self::at(&api.url())
    }

    /// A new one, for an API at this address.
    pub fn at(api: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { dir, manager, api: api.to_owned() }
    }

    /// The same one, for another API.
    #[must_use]
    pub fn with_api(self, api: &str) -> Self {
        Self { api: api.to_owned(), ..self }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the state is.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Writes the configuration, with quick polling.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.path("config.toml"), format!("{QUICK}{text}")).unwrap();
    }

    /// Starts a daemon, and waits for nothing.
    pub fn spawn(&self) -> Running {
        self.prepared(&["daemon"]).env("NOTIFY_SOCKET", self.path("notify")).spawn()
    }

    /// Starts a daemon with more arguments, and waits until it is ready.
    pub fn start_with(&self, args: &[&str]) -> Running {
        let running =
            self.prepared(&[&["daemon"], args].concat()).env("NOTIFY_SOCKET", self.path("notify")).spawn();
        self.wait_for("READY=1");
        running
    }

    /// Starts a daemon that also serves on a port, with more settings of `[daemon]`, and waits until it is ready; gives the
    /// port's address. The system chooses the port: one that was free a moment ago may be taken.
    pub fn start_on_port(&self, settings: &str) -> (Running, String) {
        self.configure(&format!("[daemon]\nlisten = \"127.0.0.1:0\"\n{settings}\n"));
        let log = self.path("log");
        let daemon = self.prepared(&["daemon"]).env("NOTIFY_SOCKET", self.path("notify")).log(&log).spawn();
        self.wait_for("READY=1");
        let (_, address) = connect_to_port(|| std::fs::read_to_string(&log).unwrap());
        (daemon, address)
    }

    /// Starts a daemon that may never say that it is ready; waits until its socket answers.
    pub fn start_unheard(&self, args: &[&str]) -> Running {
        let running =
            self.prepared(&[&["daemon"], args].concat()).env("NOTIFY_SOCKET", self.path("notify")).spawn();
        until("the daemon's socket", || UnixStream::connect(self.socket()).is_ok());
        running
    }

    /// Starts a daemon, and waits until it is ready.
    pub fn start(&self) -> Running {
        self.start_with(&[])
    }

    /// Runs another command against it.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        self.prepared(args).run()
    }

    /// Any command in it, to be started.
    pub fn prepared(&self, args: &[&str]) -> super::bin::Runwatch {
        if !self.path("config.toml").exists() {
            self.configure("");
        }
        runwatch(args)
            .base_url(&self.api)
            .env("STATE_DIRECTORY", self.state())
            .env("RUNWATCH_CONFIG", self.path("config.toml"))
    }

    /// Waits for a word to the service manager; gives the whole message.
    #[track_caller]
    pub fn wait_for(&self, word: &str) -> String {
        let mut buffer = [0; 4096];
        let mut heard = Vec::new();
        loop {
            let Ok(length) = self.manager.recv(&mut buffer) else {
                panic!("the daemon never said `{word}`; it said {heard:?}")
            };
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.contains(word) {
                return message;
            }
            heard.push(message);
        }
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.state().join("runwatch.sock")
    }
}

/// A connection to the port that a daemon last served on, and its address, from its log. The log may be a moment late.
#[track_caller]
pub fn connect_to_port(log: impl Fn() -> String) -> (TcpStream, String) {
    found("the daemon's port", || {
        let log = log();
        let address =
            log.rsplit_once("serving metrics on http://").and_then(|(_, rest)| rest.split_once("/metrics"));
        let (address, _) = address.ok_or_else(|| log.clone())?;
        let stream = TcpStream::connect(address).map_err(|error| format!("{error}: {log}"))?;
        Ok((stream, address.to_owned()))
    })
}

/// Ends a daemon in order; gives its log.
#[track_caller]
pub fn stop(daemon: Running) -> String {
    daemon.signal(Signal::TERM);
    let output = daemon.wait();
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stderr
}

/// One request to a socket, as curl would send it; gives the status and the body.
pub fn ask(socket: &Path, request: &str) -> (u16, String) {
    use std::io::{Read as _, Write as _};
    let mut stream = UnixStream::connect(socket).unwrap();
    let (line, body) = request.split_once('\n').unwrap_or((request, ""));
    let length = body.len();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    split(&answer)
}

/// The same over TCP.
pub fn ask_port(address: &str, line: &str) -> (u16, String) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    split(&answer)
}

fn split(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
