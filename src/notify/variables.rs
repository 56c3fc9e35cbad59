//! The `RUNWATCH_*` variables that describe an event to a program: one contract for command channels and for the command
//! after `--` of `watch` and `wait`.

use crate::notify::Message;
use crate::run::event::{EventData, Payload};
use crate::run::text::one_line;

/// A variable and its value.
pub type Variable = (&'static str, String);

/// The variables of an event. `id` is the event's, `attempt` counts from 1.
pub fn of_event(id: &str, payload: &Payload, attempt: u32) -> Vec<Variable> {
    let Message { title, body, .. } = Message::of(payload);
    let mut variables = vec![
        ("RUNWATCH_EVENT_ID", id.to_owned()),
        ("RUNWATCH_EVENT_TYPE", payload.kind.to_string()),
        ("RUNWATCH_EVENT_TIMESTAMP", payload.timestamp.to_string()),
        ("RUNWATCH_ATTEMPT", attempt.to_string()),
        ("RUNWATCH_TITLE", title),
        ("RUNWATCH_BODY", body),
    ];
    variables.extend(of_run(&payload.data));
    variables
}

/// The variables of the run that an event is about. Fields that do not apply are left out.
///
/// The texts are for people and on one line. A NUL in them would prevent the start of the program.
pub fn of_run(data: &EventData) -> impl Iterator<Item = Variable> {
    let line = |text: &str| one_line(text).into_owned();
    let count = |count: Option<u64>| count.map(|count| count.to_string());
    [
        ("RUNWATCH_RUN_ID", data.run_id.as_ref().map(ToString::to_string)),
        ("RUNWATCH_RUN_NAME", data.run_name.as_deref().map(line)),
        ("RUNWATCH_STATUS", data.status.as_ref().map(|status| line(status.as_str()))),
        ("RUNWATCH_REASON", data.reason.as_deref().map(line)),
        ("RUNWATCH_SAMPLES_COMPLETED", count(data.samples_completed)),
        ("RUNWATCH_SAMPLES_FAILED", count(data.samples_failed)),
        ("RUNWATCH_NUMBER_OF_SAMPLES", count(data.number_of_samples)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}
