//! The events that runwatch sends, and their names.
//!
//! Defines the event types, their stable ids, and the payload on the wire. `notify::message` has the wording for
//! people; sending is in `notify` too.

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
    /// No sample was settled for longer than the configured time.
    #[serde(rename = "run.stalled")]
    RunStalled,
    /// The run is past its deadline and still active.
    #[serde(rename = "run.overdue")]
    RunOverdue,
    /// The API has been unreachable for a while.
    #[serde(rename = "api.unreachable")]
    ApiUnreachable,
    /// A delivery to a channel failed for good: see [`EventData::channel`] and [`EventData::event_id`].
    #[serde(rename = "delivery.failed")]
    DeliveryFailed,
    /// Sent by `runwatch notify test`; nothing happened.
    #[serde(rename = "runwatch.test")]
    Test,
}

impl EventKind {
    /// Every type that the configuration accepts.
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

    /// Whether a later end of the same run makes it obsolete.
    pub fn is_overtaken_by_end(self) -> bool {
        matches!(self, Self::RunStalled | Self::RunOverdue | Self::RunLost)
    }

    /// The type's name, such as `run.failed`.
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
    /// Whether it is about an active run.
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

/// The id of one event, `evt_` and 32 hexadecimal digits. It is the same on every retry, restart and machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Arc<str>);

impl EventId {
    /// Derives the id from what identifies the event: the API, the run, the type, and an `occurrence` for events that
    /// can happen more than once.
    ///
    /// So two watchers of one run send the same id, and so does a watcher that lost its state.
    pub fn derive(source: &str, run: Option<&RunId>, kind: EventKind, occurrence: &str) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for part in ["runwatch", source, run.map_or("", RunId::as_str), kind.as_str(), occurrence] {
            // The length makes ("ab", "c") differ from ("a", "bc").
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

    /// Wraps an id that was stored.
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

/// An event to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its id, for receivers that ignore duplicates.
    pub id: EventId,
    /// The content.
    pub payload: Payload,
}

/// The body of a notification, in the structure that Standard Webhooks 1.0.0 recommends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// The type of event.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When it was observed (UTC).
    pub timestamp: Timestamp,
    /// The event's fields.
    pub data: EventData,
}

/// The fields of an event. Fields that do not apply are left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventData {
    /// The run's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// The name that the user gave the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_name: Option<String>,
    /// The API's last status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<RunStatus>,
    /// For a lost run: `never_found`, `deleted`, `key_refused`, `unknown_status` or `rejected`. For an outage:
    /// `no_answer`, `throttled`, `key_refused` or `list_failed`. For a failed delivery: the reason in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the run stalled or became overdue, or the outage began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The channel that the delivery failed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The event that was not delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Samples generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples_completed: Option<u64>,
    /// Samples that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples_failed: Option<u64>,
    /// Samples requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_of_samples: Option<u64>,
    /// When the run was created, according to the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it ended, according to the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// Seconds from `created_at` to `completed_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    /// Other fields of the last answer. Unknown ones are left out.
    #[serde(flatten)]
    pub details: Details,
}

impl Event {
    /// The event for the end of a watch.
    ///
    /// `source` is the API's base URL, `state` is the record after the end, and `details` come from the last answer.
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

    /// A warning about an active run. Each `at` is a separate occurrence.
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

    /// An outage of the API. Each `at` is a separate occurrence.
    pub fn of_outage(source: &str, reason: &str, since: Timestamp, at: Timestamp) -> Self {
        let kind = EventKind::ApiUnreachable;
        let data = EventData { reason: Some(reason.to_owned()), since: Some(since), ..EventData::default() };
        let id = EventId::derive(source, None, kind, &at.as_microsecond().to_string());
        Self { id, payload: Payload { kind, timestamp: at, data } }
    }

    /// The delivery of `failed` to a channel failed for good. `run` is the run that the event was about, and its name.
    /// The id depends only on the event and the channel.
    pub fn of_dead_letter(
        failed: &EventId,
        run: (Option<RunId>, Option<String>),
        channel: &str,
        why: &str,
        at: Timestamp,
    ) -> Self {
        let kind = EventKind::DeliveryFailed;
        let data = EventData {
            run_id: run.0,
            run_name: run.1,
            reason: Some(why.to_owned()),
            channel: Some(channel.to_owned()),
            event_id: Some(failed.to_string()),
            ..EventData::default()
        };
        let id = EventId::derive(failed.as_str(), None, kind, channel);
        Self { id, payload: Payload { kind, timestamp: at, data } }
    }

    /// The event that `notify test` sends. Each call is a separate occurrence.
    pub fn test(at: Timestamp) -> Self {
        let kind = EventKind::Test;
        Self {
            id: EventId::derive("", None, kind, &at.to_string()),
            payload: Payload { kind, timestamp: at, data: EventData::default() },
        }
    }
}

impl EventData {
    /// The fields of every event about a run.
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

    /// The run's name, or its id, or nothing.
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
        // If this value changed, every receiver would treat old events as new.
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
    fn a_warning_has_the_status_that_its_run_still_has() {
        let subject = Subject { id: "r1".parse().unwrap(), name: None };
        let mut state = RunState::new(Timestamp::UNIX_EPOCH);
        state.status = Some(RunStatus::parse(Some("PROCESSING")));
        let (since, at) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        for kind in [EventKind::RunStalled, EventKind::RunOverdue] {
            let warning = Event::of_warning("https://a", &subject, kind, &state, since, at);
            let json = serde_json::to_value(&warning.payload).unwrap();
            assert_eq!(json["data"]["status"], "PROCESSING", "{json}");
            assert_eq!(json["data"]["since"], "1970-01-01T00:00:00Z", "{json}");
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
