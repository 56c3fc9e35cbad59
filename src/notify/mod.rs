//! Telling people and machines.
//!
//! A [`Notifier`] makes one attempt and says what kind of failure it was; the retry loop is `worker`'s. The wording for
//! people is in `message`, in one place. Nothing here knows of the API or of schedules: what is to be told comes out of
//! the outbox.

mod attempt;
mod command;
pub mod delivery;
pub mod desktop;
mod environment;
pub mod log;
mod message;
mod pace;
mod report;
mod retry;
mod signature;
pub mod webhook;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::BoxFuture;
use crate::run::event::Payload;
use crate::run::{EventId, printable};
use crate::store::ChannelName;

pub use command::{Command, CommandSettings};
pub use delivery::{Delivery, Told, ToldOutcome};
pub use desktop::{Desktop, session_bus};
pub use log::Log;
pub use message::{Message, Urgency};
pub use retry::RetrySchedule;
pub use signature::{SecretError, SigningSecret, verify};
pub use webhook::{Webhook, WebhookSettings};

/// One event on its way to one channel.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The event's stable name.
    pub event_id: EventId,
    /// The event, to be worded.
    pub payload: Payload,
    /// The event as bytes: what is signed and sent.
    pub json: Arc<str>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// Makes one attempt to tell an event. Bounded in time by its own measure; never retries.
pub trait Notifier: Send + Sync + 'static {
    /// Tells it. When this returns `Ok`, the receiver has said that it has it.
    fn send<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), NotifyError>>;

    /// Tells several together. Asked only of channels that gather.
    fn send_all<'a>(&'a self, notices: &'a [Notice]) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async move {
            for notice in notices {
                self.send(notice).await?;
            }
            Ok(())
        })
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyError {
    /// Whether another attempt is worth it.
    pub retry: Retry,
    /// What happened, for people; no secrets.
    pub message: String,
    /// The beginning of what the receiver said, on one line; no secrets.
    pub answer: Option<String>,
}

/// The kinds of failure: what to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Try again on schedule, but not before this much time has passed (`Retry-After`).
    NotBefore(Option<Duration>),
    /// The receiver takes less than it is sent: send nothing to the channel before this much time has passed, and less at
    /// once. This says nothing about the event.
    SlowDown(Option<Duration>),
    /// The receiver cannot be used now, and says when it can: send nothing to the channel before. This says something about
    /// the event only where others get through meanwhile.
    Unavailable(Duration),
    /// This event can never be delivered here; others can.
    Undeliverable,
    /// The receiver wants nothing more, of this or any other event.
    Disable,
}

/// How much of a receiver's answer is kept, in bytes.
pub const LONGEST_ANSWER: usize = 2048;

/// How much of it a line has room for, in characters.
const SHORT_ANSWER: usize = 300;

impl NotifyError {
    /// A failure that another attempt may mend.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::new(Retry::NotBefore(None), message)
    }

    /// A failure of some kind, about which the receiver said nothing.
    pub fn new(retry: Retry, message: impl Into<String>) -> Self {
        Self { retry, message: message.into(), answer: None }
    }

    /// The same with what the receiver said.
    #[must_use]
    pub fn with_answer(self, answer: String) -> Self {
        Self { answer: Some(answer).filter(|answer| !answer.is_empty()), ..self }
    }
}

impl fmt::Display for NotifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.answer {
            Some(answer) => write!(f, "{}: {}", self.message, printable(answer, SHORT_ANSWER)),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for NotifyError {}

/// A way out that has a name.
#[derive(Clone)]
pub struct Channel {
    /// Its name in the configuration, in logs and in the outbox.
    pub name: ChannelName,
    /// `webhook`, `desktop`, `log` or `command`.
    pub kind: &'static str,
    /// What makes the attempts.
    pub notifier: Arc<dyn Notifier>,
    /// Attempts under way at once.
    pub concurrency: usize,
    /// The longest an attempt may take; a lease outlives it.
    pub timeout: Duration,
    /// When to try again.
    pub schedule: Arc<RetrySchedule>,
    /// How long the first event waits for others to be told together with it; zero tells each by itself.
    pub gather: Duration,
    /// Stands for how it is configured, secrets included, without saying it.
    pub fingerprint: Arc<str>,
    /// What earlier versions of runwatch had in its place, for the same configuration.
    pub formerly: Vec<String>,
}
