//! The live display of `watch`, `wait` and `demo`: one line per run, redrawn in place. It only receives updates.
//!
//! A run that ended leaves a permanent line above the display, unless the command prints a result on the same terminal
//! later. `facts` words a run, `frame` lays out the lines, and the thread in `out` draws them, so a paused terminal does
//! not delay polling.

mod facts;
mod frame;
#[cfg(test)]
mod frames;
mod links;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::facts::{Facts, Name, sign_of_end};
use self::frame::Totals;
use super::foreground::View;
use super::out::Out;
use super::picture::Picture;
use super::stream::Stream;
use crate::poll::{RunView, Update};
use crate::run::{Ending, RunChange, RunStatus, Subject, Terminal};
use crate::{span, words};

pub(super) use facts::short;
pub(super) use links::url_of;

/// How often the display is redrawn without an update, for the elapsed times.
const TICK: Duration = Duration::from_secs(1);

/// The display.
pub(super) struct Live {
    out: Out,
    on: Stream,
    /// Whether the command prints a result on the same terminal at its end. Then runs leave no permanent lines.
    result_follows: bool,
    /// The runs that are shown, in the order asked for.
    rows: Vec<Row>,
    totals: Totals,
    /// Width of the name column of the permanent lines. Only grows.
    name_width: usize,
    next_tick: Instant,
}

/// A run.
struct Row {
    subject: Subject,
    url: Option<Arc<str>>,
    view: Option<RunView>,
    /// The time left at the last change, and when that change was seen.
    left: Option<(Duration, Instant)>,
    since: Instant,
}

impl Live {
    /// A display for these runs, each with the URL to link it to, if any.
    pub(super) fn new(
        out: &Out,
        on: Stream,
        result_follows: bool,
        runs: Vec<(Subject, Option<Arc<str>>)>,
    ) -> Self {
        let now = Instant::now();
        let row = |(subject, url)| Row { subject, url, view: None, left: None, since: now };
        let mut live = Self {
            out: out.clone(),
            on,
            result_follows,
            totals: Totals { all: runs.len(), ..Totals::default() },
            rows: runs.into_iter().map(row).collect(),
            name_width: 0,
            next_tick: now + TICK,
        };
        live.draw();
        live
    }

    fn draw(&mut self) {
        let size = self.on.size();
        let room = frame::room(self.totals.all, size);
        let mut shown: Vec<&Row> = self.rows.iter().collect();
        if shown.len() > room {
            // A stable sort: runs of the same rank keep their order.
            shown.sort_by_key(|row| row.rank());
        }
        let more = shown.len().saturating_sub(room);
        shown.truncate(room);
        let facts: Vec<Facts> = shown.into_iter().map(Row::facts).collect();
        self.out.draw(self.on, frame::picture(&facts, more, self.totals, size));
    }

    fn run(&mut self, run: &RunView, change: RunChange) {
        let Some(at) = self.rows.iter().position(|row| row.subject.id == run.subject.id) else { return };
        let row = &mut self.rows[at];
        row.see(run, change);
        if change < RunChange::Ended {
            return self.draw();
        }
        self.totals.count(run.state.ended);
        if self.result_follows {
            self.draw();
        } else {
            let line = self.last_line(at);
            self.rows.remove(at);
            // In this order, so that the line never appears above a display that still shows the run.
            self.draw();
            self.out.leave(self.on, &line);
        }
        if let Some(warning) = words::partial(run) {
            self.say(&warning);
        }
    }

    fn say(&self, text: &str) {
        match self.on {
            Stream::Stdout => self.out.say(text),
            Stream::Stderr => self.out.note(text),
        }
    }

    /// The permanent line of a run.
    fn last_line(&mut self, at: usize) -> Picture {
        let seen = self.rows.iter().filter(|row| row.view.is_some());
        let widest = seen.map(|row| row.name().width()).max().unwrap_or(0);
        self.name_width = self.name_width.max(widest);
        let row = &self.rows[at];
        let mut facts = row.facts();
        let Some(view) = &row.view else { return frame::last_line(&facts, self.name_width, "") };
        let state = &view.state;
        facts.sign = sign_of_end(state.ended);
        let outcome = if matches!(state.ended, None | Some(Ending::Finished(_))) {
            let took = state.ended.and(state.took()).map(|took| format!("in {}", span::human(took)));
            [words::samples(state.progress), took].into_iter().flatten().collect::<Vec<_>>().join(" ")
        } else {
            facts.status.clear();
            words::standing(view)
        };
        frame::last_line(&facts, self.name_width, &outcome)
    }
}

impl View for Live {
    fn update(&mut self, update: &Update) {
        if let Update::Run(run, change) = update {
            self.run(run, *change);
        } else if let Some(notice) = words::notice(update) {
            self.say(&notice);
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        (!self.rows.is_empty()).then_some(self.next_tick)
    }

    fn tick(&mut self) {
        self.next_tick = Instant::now() + TICK;
        self.draw();
    }

    fn resized(&mut self) {
        self.draw();
    }

    fn finish(&mut self) {
        self.out.draw(self.on, Picture::blank(0, 0));
        if self.result_follows {
            return;
        }
        // Active runs leave a permanent line, too.
        for at in 0..self.rows.len() {
            let line = self.last_line(at);
            self.out.leave(self.on, &line);
        }
        self.rows.clear();
        if self.totals.all > 1 {
            self.say(&self.totals.line());
        }
    }
}

impl Row {
    fn see(&mut self, run: &RunView, change: RunChange) {
        let now = Instant::now();
        if change > RunChange::None || self.view.is_none() {
            let left = run.expected_end.map(|end| end.saturating_duration_since(now));
            self.left = left.filter(|left| !left.is_zero()).map(|left| (left, now));
        }
        self.view = Some(run.clone());
    }

    /// The time left, as estimated at the last change. `None` if nothing has changed for as long as that.
    fn left(&self) -> Option<Duration> {
        self.left.filter(|(left, at)| at.elapsed() < *left).map(|(left, _)| left)
    }

    fn name(&self) -> Name {
        Name::of(&self.subject, self.view.as_ref().and_then(|view| view.spec_name.as_deref()))
    }

    fn facts(&self) -> Facts {
        let facts = facts::of(self.view.as_ref(), self.left(), self.since.elapsed());
        Facts { name: self.name(), url: self.url.clone(), ..facts }
    }

    /// The order in which runs are shown if there is no room for all, the lowest first.
    fn rank(&self) -> u8 {
        let Some(view) = &self.view else { return 4 };
        match (view.state.ended, &view.state.status) {
            (Some(Ending::Finished(Terminal::Succeeded)), _) => 6,
            (Some(_), _) => 5,
            _ if view.trouble.is_some() => 0,
            (None, Some(RunStatus::Processing)) => 1,
            (None, Some(RunStatus::Pending)) => 3,
            (None, _) => 2,
        }
    }
}
