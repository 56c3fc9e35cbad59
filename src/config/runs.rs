//! Reads `[[run]]`, and checks what it has to do with the channels.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::diagnostic::Problems;
use super::reader::{Section, closest};
use super::{ConfiguredChannel, ConfiguredRun};
use crate::run::RunId;

/// Channels with where they are.
pub(super) type Channels = [(ConfiguredChannel, Range<usize>)];

/// Reads the runs, each id once.
pub(super) fn read(root: &Section<'_>, channels: &Channels) -> Vec<ConfiguredRun> {
    let mut seen = HashSet::new();
    let mut runs = Vec::new();
    for (run, span) in root.tables("run", "run").into_iter().filter_map(|section| run(section, channels)) {
        if seen.insert(run.id.clone()) {
            runs.push(run);
        } else {
            root.problems.error(span, format!("the run {} is there twice", run.id), "take one of them out");
        }
    }
    runs
}

/// A run with where its id is.
fn run(section: Section<'_>, channels: &Channels) -> Option<(ConfiguredRun, Range<usize>)> {
    let name = section.string("name").and_then(|(name, span)| {
        let error = name_error(name);
        if let Some(error) = error {
            section.problems.error(span, format!("`name` {error}"), "expected a short line of text");
        }
        error.is_none().then(|| Arc::from(name))
    });
    let notify = chosen_channels(&section, channels);
    let deadline = section.optional_duration("deadline");
    let id = section.string("id");
    if id.is_none() && section.span_of("id").is_none() {
        section.problems.error(section.span.clone(), "this [[run]] has no `id`", "add id = \"<run id>\"");
    }
    let problems = section.problems;
    section.finish();
    let (text, span) = id?;
    let id: RunId =
        text.parse().map_err(|error| problems.error(span.clone(), format!("`id`: {error}"), "")).ok()?;
    Some((ConfiguredRun { id, name, notify, deadline }, span))
}

/// What is wrong with what a run is called, if anything.
pub fn name_error(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        Some("is empty")
    } else if name.chars().any(char::is_control) {
        Some("has control characters in it")
    } else if name.chars().count() > 100 {
        Some("is longer than 100 characters")
    } else {
        None
    }
}

/// The channels that `notify` of a table names; `None` where it leaves the choice open.
pub(super) fn chosen_channels(section: &Section<'_>, channels: &Channels) -> Option<Vec<Arc<str>>> {
    let names = section.strings("notify")?;
    let known = |(name, span): &(&str, Range<usize>)| {
        let known = channels.iter().any(|(channel, _)| &*channel.name == *name);
        if !known {
            let names: Vec<&str> = channels.iter().map(|(channel, _)| &*channel.name).collect();
            let help = match closest(name, names.iter().copied()) {
                Some(similar) => format!("did you mean `{similar}`?"),
                None if names.is_empty() => "there are no channels: add a [[notify.…]] table".to_owned(),
                None => format!("the channels are: {}", names.join(", ")),
            };
            section.problems.error(span.clone(), format!("there is no channel `{name}`"), help);
        }
        known
    };
    Some(names.into_iter().filter(known).map(|(name, _)| Arc::from(name)).collect())
}

/// Warns of channels that none of the choices has. As long as one leaves it open, every channel is used.
pub(super) fn warn_of_unused<'c>(
    channels: &Channels,
    choices: impl Iterator<Item = Option<&'c Vec<Arc<str>>>>,
    problems: &Problems,
) {
    let Some(choices) = choices.collect::<Option<Vec<_>>>().filter(|choices| !choices.is_empty()) else {
        return;
    };
    for (channel, span) in channels {
        if !choices.iter().any(|names| names.contains(&channel.name)) {
            problems.warning(
                Some(span.clone()),
                format!("no run uses the channel `{}`", channel.name),
                "add it to a notify, or leave notify out of a run for all channels",
            );
        }
    }
}
