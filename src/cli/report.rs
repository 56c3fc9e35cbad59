//! The result for machines and for people: the JSON object of `wait` and `status`, and one line per run.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::exit::Exit;
use super::out::Out;
use super::safe;
use super::verdict::Judged;
use crate::run::RunState;
use crate::run::text::one_line;
use crate::words::samples;
use crate::{clock, span};

/// The version of the JSON object. New fields may be added without a new version; existing ones never change.
pub(super) const VERSION: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    verdict: &'static str,
    exit_code: u8,
    runs: Vec<RunReport<'a>>,
}

#[derive(Serialize)]
struct RunReport<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    status: Option<&'a str>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    samples_completed: Option<u64>,
    samples_failed: Option<u64>,
    number_of_samples: Option<u64>,
    created_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    polls: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// The API's last answer with all its fields.
    run: Option<Box<RawValue>>,
}

/// The JSON object, on one line. `url` gives the API's address of a run.
pub(super) fn json(judged: &[Judged], overall: Exit, url: impl Fn(&Judged) -> Option<String>) -> String {
    line(&report(judged, overall, url))
}

/// The last line of `--output jsonl`: the same object as an event.
pub(super) fn verdict_event(
    judged: &[Judged],
    overall: Exit,
    url: impl Fn(&Judged) -> Option<String>,
) -> String {
    #[derive(Serialize)]
    struct Verdict<'a> {
        event: &'static str,
        time: Timestamp,
        #[serde(flatten)]
        report: Report<'a>,
    }
    line(&Verdict { event: "verdict", time: clock::wall(), report: report(judged, overall, url) })
}

fn report(judged: &[Judged], overall: Exit, url: impl Fn(&Judged) -> Option<String>) -> Report<'_> {
    let run = |judged: &Judged| {
        let body = judged.run.body.as_deref().and_then(|body| std::str::from_utf8(body).ok());
        body.and_then(|body| RawValue::from_string(minified(body)).ok())
    };
    let runs = judged.iter().map(|judged| {
        let RunState { status, progress, created_at, completed_at, .. } = &judged.run.watched.state;
        RunReport {
            id: judged.run.watched.subject.id.as_str(),
            name: judged.run.watched.subject.name.as_deref(),
            status: status.as_ref().map(crate::run::RunStatus::as_str),
            verdict: judged.verdict.word(),
            reason: judged.reason.as_deref(),
            samples_completed: progress.completed,
            samples_failed: progress.failed,
            number_of_samples: progress.total,
            created_at: *created_at,
            completed_at: *completed_at,
            polls: judged.run.polls,
            url: url(judged),
            run: run(judged),
        }
    });
    Report { version: VERSION, verdict: overall.word(), exit_code: overall.code(), runs: runs.collect() }
}

/// JSON on one line, safe to show. Structs of strings and numbers always serialise; the fallback is valid JSON all the same.
pub(super) fn line(value: &impl serde::Serialize) -> String {
    safe::json(&serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())) + "\n"
}

/// JSON without the white space between its tokens.
fn minified(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_string = c == '"';
        }
        out.push(c);
    }
    out
}

/// One line per run: id, status, samples, duration, and the reason if the status does not give it.
pub(super) fn text(judged: &[Judged]) -> String {
    let line = |judged: &Judged| {
        let state = &judged.run.watched.state;
        let mut parts = vec![judged.run.watched.subject.id.to_string()];
        parts.push(state.status.as_ref().map_or("?", crate::run::RunStatus::as_str).to_owned());
        parts.extend(samples(state.progress));
        parts.extend(state.took().map(|took| format!("in {}", span::human(took))));
        let reason = judged.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        one_line(&format!("{}{reason}", parts.join(" "))).into_owned() + "\n"
    };
    judged.iter().map(line).collect()
}

/// Prints the reason of each verdict that the status does not explain, on standard error.
pub(super) fn reasons(out: &Out, judged: &[Judged]) {
    for judged in judged {
        if let Some(reason) = &judged.reason {
            out.error(format_args!("{}: {reason}", judged.run.watched.subject.label()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_inside_strings_stays() {
        let pretty = "{\n  \"a b\": \"c \\\" d\\\\\", \"e\": [1, 2.50]\n}\n";
        assert_eq!(minified(pretty), "{\"a b\":\"c \\\" d\\\\\",\"e\":[1,2.50]}");
    }
}
