//! Log lines for systemd's journal, in its native protocol: a line of text, and all fields for `journalctl FIELD=…`.
//!
//! Written by hand because `tracing-journald` blocks its caller while journald does not read its socket, and so froze the
//! daemon, SIGTERM included. Here a line is sent without blocking. One that is refused goes to a thread, which may wait.
//! `journalctl` shows the text alone, so the text also has the fields that it does not mention. Set up by `logging`.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::vital;
use crate::notify::log::{Receipt, TARGET, receipt};
use crate::run::text::one_line;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Maximum number of lines that wait for a journald that has stopped. More are dropped and counted.
const LONGEST_QUEUE: usize = 10_000;

/// Maximum length of one field in bytes. An entry must fit in a datagram (about 200 kB).
const LONGEST_FIELD: usize = 16 << 10;

/// Sends every event to the journal.
pub(super) struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    /// Never blocks.
    socket: UnixDatagram,
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    /// Whether the thread is sending one.
    sending: bool,
}

/// What the thread sends next.
enum Entry {
    Line(Vec<u8>, Option<Receipt>),
    /// This many lines were dropped here.
    Missing(usize),
}

impl Journal {
    /// The journal of this machine; an error if there is none.
    pub(super) fn open() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // An empty one is ignored; one that nobody receives is an error. A journald that is slow is there all the same.
        match socket.send_to(&[], path) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        let shared =
            Shared { path: path.to_owned(), socket, waiting: Mutex::default(), filled: Condvar::new() };
        let shared = Arc::new(shared);
        let patient = Arc::clone(&shared);
        let blocking = UnixDatagram::unbound()?;
        vital::spawn("journal", move || patient.work(&blocking))?;
        Ok(Self { shared })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.shared.send(entry(event), receipt());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an entry, or queues it for the thread.
    fn send(&self, entry: Vec<u8>, receipt: Option<Receipt>) {
        let mut waiting = self.lock();
        if waiting.entries.is_empty() && !waiting.sending {
            match self.socket.send_to(&entry, &self.path) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return give(receipt, sent),
            }
        }
        if waiting.entries.len() < LONGEST_QUEUE {
            waiting.entries.push_back(Entry::Line(entry, receipt));
            self.filled.notify_one();
        } else if let Some(Entry::Missing(lines)) = waiting.entries.back_mut() {
            *lines += 1;
        } else {
            waiting.entries.push_back(Entry::Missing(1));
        }
    }

    /// Sends queued entries, for ever.
    fn work(&self, socket: &UnixDatagram) {
        loop {
            let mut waiting = self.lock();
            waiting.sending = false;
            let mut waiting = self
                .filled
                .wait_while(waiting, |waiting| waiting.entries.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let Some(entry) = waiting.entries.pop_front() else { continue };
            waiting.sending = true;
            drop(waiting);
            match entry {
                // One that nobody waits for any more is written by another attempt.
                Entry::Line(_, Some(receipt)) if receipt.is_void() => {}
                Entry::Line(entry, receipt) => give(receipt, socket.send_to(&entry, &self.path)),
                Entry::Missing(lines) => drop(socket.send_to(&missing(lines), &self.path)),
            }
        }
    }
}

/// An entry in place of lines that were dropped.
fn missing(lines: usize) -> Vec<u8> {
    let text = format!("{lines} lines are missing here: the journal did not take them");
    let mut entry = Vec::new();
    put(&mut entry, "MESSAGE", &text);
    put(&mut entry, "PRIORITY", "4");
    put(&mut entry, "SYSLOG_IDENTIFIER", env!("CARGO_PKG_NAME"));
    entry
}

/// Reports the result of sending to the log channel that waits for it. Nobody waits for other entries.
fn give(receipt: Option<Receipt>, sent: io::Result<usize>) {
    if let Some(receipt) = receipt {
        receipt.give(sent.map(drop));
    }
}

/// An event as journald reads it.
fn entry(event: &Event<'_>) -> Vec<u8> {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let metadata = event.metadata();
    let mut entry = Vec::with_capacity(512);
    put(&mut entry, "MESSAGE", &fields.text(metadata));
    put(&mut entry, "PRIORITY", priority(*metadata.level()));
    put(&mut entry, "SYSLOG_IDENTIFIER", env!("CARGO_PKG_NAME"));
    put(&mut entry, "TARGET", metadata.target());
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
        put(&mut entry, "CODE_FILE", file);
        put(&mut entry, "CODE_LINE", &line.to_string());
    }
    for (name, value) in &fields.others {
        put(&mut entry, &name.to_ascii_uppercase(), value);
    }
    entry
}

/// The syslog priority of a level.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "5",
        Level::DEBUG => "6",
        Level::TRACE => "7",
    }
}

/// Adds a field. With its length before it a value may have line breaks in it.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let mut end = value.len().min(LONGEST_FIELD);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let value = &value.as_bytes()[..end];
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

/// The message and fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    /// The message, and the fields whose values are not in it. An event of a log channel says everything already, but for
    /// which run it is.
    fn text(&self, metadata: &Metadata<'_>) -> String {
        let mut text = readable(&self.message);
        for (name, value) in &self.others {
            let wanted = metadata.target() != TARGET || *name == "run_id";
            let value = readable(value);
            if wanted && !text.contains(&value) {
                // Writing to a string cannot fail.
                let _ = write!(text, " {name}={value}");
            }
        }
        text
    }
}

/// Text for people, line by line. A field that is asked for by its name stays as it is.
fn readable(text: &str) -> String {
    text.lines().map(one_line).collect::<Vec<_>>().join("\n")
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.others.push((field.name(), value.to_owned()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn next(socket: &UnixDatagram) -> Vec<(String, String)> {
        let mut buffer = vec![0; 1 << 20];
        let length = socket.recv(&mut buffer).unwrap();
        let mut rest = &buffer[..length];
        let mut fields = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8(rest[..end].to_vec()).unwrap();
            let length = u64::from_le_bytes(rest[end + 1..end + 9].try_into().unwrap());
            let end = end + 9 + usize::try_from(length).unwrap();
            let value =
                String::from_utf8(rest[end - usize::try_from(length).unwrap()..end].to_vec()).unwrap();
            fields.push((name, value));
            rest = &rest[end + 1..];
        }
        fields
    }

    fn value<'f>(fields: &'f [(String, String)], name: &str) -> Option<&'f str> {
        fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn journal(dir: &Path) -> (UnixDatagram, tracing::Dispatch) {
        let path = dir.join("journal");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let journal = Journal::at(&path).unwrap();
        assert!(next(&socket).is_empty());
        (socket, tracing_subscriber::registry().with(journal).into())
    }

    #[test]
    fn an_entry_has_its_fields_and_its_text_says_what_it_is_about() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, dispatch) = journal(dir.path());
        tracing::dispatcher::with_default(&dispatch, || {
            let none: Option<&str> = None;
            tracing::warn!(channel = %"ops", run_id = "run-7", run_name = none, attempt = 2, "delivered\nin two lines");
            tracing::info!(run_id = "run-7", "run-7 is at PROCESSING");
            tracing::error!(target: TARGET, run_id = "run-7", status = "FAILED", "Run nightly failed");
            tracing::info!("{}", "é".repeat(100_000));
            tracing::info!(run_name = "x\u{202e}y", "a\u{202e}b\u{200b}c\u{1b}[1m\nd");
        });
        let entry = next(&socket);
        assert_eq!(
            value(&entry, "MESSAGE"),
            Some("delivered\nin two lines channel=ops run_id=run-7 attempt=2")
        );
        assert_eq!((value(&entry, "CHANNEL"), value(&entry, "ATTEMPT")), (Some("ops"), Some("2")));
        assert_eq!((value(&entry, "PRIORITY"), value(&entry, "RUN_NAME")), (Some("4"), None));
        assert_eq!(value(&entry, "SYSLOG_IDENTIFIER"), Some("runwatch"));
        assert_eq!(value(&next(&socket), "MESSAGE"), Some("run-7 is at PROCESSING"));
        let told = next(&socket);
        assert_eq!(value(&told, "MESSAGE"), Some("Run nightly failed run_id=run-7"));
        assert_eq!((value(&told, "STATUS"), value(&told, "PRIORITY")), (Some("FAILED"), Some("3")));
        assert_eq!(value(&next(&socket), "MESSAGE").unwrap().len(), LONGEST_FIELD);
        let hidden = next(&socket);
        assert_eq!(value(&hidden, "MESSAGE"), Some("a b c [1m\nd run_name=x y"));
        assert_eq!(value(&hidden, "RUN_NAME"), Some("x\u{202e}y"), "a field is as it was");
    }

    #[test]
    fn lines_that_are_missing_are_said_to_be_where_they_are_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _nobody_reads = UnixDatagram::bind(&path).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        let shared = Shared { path, socket, waiting: Mutex::default(), filled: Condvar::new() };
        while shared.lock().entries.len() < LONGEST_QUEUE {
            shared.send(vec![0], None);
        }
        shared.send(vec![1], None);
        shared.send(vec![2], None);
        // The thread takes some, and then there is room again.
        shared.lock().entries.drain(..2);
        shared.send(vec![3], None);
        let waiting = shared.lock();
        let end: Vec<_> = waiting.entries.iter().skip(LONGEST_QUEUE - 3).collect();
        assert!(matches!(&end[..], [Entry::Line(first, None), Entry::Missing(2), Entry::Line(last, None)]
                if **first == [0] && **last == [3]));
    }

    #[test]
    fn a_journal_that_does_not_read_holds_nothing_up_and_gets_what_it_missed() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, dispatch) = journal(dir.path());
        let lines = LONGEST_QUEUE + 2_000;
        // On this thread: one that blocks never returns.
        tracing::dispatcher::with_default(&dispatch, || (0..lines).for_each(|line| tracing::info!("{line}")));
        for line in 0.. {
            let entry = next(&socket);
            let text = value(&entry, "MESSAGE").unwrap();
            if text.contains("lines are missing here") {
                assert!(line >= LONGEST_QUEUE && value(&entry, "PRIORITY") == Some("4"), "{line} {text}");
                break;
            }
            assert_eq!(text, line.to_string());
        }
    }
}
