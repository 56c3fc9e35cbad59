//! The command channel: runs a program of the user's, without a shell.
//!
//! Owns its environment (`RUNWATCH_*` in, our secrets out), its standard input (the event as JSON) and its end: when the
//! time is up, the whole process group is killed.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr};
use tokio::time::timeout;

use super::{Message, Notice, Notifier, NotifyError};
use crate::BoxFuture;
use crate::run::printable;

/// Variables that hold secrets of ours and are no business of the program's.
const SECRETS: [&str; 3] = ["DATAFRAMER_API_KEY", "DATAFRAMER_CUSTOM_HEADERS", "CREDENTIALS_DIRECTORY"];

/// How much of the program's complaint is kept, in bytes.
const MAX_STDERR: u64 = 2048;

/// What a command channel needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSettings {
    /// The program.
    pub program: String,
    /// Its arguments, given as they are.
    pub arguments: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Tells events to a program.
#[derive(Debug)]
pub struct Command {
    settings: CommandSettings,
}

impl Command {
    /// A channel for this program. Nothing is started yet.
    pub fn new(settings: CommandSettings) -> Self {
        Self { settings }
    }

    async fn run(&self, notice: &Notice) -> Result<(), NotifyError> {
        let program = &self.settings.program;
        let mut child = self
            .prepared(notice)
            .spawn()
            .map_err(|error| NotifyError::retryable(format!("cannot start {program}: {error}")))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let finished = timeout(self.settings.timeout, attend(&mut child, notice)).await;
        if let (Err(_), Some(group)) = (&finished, group) {
            // Gone already is as good as killed.
            let _ = kill_process_group(group, Signal::KILL);
            let _ = child.wait().await;
        }
        match finished {
            Err(_) => Err(NotifyError::retryable(format!(
                "{program} did not finish within {} and was killed",
                crate::span::human(self.settings.timeout)
            ))),
            Ok(Err(error)) => Err(NotifyError::retryable(format!("cannot wait for {program}: {error}"))),
            Ok(Ok((status, _))) if status.success() => Ok(()),
            Ok(Ok((status, complaint))) => {
                let said = if complaint.is_empty() { complaint } else { format!(": {complaint}") };
                Err(NotifyError::retryable(format!("{program} failed ({status}){said}")))
            }
        }
    }

    fn prepared(&self, notice: &Notice) -> tokio::process::Command {
        let data = &notice.payload.data;
        let Message { title, body, .. } = Message::of(&notice.payload);
        let count = |count: Option<u64>| count.map(|count| count.to_string());
        let mut command = tokio::process::Command::new(&self.settings.program);
        command
            .args(&self.settings.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        for secret in SECRETS {
            command.env_remove(secret);
        }
        for (name, value) in [
            ("RUNWATCH_EVENT_ID", Some(notice.event_id.to_string())),
            ("RUNWATCH_EVENT_TYPE", Some(notice.payload.kind.to_string())),
            ("RUNWATCH_EVENT_TIMESTAMP", Some(notice.payload.timestamp.to_string())),
            ("RUNWATCH_ATTEMPT", Some(notice.attempt.to_string())),
            ("RUNWATCH_TITLE", Some(title)),
            ("RUNWATCH_BODY", Some(body)),
            ("RUNWATCH_RUN_ID", data.run_id.as_ref().map(ToString::to_string)),
            ("RUNWATCH_RUN_NAME", data.run_name.clone()),
            ("RUNWATCH_STATUS", data.status.as_ref().map(ToString::to_string)),
            ("RUNWATCH_REASON", data.reason.clone()),
            ("RUNWATCH_SAMPLES_COMPLETED", count(data.samples_completed)),
            ("RUNWATCH_SAMPLES_FAILED", count(data.samples_failed)),
            ("RUNWATCH_NUMBER_OF_SAMPLES", count(data.number_of_samples)),
        ] {
            match value {
                // A NUL cannot be passed and would make the start fail.
                Some(value) => command.env(name, value.replace('\0', "")),
                None => command.env_remove(name),
            };
        }
        command
    }
}

impl Notifier for Command {
    fn send<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(self.run(notice))
    }
}

/// Feeds the event to the program, listens to its complaints and waits for its end.
async fn attend(child: &mut Child, notice: &Notice) -> std::io::Result<(std::process::ExitStatus, String)> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input is none the worse for it.
            let _ = stdin.write_all(notice.json.as_bytes()).await;
            let _ = stdin.write_all(b"\n").await;
        }
    };
    let ((), complaint, status) = tokio::join!(feed, complaint(stderr), child.wait());
    Ok((status?, complaint))
}

async fn complaint(stderr: Option<ChildStderr>) -> String {
    let Some(stderr) = stderr else { return String::new() };
    let mut kept = Vec::new();
    let mut reader = stderr.take(MAX_STDERR);
    // What cannot be read is not reported.
    let _ = reader.read_to_end(&mut kept).await;
    // The rest is drained, so that the program does not block on it.
    let _ = tokio::io::copy(&mut reader.into_inner(), &mut tokio::io::sink()).await;
    printable(&String::from_utf8_lossy(&kept), 300)
}
