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

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::BoxFuture;
use crate::run::event::Payload;
use crate::run::{EventId, printable};
use crate::secret::{KnownSecrets, Redactor};
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
    /// What happened, for people. Secrets are taken out of it by [`Channel::attempt`].
    pub message: String,
    /// The beginning of what the receiver said, on one line.
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

    /// The same without secrets.
    fn redacted(self, redactor: &Redactor) -> Self {
        let redact = |text: &str| redactor.redact(text).into_owned();
        let cut = |text: String| text[..text.floor_char_boundary(LONGEST_ANSWER)].to_owned();
        let answer = self.answer.map(|answer| cut(redact(&answer)));
        Self { message: redact(&self.message), answer, ..self }
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
    /// The secrets that nothing which is said of an attempt has in it.
    pub known: KnownSecrets,
}

impl Channel {
    /// Makes one attempt to tell these, bounded in time. What a receiver or a program says of it is redacted.
    pub async fn attempt(&self, notices: Vec<Notice>) -> Result<(), NotifyError> {
        let notifier = Arc::clone(&self.notifier);
        // In a task of its own: a notifier that panics has failed like another, and is recorded to have.
        let mut attempt = JoinSet::new();
        attempt.spawn(async move {
            match &notices[..] {
                [notice] => notifier.send(notice).await,
                several => notifier.send_all(several).await,
            }
        });
        // Notifiers bound themselves; this bound is what the lease rests on.
        let result = match timeout(self.timeout, attempt.join_next()).await {
            Ok(Some(Ok(result))) => result,
            Ok(Some(Err(panic))) => Err(NotifyError::retryable(format!("the attempt panicked: {panic}"))),
            Ok(None) | Err(_) => Err(NotifyError::retryable("the attempt took too long")),
        };
        result.map_err(|error| error.redacted(&self.known.redactor()))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However a receiver or a program writes a secret, and wherever what it says is cut.
        #[test]
        fn nothing_that_is_said_of_an_attempt_has_a_secret_in_it(
            secret in "[!-~]{8,60}", before in "\\PC{0,12}", after in "\\PC{0,12}", form in 0usize..6, cut in 0usize..200,
        ) {
            let hex = |format: fn(u8) -> String| secret.bytes().map(format).collect::<Vec<_>>().concat();
            let shown = match form {
                0 => secret.clone(),
                1 => serde_json::json!({ "said": secret }).to_string(),
                2 => format!("[\"{}\"]", hex(|byte| format!("\\u{byte:04x}"))),
                3 => hex(|byte| format!("%{byte:02X}")),
                4 => STANDARD.encode(format!("Bearer {secret}")),
                _ => secret.replace('/', "\\/"),
            };
            let said = printable(&format!("{before}{shown}{after}"), LONGEST_ANSWER);
            let said = if form == 2 { said } else { said.chars().take(cut).collect() };
            let redactor = Redactor::new([secret.as_str()]);
            let error = NotifyError::retryable(said.clone()).with_answer(said).redacted(&redactor);
            // Not both at once: what is between them could be the eighth character.
            for text in [&error.message, error.answer.as_ref().unwrap_or(&error.message)] {
                let lower = text.replace(crate::secret::REDACTED, "\n").to_lowercase();
                let encoded = STANDARD.encode(&secret).to_lowercase();
                for part in [secret.to_ascii_lowercase(), hex(|byte| format!("\\u{byte:04x}")), encoded] {
                    let length = if part.starts_with("\\u") { 8 * 6 } else { 8 };
                    for window in part.trim_end_matches('=').as_bytes().windows(length) {
                        prop_assert!(!lower.as_bytes().windows(length).any(|shown| shown == window), "{text}");
                    }
                }
            }
        }
    }
}
