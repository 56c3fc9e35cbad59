//! Reads the API's JSON bodies.
//!
//! Owns the tolerance: every field may be missing, null or of another type, and unknown fields are skipped. Lists in a
//! body (`generated_files` can have 20,000 entries) are skipped without allocation. Only the answer that ends a run is
//! read a second time, for its details.

use bytes::Bytes;
use serde::de::{Deserializer as _, IgnoredAny};

use super::body::{is_object, looks_like_html, without_bom};
use super::fields::{Fields, WireDetails, WireRun, fields};
use super::repair;
use super::scalar::Scalar;
use crate::run::{Details, Run, RunId, RunStatus};

/// Why a body is not a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotARun {
    /// An HTML page.
    Html,
    /// Not JSON, or JSON that breaks off.
    NotJson(String),
    /// JSON, but not an object with a run's fields.
    OtherShape,
    /// Another run, perhaps from a cache that mixes up its answers.
    OtherRun,
    /// A run with two different statuses, or two ids.
    Ambiguous,
}

impl NotARun {
    /// The message for people. `via` names the proxy that the answer came through.
    pub(super) fn describe(&self, via: &str) -> String {
        match self {
            Self::Html => format!("the answer{via} is a web page, not the API's JSON; is base_url right?"),
            Self::NotJson(error) => format!("the answer{via} is not whole JSON ({error})"),
            Self::OtherShape => format!("the answer{via} is JSON, but not a run; is base_url right?"),
            Self::Ambiguous => format!("the answer{via} has two different statuses or ids"),
            Self::OtherRun => {
                format!("the answer{via} is about another run; is there a cache in between?")
            }
        }
    }
}

/// Reads the body of `GET /runs/{id}/`, which must be about the `asked` run. Also returns it as JSON.
///
/// The status counts if the body has exactly one. Other oddities (a byte order mark, `NaN`, a duplicate field, another
/// type, text after the run) do not matter. Ids are compared only if both are UUIDs, because `asked` may be an alias of
/// the run.
pub(super) fn read(body: &Bytes, asked: &str) -> Result<(Run, Bytes), NotARun> {
    if looks_like_html(body) {
        return Err(NotARun::Html);
    }
    let body = body.slice(body.len() - without_bom(body).len()..);
    match run(&body, asked) {
        Err(NotARun::NotJson(why)) => {
            let repaired = repair::json(&body).ok_or(NotARun::NotJson(why))?;
            run(&repaired, asked).map(|(run, length)| (run, repaired.slice(..length)))
        }
        read => read.map(|(run, length)| {
            let body = body.slice(..length);
            let is_text = std::str::from_utf8(&body).is_ok();
            (run, if is_text { body } else { repair::json(&body).unwrap_or_default() })
        }),
    }
}

/// The run at the start of a body, and its length in bytes.
fn run(body: &[u8], asked: &str) -> Result<(Run, usize), NotARun> {
    if !is_object(body) {
        // Serde would read a list as a struct's fields in order.
        return Err(serde_json::from_slice::<IgnoredAny>(body).map_or_else(not_json, |_| NotARun::OtherShape));
    }
    let (wire, length): (WireRun<'_>, _) = fields(body).map_err(not_json)?;
    if !wire.is_a_run() {
        return Err(NotARun::OtherShape);
    }
    if wire.is_ambiguous || has_another_status(&body[length..], &wire.status) {
        return Err(NotARun::Ambiguous);
    }
    let uuid = |text: &str| text.parse().ok().filter(RunId::is_uuid);
    if let (Some(other), Some(asked)) = (wire.id.text().and_then(uuid), uuid(asked))
        && other != asked
    {
        return Err(NotARun::OtherRun);
    }
    let run = wire.into_run();
    // The details cost allocations, so they are read only once, at the end.
    let details = run.status.terminal().and_then(|_| details(body));
    Ok((Run { details, ..run }, length))
}

/// Whether the text after a run has a `status` field with another meaning. Other text there does not matter.
fn has_another_status(rest: &[u8], status: &Scalar<'_>) -> bool {
    const NAME: &[u8] = b"\"status\"";
    let status = RunStatus::parse(status.text());
    (0..rest.len()).filter(|at| rest[*at..].starts_with(NAME)).any(|at| {
        let Some(value) = rest[at + NAME.len()..].trim_ascii_start().strip_prefix(b":") else { return false };
        let value = serde_json::Deserializer::from_slice(value).into_iter::<Scalar<'_>>().next();
        value.and_then(Result::ok).is_none_or(|value| RunStatus::parse(value.text()) != status)
    })
}

/// Reads one element of the list of runs, with its details.
pub(super) fn listed(element: &[u8]) -> Result<(RunId, Run), NotARun> {
    match one_listed(element) {
        Err(NotARun::NotJson(why)) => one_listed(&repair::json(element).ok_or(NotARun::NotJson(why))?),
        read => read,
    }
}

fn one_listed(element: &[u8]) -> Result<(RunId, Run), NotARun> {
    let (wire, _): (WireRun<'_>, _) = fields(element).map_err(not_json)?;
    if wire.is_ambiguous {
        return Err(NotARun::Ambiguous);
    }
    let id = wire.id.text().and_then(|id| id.parse().ok()).ok_or(NotARun::OtherShape)?;
    Ok((id, Run { details: details(element), ..wire.into_run() }))
}

/// The id in the first part of an element that is too long to read.
pub(super) fn id_in(head: &[u8]) -> Option<RunId> {
    let mut wire = WireRun::default();
    // It is cut off, but the fields before the cut are filled in.
    let _ = serde_json::Deserializer::from_slice(head).deserialize_map(Fields(&mut wire));
    wire.id.text()?.parse().ok()
}

fn details(body: &[u8]) -> Option<Box<Details>> {
    let read = |body: &[u8]| fields::<WireDetails<'_>>(body).ok().map(|(wire, _)| Box::new(wire.into()));
    read(body).or_else(|| read(&repair::json(body)?))
}

/// The name of the run's spec in the body of an [`Answer`](super::Answer).
pub fn spec_name(body: &[u8]) -> Option<String> {
    details(body)?.spec_name.filter(|name| !name.is_empty())
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn not_json(error: serde_json::Error) -> NotARun {
    NotARun::NotJson(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Progress;

    fn run(body: &[u8], asked: &str) -> Result<Run, NotARun> {
        super::read(&Bytes::copy_from_slice(body), asked).map(|(run, _)| run)
    }

    fn run_of(body: &str) -> Result<Run, NotARun> {
        run(body.as_bytes(), "r")
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
    fn what_follows_a_run_does_not_matter_unless_it_has_another_status() {
        let one = r#"{"status":"FAILED","id":"a","spec_name":"x"}"#;
        for rest in [
            ",",
            ";\n",
            " trailing text, and more",
            "\0\0",
            "}}]",
            "\u{feff}",
            "\n<!-- cached: 7 s -->",
            "{\"x\":1",
            "\n{\"status\": \"failed\"}",
            r#" {"took":NaN,"status":"FAILED"}"#,
            r#" the "status" is not said"#,
        ] {
            let (run, json) = read(&[one, rest].concat().into(), "r").unwrap();
            assert_eq!((run.status, &*json), (RunStatus::Failed, one.as_bytes()), "{rest}");
            assert!(run.details.is_some(), "{rest}");
        }
        // A body that also needs a repair.
        let odd = r#"{"status":"FAILED","id":"a","total_cost":NaN,"x":[1,2,],}, and more"#;
        let (run, json) = read(&odd.into(), "r").unwrap();
        let repaired = r#"{"status":"FAILED","id":"a","total_cost":null,"x":[1,2]}"#;
        assert_eq!((run.status, &*json), (RunStatus::Failed, repaired.as_bytes()));
        for rest in [
            r#"{"status":"PROCESSING"}"#,
            r#",{"id":"b","status" : null}"#,
            r#","status":"SUCCEEDED"}"#,
            r#" {"x":{"status":"SUCC"#,
            r#" {"x":NaN,"status":"SUCCEEDED"}"#,
        ] {
            assert_eq!(run_of(&[one, rest].concat()).unwrap_err(), NotARun::Ambiguous, "{rest}");
        }
    }

    #[test]
    fn utf_16_is_read_too() {
        let text = r#"{"status":"FAILED","id":"a","spec_name":"é"}"#;
        let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
        let marked = format!("\u{feff}{text}");
        for body in [little(text), big(text), little(&marked), big(&marked)] {
            let (run, json) = read(&body.into(), "r").unwrap();
            assert_eq!((run.status, &*json), (RunStatus::Failed, text.as_bytes()));
        }
        assert_eq!(read(&little("<html>").into(), "r").unwrap_err(), NotARun::Html);
    }

    #[test]
    fn the_id_of_an_entry_that_breaks_off_can_be_told() {
        let head = |text: &str| id_in(text.as_bytes()).map(|id| id.to_string());
        assert_eq!(head(r#"{"id":"a","spec_name":"xxx"#).as_deref(), Some("a"));
        assert_eq!(head(r#"{"x":{"id":"b"},"id":"a","y":[1,2"#).as_deref(), Some("a"));
        for text in [r#"{"spec_name":"xxx"#, r#"{"id":"a"#, r#"{"id":7,"x":"#, "{", ""] {
            assert_eq!(head(text), None, "{text}");
        }
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
        assert_eq!(spec_name(body("PROCESSING").as_bytes()).as_deref(), Some("a b"));
        assert_eq!(spec_name(b"{\"spec_name\":\"\"}"), None);
        let details = run(body("FAILED").as_bytes(), "r").unwrap().details.unwrap();
        assert_eq!(details.spec_name.as_deref(), Some("a b"));
        assert_eq!((details.total_cost, details.generated_files), (Some(1.5), Some(2)));
    }
}
