//! Progress as lines: one a change, for logs and pipes; and a heartbeat where silence would get the job killed.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::foreground::View;
use super::{out, words};
use crate::poll::{RunView, Update};
use crate::run::{Change, Progress, RunId};
use crate::span;

/// CI systems kill a job that says nothing for long; the shortest such limit in use is some minutes.
const HEARTBEAT: Duration = Duration::from_mins(1);

/// How many runs a heartbeat names.
const NAMED: usize = 3;

/// Which stream the lines go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Prints a line for every change of status and every tenth of a run's samples.
pub(super) struct Lines {
    stream: Stream,
    heartbeat: bool,
    began: Instant,
    last: Instant,
    shown: HashMap<RunId, (RunView, Option<u64>)>,
    /// How many runs are watched.
    total: usize,
    write_failed: bool,
}

impl Lines {
    pub(super) fn new(stream: Stream, heartbeat: bool, total: usize) -> Self {
        let now = Instant::now();
        Self { stream, heartbeat, began: now, last: now, shown: HashMap::new(), total, write_failed: false }
    }

    fn print(&mut self, text: &str) {
        self.last = Instant::now();
        let line = format!("{} {text}\n", words::time(crate::clock::wall()));
        match self.stream {
            Stream::Stderr => out::stderr(&line),
            Stream::Stdout if self.write_failed => {}
            Stream::Stdout => {
                if let Err(error) = out::stdout(&line) {
                    self.write_failed = true;
                    out::error(format_args!("cannot write to standard output: {error}; watching on"));
                }
            }
        }
    }

    fn run(&mut self, run: &RunView, change: Change) {
        let tenth = tenth(run.state.progress);
        let before = self.shown.insert(run.subject.id.clone(), (run.clone(), tenth));
        let passed_a_tenth = before.is_some_and(|(_, before)| before.is_some() && before != tenth);
        if change >= Change::Status || passed_a_tenth {
            self.print(&format!("{} {}", run.subject.label(), words::standing(run)));
        }
        if change == Change::Ended
            && let Some(warning) = words::partial(run)
        {
            self.print(&warning);
        }
    }

    fn still_waiting(&self) -> String {
        let going: Vec<&RunView> =
            self.shown.values().map(|(run, _)| run).filter(|run| run.state.ended.is_none()).collect();
        let ended = self.shown.len() - going.len();
        let one = |run: &&RunView| {
            let left = words::left(run).map(|left| format!(", {left}")).unwrap_or_default();
            format!("{} {}{left}", run.subject.label(), words::standing(run))
        };
        let mut named: Vec<String> = going.iter().map(one).collect();
        named.sort();
        named.truncate(NAMED);
        let more = going.len().saturating_sub(NAMED);
        if more > 0 {
            named.push(format!("and {more} more"));
        }
        let waited = span::human(self.began.elapsed());
        let count = self.total - ended;
        let named = if named.is_empty() { "no answer yet".to_owned() } else { named.join("; ") };
        format!("still waiting after {waited}, {count} of {} going: {named}", self.total)
    }
}

/// How many tenths of the samples are settled.
fn tenth(progress: Progress) -> Option<u64> {
    progress.done()?.saturating_mul(10).checked_div(progress.total?)
}

impl View for Lines {
    fn update(&mut self, update: &Update) {
        if let Update::Run(run, change) = update {
            self.run(run, *change);
        } else if let Some(notice) = words::notice(update) {
            self.print(&notice);
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        self.heartbeat.then(|| self.last + HEARTBEAT)
    }

    fn tick(&mut self) {
        let line = self.still_waiting();
        self.print(&line);
    }

    fn finish(&mut self) {}
}
