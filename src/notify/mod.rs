//! Notifications to people and machines.
//!
//! A [`Notifier`] makes one attempt and returns the kind of failure; `worker` has the retry loop. `message` words
//! events for people. This module knows nothing about the API or schedules: events come from the outbox.

mod attempt;
mod command;
pub mod delivery;
pub mod desktop;
pub mod environment;
pub mod log;
mod message;
mod pace;
mod report;
mod retry;
mod signature;
pub mod variables;
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

pub use command::{CommandNotifier, CommandSettings};
pub use delivery::{AttemptOutcome, AttemptReport, Dispatcher};
pub use desktop::{Desktop, session_bus};
pub use log::Log;
pub use message::{Message, Urgency};
pub use retry::RetrySchedule;
pub use signature::{SecretError, SigningSecret, verify};
pub use webhook::{Webhook, WebhookSettings};

/// One event for one channel.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The event's id.
    pub event_id: EventId,
    /// The parsed event, to be worded.
    pub payload: Payload,
    /// The event's bytes, which are signed and sent.
    pub json: Arc<str>,
    /// The number of this attempt, from 1.
    pub attempt: u32,
}

/// Makes one attempt to deliver an event. Limits its own time; never retries.
pub trait Notifier: Send + Sync + 'static {
    /// Delivers an event. `Ok` means that the receiver confirmed it.
    fn send<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), NotifyError>>;

    /// Delivers several events together. Called only for channels that gather.
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
    /// Whether to retry.
    pub retry: Retry,
    /// What happened, for people. [`Channel::attempt`] removes secrets from it.
    pub message: String,
    /// The start of the receiver's answer, on one line.
    pub answer: Option<String>,
}

/// The kinds of failure, which decide what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Retry on schedule, but not before this much time has passed (`Retry-After`).
    NotBefore(Option<Duration>),
    /// The receiver wants fewer requests: hold the channel for this long, and send less at once. This does not concern
    /// the event.
    SlowDown(Option<Duration>),
    /// The receiver is unavailable and says for how long: hold the channel until then. This concerns the event only if
    /// others are accepted meanwhile.
    Unavailable(Duration),
    /// This event can never be delivered to this channel; others can.
    Undeliverable,
    /// The receiver refuses this and every other event.
    Disable,
}

/// Maximum length of a receiver's answer that is kept, in bytes.
pub const LONGEST_ANSWER: usize = 2048;

/// Maximum length of it in a log line, in characters.
const SHORT_ANSWER: usize = 300;

impl NotifyError {
    /// A failure that a retry may fix.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::new(Retry::NotBefore(None), message)
    }

    /// A failure without an answer of the receiver.
    pub fn new(retry: Retry, message: impl Into<String>) -> Self {
        Self { retry, message: message.into(), answer: None }
    }

    /// Adds the receiver's answer.
    #[must_use]
    pub fn with_answer(self, answer: String) -> Self {
        Self { answer: Some(answer).filter(|answer| !answer.is_empty()), ..self }
    }

    /// Removes secrets.
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

/// A named notification channel.
#[derive(Clone)]
pub struct Channel {
    /// Its name in the configuration, the log and the outbox.
    pub name: ChannelName,
    /// `webhook`, `desktop`, `log` or `command`.
    pub kind: &'static str,
    /// Makes the attempts.
    pub notifier: Arc<dyn Notifier>,
    /// Maximum number of attempts in flight.
    pub concurrency: usize,
    /// Maximum time of an attempt; a lease lasts longer.
    pub timeout: Duration,
    /// When to retry.
    pub schedule: Arc<RetrySchedule>,
    /// How long the first event waits for others to be sent together with it; zero sends each alone.
    pub gather: Duration,
    /// A hash of its configuration, secrets included.
    pub fingerprint: Arc<str>,
    /// The hashes that earlier versions of runwatch used for the same configuration.
    pub formerly: Vec<String>,
    /// The secrets to remove from all texts about attempts.
    pub known: KnownSecrets,
}

impl Channel {
    /// Makes one attempt to deliver these events, limited in time. Redacts the result.
    pub async fn attempt(&self, notices: Vec<Notice>) -> Result<(), NotifyError> {
        let notifier = Arc::clone(&self.notifier);
        // In its own task, so that a panic of the notifier becomes a recorded failure.
        let mut attempt = JoinSet::new();
        attempt.spawn(async move {
            match &notices[..] {
                [notice] => notifier.send(notice).await,
                several => notifier.send_all(several).await,
            }
        });
        // Notifiers limit their own time. The lease relies on this limit.
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
        /// For every form of a secret in an answer, and every cut of the answer.
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
            // Separately, because the text between both could add an eighth character.
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
