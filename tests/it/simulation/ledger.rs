//! What is stored, as the test keeps it beside the store: compared with it after every write.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use runwatch::notify::Notice;
use runwatch::run::{Ending, EventId, EventKind, RunId, RunState, Terminal};
use runwatch::store::{Claimed, Commit, Delivery, DeliveryState, Finished, Outcome, Settlement, Watched};

use super::api::Api;
use super::world::{World, wall_at};

pub struct Ledger {
    world: Arc<World>,
    api: Arc<Api>,
    books: Mutex<Books>,
}

type Key = (EventId, String);

#[derive(Default)]
struct Books {
    runs: BTreeMap<RunId, RunState>,
    /// Every row of the outbox, in order.
    rows: Vec<Delivery>,
    /// The row of each event and channel.
    by_key: BTreeMap<Key, Entry>,
    /// Until when each channel is held, as recorded.
    held: BTreeMap<String, Duration>,
}

#[derive(Default)]
struct Entry {
    /// Its place in the outbox.
    row: i64,
    /// The bytes that came first.
    bytes: Option<Arc<str>>,
    /// Whether the store knows that it was delivered or given up.
    is_settled: bool,
    /// Until when it is to wait, as recorded.
    not_before: Option<Duration>,
}

pub const SOURCE: &str = "simulation";

/// The id that the end of a run has, in whatever life it is seen.
pub fn id_of_end(run: &RunId, terminal: Terminal) -> EventId {
    let kind = match terminal {
        Terminal::Succeeded => EventKind::RunSucceeded,
        Terminal::Failed => EventKind::RunFailed,
        Terminal::Canceled => EventKind::RunCanceled,
    };
    EventId::derive(SOURCE, Some(run), kind, "")
}

impl Ledger {
    pub fn new(world: &Arc<World>, api: &Arc<Api>) -> Arc<Self> {
        Arc::new(Self { world: Arc::clone(world), api: Arc::clone(api), books: Mutex::default() })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    fn broken(&self, what: std::fmt::Arguments<'_>) {
        self.world.broken(what);
    }

    /// Compares the stored runs with what was stored before. `added` are runs that a user just added.
    pub fn runs(&self, stored: &[Watched]) {
        let mut books = self.books();
        for id in books.runs.keys() {
            if !stored.iter().any(|run| run.subject.id == *id) {
                self.broken(format_args!("{id} is no longer stored"));
            }
        }
        for run in stored {
            let id = &run.subject.id;
            match books.runs.get(id) {
                Some(before) if *before == run.state => continue,
                Some(before) => self.went_on(id, before, &run.state),
                None => {}
            }
            if let Some(ending) = run.state.ended {
                self.may_have_ended(id, ending);
            }
            books.runs.insert(id.clone(), run.state.clone());
        }
    }

    /// A run's state never goes back, and an end is for ever.
    fn went_on(&self, id: &RunId, before: &RunState, now: &RunState) {
        if before.ended.is_some() {
            self.broken(format_args!("{id} has ended and changed: {before:?} to {now:?}"));
        }
        let goes_back = before.progress.completed > now.progress.completed
            || before.progress.total > now.progress.total
            || before.was_seen() && !now.was_seen()
            || before.created_at.is_some() && now.created_at != before.created_at
            || before.changed_at > now.changed_at
            || before.progress_at > now.progress_at
            || before.overdue_told_at > now.overdue_told_at
            || before.watched_at != now.watched_at;
        if goes_back {
            self.broken(format_args!("{id} goes back: {before:?} to {now:?}"));
        }
    }

    fn may_have_ended(&self, id: &RunId, ending: Ending) {
        let fine = match ending {
            Ending::Finished(terminal) => self.api.said_ended(id) == Some(terminal),
            Ending::NeverFound | Ending::Gone => self.api.is_missing(id),
            Ending::KeyRefused | Ending::Unknowable | Ending::Rejected => false,
        };
        if !fine {
            self.broken(format_args!("{id} ended by {ending:?}, which the API never said"));
        }
    }

    /// Compares the outbox with what was in it before, after a commit of events.
    pub fn outbox(&self, mut rows: Vec<Delivery>) {
        rows.sort_by_key(|row| row.id);
        let mut books = self.books();
        for row in &rows {
            let key = (EventId::from_stored(&row.event_id), row.channel.clone());
            let entry = books.by_key.entry(key).or_default();
            if entry.row != 0 && entry.row != row.id {
                self.broken(format_args!("{} has two rows for {}", row.event_id, row.channel));
            }
            entry.row = row.id;
        }
        if books.rows.iter().any(|before| !rows.iter().any(|row| row.id == before.id)) {
            self.broken(format_args!("a row of the outbox is gone"));
        }
        for (run, state) in &books.runs {
            let Some(Ending::Finished(terminal)) = state.ended else { continue };
            let id = id_of_end(run, terminal);
            for channel in ["first", "second"] {
                let ends = rows.iter().filter(|row| {
                    row.channel == channel
                        && row.run_id.as_deref() == Some(run.as_str())
                        && is_finish(&row.kind)
                });
                let ends: Vec<&str> = ends.map(|row| row.event_id.as_str()).collect();
                if ends != [id.as_str()] {
                    self.broken(format_args!("{run} has ended; its events for {channel}: {ends:?}"));
                }
            }
        }
        books.rows = rows;
    }

    /// An attempt was recorded.
    pub fn finished(&self, claimed: &Claimed, settlement: &Settlement, finished: Finished) {
        if finished != Finished::Recorded {
            return;
        }
        let since =
            |at: jiff::Timestamp| Duration::try_from(at.duration_since(wall_at(Duration::ZERO))).unwrap();
        let mut books = self.books();
        let Some(row) = books.rows.iter().find(|row| row.id == claimed.id) else {
            return self.broken(format_args!("{} was sent and has no row", claimed.event_id));
        };
        let channel = row.channel.clone();
        if let Some(until) = settlement.follows.hold {
            let held = books.held.entry(channel.clone()).or_default();
            *held = (*held).max(since(until));
        }
        let entry = books.by_key.entry((claimed.event_id.clone(), channel)).or_default();
        match &settlement.outcome {
            Outcome::Delivered | Outcome::Dead { .. } => entry.is_settled = true,
            Outcome::Retry { at, .. } => entry.not_before = Some(since(*at)),
            Outcome::Postponed { .. } => {}
        }
    }

    /// Until when an event is to wait, as recorded.
    pub fn not_before(&self, channel: &str, id: &EventId) -> Option<Duration> {
        let books = self.books();
        let entry = books.by_key.get(&(id.clone(), channel.to_owned()));
        entry.and_then(|entry| entry.not_before).max(books.held.get(channel).copied())
    }

    /// An event comes to a receiver.
    pub fn comes(&self, channel: &str, notice: &Notice) {
        let id = &notice.event_id;
        let books = self.books();
        match books.by_key.get(&(id.clone(), channel.to_owned())) {
            None => self.broken(format_args!("{id} is sent to {channel} and was never recorded")),
            Some(entry) if entry.is_settled => {
                self.broken(format_args!("{id} is sent to {channel} again and was settled"));
            }
            Some(entry) if entry.bytes.as_ref().is_some_and(|bytes| *bytes != notice.json) => {
                self.broken(format_args!("{id} comes with other bytes"));
            }
            Some(_) => {}
        }
    }

    /// A receiver took an event: it is the run's next one.
    pub fn taken(&self, channel: &str, notice: &Notice) {
        let mut books = self.books();
        let id = &notice.event_id;
        let Some(entry) = books.by_key.get_mut(&(id.clone(), channel.to_owned())) else { return };
        entry.bytes.get_or_insert_with(|| Arc::clone(&notice.json));
        let row = entry.row;
        let run =
            notice.payload.data.run_id.as_ref().filter(|_| notice.payload.kind != EventKind::DeliveryFailed);
        let Some(run) = run else { return };
        for later in books.rows.iter().filter(|later| later.id > row && later.channel == channel) {
            let key = (EventId::from_stored(&later.event_id), channel.to_owned());
            let came = books.by_key.get(&key).is_some_and(|entry| entry.bytes.is_some());
            if later.run_id.as_deref() == Some(run.as_str()) && later.kind != "delivery.failed" && came {
                self.broken(format_args!("{channel}: {id} of {run} comes after {}", later.event_id));
            }
        }
    }

    /// What is stored of a run.
    pub fn state(&self, id: &RunId) -> Option<RunState> {
        self.books().runs.get(id).cloned()
    }

    /// Every row of the outbox.
    pub fn rows(&self) -> Vec<Delivery> {
        self.books().rows.clone()
    }
}

/// Events are written in the transaction of the state that they are about.
pub fn has_events(commit: &Commit) -> bool {
    commit.events.iter().any(|(_, channels)| !channels.is_empty())
}

fn is_finish(kind: &str) -> bool {
    ["run.succeeded", "run.failed", "run.canceled"].contains(&kind)
}

pub fn is_pending(row: &Delivery) -> bool {
    row.state == DeliveryState::Pending
}
