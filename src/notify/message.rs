//! The wording of notifications for people: title, body and urgency. No other file words events.

use std::time::Duration;

use crate::run::event::{EventData, Payload};
use crate::run::text::one_line;
use crate::run::{Details, EventKind, RunStatus};
use crate::span;

/// An event for people, as plain text without markup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// One short line.
    pub title: String,
    /// One or two sentences; may be empty.
    pub body: String,
    /// The urgency.
    pub urgency: Urgency,
}

/// The urgency of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// For information.
    Low,
    /// An expected result.
    Normal,
    /// Someone must act.
    Critical,
}

impl Message {
    /// The message for an event.
    pub fn of(payload: &Payload) -> Self {
        let data = &readable(&payload.data);
        let run = data.label();
        let (title, urgency) = match payload.kind {
            EventKind::RunSucceeded => match data.samples_failed.unwrap_or(0) {
                0 => (format!("Run {run} succeeded"), Urgency::Normal),
                failed => {
                    (format!("Run {run} succeeded, {failed} {} failed", samples(failed)), Urgency::Normal)
                }
            },
            EventKind::RunFailed => (format!("Run {run} failed"), Urgency::Critical),
            EventKind::RunCanceled => (format!("Run {run} was canceled"), Urgency::Normal),
            EventKind::RunLost => (format!("Run {run} can no longer be watched"), Urgency::Critical),
            EventKind::RunStalled => (format!("Run {run} has stalled"), Urgency::Normal),
            EventKind::RunOverdue => (format!("Run {run} is overdue"), Urgency::Normal),
            EventKind::ApiUnreachable if data.reason.as_deref() == Some("list_failed") => {
                ("New DataFramer runs cannot be discovered".to_owned(), Urgency::Critical)
            }
            EventKind::ApiUnreachable if data.reason.as_deref() == Some("throttled") => {
                ("The DataFramer API throttles requests".to_owned(), Urgency::Critical)
            }
            EventKind::ApiUnreachable if data.reason.as_deref() == Some("key_refused") => {
                ("The DataFramer API refuses the key".to_owned(), Urgency::Critical)
            }
            EventKind::ApiUnreachable => {
                ("The DataFramer API cannot be reached".to_owned(), Urgency::Critical)
            }
            EventKind::DeliveryFailed => {
                let channel = data.channel.as_deref().unwrap_or("?");
                (format!("Delivery to the channel {channel} failed"), Urgency::Critical)
            }
            EventKind::Test => ("runwatch test".to_owned(), Urgency::Low),
        };
        Self { title, body: body(payload.kind, data), urgency }
    }
}

/// Maximum number of events that a combined message names.
const NAMED: usize = 6;

impl Message {
    /// The message for several events together: their counts, and the titles of the most severe.
    pub fn of_many(payloads: &[&Payload]) -> Self {
        let mut worst_first = payloads.to_vec();
        worst_first.sort_by_key(|payload| severity(payload));
        let messages: Vec<Self> = worst_first.iter().map(|payload| Self::of(payload)).collect();
        let mut counts: Vec<String> = Vec::new();
        for (kind, word) in [
            (EventKind::RunFailed, "failed"),
            (EventKind::RunCanceled, "canceled"),
            (EventKind::RunLost, "lost"),
            (EventKind::RunSucceeded, "succeeded"),
        ] {
            let count = payloads.iter().filter(|payload| payload.kind == kind).count();
            if count > 0 {
                counts.push(format!("{count} {word}"));
            }
        }
        let others = payloads.iter().filter(|payload| !payload.kind.is_end()).count();
        let runs = payloads.len() - others;
        let title = match (runs, others) {
            (0, others) => format!("{others} warnings"),
            (runs, 0) => format!("{runs} runs have ended: {}", counts.join(", ")),
            (runs, others) => format!(
                "{runs} {} ended: {}; {others} {}",
                if runs == 1 { "run has" } else { "runs have" },
                counts.join(", "),
                if others == 1 { "warning" } else { "warnings" }
            ),
        };
        let mut lines: Vec<String> =
            messages.iter().take(NAMED).map(|message| message.title.clone()).collect();
        if messages.len() > NAMED {
            lines.push(format!("and {} more", messages.len() - NAMED));
        }
        let urgency = |of: Urgency| messages.iter().any(|message| message.urgency == of);
        let urgency = [Urgency::Critical, Urgency::Normal].into_iter().find(|of| urgency(*of));
        Self { title, body: lines.join("\n"), urgency: urgency.unwrap_or(Urgency::Low) }
    }
}

/// The order of severity, most severe first. Events of the same severity keep their order.
fn severity(payload: &Payload) -> u8 {
    match payload.kind {
        EventKind::RunFailed => 0,
        EventKind::RunLost => 1,
        EventKind::ApiUnreachable | EventKind::DeliveryFailed => 2,
        EventKind::RunOverdue | EventKind::RunStalled => 3,
        EventKind::RunCanceled => 4,
        EventKind::RunSucceeded if payload.data.samples_failed.unwrap_or(0) > 0 => 5,
        EventKind::RunSucceeded => 6,
        EventKind::Test => 7,
    }
}

/// The texts safe for people, each on one line, because text from the API and the user may hide or forge other text.
fn readable(data: &EventData) -> EventData {
    let line = |text: &String| one_line(text).into_owned();
    let status = data.status.as_ref().map(|status| match status {
        RunStatus::Unknown(Some(word)) => RunStatus::Unknown(Some(one_line(word).into())),
        known => known.clone(),
    });
    EventData {
        run_name: data.run_name.as_ref().map(line),
        status,
        reason: data.reason.as_ref().map(line),
        channel: data.channel.as_ref().map(line),
        details: Details { spec_name: data.details.spec_name.as_ref().map(line), ..data.details.clone() },
        ..data.clone()
    }
}

fn body(kind: EventKind, data: &EventData) -> String {
    let run = data.label();
    let first = match kind {
        EventKind::RunLost => Some(lost(data)),
        EventKind::RunStalled => since(data).map(|at| format!("No sample has been settled since {at}.")),
        EventKind::RunOverdue => since(data).map(|at| format!("It should have ended by {at}.")),
        EventKind::ApiUnreachable => Some(match (data.reason.as_deref(), since(data)) {
            (Some("key_refused"), at) => format!("The API refuses the key{}.", since_words(at)),
            (Some("list_failed"), at) => {
                format!("Fetching the list of runs has failed{}; see the log.", since_words(at))
            }
            (Some("throttled"), at) => {
                format!("It has answered nothing but 429 (too many requests){}.", since_words(at))
            }
            (_, at) => format!("It has not answered{}.", since_words(at)),
        }),
        EventKind::DeliveryFailed => {
            let reason = data.reason.as_deref().unwrap_or("it is not known why");
            let about = if run.is_empty() { String::new() } else { format!("{run}: ") };
            Some(format!("{about}{reason}. See `runwatch deliveries list`."))
        }
        EventKind::Test => Some("This channel works.".to_owned()),
        _ => None,
    };
    let facts = [progress(data), took(data), data.details.spec_name.clone()];
    let facts = facts.into_iter().flatten().collect::<Vec<_>>().join(" · ");
    [first, Some(facts)].into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn lost(data: &EventData) -> String {
    match data.reason.as_deref() {
        Some("never_found") => {
            "The API does not know this run: check the id, the key and the base URL.".to_owned()
        }
        Some("deleted") => match &data.status {
            Some(status) => format!("The API does not know it any more; it was {status} when last seen."),
            None => "The API does not know it any more.".to_owned(),
        },
        Some("key_refused") => "The API refuses the key.".to_owned(),
        Some("rejected") => "The API keeps refusing the request: check the base URL.".to_owned(),
        _ => match &data.status {
            Some(status) => format!("Its status stayed {status}, which this version does not know."),
            None => "Its status stayed unknown.".to_owned(),
        },
    }
}

fn since(data: &EventData) -> Option<String> {
    data.since.map(|at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

fn since_words(at: Option<String>) -> String {
    at.map(|at| format!(" since {at}")).unwrap_or_default()
}

fn progress(data: &EventData) -> Option<String> {
    let completed = data.samples_completed?;
    let of = data.number_of_samples.map(|total| format!(" of {total}")).unwrap_or_default();
    let unit = samples(data.number_of_samples.unwrap_or(completed));
    let failed = match data.samples_failed.unwrap_or(0) {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    Some(format!("{completed}{of} {unit}{failed}"))
}

fn took(data: &EventData) -> Option<String> {
    let duration = Duration::try_from_secs_f64(data.duration_seconds?).ok()?;
    Some(format!("took {}", span::human(duration)))
}

fn samples(count: u64) -> &'static str {
    if count == 1 { "sample" } else { "samples" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: EventKind, data: EventData) -> Message {
        Message::of(&Payload { kind, timestamp: jiff::Timestamp::UNIX_EPOCH, data })
    }

    fn data() -> EventData {
        EventData {
            run_id: "r1".parse().ok(),
            run_name: Some("nightly".into()),
            status: Some(RunStatus::Succeeded),
            samples_completed: Some(193),
            samples_failed: Some(7),
            number_of_samples: Some(200),
            duration_seconds: Some(2472.5),
            details: Details { spec_name: Some("support_tickets".into()), ..Details::default() },
            ..EventData::default()
        }
    }

    #[test]
    fn says_how_it_ended_and_what_came_of_it() {
        let said = message(EventKind::RunSucceeded, data());
        assert_eq!(said.title, "Run nightly succeeded, 7 samples failed");
        assert_eq!(said.body, "193 of 200 samples, 7 failed · took 41m 12s · support_tickets");
        let failed =
            message(EventKind::RunFailed, EventData { run_name: None, samples_failed: None, ..data() });
        assert_eq!((failed.title.as_str(), failed.urgency), ("Run r1 failed", Urgency::Critical));
    }

    #[test]
    fn says_why_a_run_was_lost() {
        let lost = |reason: &str| {
            message(EventKind::RunLost, EventData { reason: Some(reason.into()), ..data() }).body
        };
        assert!(
            lost("deleted")
                .starts_with("The API does not know it any more; it was SUCCEEDED when last seen.\n")
        );
        assert!(lost("never_found").starts_with("The API does not know this run: check"));
        assert!(lost("unknown_status").starts_with("Its status stayed SUCCEEDED"));
    }

    #[test]
    fn several_are_told_in_one_breath() {
        let payload = |kind| Payload { kind, timestamp: jiff::Timestamp::UNIX_EPOCH, data: data() };
        let ends = [EventKind::RunSucceeded, EventKind::RunFailed, EventKind::RunSucceeded].map(payload);
        let said = Message::of_many(&ends.iter().collect::<Vec<_>>());
        assert_eq!(said.title, "3 runs have ended: 1 failed, 2 succeeded");
        assert_eq!(said.body.lines().next(), Some("Run nightly failed"));
        assert_eq!(said.urgency, Urgency::Critical);
        let many: Vec<Payload> = (0..20).map(|_| payload(EventKind::RunStalled)).collect();
        let said = Message::of_many(&many.iter().collect::<Vec<_>>());
        assert_eq!((said.title.as_str(), said.urgency), ("20 warnings", Urgency::Normal));
        assert!(said.body.ends_with("and 14 more"), "{}", said.body);
    }

    #[test]
    fn no_failure_hides_behind_successes() {
        let payload = |kind, samples_failed| Payload {
            kind,
            timestamp: jiff::Timestamp::UNIX_EPOCH,
            data: EventData { samples_failed: Some(samples_failed), ..data() },
        };
        let mut all: Vec<Payload> = (0..44).map(|_| payload(EventKind::RunSucceeded, 0)).collect();
        all.push(payload(EventKind::RunSucceeded, 3));
        all.extend([EventKind::RunCanceled, EventKind::RunStalled].map(|kind| payload(kind, 0)));
        all.extend([EventKind::RunLost, EventKind::RunFailed].map(|kind| payload(kind, 0)));
        let said = Message::of_many(&all.iter().collect::<Vec<_>>());
        let lines: Vec<&str> = said.body.lines().collect();
        assert_eq!(
            lines,
            [
                "Run nightly failed",
                "Run nightly can no longer be watched",
                "Run nightly has stalled",
                "Run nightly was canceled",
                "Run nightly succeeded, 3 samples failed",
                "Run nightly succeeded",
                "and 43 more",
            ]
        );
    }

    #[test]
    fn no_hidden_character_reaches_a_reader_and_no_name_makes_a_line_of_its_own() {
        let bad = "a\u{202e}b\u{200b}c\u{61c}\u{feff}\n\rRun x failed\u{2066}";
        let data = EventData {
            run_name: Some(bad.into()),
            status: Some(RunStatus::Unknown(Some(bad.into()))),
            reason: Some(bad.into()),
            channel: Some(bad.into()),
            details: Details { spec_name: Some(bad.into()), ..Details::default() },
            ..data()
        };
        let plain = EventData {
            run_name: Some("x".into()),
            status: Some(RunStatus::Unknown(Some("x".into()))),
            reason: Some("x".into()),
            channel: Some("x".into()),
            details: Details { spec_name: Some("x".into()), ..Details::default() },
            ..data.clone()
        };
        for kind in EventKind::ALL {
            let (said, expected) = (message(kind, data.clone()), message(kind, plain.clone()));
            for text in [&said.title, &said.body] {
                assert!(
                    !text.chars().any(|c| c != '\n' && crate::run::text::is_hidden(c)),
                    "{kind}: {text:?}"
                );
            }
            assert_eq!(said.body.lines().count(), expected.body.lines().count(), "{kind}: {said:?}");
            assert!(!said.title.contains('\n'), "{kind}: {said:?}");
            let payload = Payload { kind, timestamp: jiff::Timestamp::UNIX_EPOCH, data: data.clone() };
            let many = Message::of_many(&[&payload, &payload]);
            assert_eq!(many.body.lines().count(), 2, "{many:?}");
        }
    }

    #[test]
    fn every_event_has_a_title_even_with_nothing_known() {
        for kind in EventKind::ALL {
            let said = message(kind, EventData::default());
            assert!(!said.title.is_empty(), "{kind}");
        }
    }
}
