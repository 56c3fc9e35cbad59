//! The command channel: runs the user's program, without a shell.
//!
//! Owns standard input (the event as JSON) and the program's end. `environment` decides which variables are inherited,
//! and `variables` describes the event. After the timeout, the whole process group is killed.

use std::fmt;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr};
use tokio::time::timeout;

use super::environment::{self, Program};
use super::variables;
use super::{LONGEST_ANSWER, Notice, Notifier, NotifyError};
use crate::BoxFuture;
use crate::run::printable;
use crate::secret::REDACTED;

/// How long to read standard error after the program has ended.
const STDERR_DRAIN: Duration = Duration::from_millis(100);

/// Settings of a command channel. `Debug` shows no arguments, because they may contain tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandSettings {
    /// The program.
    pub program: String,
    /// Its arguments, passed unchanged.
    pub arguments: Vec<String>,
    /// Maximum run time.
    pub timeout: Duration,
}

impl CommandSettings {
    /// The program as messages name it. If it contains a whole command line, only the part before the first blank,
    /// because arguments may contain tokens.
    pub fn shown_program(&self) -> String {
        match self.program.split_once(char::is_whitespace) {
            Some((program, _)) => format!("{program} …"),
            None => self.program.clone(),
        }
    }
}

impl fmt::Debug for CommandSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandSettings")
            .field("program", &self.shown_program())
            .field("arguments", &vec![REDACTED; self.arguments.len()])
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// Runs a program for each event.
#[derive(Debug)]
pub struct CommandNotifier {
    settings: CommandSettings,
}

impl CommandNotifier {
    /// Creates the channel. Starts nothing.
    pub fn new(settings: CommandSettings) -> Self {
        Self { settings }
    }

    async fn run(&self, notice: &Notice) -> Result<(), NotifyError> {
        let program = self.settings.shown_program();
        let mut child = self
            .prepared(notice)
            .spawn()
            .map_err(|error| NotifyError::retryable(format!("cannot start {program}: {error}")))?;
        let mut group = Group::of(&child);
        match timeout(self.settings.timeout, attend(&mut child, notice)).await {
            Err(_) => {
                drop(group);
                // It was killed, so who reaps it does not matter.
                let _ = timeout(STDERR_DRAIN, child.wait()).await;
                Err(NotifyError::retryable(format!(
                    "{program} did not finish within {} and was killed",
                    crate::span::human(self.settings.timeout)
                )))
            }
            Ok(Err(error)) => Err(NotifyError::retryable(format!("cannot wait for {program}: {error}"))),
            Ok(Ok((status, complaint))) => {
                // Processes that the program leaves running on purpose may continue.
                group.release();
                if status.success() {
                    return Ok(());
                }
                Err(NotifyError::retryable(format!("{program} failed ({status})")).with_answer(complaint))
            }
        }
    }

    fn prepared(&self, notice: &Notice) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.settings.program);
        command
            .args(&self.settings.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command.env_clear().envs(environment::inherited(std::env::vars_os(), Program::Channel));
        command.envs(variables::of_event(notice.event_id.as_str(), &notice.payload, notice.attempt));
        command
    }
}

impl Notifier for CommandNotifier {
    fn send<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(self.run(notice))
    }
}

/// A program's process group. Killed when dropped, even if the end of runwatch cancels the attempt.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }

    /// Does not kill the group when dropped.
    fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The group may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Writes the event to the program, reads its standard error and waits for its end.
async fn attend(child: &mut Child, notice: &Notice) -> std::io::Result<(std::process::ExitStatus, String)> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program need not read its input.
            let _ = stdin.write_all(notice.json.as_bytes()).await;
            let _ = stdin.write_all(b"\n").await;
        }
    };
    let complaints = Arc::new(Mutex::new(Vec::new()));
    let listen = listen(stderr, Arc::clone(&complaints));
    tokio::pin!(feed, listen);
    let (mut has_fed, mut heard) = (false, false);
    let status = loop {
        tokio::select! {
            () = &mut feed, if !has_fed => has_fed = true,
            () = &mut listen, if !heard => heard = true,
            status = child.wait() => break status?,
        }
    };
    if !heard {
        // Only the program's end counts. A child of it may keep the stream open for long.
        let _ = timeout(STDERR_DRAIN, listen).await;
    }
    let complaint = complaints.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((status, printable(&String::from_utf8_lossy(&complaint), LONGEST_ANSWER)))
}

/// Keeps the start of standard error, and reads the rest so that the program does not block.
async fn listen(stderr: Option<ChildStderr>, kept: Arc<Mutex<Vec<u8>>>) {
    let Some(mut stderr) = stderr else { return };
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = LONGEST_ANSWER.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::run::text::is_hidden;
    use crate::run::{Event, RunStatus};

    #[test]
    fn no_hidden_character_is_in_the_variables_and_the_json_is_as_it_was() {
        let bad = "a\u{202e}b\u{200b}c\0\u{1b}[1m\nd";
        let mut event = Event::test(crate::clock::wall());
        event.payload.data.run_name = Some(bad.into());
        event.payload.data.reason = Some(bad.into());
        event.payload.data.status = Some(RunStatus::Unknown(Some(bad.into())));
        let json = serde_json::to_string(&event.payload).unwrap().into();
        let notice = Notice { event_id: event.id, payload: event.payload, json, attempt: 1 };
        let settings = CommandSettings {
            program: "true".to_owned(),
            arguments: Vec::new(),
            timeout: Duration::from_secs(1),
        };
        let command = CommandNotifier::new(settings).prepared(&notice);
        let ours = |(name, value): (&OsStr, Option<&OsStr>)| {
            let name = name.to_str()?.strip_prefix("RUNWATCH_")?.to_owned();
            Some((name, value?.to_str()?.to_owned()))
        };
        let ours: Vec<_> = command.as_std().get_envs().filter_map(ours).collect();
        for (name, value) in &ours {
            assert!(!value.chars().any(|c| c != '\n' && is_hidden(c)), "{name}={value:?}");
        }
        for name in ["RUN_NAME", "REASON", "STATUS"] {
            let value = ours.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
            assert_eq!(value, Some("a b c [1m d"), "{name}");
        }
        assert!(notice.json.contains("a\u{202e}b\u{200b}c"), "a machine gets what the API said");
    }
}
