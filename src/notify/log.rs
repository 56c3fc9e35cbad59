//! The log channel: writes each event as a structured tracing event.
//!
//! An event counts as delivered when the kernel has accepted the line. A thread writes the lines and may be stuck. So
//! each event has a [`Receipt`], which the writer of the line takes with [`receipt`] and returns once it is written.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Message, Notice, Notifier, NotifyError, Urgency};
use crate::BoxFuture;
use crate::run::EventKind;

/// The target of these events, which the log level does not filter.
pub const TARGET: &str = "runwatch::event";

/// Maximum time to write a line.
pub const TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    /// The receipt of the event that is being logged on this thread.
    static RECEIPT: RefCell<Option<Receipt>> = const { RefCell::new(None) };
}

/// Confirms that the line of a log channel was written. If dropped, the line counts as not written.
#[derive(Debug)]
pub struct Receipt(oneshot::Sender<io::Result<()>>);

impl Receipt {
    /// Whether nobody waits for the line any more: another attempt writes it, or none.
    pub fn is_void(&self) -> bool {
        self.0.is_closed()
    }

    /// Reports that the line was written, or why not.
    pub fn give(self, written: io::Result<()>) {
        // The waiting attempt may have ended.
        let _ = self.0.send(written);
    }
}

/// The receipt of the event that is being logged on this thread, if it is from a log channel. The writer of lines calls
/// this when it receives the event.
pub fn receipt() -> Option<Receipt> {
    RECEIPT.take()
}

/// Writes events to the log.
#[derive(Debug, Default)]
pub struct Log;

impl Notifier for Log {
    fn send<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async {
            let (owed, written) = oneshot::channel();
            RECEIPT.set(Some(Receipt(owed)));
            log(notice);
            // If no writer took it, nothing writes the line.
            drop(receipt());
            let why = match timeout(TIMEOUT, written).await {
                Ok(Ok(Ok(()))) => return Ok(()),
                Ok(Ok(Err(error))) => format!("cannot write to the log: {error}"),
                Ok(Err(_)) => "the log has no room for the line: nobody reads it".to_owned(),
                Err(_) => {
                    let bound = crate::span::human(TIMEOUT);
                    format!("the log did not accept the line within {bound}: nobody reads it")
                }
            };
            Err(NotifyError::retryable(why))
        })
    }
}

/// Logs an event on this thread.
fn log(notice: &Notice) {
    let Message { title, body, urgency } = Message::of(&notice.payload);
    let data = &notice.payload.data;
    let text = if body.is_empty() { title } else { format!("{title}: {}", body.replace('\n', " ")) };
    let event = notice.payload.kind.as_str();
    let event_id = notice.event_id.as_str();
    let run_id = data.run_id.as_ref().map(crate::run::RunId::as_str);
    let run_name = data.run_name.as_deref();
    let status = data.status.as_ref().map(crate::run::RunStatus::as_str);
    // A tracing level is part of the static metadata and cannot be a variable.
    macro_rules! at {
        ($level:ident) => {
            tracing::$level!(
                target: TARGET,
                event, event_id, run_id, run_name, status,
                samples_completed = data.samples_completed,
                samples_failed = data.samples_failed,
                number_of_samples = data.number_of_samples,
                duration_seconds = data.duration_seconds,
                "{text}"
            )
        };
    }
    let is_warning = notice.payload.kind.is_warning() || notice.payload.kind == EventKind::ApiUnreachable;
    match urgency {
        _ if is_warning => at!(warn),
        Urgency::Critical => at!(error),
        Urgency::Normal | Urgency::Low => at!(info),
    }
}

#[cfg(test)]
mod tests {
    use tracing::{Level, Subscriber};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    use super::*;
    use crate::run::{Ending, Event, RunState, Subject, Terminal};

    /// A writer that handles receipts with `F`.
    struct Writer<F>(F);

    impl<S: Subscriber, F: Fn(Option<Receipt>) + 'static> Layer<S> for Writer<F> {
        fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
            (self.0)(receipt());
        }
    }

    /// The result of an event with such a writer.
    async fn sent(write: impl Fn(Option<Receipt>) + Send + Sync + 'static) -> Result<(), String> {
        let event = Event::test(crate::clock::wall());
        let json = serde_json::to_string(&event.payload).unwrap().into();
        let notice = Notice { event_id: event.id, payload: event.payload, json, attempt: 1 };
        let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(Writer(write)));
        Log.send(&notice).await.map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn delivered_is_what_was_written() {
        assert_eq!(sent(|receipt| receipt.unwrap().give(Ok(()))).await, Ok(()));
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let failed = sent(move |receipt| receipt.unwrap().give(Err(full()))).await.unwrap_err();
        assert!(failed.contains("cannot write to the log: "), "{failed}");
        let dropped = sent(|receipt| drop(receipt.unwrap())).await.unwrap_err();
        assert!(dropped.contains("no room"), "{dropped}");
        let kept = std::sync::Mutex::new(None);
        let kept = std::sync::Arc::new(kept);
        let keeper = std::sync::Arc::clone(&kept);
        let stuck = sent(move |receipt| *keeper.lock().unwrap() = receipt).await.unwrap_err();
        assert!(stuck.contains("within 5s"), "{stuck}");
        assert!(kept.lock().unwrap().take().unwrap().is_void(), "it need not be written any more");
    }

    /// Keeps the level of each line.
    #[derive(Clone, Default)]
    struct Levels(std::sync::Arc<std::sync::Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Levels {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
    }

    #[test]
    fn a_line_has_the_level_of_its_event() {
        let subject = Subject { id: "r1".parse().unwrap(), name: None };
        let now = crate::clock::wall();
        let state = RunState::new(now);
        let ending = |terminal| {
            let ending = Ending::Finished(terminal);
            Event::of_ending("https://a", &subject, ending, &state, None, now)
        };
        let levels = Levels::default();
        let subscriber = tracing_subscriber::registry().with(levels.clone());
        let _default = tracing::subscriber::set_default(subscriber);
        for event in [
            ending(Terminal::Succeeded),
            ending(Terminal::Failed),
            Event::of_warning("https://a", &subject, EventKind::RunStalled, &state, now, now),
            Event::of_outage("https://a", "no_answer", now, now),
        ] {
            let json = serde_json::to_string(&event.payload).unwrap().into();
            log(&Notice { event_id: event.id, payload: event.payload, json, attempt: 1 });
        }
        assert_eq!(*levels.0.lock().unwrap(), [Level::INFO, Level::ERROR, Level::WARN, Level::WARN]);
    }

    #[tokio::test]
    async fn other_lines_have_no_receipt() {
        let writer = Writer(|receipt: Option<Receipt>| assert!(receipt.is_none()));
        let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(writer));
        tracing::info!("another");
    }
}
