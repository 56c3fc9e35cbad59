//! Reads `[[notify.…]]`: one table per channel, one array per kind.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::diagnostic::Problems;
use super::key::{Kind, credential_or, read_file};
use super::reader::Section;
use super::url::web_url;
use super::{ChannelKind, ConfiguredChannel, Environment, SecretUrl, mask};
use crate::notify::{CommandSettings, SigningSecret};
use crate::run::EventKind;
use crate::secret::Secret;

/// Default time to wait for more events to show together. Runs that finish together mostly do so within this.
pub(super) const DEFAULT_GATHER: Duration = Duration::from_secs(2);

/// The channels of a configuration.
pub(super) struct Channels {
    /// Channels that could be read, each with the location of its name or its table.
    pub(super) list: Vec<(ConfiguredChannel, Range<usize>)>,
    /// Every name, including those of channels with mistakes, so that a reference to one is not a second mistake.
    declared: HashSet<String>,
}

impl Channels {
    /// Whether a channel of this name exists, with mistakes or not.
    pub(super) fn has(&self, name: &str) -> bool {
        self.declared.contains(name)
    }
}

/// Reads all channels.
pub(super) fn read(root: &Section<'_>, env: Environment<'_>, problems: &Problems) -> Channels {
    let section = &root.table("notify");
    let kinds: [(&'static str, &str, ReadKind); 4] = [
        ("webhook", "notify.webhook", webhook),
        ("desktop", "notify.desktop", desktop),
        ("log", "notify.log", |_, _| Some(ChannelKind::Log)),
        ("command", "notify.command", command),
    ];
    let mut channels = Channels { list: Vec::new(), declared: section.names_of_tables("name") };
    let mut taken: HashMap<Arc<str>, usize> = HashMap::new();
    for (kind, path, read_kind) in kinds {
        for table in section.tables(kind, path) {
            let (name, span) = name(&table, kind);
            if let Some(first) = taken.insert(name.clone(), span.start) {
                problems.error(
                    span.clone(),
                    format!("there are two channels with the name `{}`", mask::quoted(&name)),
                    format!(
                        "the other is on line {}; give each a name of its own: name = \"…\"",
                        problems.line_of(first)
                    ),
                );
            }
            channels.list.extend(channel(table, name, read_kind, env).map(|channel| (channel, span)));
        }
    }
    section.unknown_keys();
    channels
}

type ReadKind = fn(&Section<'_>, Environment<'_>) -> Option<ChannelKind>;

/// A channel's name and its location, or its table's.
fn name(section: &Section<'_>, kind_name: &str) -> (Arc<str>, Range<usize>) {
    let Some((name, span)) = section.string("name") else {
        return (Arc::from(kind_name), section.span.clone());
    };
    if !is_name(name) {
        section.problems.error(
            span.clone(),
            format!("invalid channel name `{}`", mask::quoted(name)),
            "expected letters, digits, dashes, dots and underscores, at most 100",
        );
    }
    (Arc::from(name), span)
}

fn channel(
    section: Section<'_>,
    name: Arc<str>,
    read_kind: ReadKind,
    env: Environment<'_>,
) -> Option<ConfiguredChannel> {
    let events: Option<Vec<EventKind>> = section.strings("events").map(|events| {
        events.into_iter().filter_map(|(text, span)| event(text, span, section.problems)).collect()
    });
    if let Some(span) = section.span_of("events").filter(|_| section.is_empty_list("events")) {
        section.problems.check_error(
            span,
            "`events` is empty: this channel is never used",
            "leave it out for all events",
        );
    }
    let kind = read_kind(&section, env);
    section.finish();
    Some(ConfiguredChannel { name, events, kind: kind? })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 100 && text.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
}

fn event(text: &str, span: Range<usize>, problems: &Problems) -> Option<EventKind> {
    let names = EventKind::ALL.map(EventKind::as_str);
    let found = EventKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    if found.is_none() {
        let help = match problems.suggest(text, names.into_iter()) {
            Some(similar) => format!("did you mean `{similar}`?"),
            None => format!("the events are: {}", names.join(", ")),
        };
        problems.error(span, format!("there is no event `{}`", mask::quoted(text)), help);
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
            section.problems.missing(
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
    let ca_file = match ca_file {
        None => Ok(None),
        Some((path, None)) => Ok(Some(path)),
        Some((_, Some((span, wrong)))) => Err(unusable(section, span, wrong)),
    };
    Some(match (url?, secrets?, ca_file) {
        (Ok(url), Ok(secrets), Ok(ca_file)) => ChannelKind::Webhook { url: SecretUrl(url), secrets, ca_file },
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => ChannelKind::Unusable(error),
    })
}

/// Reports that a file makes only this channel unusable. Returns the reason.
fn unusable(section: &Section<'_>, span: Range<usize>, wrong: String) -> String {
    section.problems.check_error(span, wrong.clone(), "this channel cannot be used until then");
    wrong
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
        (None, Some((path, span))) => match secret_file(section, &path, &span, Kind::Url, env) {
            Ok(url) => (url, span),
            Err(error) => return Some(Err(error)),
        },
        (None, None) => {
            if section.span_of("url").is_none() && section.span_of("url_file").is_none() {
                section.problems.missing(
                    section.span.clone(),
                    "this webhook has no `url`",
                    "add url = \"https://…\", or url_file to keep it out of this file",
                );
            }
            return None;
        }
    };
    let allow = "allow_http = true in this table";
    match web_url(text.expose(), allow_http, "https://hooks.example.com/runs", allow) {
        Ok(url) => {
            // The rest of the name may be part of a secret.
            if let Some(domain) = url.host_str().and_then(example_domain) {
                let title = format!("nobody receives what is sent to {domain}: it is a name for examples");
                section.problems.warning(Some(span), title, "write the URL of your receiver");
            }
            Some(Ok(url))
        }
        Err(error) => {
            section.problems.error(span, format!("`url`: {error}"), "");
            None
        }
    }
}

/// The domain of a host that is reserved for examples (RFC 2606): no receiver has such a name.
fn example_domain(host: &str) -> Option<&'static str> {
    ["example.com", "example.net", "example.org", "example"].into_iter().find(|example| {
        host.strip_suffix(example).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}

/// All secrets of a webhook from `secret`, `secrets` and `secret_file`; `None` if one of them is invalid.
fn secrets(section: &Section<'_>, env: Environment<'_>) -> Option<Result<Vec<SigningSecret>, String>> {
    let mut texts: Vec<(Secret, Range<usize>)> = Vec::new();
    texts.extend(section.string("secret").map(|(text, span)| (Secret::new(text), span)));
    let list = section.strings("secrets").unwrap_or_default();
    texts.extend(list.into_iter().map(|(text, span)| (Secret::new(text), span)));
    if let Some((_, span)) = texts.first() {
        section.problems.inline_secret(span);
    }
    let mut whole = true;
    let mut unreadable = None;
    if let Some((path, span)) = section.path("secret_file") {
        match secret_file(section, &path, &span, Kind::Signing, env) {
            Ok(secret) => texts.push((secret, span)),
            Err(error) => unreadable = Some(error),
        }
    }
    // A value of the wrong type was reported already.
    for (key, read) in [("secret_file", unreadable.is_some()), ("secret", false), ("secrets", false)] {
        whole &= section.span_of(key).is_none() || read || !texts.is_empty() || section.is_empty_list(key);
    }
    let mut secrets = Vec::new();
    for (text, span) in texts {
        match SigningSecret::parse(text.expose()) {
            Ok(secret) => secrets.push(secret),
            Err(error) => {
                section.problems.error(span, error.to_string(), "");
                whole = false;
            }
        }
    }
    whole.then_some(unreadable.map_or(Ok(secrets), Err))
}

/// A secret in a file. If the file cannot be read, only this channel is unusable.
fn secret_file(
    section: &Section<'_>,
    path: &Path,
    span: &Range<usize>,
    kind: Kind,
    env: Environment<'_>,
) -> Result<Secret, String> {
    let path = credential_or(path, env);
    section.warn_if_world_readable(&path, span, kind.name());
    read_file(&path, kind).map_err(|error| unusable(section, span.clone(), error))
}

#[expect(clippy::unnecessary_wraps, reason = "one of several of this type")]
fn desktop(section: &Section<'_>, _: Environment<'_>) -> Option<ChannelKind> {
    Some(ChannelKind::Desktop { gather: section.duration_or_zero("gather", DEFAULT_GATHER) })
}

fn command(section: &Section<'_>, env: Environment<'_>) -> Option<ChannelKind> {
    let words = section.strings("command");
    let timeout = section.duration("timeout", Duration::from_secs(30));
    let Some(words) = words else {
        if section.span_of("command").is_none() {
            section.problems.missing(
                section.span.clone(),
                "this channel has no `command`",
                "add command = [\"/path/to/program\", \"argument\"]; no shell is involved",
            );
        }
        return None;
    };
    let span = section.span_of("command").unwrap_or_default();
    let Some(((program, span), arguments)) = words.split_first() else {
        // A value of another type was reported already.
        if section.is_empty_list("command") {
            section.problems.error(span, "`command` is empty", "expected a program and its arguments");
        }
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
    if let Some((wrong, help)) = program_error(program, env) {
        section.problems.check_error(span.clone(), wrong, help);
    }
    Some(ChannelKind::Command(CommandSettings {
        program: (*program).to_owned(),
        arguments: arguments.iter().map(|(text, _)| (*text).to_owned()).collect(),
        timeout,
    }))
}

/// Advice if the program and its arguments are one string.
const SPLIT: &str =
    "give each argument as a string of its own, such as [\"program\", \"argument\"]; no shell is involved";

/// What is wrong with a program and what to do, if this process cannot start it.
fn program_error(program: &str, env: Environment<'_>) -> Option<(String, &'static str)> {
    use rustix::fs::{Access, access};
    let executable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if program.contains('/') {
        let path = Path::new(program);
        let shown = mask::path(path);
        if executable(path) {
            None
        } else if program.starts_with("~/") {
            Some((format!("there is no program {shown}: no shell replaces the ~"), "write the whole path"))
        } else if program.contains(char::is_whitespace) && !path.exists() {
            Some((format!("there is no program {shown}"), SPLIT))
        } else if path.exists() {
            Some((format!("{shown} may not be executed"), "chmod +x it, or name another program"))
        } else {
            Some((format!("there is no program {shown}"), "give the path of one that may be executed"))
        }
    } else {
        let path = env("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
        let found = std::env::split_paths(&path).any(|dir| executable(&dir.join(program)));
        let title = || format!("there is no program `{}` in PATH", mask::quoted(program));
        let is_line = program.contains(char::is_whitespace);
        (!found).then(|| (title(), if is_line { SPLIT } else { "give the whole path; no shell is involved" }))
    }
}
