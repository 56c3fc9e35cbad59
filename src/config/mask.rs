//! Which parts of a configuration a message may show: only those that are known to be harmless.
//!
//! Known are this program's own words, plain lower-case words, numbers with a unit, and the names of existing files. Of
//! any other text, at most seven characters are shown, and none of a value that may be a secret. `diagnostic` shows
//! lines by these rules. Code that puts a value into a message quotes it with [`quoted`], [`path`] or [`strike`].

mod line;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

pub(super) use line::line;

use crate::run::printable;

/// Maximum number of characters shown of unknown text: too few for a secret.
const UNKNOWN: usize = 7;

/// Maximum length of a plain text, in characters.
const PLAIN: usize = 40;

/// Maximum length of a lower-case word, in characters.
const WORD: usize = 10;

/// Maximum number of digits in a plain text.
const DIGITS: usize = 4;

/// Keys whose values cannot be secret by their type: a number, a duration, a word or a date.
const PLAIN_KEYS: &[&str] = &[
    "allow_http",
    "announce_past",
    "batch",
    "connect_timeout",
    "created_after",
    "deadline",
    "eagerness",
    "error_initial_interval",
    "error_max_interval",
    "events",
    "format",
    "gather",
    "grace",
    "initial_interval",
    "interval",
    "jitter",
    "keep",
    "level",
    "listen",
    "listen_names",
    "max_in_flight",
    "max_interval",
    "multiplier",
    "overdue_after",
    "remind_every",
    "request_timeout",
    "requests_per_minute",
    "retry_delays",
    "socket_mode",
    "stalled_after",
    "timeout",
    "unknown_status_after",
    "unreachable_after",
    "unsigned",
];

/// Keys whose values are names or paths, which are not secret unless by mistake.
const TEXT_KEYS: &[&str] = &[
    "api_key_file",
    "ca_file",
    "created_by_email",
    "dataset_name",
    "email",
    "id",
    "name",
    "notify",
    "secret_file",
    "spec_name",
    "state_dir",
    "url_file",
    "watch_dir",
];

/// Other keys, tables and words of this program, and of common paths.
const OTHER_WORDS: &[&str] = &[
    "alerts",
    "always",
    "api",
    "api_key",
    "auto",
    "base_url",
    "bundle",
    "cert",
    "certs",
    "command",
    "config",
    "credentials",
    "daemon",
    "dataframer",
    "debug",
    "delivery",
    "desktop",
    "discover",
    "error",
    "etc",
    "file",
    "headers",
    "high",
    "home",
    "hook",
    "info",
    "journald",
    "json",
    "key",
    "lib",
    "local",
    "log",
    "low",
    "never",
    "normal",
    "off",
    "poll",
    "private",
    "root",
    "run",
    "runs",
    "runwatch",
    "secret",
    "secrets",
    "share",
    "ssl",
    "tests",
    "text",
    "tmp",
    "token",
    "trace",
    "url",
    "usr",
    "var",
    "warn",
    "webhook",
];

/// Every known word: keys as they are, without underscores, and in parts.
static WORDS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let keys = PLAIN_KEYS.iter().chain(TEXT_KEYS).chain(OTHER_WORDS);
    keys.flat_map(|key| key.split('_').map(str::to_owned).chain([key.replace('_', "")])).collect()
});

/// Whether a whole text may be shown.
pub(super) fn is_harmless(text: &str) -> bool {
    visible(text, UNKNOWN) == text.chars().count()
}

/// A text for a message: on one line, and cut if it is not known to be harmless.
pub(super) fn quoted(text: &str) -> String {
    cut(text, UNKNOWN)
}

fn cut(text: &str, unknown: usize) -> String {
    let text = printable(text, 100);
    let shown = visible(&text, unknown);
    if shown == text.chars().count() { text } else { text.chars().take(shown).chain(['…']).collect() }
}

/// Like [`quoted`], for a run's id, which may be a UUID.
pub(super) fn quoted_id(text: &str) -> String {
    if is_uuid(text) { text.to_owned() } else { quoted(text) }
}

/// A message without the parts that must not be shown of the text that it is about: eight characters or more in a row.
pub(super) fn strike(message: &str, about: &str) -> String {
    if is_harmless(about) || is_uuid(about) {
        return message.to_owned();
    }
    // Control characters and white space may have been removed in the message.
    let solid = |c: &char| c.is_alphanumeric() || c.is_ascii_punctuation();
    let about: Vec<char> = about.chars().filter(solid).flat_map(char::to_lowercase).collect();
    let windows: HashSet<&[char]> = about.windows(UNKNOWN + 1).collect();
    let chars: Vec<char> = message.chars().collect();
    let places: Vec<usize> = (0..chars.len()).filter(|at| solid(&chars[*at])).collect();
    let lower: Vec<char> =
        places.iter().map(|at| chars[*at].to_lowercase().next().unwrap_or(chars[*at])).collect();
    let mut hidden = vec![false; chars.len()];
    for (at, _) in lower.windows(UNKNOWN + 1).enumerate().filter(|(_, window)| windows.contains(window)) {
        hidden[places[at]..=places[at + UNKNOWN]].fill(true);
    }
    let mut out = String::new();
    for (at, c) in chars.iter().enumerate() {
        match (hidden[at], at > 0 && hidden[at - 1]) {
            (false, _) => out.push(*c),
            (true, false) => out.push('…'),
            (true, true) => {}
        }
    }
    out
}

/// A path for a message: the part that exists, and of the rest the part that is harmless.
pub(super) fn path(path: &Path) -> String {
    let mut shown = PathBuf::new();
    let mut rest = path.components();
    while let Some(component) = rest.clone().next() {
        let next = shown.join(component);
        if matches!(component, Component::Normal(_)) && next.symlink_metadata().is_err() {
            break;
        }
        shown = next;
        rest.next();
    }
    let rest = rest.as_path().to_string_lossy();
    if !rest.is_empty() {
        // A mark before it may be part of a secret that is not a path.
        shown.push(cut(&rest, UNKNOWN - 1));
    }
    printable(&shown.to_string_lossy(), 1000)
}

fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.split('.').all(|part| !part.is_empty())
}

fn is_known_key(word: &str) -> bool {
    [PLAIN_KEYS, TEXT_KEYS, OTHER_WORDS].iter().any(|keys| keys.contains(&word))
}

/// A TOML number or boolean.
fn is_literal(text: &str) -> bool {
    let number = |text: &str| {
        text.len() <= 24
            && text.contains(|c: char| c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '_' | '.' | 'e' | 'E'))
    };
    matches!(text.trim_start_matches(['+', '-']), "true" | "false" | "inf" | "nan") || number(text)
}

/// A UUID as the API writes run ids.
fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let mut groups = text.split('-');
    let fits = |length: &usize| {
        groups
            .next()
            .is_some_and(|group| group.len() == *length && group.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    lengths.iter().all(fits) && groups.next().is_none()
}

/// The number of characters of a text that may be shown from its start, if `unknown` unknown ones are allowed.
fn visible(text: &str, unknown: usize) -> usize {
    let length = text.chars().count();
    if is_known(text) { length } else { length.min(unknown) }
}

/// The number of unknown characters in a text.
fn cost(text: &str) -> usize {
    if is_known(text) { 0 } else { text.chars().count() }
}

fn is_known(text: &str) -> bool {
    is_plain(text) || is_date(text) || text.parse::<SocketAddr>().is_ok() || text.parse::<IpAddr>().is_ok()
}

/// Lower-case words and a few digits with single marks between them, such as a name.
fn is_plain(text: &str) -> bool {
    let mut digits = 0;
    let mut known = |run: &str| {
        let lower = run.len() <= WORD && run.bytes().all(|byte| byte.is_ascii_lowercase());
        let number = run.bytes().all(|byte| byte.is_ascii_digit());
        digits += if number { run.len() } else { 0 };
        let mark = run.len() == 1 && "-_. /@:,*".contains(run);
        lower || number || mark || is_word(run) || is_quantity(run)
    };
    text.len() <= PLAIN && runs(text).all(&mut known) && digits <= DIGITS
}

/// This program's words, perhaps misspelt, with single marks between them.
fn has_only_words(key: &str) -> bool {
    runs(key).all(|run| is_word(run) || matches!(run, "." | "-" | "_"))
}

/// A day, perhaps with a time and a zone.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let day = |at: usize, byte: &u8| if matches!(at, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() };
    (10..=35).contains(&bytes.len())
        && bytes[..10].iter().enumerate().all(|(at, byte)| day(at, byte))
        && bytes[10..].iter().all(|byte| byte.is_ascii_digit() || b"TZtz:.+- ".contains(byte))
}

/// The text in pieces: each has only letters and digits, or none.
fn runs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != first).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        Some(run)
    })
}

/// A number with a unit.
fn is_quantity(run: &str) -> bool {
    const UNITS: [&str; 15] =
        ["ns", "us", "ms", "s", "sec", "secs", "m", "min", "mins", "h", "hr", "hrs", "d", "day", "days"];
    let unit = run.trim_start_matches(|c: char| c.is_ascii_digit());
    (1..=5).contains(&(run.len() - unit.len())) && UNITS.contains(&unit)
}

/// A word of this program, perhaps misspelt.
fn is_word(run: &str) -> bool {
    if !run.is_ascii() || run.len() > 30 {
        return false;
    }
    let run = run.to_ascii_lowercase();
    let slips = match run.len() {
        0..=4 => 0,
        5..=7 => 1,
        _ => 2,
    };
    WORDS.contains(&run)
        || WORDS.iter().any(|word| {
            word.len().abs_diff(run.len()) <= slips
                && strsim::osa_distance(word, &run) <= slips
                && (slips > 0 || *word == run)
        })
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
