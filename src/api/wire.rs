//! Reads the API's JSON bodies.
//!
//! Owns the tolerance: every field may be missing, null or of another type, and unknown ones are passed over. The lists
//! in a body (`generated_files` can have 20,000 entries) are skipped without building anything; only the answer that ends
//! a run is read a second time, for its details.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::body::{is_object, looks_like_html, without_bom};
use super::repair;
use super::scalar::{Length, NumberOfSamples, Scalar};
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
    /// A run with two different statuses, or two ids.
    Ambiguous,
}

/// Reads the body of `GET /runs/{id}/`, which must be about the run that was asked about; gives it as JSON, too.
///
/// The status counts if it is there once. What is odd elsewhere (a byte order mark, `NaN`, a field twice, another type) does
/// not matter. Ids are compared only where both are UUIDs: what was asked for may be another name of the run.
pub(super) fn read(body: &Bytes, asked: &str) -> Result<(Run, Bytes), NotARun> {
    if looks_like_html(body) {
        return Err(NotARun::Html);
    }
    let body = body.slice(body.len() - without_bom(body).len()..);
    match run(&body, asked) {
        Err(NotARun::NotJson(why)) => {
            let repaired = repair::json(&body).ok_or(NotARun::NotJson(why))?;
            run(&repaired, asked).map(|run| (run, repaired))
        }
        read => read.map(|run| {
            let is_text = std::str::from_utf8(&body).is_ok();
            (run, if is_text { body } else { repair::json(&body).unwrap_or_default() })
        }),
    }
}

fn run(body: &[u8], asked: &str) -> Result<Run, NotARun> {
    if !is_object(body) {
        // A list would be taken as a struct's fields in order.
        return Err(serde_json::from_slice::<IgnoredAny>(body).map_or_else(not_json, |_| NotARun::OtherShape));
    }
    let wire: WireRun<'_> = fields(body)?;
    if !wire.is_a_run() {
        return Err(NotARun::OtherShape);
    }
    if wire.is_ambiguous {
        return Err(NotARun::Ambiguous);
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
    match one_listed(element) {
        Err(NotARun::NotJson(why)) => one_listed(&repair::json(element).ok_or(NotARun::NotJson(why))?),
        read => read,
    }
}

fn one_listed(element: &[u8]) -> Result<(RunId, Run), NotARun> {
    let wire: WireRun<'_> = fields(element)?;
    if wire.is_ambiguous {
        return Err(NotARun::Ambiguous);
    }
    let id = wire.id.text().and_then(|id| id.parse().ok()).ok_or(NotARun::OtherShape)?;
    Ok((id, Run { details: details(element), ..wire.into_run() }))
}

fn details(body: &[u8]) -> Option<Box<Details>> {
    let read = |body: &[u8]| fields::<WireDetails<'_>>(body).ok().map(|wire| Box::new(wire.into()));
    read(body).or_else(|| read(&repair::json(body)?))
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn not_json(error: serde_json::Error) -> NotARun {
    NotARun::NotJson(error.to_string())
}

/// What is taken of an object, field by field. The last of several of one name counts.
trait Wire<'de>: Default {
    /// Takes the value of a field; false if it is none of its own.
    fn take<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Reads the fields of an object.
fn fields<'de, W: Wire<'de>>(json: &'de [u8]) -> Result<W, NotARun> {
    struct Object<W>(W);
    impl<'de, W: Wire<'de>> Deserialize<'de> for Object<W> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Fields(std::marker::PhantomData)).map(Self)
        }
    }
    struct Fields<W>(std::marker::PhantomData<W>);
    impl<'de, W: Wire<'de>> Visitor<'de> for Fields<W> {
        type Value = W;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<W, A::Error> {
            let mut wire = W::default();
            while let Some(name) = map.next_key::<Scalar<'de>>()? {
                if !wire.take(name.text().unwrap_or_default(), &mut map)? {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(wire)
        }
    }
    serde_json::from_slice::<Object<W>>(json).map(|object| object.0).map_err(not_json)
}

/// The fields that every poll needs.
#[derive(Default)]
struct WireRun<'a> {
    id: Scalar<'a>,
    status: Scalar<'a>,
    samples_completed: Scalar<'a>,
    samples_failed: Scalar<'a>,
    created_at: Scalar<'a>,
    completed_at: Scalar<'a>,
    spec_id: Scalar<'a>,
    runtime_params: NumberOfSamples,
    /// Two statuses that mean different things, or two ids.
    is_ambiguous: bool,
}

impl<'de> Wire<'de> for WireRun<'de> {
    fn take<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "id" => {
                let id: Scalar<'de> = map.next_value()?;
                self.is_ambiguous |= !matches!(self.id, Scalar::Missing) && self.id.text() != id.text();
                self.id = id;
            }
            "status" => {
                let status: Scalar<'de> = map.next_value()?;
                let means = |status: &Scalar<'_>| RunStatus::parse(status.text());
                self.is_ambiguous |=
                    !matches!(self.status, Scalar::Missing) && means(&self.status) != means(&status);
                self.status = status;
            }
            "samples_completed" => self.samples_completed = map.next_value()?,
            "samples_failed" => self.samples_failed = map.next_value()?,
            "created_at" => self.created_at = map.next_value()?,
            "completed_at" => self.completed_at = map.next_value()?,
            "spec_id" => self.spec_id = map.next_value()?,
            "runtime_params" => self.runtime_params = map.next_value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
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
#[derive(Default)]
struct WireDetails<'a> {
    spec_name: Scalar<'a>,
    spec_version: Scalar<'a>,
    dataset_name: Scalar<'a>,
    created_by_email: Scalar<'a>,
    total_cost: Scalar<'a>,
    generated_files: Length,
}

impl<'de> Wire<'de> for WireDetails<'de> {
    fn take<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "spec_name" => self.spec_name = map.next_value()?,
            "spec_version" => self.spec_version = map.next_value()?,
            "dataset_name" => self.dataset_name = map.next_value()?,
            "created_by_email" => self.created_by_email = map.next_value()?,
            "total_cost" => self.total_cost = map.next_value()?,
            "generated_files" => self.generated_files = map.next_value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(body: &[u8], asked: &str) -> Result<Run, NotARun> {
        read(&Bytes::copy_from_slice(body), asked).map(|(run, _)| run)
    }

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
        for body in ["", "{", r#"{"status":"SUCCEEDED","#, "SUCCEEDED", "{NaN}", "\u{feff}{"] {
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
    fn a_status_is_read_from_what_is_readable() {
        for body in [
            "\u{feff}{\"status\":\"FAILED\",\"id\":\"a\"}",
            r#"{"status":"FAILED","id":"a","total_cost":NaN,"x":[-Infinity,{"y":Infinity}]}"#,
            r#"{"status":"FAILED","id":"a","samples_completed":1e400,"runtime_params":{"number_of_samples":1e999}}"#,
            r#"{"status":"FAILED","id":"a","spec_name":"x","spec_name":"y","samples_failed":1,"samples_failed":2}"#,
            r#"{"status":"FAILED","status":"FAILED","status":"failed","id":"a","id":"a"}"#,
            r#"{"st\u0061tus":"FAILED","id":"a","created_by_email":[1],"generated_files":{"a":1},"spec_version":{}}"#,
            "{\"status\":\"FAILED\",\"id\":\"a\",\"spec_name\":\"tab\there\"}",
            r#"{"status":"FAILED","id":"a","spec_name":"\ud800"}"#,
        ] {
            let (run, json) = read(&body.into(), "r").unwrap();
            assert_eq!(run.status, RunStatus::Failed, "{body}");
            assert!(run.details.is_some(), "{body}");
            assert!(serde_json::from_slice::<IgnoredAny>(&json).is_ok(), "{body}");
            assert_eq!(
                listed(body.trim_start_matches('\u{feff}').as_bytes()).unwrap().1.status,
                RunStatus::Failed
            );
        }
        let bytes = b"{\"status\":\"FAILED\",\"id\":\"a\",\"spec_name\":\"\xff\"}";
        let (run, json) = read(&Bytes::from_static(bytes), "r").unwrap();
        assert_eq!(run.status, RunStatus::Failed);
        assert!(std::str::from_utf8(&json).is_ok());
    }

    #[test]
    fn two_statuses_say_nothing() {
        for body in [
            r#"{"id":"a","status":"SUCCEEDED","status":"FAILED"}"#,
            r#"{"id":"a","status":"SUCCEEDED","x":1,"status":null}"#,
            r#"{"id":"a","status":"PROCESSING","status":3,"status":"PROCESSING"}"#,
            r#"{"id":"a","id":"b","status":"SUCCEEDED"}"#,
            r#"{"id":"a","status":"SUCCEEDED","st\u0061tus":"FAILED","y":NaN}"#,
        ] {
            assert_eq!(run(body.as_bytes(), "r").unwrap_err(), NotARun::Ambiguous, "{body}");
            assert_eq!(listed(body.as_bytes()).unwrap_err(), NotARun::Ambiguous, "{body}");
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
