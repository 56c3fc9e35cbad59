//! Progress as lines: one a change, for logs and pipes; and a heartbeat where silence would get the job killed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::foreground::View;
use super::out::Out;
use crate::poll::{RunView, Update};
use crate::run::text::one_line;
use crate::run::{Progress, RunChange, RunId};
use crate::span;
use crate::words;

/// CI systems kill a job that says nothing for long; the shortest such limit in use is some minutes.
const HEARTBEAT: Duration = Duration::from_mins(1);

/// How many runs a heartbeat names.
const NAMED: usize = 3;

/// Prints a line for every change of status and every tenth of a run's samples.
pub(super) struct Lines {
    print: Box<dyn FnMut(&str)>,
    heartbeat: bool,
    began: Instant,
    last: Instant,
    shown: HashMap<RunId, (RunView, Option<u64>)>,
    /// Runs of which was said that they cannot be read.
    in_trouble: HashSet<RunId>,
    /// How many runs are watched.
    total: usize,
    /// What was said of the API's being out of reach, while it is.
    outage: Option<String>,
}

impl Lines {
    /// For standard output: the lines are what was asked for.
    pub(super) fn on_stdout(out: &Out, total: usize) -> Self {
        let out = out.clone();
        Self::new(Box::new(move |line| out.say(line)), false, total)
    }

    /// For standard error, beside a result: with a heartbeat.
    pub(super) fn on_stderr(out: &Out, total: usize) -> Self {
        let out = out.clone();
        Self::new(Box::new(move |line| out.note(line)), true, total)
    }

    fn new(print: Box<dyn FnMut(&str)>, heartbeat: bool, total: usize) -> Self {
        let now = Instant::now();
        Self {
            print,
            heartbeat,
            began: now,
            last: now,
            shown: HashMap::new(),
            in_trouble: HashSet::new(),
            total,
            outage: None,
        }
    }

    fn print(&mut self, text: &str) {
        self.last = Instant::now();
        (self.print)(&format!("{} {}", words::time(crate::clock::wall()), one_line(text)));
    }

    fn run(&mut self, run: &RunView, change: RunChange) {
        let tenth = tenth(run.state.progress);
        let before = self.shown.insert(run.subject.id.clone(), (run.clone(), tenth));
        let passed_a_tenth = before.is_some_and(|(_, before)| before.is_some() && before != tenth);
        if change >= RunChange::Status || passed_a_tenth {
            self.print(&format!("{} {}", run.subject.label(), words::standing(run)));
        }
        self.trouble(run);
        if change == RunChange::Ended
            && let Some(warning) = words::partial(run)
        {
            self.print(&warning);
        }
    }

    /// One line when a run cannot be read twice in a row though the API is there, and one when it can again.
    fn trouble(&mut self, run: &RunView) {
        let id = &run.subject.id;
        match &run.trouble {
            None => {
                if self.in_trouble.remove(id) && run.state.ended.is_none() {
                    self.print(&format!("{}: answered again", run.subject.label()));
                }
            }
            // Doubts and outages have lines of their own.
            Some(trouble) if trouble.times >= 2 && run.state.doubt.is_none() && self.outage.is_none() => {
                if self.in_trouble.insert(id.clone()) {
                    self.print(&format!("{}: {}; still trying", run.subject.label(), trouble.message));
                }
            }
            Some(_) => {}
        }
    }

    fn still_waiting(&self) -> String {
        let going: Vec<&RunView> =
            self.shown.values().map(|(run, _)| run).filter(|run| run.state.ended.is_none()).collect();
        let ended = self.shown.len() - going.len();
        let one = |run: &&RunView| {
            let left = words::left(run).map(|left| format!(", {left}")).unwrap_or_default();
            let trouble = run.trouble.as_ref().filter(|trouble| trouble.times >= 2 && self.outage.is_none());
            let trouble = trouble.map(|trouble| format!(" ({})", trouble.message)).unwrap_or_default();
            format!("{} {}{left}{trouble}", run.subject.label(), words::standing(run))
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
        let outage = self.outage.as_ref().map(|outage| format!("; {outage}")).unwrap_or_default();
        format!("still waiting after {waited}, {count} of {} active: {named}{outage}", self.total)
    }
}

/// How many tenths of the samples are settled.
fn tenth(progress: Progress) -> Option<u64> {
    progress.done()?.saturating_mul(10).checked_div(progress.total?)
}

impl View for Lines {
    fn update(&mut self, update: &Update) {
        match update {
            Update::ApiDown(..) => self.outage = words::notice(update),
            Update::ApiUp(_) => self.outage = None,
            _ => {}
        }
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::run::{Ending, RunState, RunStatus, Subject, Terminal};

    /// A printer and what it has printed, without the times.
    fn lines(total: usize) -> (Lines, Rc<RefCell<Vec<String>>>) {
        let printed = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&printed);
        let print = move |line: &str| sink.borrow_mut().push(line.trim_end()[21..].to_owned());
        (Lines::new(Box::new(print), true, total), printed)
    }

    fn run(status: &str, completed: u64, failed: u64) -> RunView {
        let mut state = RunState::new(jiff::Timestamp::UNIX_EPOCH);
        state.status = Some(RunStatus::parse(Some(status)));
        state.progress = Progress { completed: Some(completed), failed: Some(failed), total: Some(200) };
        let subject = Subject { id: "r1".parse().unwrap(), name: Some("nightly".into()) };
        RunView {
            subject,
            spec_name: None,
            state,
            per_second: None,
            expected_end: None,
            trouble: None,
            polls: 1,
        }
    }

    fn update(view: RunView, change: RunChange) -> Update {
        Update::Run(Box::new(view), change)
    }

    #[tokio::test]
    async fn one_line_a_change() {
        let (mut lines, printed) = lines(1);
        lines.update(&update(run("PENDING", 0, 0), RunChange::Status));
        lines.update(&update(run("PROCESSING", 1, 0), RunChange::Status));
        for completed in 2..=41 {
            lines.update(&update(run("PROCESSING", completed, 0), RunChange::Progress));
        }
        let expected = [
            "nightly PENDING 0/200",
            "nightly PROCESSING 1/200",
            "nightly PROCESSING 20/200",
            "nightly PROCESSING 40/200",
        ];
        assert_eq!(*printed.borrow(), expected);
    }

    #[tokio::test]
    async fn a_success_with_failed_samples_always_warns() {
        let (mut lines, printed) = lines(1);
        let mut view = run("SUCCEEDED", 193, 7);
        view.state.ended = Some(Ending::Finished(Terminal::Succeeded));
        lines.update(&update(view, RunChange::Ended));
        let expected = [
            "nightly SUCCEEDED 193/200, 7 failed",
            "warning: nightly SUCCEEDED with 7 of 200 samples failed",
        ];
        assert_eq!(*printed.borrow(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_cannot_be_read_is_told_once_each_way_and_named_in_the_heartbeat() {
        let (mut lines, printed) = lines(1);
        let trouble = |times| {
            let mut view = run("PROCESSING", 5, 0);
            view.trouble = Some(crate::poll::Trouble { message: "500 Internal Server Error".into(), times });
            update(view, RunChange::None)
        };
        lines.update(&update(run("PROCESSING", 5, 0), RunChange::Status));
        for times in 1..5 {
            lines.update(&trouble(times));
        }
        lines.tick();
        lines.update(&update(run("PROCESSING", 5, 0), RunChange::None));
        let expected = [
            "nightly PROCESSING 5/200",
            "nightly: 500 Internal Server Error; still trying",
            "still waiting after 0s, 1 of 1 active: nightly PROCESSING 5/200 (500 Internal Server Error)",
            "nightly: answered again",
        ];
        assert_eq!(*printed.borrow(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_comes_a_minute_after_the_last_line_and_not_before() {
        let (mut lines, printed) = lines(2);
        let start = Instant::now();
        tokio::time::advance(Duration::from_secs(50)).await;
        lines.update(&update(run("PROCESSING", 5, 0), RunChange::Status));
        assert_eq!(lines.next_tick(), Some(start + Duration::from_secs(110)));
        tokio::time::advance(Duration::from_secs(60)).await;
        lines.tick();
        assert_eq!(
            printed.borrow()[1],
            "still waiting after 1m 50s, 2 of 2 active: nightly PROCESSING 5/200"
        );
        assert_eq!(lines.next_tick(), Some(start + Duration::from_secs(170)));
    }
}
