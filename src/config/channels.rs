//! Reads `[[notify.…]]`: one table a channel, one array a kind.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::diagnostic::Problems;
use super::key::{credential_or, read_file};
use super::reader::{Section, closest};
use super::url::web_url;
use super::{ChannelKind, ConfiguredChannel, Environment, SecretUrl};
use crate::notify::{CommandSettings, SigningSecret};
use crate::run::EventKind;
use crate::secret::Secret;

/// Runs that finish together mostly do so within this.
pub(super) const DEFAULT_GATHER: Duration = Duration::from_secs(2);

type SpannedChannel = (ConfiguredChannel, Range<usize>);

/// Reads all channels, each with where its table is.
pub(super) fn read(section: &Section<'_>, env: Environment<'_>, problems: &Problems) -> Vec<SpannedChannel> {
    let kinds: [(&'static str, &str, ReadKind); 4] = [
        ("webhook", "notify.webhook", webhook),
        ("desktop", "notify.desktop", desktop),
        ("log", "notify.log", |_, _| Some(ChannelKind::Log)),
        ("command", "notify.command", command),
    ];
    let mut channels: Vec<SpannedChannel> = Vec::new();
    for (kind, path, read_kind) in kinds {
        for table in section.tables(kind, path) {
            let Some((channel, span)) = channel(table, kind, read_kind, env) else { continue };
            if channels.iter().any(|(other, _)| other.name == channel.name) {
                problems.error(
                    span.clone(),
                    format!("there are two channels of the name `{}`", channel.name),
                    "give each a name of its own: name = \"…\"",
                );
            }
            channels.push((channel, span));
        }
    }
    section.unknown_keys();
    channels
}

type ReadKind = fn(&Section<'_>, Environment<'_>) -> Option<ChannelKind>;

fn channel(
    section: Section<'_>,
    kind_name: &str,
    read_kind: ReadKind,
    env: Environment<'_>,
) -> Option<SpannedChannel> {
    let named = section.string("name");
    let name: Arc<str> = match &named {
        Some((name, span)) if !is_name(name) => {
            section.problems.error(
                span.clone(),
                format!("`{name}` is no name for a channel"),
                "expected letters, digits, dashes, dots and underscores",
            );
            Arc::from(kind_name)
        }
        Some((name, _)) => Arc::from(*name),
        None => Arc::from(kind_name),
    };
    let events = section.strings("events").map(|events| {
        events.into_iter().filter_map(|(text, span)| event(text, span, section.problems)).collect()
    });
    let span = named.map_or_else(|| section.span.clone(), |(_, span)| span);
    let kind = read_kind(&section, env);
    section.finish();
    Some((ConfiguredChannel { name, events, kind: kind? }, span))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 100 && text.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
}

fn event(text: &str, span: Range<usize>, problems: &Problems) -> Option<EventKind> {
    let names = EventKind::ALL.map(EventKind::as_str);
    let found = EventKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    if found.is_none() {
        let help = match closest(text, names.into_iter()) {
            Some(similar) => format!("did you mean `{similar}`?"),
            None => format!("the events are: {}", names.join(", ")),
        };
        problems.error(span, format!("there is no event `{text}`"), help);
    }
    found
}

fn webhook(section: &Section<'_>, env: Environment<'_>) -> Option<ChannelKind> {
    let allow_http = section.boolean("allow_http", false);
    let url = webhook_url(section, allow_http, env);
    let secrets = secrets(section, env);
    let unsigned = section.boolean("unsigned", false);
    let ca_file = section.ca_file();
    if let Some(Ok(secrets)) = &secrets {
        if secrets.is_empty() && !unsigned {
            section.problems.error(
                section.span.clone(),
                "this webhook has no `secret` to sign with",
                "add secret = \"whsec_…\" (make one with: echo whsec_$(openssl rand -base64 32)), or unsigned = true",
            );
        } else if !secrets.is_empty() && unsigned {
            section.problems.error(
                section.span_of("unsigned").unwrap_or_default(),
                "this webhook is unsigned and has a secret",
                "take out one of the two",
            );
        }
    }
    Some(match (url?, secrets?) {
        (Ok(url), Ok(secrets)) => ChannelKind::Webhook { url: SecretUrl(url), secrets, ca_file },
        (Err(error), _) | (_, Err(error)) => ChannelKind::Unusable(error),
    })
}

fn webhook_url(
    section: &Section<'_>,
    allow_http: bool,
    env: Environment<'_>,
) -> Option<Result<reqwest::Url, String>> {
    let (text, span) = match (section.string("url"), section.path("url_file")) {
        (Some(_), Some((_, span))) => {
            section.problems.error(span, "there are both `url` and `url_file`", "take out one of the two");
            return None;
        }
        (Some((text, span)), None) => (Secret::new(text), span),
        (None, Some((path, span))) => match secret_file(section, &path, &span, "webhook URL", env) {
            Ok(url) => (url, span),
            Err(error) => return Some(Err(error)),
        },
        (None, None) => {
            if section.span_of("url").is_none() && section.span_of("url_file").is_none() {
                section.problems.error(
                    section.span.clone(),
                    "this webhook has no `url`",
                    "add url = \"https://…\", or url_file to keep it out of this file",
                );
            }
            return None;
        }
    };
    match web_url(text.expose(), allow_http, "https://hooks.example.com/runs") {
        Ok(url) => Some(Ok(url)),
        Err(error) => {
            section.problems.secret_error(span, format!("`url`: {error}"), "");
            None
        }
    }
}

/// All secrets of a webhook, in `secret`, `secrets` and `secret_file` together; `None` if one of them is wrong.
fn secrets(section: &Section<'_>, env: Environment<'_>) -> Option<Result<Vec<SigningSecret>, String>> {
    let mut texts: Vec<(Secret, Range<usize>)> = Vec::new();
    texts.extend(section.string("secret").map(|(text, span)| (Secret::new(text), span)));
    let list = section.strings("secrets").unwrap_or_default();
    texts.extend(list.into_iter().map(|(text, span)| (Secret::new(text), span)));
    if let Some((_, span)) = texts.first() {
        section.problems.inline_secret(span);
    }
    let mut whole = true;
    if let Some((path, span)) = section.path("secret_file") {
        match secret_file(section, &path, &span, "webhook secret", env) {
            Ok(secret) => texts.push((secret, span)),
            Err(error) => return Some(Err(error)),
        }
    } else if section.span_of("secret_file").is_some() {
        whole = false;
    }
    let mut secrets = Vec::new();
    for (text, span) in texts {
        match SigningSecret::parse(text.expose()) {
            Ok(secret) => secrets.push(secret),
            Err(error) => {
                section.problems.secret_error(span, error.to_string(), "");
                whole = false;
            }
        }
    }
    whole.then_some(Ok(secrets))
}

/// A secret in a file. Where that cannot be read the channel cannot be used, and nothing else is the worse for it.
fn secret_file(
    section: &Section<'_>,
    path: &std::path::Path,
    span: &Range<usize>,
    what: &str,
    env: Environment<'_>,
) -> Result<Secret, String> {
    let path = credential_or(path, env);
    section.warn_if_world_readable(&path, span, what);
    read_file(&path, what).inspect_err(|error| section.problems.channel_error(span.clone(), error.clone()))
}

#[expect(clippy::unnecessary_wraps, reason = "one of several of this type")]
fn desktop(section: &Section<'_>, _: Environment<'_>) -> Option<ChannelKind> {
    Some(ChannelKind::Desktop { gather: section.duration_or_zero("gather", DEFAULT_GATHER) })
}

fn command(section: &Section<'_>, _: Environment<'_>) -> Option<ChannelKind> {
    let words = section.strings("command");
    let timeout = section.duration("timeout", Duration::from_secs(30));
    let Some(words) = words else {
        if section.span_of("command").is_none() {
            section.problems.error(
                section.span.clone(),
                "this channel has no `command`",
                "add command = [\"/path/to/program\", \"argument\"]; no shell is involved",
            );
        }
        return None;
    };
    let Some(((program, span), arguments)) = words.split_first() else {
        let span = section.span_of("command").unwrap_or_default();
        section.problems.error(span, "`command` is empty", "expected a program and its arguments");
        return None;
    };
    if program.is_empty() {
        section.problems.error(
            span.clone(),
            "the program of `command` is empty",
            "expected a path or a name in PATH",
        );
        return None;
    }
    Some(ChannelKind::Command(CommandSettings {
        program: (*program).to_owned(),
        arguments: arguments.iter().map(|(text, _)| (*text).to_owned()).collect(),
        timeout,
    }))
}
