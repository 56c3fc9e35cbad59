//! What `--quiet` shows: how each run ended, and warnings. No progress.

use tokio::time::Instant;

use super::foreground::View;
use super::out::Out;
use crate::poll::Update;
use crate::run::RunChange;
use crate::run::text::one_line;
use crate::words;

/// Prints the ends of runs where they are the result, and warnings on standard error.
pub(super) struct Quiet {
    out: Out,
    ends: bool,
}

impl Quiet {
    /// For standard output: the ends are what was asked for.
    pub(super) fn on_stdout(out: &Out) -> Self {
        Self { out: out.clone(), ends: true }
    }

    /// Beside a result: the ends are in it.
    pub(super) fn on_stderr(out: &Out) -> Self {
        Self { out: out.clone(), ends: false }
    }

    fn warn(&self, warning: &str) {
        self.out.note(&one_line(warning));
    }
}

impl View for Quiet {
    fn update(&mut self, update: &Update) {
        match update {
            Update::Run(run, RunChange::Ended) => {
                if self.ends {
                    let end = format!("{} {}", run.subject.label(), words::standing(run));
                    self.out.say(&one_line(&end));
                }
                if let Some(warning) = words::partial(run) {
                    self.warn(&warning);
                }
            }
            Update::Run(..) => {}
            update => {
                if let Some(notice) = words::notice(update) {
                    self.warn(&notice);
                }
            }
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        None
    }

    fn tick(&mut self) {}

    fn finish(&mut self) {}
}
