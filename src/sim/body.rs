//! The API's JSON: runs, the list, and errors, with the fields of its reference.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::scenario::{SimRun, Snapshot, Timeline, fnv};
use crate::run::RunStatus;

/// A run in the list: without `runtime_params` and `generated_files`.
pub(super) fn item(timeline: &Timeline, snapshot: &Snapshot, created_at: Timestamp) -> Value {
    let run = &timeline.run;
    let ended = snapshot.ended_after.map(|after| created_at + after);
    let cost = snapshot.ended_after.map(|_| cents(snapshot) / 100.0);
    json!({
        "id": run.id.as_str(),
        "status": snapshot.status.as_str(),
        "spec_id": uuid(&format!("spec {}", run.spec_name)),
        "spec_name": run.spec_name,
        "spec_version": 1,
        "dataset_id": uuid(&format!("dataset {}", run.spec_name)),
        "dataset_name": run.dataset_name.clone().unwrap_or_else(|| format!("{}_seed", run.spec_name)),
        "dataset_type": "MULTI_FILE",
        "samples_completed": snapshot.progress.completed,
        "samples_failed": snapshot.progress.failed,
        "total_cost": cost,
        "created_at": time(created_at),
        "created_by_email": run.created_by_email,
        "completed_at": ended.map(time),
    })
}

/// A run at its own URL.
pub(super) fn run(timeline: &Timeline, snapshot: &Snapshot, created_at: Timestamp) -> Value {
    let mut body = item(timeline, snapshot, created_at);
    let files = match snapshot.status {
        RunStatus::Succeeded => snapshot.progress.completed.unwrap_or(0),
        _ => 0,
    };
    let file = |n: u64| {
        json!({
            "id": format!("{:016x}", fnv(&format!("{} {n}", timeline.run.id))),
            "path": format!("generated_sample_{}.txt", n + 1),
            "file_type": "text/plain",
            "size_bytes": 2048 + n,
        })
    };
    body["runtime_params"] = json!({
        "number_of_samples": timeline.run.samples,
        "generation_model": "anthropic/claude-sonnet-5-5-thinking",
        "outline_model": "anthropic/claude-haiku-4-5",
        "revision_model": null,
        "revision_types": [],
        "filtering_types": ["structural"],
        "max_revision_cycles": null,
        "seed_shuffling_level": "sample",
        "max_examples_in_prompt": null,
        "unified_multifield": false,
        "generation_thinking_budget": null,
        "outline_thinking_budget": null,
        "revision_thinking_budget": null,
        "skip_outline": false,
        "tools": [],
    });
    body["generated_files"] = (0..files).map(file).collect();
    body
}

/// The error bodies of Django REST framework.
pub(super) fn detail(text: &str) -> Value {
    json!({ "detail": text })
}

/// An HTML page, as a proxy or Django sends it.
pub(super) fn page(title: &str) -> String {
    format!(
        "<!doctype html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    )
}

fn cents(snapshot: &Snapshot) -> f64 {
    (snapshot.progress.done().unwrap_or(0) * 2) as f64
}

/// A time in one of the API's formats.
fn time(at: Timestamp) -> String {
    let micros = at.as_microsecond();
    Timestamp::from_microsecond(micros).unwrap_or(at).strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn uuid(text: &str) -> String {
    let (a, b) = (fnv(text), fnv(&format!("{text}.")));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

/// When a run is created, for a simulator that started at `started` and runs `speed` times faster than real time.
pub(super) fn created_at(started: Timestamp, run: &SimRun, speed: f64) -> Timestamp {
    let after = run.after.div_f64(speed);
    started.checked_sub(run.age).and_then(|at| at.checked_add(after)).unwrap_or(started)
}
