//! What the world is told of a run, and under which name.
//!
//! Owns the event types, their stable ids, and the payload that goes over the wire. The wording for people is not here
//! (`notify::message`), and neither is the sending.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Details, Ending, RunId, RunState, RunStatus, Subject, Terminal};

/// The types of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventKind {
    /// The run SUCCEEDED.
    #[serde(rename = "run.succeeded")]
    RunSucceeded,
    /// The run FAILED.
    #[serde(rename = "run.failed")]
    RunFailed,
    /// The run was CANCELED.
    #[serde(rename = "run.canceled")]
    RunCanceled,
    /// The run can no longer be watched: see [`EventData::reason`].
    #[serde(rename = "run.lost")]
    RunLost,
    /// No sample has been settled for longer than the configuration bears.
    #[serde(rename = "run.stalled")]
    RunStalled,
    /// The run is past its deadline and goes on.
    #[serde(rename = "run.overdue")]
    RunOverdue,
    /// The API has not answered for a while.
    #[serde(rename = "api.unreachable")]
    ApiUnreachable,
    /// A channel was given up on: see [`EventData::channel`] and [`EventData::event_id`].
    #[serde(rename = "delivery.failed")]
    DeliveryFailed,
    /// Sent by `runwatch notify test`: nothing happened.
    #[serde(rename = "runwatch.test")]
    Test,
}

impl EventKind {
    /// Every type that can be chosen in the configuration.
    pub const ALL: [Self; 8] = [
        Self::RunSucceeded,
        Self::RunFailed,
        Self::RunCanceled,
        Self::RunLost,
        Self::RunStalled,
        Self::RunOverdue,
        Self::ApiUnreachable,
        Self::DeliveryFailed,
    ];

    /// Whether it is the end of a watch.
    pub fn is_end(self) -> bool {
        matches!(self, Self::RunSucceeded | Self::RunFailed | Self::RunCanceled | Self::RunLost)
    }

    /// Whether it means nothing any more once a later end of the same run is known.
    pub fn is_overtaken_by_end(self) -> bool {
        matches!(self, Self::RunStalled | Self::RunOverdue | Self::RunLost)
    }

    /// The type as it is written, such as `run.failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RunSucceeded => "run.succeeded",
            Self::RunFailed => "run.failed",
            Self::RunCanceled => "run.canceled",
            Self::RunLost => "run.lost",
            Self::RunStalled => "run.stalled",
            Self::RunOverdue => "run.overdue",
            Self::ApiUnreachable => "api.unreachable",
            Self::DeliveryFailed => "delivery.failed",
            Self::Test => "runwatch.test",
        }
    }
}

impl EventKind {
    /// Whether it is about a run that goes on.
    pub fn is_warning(self) -> bool {
        matches!(self, Self::RunStalled | Self::RunOverdue)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().chain([Self::Test]).find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// The name of one event, `evt_` and 32 hexadecimal digits: the same on every retry, restart and machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Arc<str>);

impl EventId {
    /// Derives the id from what makes the event the one it is: the API it was seen at, the run, the type, and, for
    /// events that can happen more than once, which time this is.
    ///
    /// Two watchers of one run thus send one id, and so does a watcher that lost its state.
    pub fn derive(source: &str, run: Option<&RunId>, kind: EventKind, occurrence: &str) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for part in ["runwatch", source, run.map_or("", RunId::as_str), kind.as_str(), occurrence] {
            // The length keeps ("ab", "c") apart from ("a", "bc").
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut id = String::from("evt_");
        for byte in &context.finish().as_ref()[..16] {
            let hex = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
            id.push(hex(byte >> 4));
            id.push(hex(byte & 15));
        }
        Self(id.into())
    }

    /// Takes back an id that was stored.
    pub fn from_stored(id: &str) -> Self {
        Self(id.into())
    }

    /// The id as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that happened, as it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name, for receivers that remember.
    pub id: EventId,
    /// What goes over the wire.
    pub payload: Payload,
}

/// The body of a notification, by the structure that Standard Webhooks 1.0.0 recommends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// The type of event.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When it was seen (UTC).
    pub timestamp: Timestamp,
    /// What is known.
    pub data: EventData,
}

/// What an event says. Fields that do not apply are left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventData {
    /// The run's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// The name people gave the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_name: Option<String>,
    /// The last status the API gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<RunStatus>,
    /// Why a run was lost: `never_found`, `deleted`, `key_refused`, `unknown_status` or `rejected`. Why the API is of no
    /// use: `no_answer`, `throttled`, `key_refused` or `list_failed`. Why a channel was given up on, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when a run has made no progress or been overdue, or the API has been of no use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The channel that was given up on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The event that it was not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Samples generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples_completed: Option<u64>,
    /// Samples given up on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples_failed: Option<u64>,
    /// Samples asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_of_samples: Option<u64>,
    /// When the run was created, by the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it ended, by the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// Seconds from the one to the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    /// What else the last answer said, each left out where it is not known.
    #[serde(flatten)]
    pub details: Details,
}

impl Event {
    /// The event that the end of a watch is.
    ///
    /// `source` is the API's base URL; `state` the record after the end; `details` come from the last answer.
    pub fn of_ending(
        source: &str,
        subject: &Subject,
        ending: Ending,
        state: &RunState,
        details: Option<&Details>,
        at: Timestamp,
    ) -> Self {
        let kind = match ending {
            Ending::Finished(Terminal::Succeeded) => EventKind::RunSucceeded,
            Ending::Finished(Terminal::Failed) => EventKind::RunFailed,
            Ending::Finished(Terminal::Canceled) => EventKind::RunCanceled,
            _ => EventKind::RunLost,
        };
        let reason = Some(ending.word()).filter(|_| kind == EventKind::RunLost);
        let data = EventData {
            reason: reason.map(str::to_owned),
            details: details.cloned().unwrap_or_default(),
            ..EventData::of_run(subject, state)
        };
        Self {
            id: EventId::derive(source, Some(&subject.id), kind, ""),
            payload: Payload { kind, timestamp: at, data },
        }
    }

    /// A warning about a run that goes on. Each `at` is an occurrence of its own.
    pub fn of_warning(
        source: &str,
        subject: &Subject,
        kind: EventKind,
        state: &RunState,
        since: Timestamp,
        at: Timestamp,
    ) -> Self {
        let data = EventData { since: Some(since), ..EventData::of_run(subject, state) };
        let id = EventId::derive(source, Some(&subject.id), kind, &at.as_microsecond().to_string());
        Self { id, payload: Payload { kind, timestamp: at, data } }
    }

    /// The API is of no use. Each `at` is an occurrence of its own.
    pub fn of_outage(source: &str, reason: &str, since: Timestamp, at: Timestamp) -> Self {
        let kind = EventKind::ApiUnreachable;
        let data = EventData { reason: Some(reason.to_owned()), since: Some(since), ..EventData::default() };
        let id = EventId::derive(source, None, kind, &at.as_microsecond().to_string());
        Self { id, payload: Payload { kind, timestamp: at, data } }
    }

    /// A channel was given up on with `failed` untold. One per event and channel, whenever it happens.
    pub fn of_dead_letter(
        failed: &EventId,
        about: &Payload,
        channel: &str,
        why: &str,
        at: Timestamp,
    ) -> Self {
        let kind = EventKind::DeliveryFailed;
        let data = EventData {
            run_id: about.data.run_id.clone(),
            run_name: about.data.run_name.clone(),
            reason: Some(why.to_owned()),
            channel: Some(channel.to_owned()),
            event_id: Some(failed.to_string()),
            ..EventData::default()
        };
        let id = EventId::derive(failed.as_str(), None, kind, channel);
        Self { id, payload: Payload { kind, timestamp: at, data } }
    }

    /// The event that `notify test` sends. Each call is an occurrence of its own.
    pub fn test(at: Timestamp) -> Self {
        let kind = EventKind::Test;
        Self {
            id: EventId::derive("", None, kind, &at.to_string()),
            payload: Payload { kind, timestamp: at, data: EventData::default() },
        }
    }
}

impl EventData {
    /// What every event about a run says.
    pub fn of_run(subject: &Subject, state: &RunState) -> Self {
        Self {
            run_id: Some(subject.id.clone()),
            run_name: subject.name.as_deref().map(str::to_owned),
            status: state.status.clone(),
            samples_completed: state.progress.completed,
            samples_failed: state.progress.failed,
            number_of_samples: state.progress.total,
            created_at: state.created_at,
            completed_at: state.completed_at,
            duration_seconds: state.took().map(|took| took.as_secs_f64()),
            ..Self::default()
        }
    }

    /// The name people gave the run, else its id, else nothing.
    pub fn label(&self) -> &str {
        self.run_name.as_deref().or(self.run_id.as_ref().map(RunId::as_str)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::MAX_TEXT;

    fn id(source: &str, run: &str, kind: EventKind) -> EventId {
        EventId::derive(source, Some(&run.parse().unwrap()), kind, "")
    }

    #[test]
    fn an_id_is_the_same_everywhere_and_for_ever() {
        // A change of this value would make every receiver see old events as new ones.
        assert_eq!(
            id("https://df-api.dataframer.ai", "r1", EventKind::RunFailed).as_str(),
            "evt_fa965206f35afb009b3bd2aeb54c4fa4"
        );
    }

    #[test]
    fn an_id_tells_apart_what_is_different() {
        let one = id("https://a", "r1", EventKind::RunFailed);
        assert_ne!(one, id("https://b", "r1", EventKind::RunFailed));
        assert_ne!(one, id("https://a", "r2", EventKind::RunFailed));
        assert_ne!(one, id("https://a", "r1", EventKind::RunCanceled));
        assert_ne!(
            id("https://a", "br1", EventKind::RunFailed),
            id("https://ab", "r1", EventKind::RunFailed)
        );
    }

    #[test]
    fn every_type_is_read_back() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn the_largest_payload_stays_under_20_kb() {
        let longest = "\u{1F9EA}\"\\".repeat(MAX_TEXT / 3);
        let long = Some(longest.clone());
        let details = Details {
            spec_name: long.clone(),
            dataset_name: long.clone(),
            created_by_email: long.clone(),
            spec_version: Some(i64::MIN),
            total_cost: Some(f64::MIN_POSITIVE),
            generated_files: Some(u64::MAX),
        };
        let subject = Subject { id: "x".repeat(200).parse().unwrap(), name: Some(longest.into()) };
        let mut state = RunState::new(Timestamp::MIN);
        state.created_at = Some(Timestamp::MIN);
        state.completed_at = Some(Timestamp::MAX);
        let event =
            Event::of_ending("https://h", &subject, Ending::Gone, &state, Some(&details), Timestamp::MAX);
        let json = serde_json::to_vec(&event.payload).unwrap();
        assert!(json.len() < 20_000, "{}", json.len());
        assert_eq!(serde_json::from_slice::<Payload>(&json).unwrap(), event.payload);
    }
}
