//! The command after `--` of `watch` and `wait`: run at the end, with what is known of the runs in its environment.
//!
//! Owns which verdicts start it, its variables, the signals meanwhile, and what its end does to the exit code.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;

use clap::{Args, ValueHint};
use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, Command};

use super::choose::Choice;
use super::exit::Exit;
use super::out;
use super::signals::Signals;
use super::verdict::{Cut, Judged};
use crate::clock;
use crate::notify::Message;
use crate::notify::environment::{self, Program};
use crate::notify::variables::{self, Variable};
use crate::run::event::EventData;
use crate::run::{Event, printable};

/// Maximum length of `RUNWATCH_RUN_IDS`, in bytes. Linux starts no program with a variable of 128 KiB.
const LONGEST_IDS: usize = 100_000;

/// The command to run at the end.
#[derive(Debug, Args)]
pub struct Then {
    /// Run the command after `--` whatever the verdict; the exit code is then the verdict's, unless that is 0
    #[arg(long, requires = "command")]
    always: bool,

    /// Run this at the end if the verdict is 0, with `RUNWATCH_VERDICT`, `RUNWATCH_RUN_ID` and more in its
    /// environment; the exit code is then the command's
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::AnyPath)]
    command: Vec<OsString>,
}

impl Then {
    /// Moves the words after `--` to the runs if nothing before it chooses any: `wait -- RUN` names a run.
    pub(super) fn or_runs(&self, choice: &Choice) -> Result<(Self, Choice), Exit> {
        let none = || Self { always: self.always, command: Vec::new() };
        if choice.is_made() || self.command.is_empty() {
            return Ok((Self { always: self.always, command: self.command.clone() }, choice.clone()));
        }
        Choice::of_words(&self.command).map(|choice| (none(), choice)).map_err(|error| {
            out::error(error);
            Exit::Usage
        })
    }

    /// Checks that the command can be started: it would be a pity to find out after hours of waiting.
    pub(super) fn check(&self) -> Result<(), Exit> {
        let Some(program) = self.command.first() else { return Ok(()) };
        let executable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
        let path = Path::new(program);
        let found = if program.as_bytes().contains(&b'/') || program.is_empty() {
            Some(path.to_owned()).filter(|path| path.exists())
        } else {
            let dirs = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
            let mut paths: Vec<_> = std::env::split_paths(&dirs).map(|dir| dir.join(path)).collect();
            paths.retain(|path| path.is_file());
            paths.iter().find(|path| executable(path)).or(paths.first()).cloned()
        };
        match found {
            Some(path) if executable(&path) => Ok(()),
            Some(_) => Err(cannot_start(program, Exit::CannotRun, "it cannot be executed")),
            None => Err(cannot_start(program, Exit::NoCommand, "no such program")),
        }
    }

    /// Runs the command if the verdict asks for it, and returns the exit code of both. `source` is the API's base URL.
    ///
    /// A signal or a reader that left is no verdict: then nothing is run.
    pub(super) async fn run(
        &self,
        judged: &[Judged],
        verdict: Exit,
        cut: Cut,
        source: &str,
        signals: &mut Signals,
    ) -> Exit {
        let Some((program, arguments)) = self.command.split_first() else { return verdict };
        if matches!(cut, Cut::Signal(_) | Cut::NobodyReads) || (verdict != Exit::Succeeded && !self.always) {
            return verdict;
        }
        let mut command = Command::new(program);
        command.args(arguments).env_clear();
        command.envs(environment::inherited(std::env::vars_os(), Program::CommandLine));
        command.envs(of_result(judged, verdict, source));
        let ended = match command.spawn() {
            Ok(child) => attend(child, signals).await,
            Err(error) => {
                let exit = match error.kind() {
                    std::io::ErrorKind::NotFound => Exit::NoCommand,
                    _ => Exit::CannotRun,
                };
                cannot_start(program, exit, &error.to_string())
            }
        };
        if verdict == Exit::Succeeded { ended } else { verdict }
    }
}

fn cannot_start(program: &OsString, exit: Exit, why: &str) -> Exit {
    let program = printable(&program.to_string_lossy(), 200);
    out::error(format_args!("cannot run the command `{program}` after --: {why}"));
    exit
}

/// Waits for the command, and passes on the signals that it does not get itself.
async fn attend(mut child: Child, signals: &mut Signals) -> Exit {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    loop {
        let signal = tokio::select! {
            ended = child.wait() => return ended.map_or(Exit::Internal, of_status),
            signal = signals.next() => match signal {
                // The terminal has sent Ctrl-C to the command, too. A second one would mean more than was typed.
                Exit::Interrupted if is_in_foreground() => continue,
                Exit::Interrupted => Signal::INT,
                Exit::HungUp => Signal::HUP,
                _ => Signal::TERM,
            },
        };
        if let Some(pid) = pid {
            // It may have ended just now.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Whether this process's group is in the foreground of its terminal.
fn is_in_foreground() -> bool {
    std::fs::File::open("/dev/tty").is_ok_and(|tty| tcgetpgrp(&tty).is_ok_and(|group| group == getpgrp()))
}

/// The exit code that a shell gives it.
fn of_status(status: ExitStatus) -> Exit {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    match u8::try_from(code).unwrap_or(u8::MAX) {
        0 => Exit::Succeeded,
        code => Exit::Command(code),
    }
}

/// The variables of a result: those of the run that decides the verdict, as a command channel gets them, and those of all.
fn of_result(judged: &[Judged], verdict: Exit, source: &str) -> Vec<Variable> {
    let mut variables = vec![
        ("RUNWATCH_VERDICT", verdict.word().to_owned()),
        ("RUNWATCH_EXIT_CODE", verdict.code().to_string()),
    ];
    let ids: Vec<&str> = judged.iter().map(|judged| judged.run.watched.subject.id.as_str()).collect();
    variables.extend(Some(("RUNWATCH_RUN_IDS", ids.join(" "))).filter(|(_, ids)| ids.len() <= LONGEST_IDS));
    let Some(deciding) = judged.iter().find(|judged| judged.verdict == verdict).or(judged.first()) else {
        return variables;
    };
    let event = |judged: &Judged| {
        let watched = &judged.run.watched;
        let ending = watched.state.ended?;
        Some(Event::of_ending(source, &watched.subject, ending, &watched.state, None, clock::wall()))
    };
    if let Some(event) = event(deciding) {
        variables.extend(variables::of_event(event.id.as_str(), &event.payload, 1));
    } else {
        let watched = &deciding.run.watched;
        variables.extend(variables::of_run(&EventData::of_run(&watched.subject, &watched.state)));
        variables.push(("RUNWATCH_TITLE", format!("Run {} is still active", watched.subject.label())));
        variables.push(("RUNWATCH_BODY", deciding.reason.clone().unwrap_or_default()));
    }
    if judged.len() > 1 {
        let ended: Vec<Event> = judged.iter().filter_map(event).collect();
        let Message { mut title, body, .. } =
            Message::of_many(&ended.iter().map(|event| &event.payload).collect::<Vec<_>>());
        match (ended.len(), judged.len() - ended.len()) {
            (_, 0) => {}
            (0, active) => title = format!("{active} runs are still active"),
            (_, active) => title = format!("{title}, {active} still active"),
        }
        // The last of a name counts.
        variables.extend([("RUNWATCH_TITLE", title), ("RUNWATCH_BODY", body)]);
    }
    variables
}
