//! Reads the API's JSON bodies.
//!
//! Owns the tolerance: every field may be missing, null or of another type, and unknown ones are passed over. The lists
//! in a body (`generated_files` can have 20,000 entries) are skipped without building anything; only the answer that ends
//! a run is read a second time, for its details.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::run::{Details, MAX_TEXT, Progress, Run, RunId, RunStatus, SpecId, printable};

/// Why a body is no run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotARun {
    /// An HTML page.
    Html,
    /// Not JSON, or JSON that breaks off.
    NotJson(String),
    /// JSON, but not an object with a run's fields.
    OtherShape,
    /// A run, but another one: a cache that mixes up its answers.
    OtherRun,
}

/// Reads the body of `GET /runs/{id}/`, which must be about the run that was asked about.
///
/// Ids are compared only where both are UUIDs: what was asked for may be another name of the run.
pub(super) fn run(body: &[u8], asked: &str) -> Result<Run, NotARun> {
    if looks_like_html(body) {
        return Err(NotARun::Html);
    }
    if !is_object(body) {
        // A list would be taken as a struct's fields in order.
        return Err(serde_json::from_slice::<IgnoredAny>(body).map_or_else(not_json, |_| NotARun::OtherShape));
    }
    let wire: WireRun<'_> = serde_json::from_slice(body).map_err(not_json)?;
    if !wire.is_a_run() {
        return Err(NotARun::OtherShape);
    }
    let uuid = |text: &str| text.parse().ok().filter(RunId::is_uuid);
    if let (Some(other), Some(asked)) = (wire.id.text().and_then(uuid), uuid(asked))
        && other != asked
    {
        return Err(NotARun::OtherRun);
    }
    let run = wire.into_run();
    // The details are worth their allocations once, at the end.
    let details = run.status.terminal().and_then(|_| details(body));
    Ok(Run { details, ..run })
}

/// Reads one element of the list of runs, with its details.
pub(super) fn listed(element: &[u8]) -> Result<(RunId, Run), NotARun> {
    let wire: WireRun<'_> = serde_json::from_slice(element).map_err(not_json)?;
    let id = wire.id.text().and_then(|id| id.parse().ok()).ok_or(NotARun::OtherShape)?;
    Ok((id, Run { details: details(element), ..wire.into_run() }))
}

fn details(body: &[u8]) -> Option<Box<Details>> {
    serde_json::from_slice::<WireDetails<'_>>(body).ok().map(|wire| Box::new(wire.into()))
}

/// Whether a body says that it is a page for a browser.
pub(super) fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
    kind.is_some_and(|kind| kind.starts_with(b"text/html") || kind.starts_with(b"application/xhtml"))
}

/// Whether a body is a page for a browser, whatever its content type says.
pub(super) fn looks_like_html(body: &[u8]) -> bool {
    first_byte(without_bom(body)) == Some(b'<')
}

/// A body without the byte order mark that some gateways put before it (RFC 8259, section 8.1: it may be ignored).
pub(super) fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)
}

fn is_object(json: &[u8]) -> bool {
    first_byte(json) == Some(b'{')
}

fn first_byte(body: &[u8]) -> Option<u8> {
    body.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn not_json(error: serde_json::Error) -> NotARun {
    NotARun::NotJson(error.to_string())
}

/// The fields that every poll needs.
#[derive(serde::Deserialize)]
struct WireRun<'a> {
    #[serde(borrow, default)]
    id: Scalar<'a>,
    #[serde(borrow, default)]
    status: Scalar<'a>,
    #[serde(borrow, default)]
    samples_completed: Scalar<'a>,
    #[serde(borrow, default)]
    samples_failed: Scalar<'a>,
    #[serde(borrow, default)]
    created_at: Scalar<'a>,
    #[serde(borrow, default)]
    completed_at: Scalar<'a>,
    #[serde(borrow, default)]
    spec_id: Scalar<'a>,
    #[serde(default)]
    runtime_params: NumberOfSamples,
}

impl WireRun<'_> {
    /// The run, without its details.
    fn into_run(self) -> Run {
        Run {
            status: RunStatus::parse(self.status.text()),
            progress: Progress {
                completed: self.samples_completed.count(),
                failed: self.samples_failed.count(),
                total: self.runtime_params.0,
            },
            created_at: self.created_at.time(),
            completed_at: self.completed_at.time(),
            spec_id: self.spec_id.text().and_then(SpecId::parse),
            details: None,
        }
    }

    /// Every field of a run may be missing, but a status alone is not yet a run: `{"status":"ready"}` is what a gateway
    /// says of its own health. Alone it must be one of the API's five words, to the letter.
    fn is_a_run(&self) -> bool {
        let fields =
            [&self.id, &self.samples_completed, &self.samples_failed, &self.created_at, &self.completed_at];
        let alone = fields.into_iter().all(|field| matches!(field, Scalar::Missing))
            && self.runtime_params.0.is_none();
        match self.status {
            Scalar::Missing => !matches!(self.id, Scalar::Missing),
            Scalar::Text(ref word) if alone => {
                matches!(&**word, "PENDING" | "PROCESSING" | "SUCCEEDED" | "FAILED" | "CANCELED")
            }
            _ => true,
        }
    }
}

/// The fields that only the last answer is read for.
#[derive(serde::Deserialize)]
struct WireDetails<'a> {
    #[serde(borrow, default)]
    spec_name: Scalar<'a>,
    #[serde(borrow, default)]
    spec_version: Scalar<'a>,
    #[serde(borrow, default)]
    dataset_name: Scalar<'a>,
    #[serde(borrow, default)]
    created_by_email: Scalar<'a>,
    #[serde(borrow, default)]
    total_cost: Scalar<'a>,
    #[serde(default)]
    generated_files: Length,
}

impl From<WireDetails<'_>> for Details {
    fn from(wire: WireDetails<'_>) -> Self {
        let text = |value: Scalar<'_>| value.text().map(|text| printable(text, MAX_TEXT));
        Self {
            spec_name: text(wire.spec_name),
            spec_version: wire.spec_version.integer(),
            dataset_name: text(wire.dataset_name),
            created_by_email: text(wire.created_by_email),
            total_cost: wire.total_cost.number(),
            generated_files: wire.generated_files.0,
        }
    }
}

/// A JSON value of any type, of which only texts and numbers are kept.
#[derive(Debug, Default)]
enum Scalar<'a> {
    #[default]
    Missing,
    Text(Cow<'a, str>),
    Integer(i64),
    Number(f64),
    Other,
}

impl Scalar<'_> {
    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    fn time(&self) -> Option<Timestamp> {
        self.text()?.parse().ok()
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            Self::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 =>
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "checked: a whole number within the range"
                )]
                Some(*number as i64)
            }
            Self::Text(text) => text.trim().parse().ok(),
            Self::Number(_) | Self::Other | Self::Missing => None,
        }
    }

    /// A count: never below zero.
    fn count(&self) -> Option<u64> {
        self.integer().and_then(|integer| u64::try_from(integer).ok())
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(integer) => Some(*integer as f64),
            Self::Number(number) => Some(*number).filter(|number| number.is_finite()),
            Self::Text(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            Self::Other | Self::Missing => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(text.to_owned().into()))
            }
            fn visit_i64<E>(self, integer: i64) -> Result<Self::Value, E> {
                Ok(Scalar::Integer(integer))
            }
            fn visit_u64<E>(self, integer: u64) -> Result<Self::Value, E> {
                Ok(i64::try_from(integer).map_or(Scalar::Other, Scalar::Integer))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(number))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// `runtime_params.number_of_samples`, whatever `runtime_params` turns out to be.
#[derive(Default)]
struct NumberOfSamples(Option<u64>);

impl<'de> Deserialize<'de> for NumberOfSamples {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Params<'a> {
            #[serde(borrow, default)]
            number_of_samples: Scalar<'a>,
        }
        let raw = <&serde_json::value::RawValue>::deserialize(deserializer)?;
        let object = Some(raw.get()).filter(|raw| is_object(raw.as_bytes()));
        let params: Option<Params<'_>> = object.and_then(|raw| serde_json::from_str(raw).ok());
        Ok(Self(params.and_then(|params| params.number_of_samples.count())))
    }
}

/// The length of a list, without its entries; none for anything else.
#[derive(Default)]
struct Length(Option<u64>);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&serde_json::value::RawValue>::deserialize(deserializer)?;
        let list: Option<Vec<IgnoredAny>> = serde_json::from_str(raw.get()).ok();
        Ok(Self(list.map(|list| list.len() as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(body: &str) -> RunStatus {
        run(body.as_bytes(), "r").unwrap().status
    }

    #[test]
    fn every_field_may_be_missing_null_or_of_another_type() {
        for body in [
            r#"{"status":"PROCESSING"}"#,
            r#"{"status":"PROCESSING","id":null,"samples_completed":null,"runtime_params":null,"created_at":null}"#,
            r#"{"status":"PROCESSING","samples_completed":-3,"samples_failed":"x","runtime_params":[1]}"#,
            r#"{"status":"PROCESSING","samples_completed":{"a":[1]},"created_at":"yesterday","runtime_params":{"number_of_samples":false}}"#,
            r#"{"status":"PROCESSING","samples_completed":99999999999999999999,"samples_failed":1.5}"#,
        ] {
            let run = run(body.as_bytes(), "r").unwrap();
            assert_eq!(run.status, RunStatus::Processing, "{body}");
            assert_eq!((run.progress, run.created_at), (Progress::default(), None), "{body}");
        }
    }

    #[test]
    fn a_status_that_is_no_word_is_unknown() {
        assert_eq!(status(r#"{"id":"a"}"#), RunStatus::Unknown(None));
        assert_eq!(status(r#"{"id":"a","status":null}"#), RunStatus::Unknown(None));
        assert_eq!(status(r#"{"status":null,"id":null}"#), RunStatus::Unknown(None));
        assert_eq!(status(r#"{"status":3,"id":"a"}"#), RunStatus::Unknown(None));
        assert_eq!(status(r#"{"status":{"name":"SUCCEEDED"},"id":"a"}"#), RunStatus::Unknown(None));
    }

    #[test]
    fn an_answer_about_another_run_is_none() {
        let body = |id: &str| format!(r#"{{"status":"SUCCEEDED","id":"{id}"}}"#);
        let (one, other) = ("5eed0000-0000-4000-8000-00000000000a", "5eed0000-0000-4000-8000-00000000000b");
        assert!(run(body(one).as_bytes(), &one.to_uppercase()).is_ok());
        assert_eq!(run(body(other).as_bytes(), one).unwrap_err(), NotARun::OtherRun);
        assert!(run(body(other).as_bytes(), "latest").is_ok(), "another name of the run");
    }

    #[test]
    fn a_status_alone_must_be_one_of_the_five() {
        for word in ["PENDING", "PROCESSING", "SUCCEEDED", "FAILED", "CANCELED"] {
            assert_eq!(status(&format!(r#"{{"status":"{word}"}}"#)).as_str(), word);
        }
        assert_eq!(status(r#"{"status":"ready","id":"a"}"#), RunStatus::Succeeded);
    }

    #[test]
    fn counts_in_other_clothes_still_count() {
        let run = run(br#"{"status":"PENDING","samples_completed":"7","samples_failed":2.0,"runtime_params":{"x":[{}],"number_of_samples":10}}"#, "r")
            .unwrap();
        assert_eq!(run.progress, Progress { completed: Some(7), failed: Some(2), total: Some(10) });
    }

    #[test]
    fn reads_the_three_forms_of_time() {
        for time in ["2026-11-20T09:00:25.110Z", "2026-11-20T09:00:25.110000+00:00", "2026-11-20T09:00:25Z"] {
            let run = run(format!(r#"{{"id":"a","created_at":"{time}"}}"#).as_bytes(), "r").unwrap();
            assert_eq!(run.created_at.unwrap().as_second(), 1_795_165_225, "{time}");
        }
    }

    #[test]
    fn tells_apart_what_is_no_run() {
        assert_eq!(run(b"\n <!DOCTYPE html><p>SUCCEEDED", "r").unwrap_err(), NotARun::Html);
        for body in ["", "{", r#"{"status":"SUCCEEDED","#, "SUCCEEDED", "\u{feff}{}"] {
            assert!(matches!(run(body.as_bytes(), "r"), Err(NotARun::NotJson(_))), "{body}");
        }
        for body in [
            "[]",
            "null",
            r#""SUCCEEDED""#,
            "{}",
            r#"{"error":"x"}"#,
            r#"[{"status":"SUCCEEDED"}]"#,
            r#"{"status":"ready"}"#,
            r#"{"status":"failed"}"#,
            r#"{"status":"ok","uptime":3}"#,
        ] {
            assert_eq!(run(body.as_bytes(), "r").unwrap_err(), NotARun::OtherShape, "{body}");
        }
    }

    #[test]
    fn details_come_with_the_end_only() {
        let body = |status: &str| {
            format!(
                r#"{{"status":"{status}","spec_name":"a\u001bb","total_cost":1.5,"generated_files":[{{"id":1}},{{}}]}}"#
            )
        };
        assert_eq!(run(body("PROCESSING").as_bytes(), "r").unwrap().details, None);
        let details = run(body("FAILED").as_bytes(), "r").unwrap().details.unwrap();
        assert_eq!(details.spec_name.as_deref(), Some("a b"));
        assert_eq!((details.total_cost, details.generated_files), (Some(1.5), Some(2)));
    }
}
