//! What the display says about one run, as texts and numbers. Pure: the moment is given.

use std::sync::Arc;
use std::time::Duration;

use ratatui_core::style::Color;

use crate::cli::picture::{columns, cut};
use crate::poll::RunView;
use crate::run::{Ending, RunId, RunStatus, Subject, Terminal, printable};
use crate::{span, words};

/// Maximum width of a status. Only an unknown one can be wider.
const STATUS: usize = 16;

/// Length of a shortened UUID, in characters.
const SHORT_ID: usize = 8;

/// One run, as it is now.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) name: Name,
    /// The URL that the name links to.
    pub(super) url: Option<Arc<str>>,
    pub(super) sign: Sign,
    pub(super) status: String,
    /// `54/200`.
    pub(super) samples: String,
    /// How many samples failed, if any.
    pub(super) failed: Option<u64>,
    /// How much is done, from 0 to 1.
    pub(super) fraction: Option<f64>,
    pub(super) rate: String,
    pub(super) left: String,
    pub(super) elapsed: String,
    /// Why polling it fails.
    pub(super) trouble: Option<String>,
}

/// A status in one character and a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sign(pub(super) &'static str, pub(super) Color);

/// What a run is called: by its configured name, by its spec and the beginning of its id, or by its id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Name {
    text: String,
    /// Shown after the text, and never cut unless there is no room for anything else.
    id: Option<String>,
    /// Whether the run's id is a UUID, which can be shortened.
    is_uuid: bool,
}

impl Name {
    pub(super) fn of(subject: &Subject, spec: Option<&str>) -> Self {
        let line = |text: &str| printable(text, usize::MAX);
        let id = line(subject.id.as_str());
        let is_uuid = subject.id.is_uuid();
        match (&subject.name, spec) {
            (Some(name), _) => Self { text: line(name), ..Self::default() },
            (None, Some(spec)) => Self { text: line(spec), id: Some(short(&subject.id)), is_uuid },
            (None, None) => Self { text: id, id: None, is_uuid },
        }
    }

    /// How wide it is in full.
    pub(super) fn width(&self) -> usize {
        columns(&self.text) + self.id.as_ref().map_or(0, |id| 1 + columns(id))
    }

    /// The width to reserve for the name if at most this width is available. A UUID that does not fit is shortened.
    pub(super) fn wants(&self, width: usize) -> usize {
        if self.is_uuid && self.id.is_none() && self.width() > width { SHORT_ID + 1 } else { self.width() }
    }

    /// The name in at most this width. Cuts the text first, then the id.
    pub(super) fn fit(&self, width: usize) -> String {
        match &self.id {
            Some(id) if width >= self.width() => format!("{} {id}", self.text),
            Some(id) if width > columns(id) + 3 => {
                format!("{} {id}", cut(&self.text, width - columns(id) - 1))
            }
            Some(id) => cut(id, width),
            None => cut(&self.text, width.min(self.wants(width))),
        }
    }
}

/// A short form of an id, to show beside the name of a spec: the first characters of a UUID.
pub(in crate::cli) fn short(id: &RunId) -> String {
    let beginning = id.as_str().get(..SHORT_ID).filter(|_| id.is_uuid());
    beginning.map_or_else(|| printable(id.as_str(), usize::MAX), str::to_owned)
}

/// Words a view of a run. `left` is the estimated time left, `watched` how long the run has been watched.
pub(super) fn of(view: Option<&RunView>, left: Option<Duration>, watched: Duration) -> Facts {
    let Some(view) = view else {
        let elapsed = span::human(words::round(watched));
        return Facts { sign: sign(None), status: "…".to_owned(), elapsed, ..Facts::default() };
    };
    let state = &view.state;
    let progress = state.progress;
    let samples = match (progress.completed, progress.total) {
        (Some(completed), Some(total)) => format!("{completed}/{total}"),
        (Some(completed), None) => completed.to_string(),
        _ => String::new(),
    };
    let age = state.created_at.map(|created| crate::clock::wall().duration_since(created));
    let elapsed = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or(watched);
    let trouble = view.trouble.as_ref().filter(|_| state.ended.is_none());
    Facts {
        sign: if trouble.is_some() { Sign("!", Color::Yellow) } else { sign(state.status.as_ref()) },
        status: state.status.as_ref().map_or_else(|| "…".to_owned(), |status| cut(status.as_str(), STATUS)),
        samples,
        failed: progress.failed.filter(|failed| *failed > 0),
        fraction: progress.fraction(),
        // The rate comes from the same measurement as the time left, so it is shown only together with it.
        rate: left.and(view.per_second).map(rate).unwrap_or_default(),
        left: left.map(|left| format!("~{} left", span::human(coarse(left)))).unwrap_or_default(),
        elapsed: span::human(words::round(state.took().filter(|_| state.ended.is_some()).unwrap_or(elapsed))),
        trouble: trouble.map(|trouble| printable(&trouble.message, usize::MAX)),
        ..Facts::default()
    }
}

fn sign(status: Option<&RunStatus>) -> Sign {
    match status {
        None => Sign("·", Color::Reset),
        Some(RunStatus::Pending) => Sign("◦", Color::Reset),
        Some(RunStatus::Processing) => Sign("▸", Color::Cyan),
        Some(status) => status.terminal().map_or(Sign("?", Color::Yellow), terminal),
    }
}

fn terminal(status: Terminal) -> Sign {
    match status {
        Terminal::Succeeded => Sign("✓", Color::Green),
        Terminal::Failed => Sign("✗", Color::Red),
        Terminal::Canceled => Sign("–", Color::Yellow),
    }
}

/// The sign for the end of a watch; `None` if the run is still active.
pub(super) fn sign_of_end(ended: Option<Ending>) -> Sign {
    match ended {
        None => Sign("…", Color::Reset),
        Some(Ending::Finished(status)) => terminal(status),
        Some(_) => Sign("✗", Color::Red),
    }
}

/// Rounds an estimate up, more coarsely the longer it is.
fn coarse(left: Duration) -> Duration {
    let seconds = left.as_secs_f64().ceil();
    let step = match seconds {
        ..10.0 => 1.0,
        ..=55.0 => 5.0,
        ..3600.0 => 60.0,
        _ => 600.0,
    };
    Duration::from_secs_f64((seconds / step).ceil() * step)
}

/// Formats a rate per second, minute or hour, so that the number is not too small to read.
fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 0.5 => format!("{rate:.1}/s"),
        rate if rate * 60.0 >= 0.5 => format!("{:.1}/min", rate * 60.0),
        rate => format!("{:.1}/h", rate * 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_to_read() {
        assert_eq!(rate(2.14), "2.1/s");
        assert_eq!(rate(0.1), "6.0/min");
        assert_eq!(rate(0.001), "3.6/h");
    }

    #[test]
    fn estimates_are_coarse() {
        let shown = |seconds| span::human(coarse(Duration::from_secs_f64(seconds)));
        let times = [0.2, 9.0, 11.0, 55.5, 61.0, 3599.0, 5000.0].map(shown);
        assert_eq!(times, ["1s", "9s", "15s", "1m", "2m", "1h", "1h 30m"]);
    }

    #[test]
    fn a_run_is_called_by_its_name_or_by_its_spec_and_id() {
        let id = "3c90c3cc-0d44-4b50-8888-8dd25736052a".parse::<RunId>().unwrap();
        let named = Subject { id: id.clone(), name: Some("nightly".into()) };
        let bare = Subject { id, name: None };
        assert_eq!(Name::of(&named, Some("tickets")).fit(40), "nightly");
        let name = Name::of(&bare, Some("support_tickets"));
        assert_eq!((name.width(), name.fit(24).as_str()), (24, "support_tickets 3c90c3cc"));
        assert_eq!(
            [20, 11, 8].map(|width| name.fit(width)),
            ["support_ti… 3c90c3cc", "3c90c3cc", "3c90c3cc"]
        );
        let unseen = Name::of(&bare, None);
        assert_eq!([36, 35, 9, 5].map(|width| unseen.wants(width)), [36, 9, 9, 9]);
        assert_eq!([35, 9, 5].map(|width| unseen.fit(width)), ["3c90c3cc…", "3c90c3cc…", "3c90…"]);
        let alias = Subject { id: "nightly".parse().unwrap(), name: None };
        assert_eq!(Name::of(&alias, Some("s")).fit(9), "s nightly");
        assert_eq!(Name::of(&alias, Some("請求書")).fit(40), "請求書 nightly");
        assert_eq!(Name::of(&alias, Some("請求書")).fit(13), "請求… nightly");
    }
}
