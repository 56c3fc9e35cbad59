//! The log channel: a structured tracing event per event, for whatever the logs are shipped to.

use super::{Message, Notice, Notifier, NotifyError, Urgency};
use crate::BoxFuture;

/// The target of these events: they are not filtered out by the log level.
pub const TARGET: &str = "runwatch::event";

/// Tells events to the log.
#[derive(Debug, Default)]
pub struct Log;

impl Notifier for Log {
    fn send<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async {
            let Message { title, body, urgency } = Message::of(&notice.payload);
            let data = &notice.payload.data;
            let text = if body.is_empty() { title } else { format!("{title}: {}", body.replace('\n', " ")) };
            let event = notice.payload.kind.as_str();
            let event_id = notice.event_id.as_str();
            let run_id = data.run_id.as_ref().map(crate::run::RunId::as_str);
            let run_name = data.run_name.as_deref();
            let status = data.status.as_ref().map(crate::run::RunStatus::as_str);
            // tracing's levels are part of an event's name and cannot be computed.
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
            match urgency {
                Urgency::Critical => at!(error),
                Urgency::Normal | Urgency::Low => at!(info),
            }
            Ok(())
        })
    }
}
