//! `--output jsonl`: one JSON object per event, as it happens, on standard output.
//!
//! Owns all events except the verdict, which `report` makes from the fields of `--output json`.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::foreground::View;
use super::out::Out;
use super::report::{VERSION, line};
use crate::poll::{RunView, Update};
use crate::run::{RunChange, RunId, RunState, RunStatus};
use crate::{clock, words};

/// Prints events.
pub(super) struct Jsonl {
    out: Out,
    seen: HashSet<RunId>,
}

/// One line. New fields may come without a new version.
#[derive(Serialize)]
struct Line<'a> {
    version: u32,
    event: &'static str,
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<Run<'a>>,
}

#[derive(Serialize)]
struct Run<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    status: Option<&'a str>,
    /// How the watch of the run ended; absent before.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<&'static str>,
    samples_completed: Option<u64>,
    samples_failed: Option<u64>,
    number_of_samples: Option<u64>,
    created_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    polls: u32,
}

impl<'a> Run<'a> {
    fn of(view: &'a RunView) -> Self {
        let RunState { status, progress, created_at, completed_at, ended, .. } = &view.state;
        Self {
            id: view.subject.id.as_str(),
            name: view.subject.name.as_deref(),
            status: status.as_ref().map(RunStatus::as_str),
            ended: ended.map(crate::run::Ending::word),
            samples_completed: progress.completed,
            samples_failed: progress.failed,
            number_of_samples: progress.total,
            created_at: *created_at,
            completed_at: *completed_at,
            polls: view.polls,
        }
    }
}

impl Jsonl {
    /// For standard output.
    pub(super) fn new(out: &Out) -> Self {
        Self { out: out.clone(), seen: HashSet::new() }
    }

    fn print(&self, event: &'static str, message: Option<&str>, run: Option<&RunView>) {
        let run = run.map(Run::of);
        let event = Line { version: VERSION, event, time: clock::wall(), message, run };
        self.out.say(line(&event).trim_end());
    }

    fn run(&mut self, run: &RunView, change: RunChange) {
        // Before the first answer there is nothing to show.
        if run.state.status.is_some() && self.seen.insert(run.subject.id.clone()) {
            self.print("snapshot", None, Some(run));
        } else if matches!(change, RunChange::Progress | RunChange::Status) {
            self.print("change", None, Some(run));
        }
        // Doubts have warnings of their own.
        if let Some(trouble) = run.trouble.as_ref().filter(|trouble| trouble.times == 2)
            && run.state.doubt.is_none()
            && run.state.ended.is_none()
        {
            self.print("warning", Some(&trouble.message), Some(run));
        }
        if change == RunChange::Ended {
            self.print("end", None, Some(run));
            if let Some(warning) = words::partial(run) {
                self.print("warning", Some(warning.trim_start_matches("warning: ")), Some(run));
            }
        }
    }
}

impl View for Jsonl {
    fn update(&mut self, update: &Update) {
        if let Update::Run(run, change) = update {
            self.run(run, *change);
        } else if let Some(notice) = words::notice(update) {
            self.print("warning", Some(notice.trim_start_matches("warning: ")), None);
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        None
    }

    fn tick(&mut self) {}

    fn finish(&mut self) {}
}
