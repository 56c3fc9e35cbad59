//! Reads `[[run]]`, and checks the channels that its tables name.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::channels::Channels;
use super::diagnostic::Problems;
use super::reader::Section;
use super::{ConfiguredRun, mask};
use crate::run::text::is_hidden;
use crate::run::{RunId, RunIdError};

/// Maximum number of channels listed if one does not exist.
const NAMED: usize = 10;

/// The channels that one table chooses; `None` for all.
pub(super) type Choice = Option<Vec<Arc<str>>>;

/// Reads the runs, each id once, and their choices of channels, including those of runs with mistakes.
/// `tables` is the array of the file.
pub(super) fn read<'s>(
    root: &Section<'s>,
    tables: Option<Spanned<DeValue<'s>>>,
    channels: &Channels,
) -> (Vec<ConfiguredRun>, Vec<Choice>) {
    let mut seen: HashMap<RunId, usize> = HashMap::new();
    let (mut runs, mut choices) = (Vec::new(), Vec::new());
    root.consume_tables("run", "run", tables, |section| {
        let (run, choice) = run(section, channels);
        choices.push(choice);
        let Some((run, span)) = run else { return };
        if let Some(first) = seen.get(&run.id) {
            root.problems.error(
                span,
                format!("the run {} is listed twice", mask::quoted_id(run.id.as_str())),
                format!("the other is on line {}; remove one of them", root.problems.line_of(*first)),
            );
        } else {
            seen.insert(run.id.clone(), span.start);
            runs.push(run);
        }
    });
    (runs, choices)
}

/// A run with the location of its id, and its choice of channels.
fn run(section: Section<'_>, channels: &Channels) -> (Option<(ConfiguredRun, Range<usize>)>, Choice) {
    let name = section.string("name").and_then(|(name, span)| {
        let error = name_error(name);
        // Invisible characters are removed whenever a name is shown, so such a name can be used.
        let refuses = error.is_some() && (error != Some(HIDDEN) || name.chars().any(char::is_control));
        if let Some(error) = error {
            let (title, help) = (format!("`name` {error}"), "expected a short line of text");
            if refuses {
                section.problems.error(span, title, help);
            } else {
                section.problems.check_error(span, title, help);
            }
        }
        (!refuses).then(|| Arc::from(name))
    });
    let notify = chosen_channels(&section, channels);
    let deadline = section.optional_duration("deadline");
    let id = section.string("id");
    if id.is_none() && section.span_of("id").is_none() {
        section.problems.missing(section.span.clone(), "this [[run]] has no `id`", "add id = \"<run id>\"");
    }
    let problems = section.problems;
    section.finish();
    let choice = notify.clone();
    let run = id.and_then(|(text, span)| match text.parse::<RunId>() {
        Ok(id) => Some((ConfiguredRun { id, name, notify, deadline }, span)),
        Err(error) => {
            problems.error(span, format!("`id`: {}", id_error(text, &error)), "");
            None
        }
    });
    (run, choice)
}

/// Why a text is not a run id. Quotes it only if it is harmless.
fn id_error(text: &str, error: &RunIdError) -> String {
    if mask::is_harmless(text) {
        return error.to_string();
    }
    match error {
        RunIdError::Quoted(..) => {
            "the run id was pasted with quotes or punctuation; take them out".to_owned()
        }
        _ => mask::strike(&error.to_string(), text),
    }
}

const HIDDEN: &str = "has control characters or invisible characters in it";

/// What is wrong with a run's name, if anything.
pub fn name_error(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        Some("is empty")
    } else if name.chars().any(is_hidden) {
        Some(HIDDEN)
    } else if name.chars().count() > 100 {
        Some("is longer than 100 characters")
    } else {
        None
    }
}

/// The channels in `notify` of a table; `None` for all.
pub(super) fn chosen_channels(section: &Section<'_>, channels: &Channels) -> Choice {
    let names = section.strings("notify")?;
    let known = |(name, span): &(&str, Range<usize>)| {
        let known = channels.has(name);
        if !known {
            section.problems.missing(
                span.clone(),
                format!("there is no channel `{}`", mask::quoted(name)),
                known_channels(name, channels, section.problems),
            );
        }
        known
    };
    Some(names.into_iter().filter(known).map(|(name, _)| Arc::from(name)).collect())
}

/// The most similar channel, or the existing ones.
fn known_channels(name: &str, channels: &Channels, problems: &Problems) -> String {
    let names = || channels.list.iter().map(|(channel, _)| &*channel.name);
    if let Some(similar) = problems.suggest(name, names()) {
        let quoted = mask::quoted(similar);
        let line = channels.list.iter().find(|(channel, _)| &*channel.name == similar);
        return match line.filter(|_| quoted != similar) {
            Some((_, span)) => format!("did you mean `{quoted}` (line {})?", problems.line_of(span.start)),
            None => format!("did you mean `{quoted}`?"),
        };
    }
    let mut seen = HashSet::new();
    let different: Vec<&str> = names().filter(|name| seen.insert(*name)).collect();
    let shown: Vec<String> = different.iter().copied().take(NAMED).map(mask::quoted).collect();
    let more = different.len().saturating_sub(NAMED);
    match (shown.is_empty(), more) {
        (true, _) => "there are no channels: add a [[notify.…]] table".to_owned(),
        (false, 0) => format!("the channels are: {}", shown.join(", ")),
        (false, more) => format!("the channels are: {} and {more} more", shown.join(", ")),
    }
}

/// Warns about channels that no choice contains. If any choice is open, every channel is used.
pub(super) fn warn_of_unused(channels: &Channels, choices: &[Choice], problems: &Problems) {
    let chosen: Option<Vec<&Vec<Arc<str>>>> = choices.iter().map(Option::as_ref).collect();
    let Some(chosen) = chosen.filter(|chosen| !chosen.is_empty()) else { return };
    let used: HashSet<&Arc<str>> = chosen.into_iter().flatten().collect();
    for (channel, span) in channels.list.iter().filter(|(channel, _)| !used.contains(&channel.name)) {
        problems.warning(
            Some(span.clone()),
            format!("no run uses the channel `{}`", mask::quoted(&channel.name)),
            "add it to a notify, or leave notify out of a run for all channels",
        );
    }
}
