//! The built binary, started in an environment of its own: nothing of the machine's reaches it.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::stub::Stub;

/// No test takes longer; a command that does is killed and fails its test.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings that make polling quick.
const QUICK: &str = "[poll]\ninitial_interval = \"10ms\"\nmax_interval = \"20ms\"\nerror_initial_interval = \"10ms\"\n\
                     error_max_interval = \"20ms\"\nrequests_per_minute = 60000\n";

/// A command line to be run.
pub struct Runwatch {
    command: Command,
    /// Where standard error goes, if it is not to be read.
    log: Option<std::fs::File>,
    home: tempfile::TempDir,
}

/// What came of it.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// `runwatch` with these arguments and a key, but without an API.
pub fn runwatch(args: &[&str]) -> Runwatch {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_runwatch"));
    command.args(args).env_clear().env("HOME", home.path()).env("DATAFRAMER_API_KEY", "test-key");
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Runwatch { command, log: None, home }
}

impl Runwatch {
    /// Against this API.
    pub fn api(self, stub: &Stub) -> Self {
        let url = stub.url();
        self.base_url(&url)
    }

    /// Against this base URL.
    pub fn base_url(self, url: &str) -> Self {
        self.env("DATAFRAMER_BASE_URL", url)
    }

    /// With this variable.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Without this variable.
    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// With a configuration file.
    pub fn config(self, text: &str) -> Self {
        let path = self.home.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        self.env("RUNWATCH_CONFIG", &path)
    }

    /// With quick polling, and this added to the configuration.
    pub fn quick(self, text: &str) -> Self {
        self.config(&format!("{QUICK}{text}"))
    }

    /// With standard input coming from there.
    pub fn stdin(mut self, from: impl Into<Stdio>) -> Self {
        self.command.stdin(from);
        self
    }

    /// With standard output going there.
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stdout(to);
        self
    }

    /// With standard error going there.
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stderr(to);
        self
    }

    /// With standard error added to this file.
    pub fn log(mut self, path: &std::path::Path) -> Self {
        self.log = Some(std::fs::File::options().create(true).append(true).open(path).unwrap());
        self
    }

    /// Started by another program, which has these arguments before its own.
    pub fn under(mut self, program: &std::path::Path, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).arg(self.command.get_program()).args(self.command.get_args()).env_clear();
        command.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command = command;
        self
    }

    /// As another user than root, who has the program and its home.
    pub fn of_user(self, uid: u32, setpriv: &std::path::Path) -> Self {
        let program = self.home.path().join("runwatch");
        // By a process of its own: a file that this one had open for writing may still be so in a child that another test is
        // starting, and is then too busy to be run.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_runwatch")).arg(&program).status().unwrap();
        assert!(copied.success());
        for entry in std::fs::read_dir(self.home.path()).unwrap() {
            std::os::unix::fs::chown(entry.unwrap().path(), Some(uid), Some(uid)).unwrap();
        }
        std::os::unix::fs::chown(self.home.path(), Some(uid), Some(uid)).unwrap();
        let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
        let script = format!("shift; exec {} \"$@\"", program.display());
        let args = [&ids[0], &ids[1], "--clear-groups", "--", "sh", "-c", &script, "sh"];
        self.under(setpriv, &args)
    }

    /// Starts it.
    pub fn spawn(mut self) -> Running {
        if let Some(log) = self.log {
            self.command.stderr(log);
        }
        let child = self.command.spawn().unwrap();
        Running { child, _home: self.home }
    }

    /// Runs it to its end.
    pub fn run(self) -> Output {
        self.spawn().wait()
    }
}

/// A command at work.
pub struct Running {
    child: Child,
    _home: tempfile::TempDir,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Its standard output, to be read while it runs.
    pub fn take_stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// Its standard error, to be read while it runs.
    pub fn take_stderr(&mut self) -> std::process::ChildStderr {
        self.child.stderr.take().unwrap()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Output {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (done, is_done) = channel::<()>();
        let pid = self.pid();
        let watchdog = std::thread::spawn(move || {
            if is_done.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        });
        let stdout = std::thread::spawn(move || read(stdout));
        let stderr = read(stderr);
        let stdout = stdout.join().unwrap();
        let status = self.child.wait().unwrap();
        drop(done);
        watchdog.join().unwrap();
        Output { code: status.code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read(stream: Option<impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut bytes).unwrap();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until a process, anybody's, has ended.
pub fn wait_until_gone(pid: i32) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    // What is not there has ended.
    let Ok(process) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) else { return };
    let patience = Timespec::try_from(PATIENCE).unwrap();
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(ended, 1, "process {pid} is still there");
}
