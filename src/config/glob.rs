//! Globs of `[discover]`: parses them, and detects those that never match.

use std::ops::Range;

use ::glob::Pattern;

use super::mask;
use super::reader::Section;

/// What a glob is matched against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// A name.
    Name,
    /// An e-mail address.
    Address,
}

/// The globs at `key`, one or several; none if the key is missing.
pub(super) fn read(section: &Section<'_>, key: &'static str, of: Of) -> Vec<Pattern> {
    let read = |(text, span): (&str, Range<usize>)| {
        if text.is_empty() {
            let help = "expected a glob, such as \"nightly-*\"";
            section.problems.error(span, format!("`{key}` is empty"), help);
            return None;
        }
        match Pattern::new(text) {
            Ok(glob) => {
                if let Some(why) = never(text, of) {
                    let title = format!("`{key}`: `{}` never matches: {why}", mask::quoted(text));
                    section.problems.check_error(span, title, "it matches no run");
                }
                Some(glob)
            }
            Err(error) => {
                let title = format!("`{key}`: `{}` is not a glob: {}", mask::quoted(text), error.msg);
                let help = "expected text with *, ? and [abc] in it, such as \"nightly-*\"";
                section.problems.error(span, title, help);
                None
            }
        }
    };
    let globs = section.one_or_more(key);
    if let Some(span) = section.span_of(key).filter(|_| section.is_empty_list(key)) {
        section.problems.error(span, format!("`{key}` has nothing in it"), "leave it out for any");
    }
    globs.into_iter().filter_map(read).collect()
}

/// Why a glob never matches, if so.
fn never(text: &str, of: Of) -> Option<&'static str> {
    let parts = parts(text);
    if parts.contains(&Part::Nothing) {
        return Some("a range in brackets goes backwards");
    }
    if text.trim() != text {
        return Some("it begins or ends with white space");
    }
    if text.chars().any(char::is_control) {
        return Some("it has control characters in it");
    }
    if of == Of::Name {
        return None;
    }
    let ats = parts.iter().filter(|part| **part == Part::Just('@')).count();
    let open = parts.iter().any(|part| matches!(part, Part::Any | Part::One));
    if text.contains(char::is_whitespace) {
        Some("an address has no white space in it")
    } else if ats > 1 {
        Some("an address has one @ in it")
    } else if ats == 0 && !open {
        Some("an address has an @ in it")
    } else if parts.first() == Some(&Part::Just('@')) {
        Some("an address does not begin with @; put a * before it")
    } else if parts.last() == Some(&Part::Just('@')) {
        Some("an address does not end with @; put a * after it")
    } else {
        None
    }
}

/// A part of a glob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// This character.
    Just(char),
    /// Any text.
    Any,
    /// One of several characters.
    One,
    /// An empty class, which matches nothing.
    Nothing,
}

/// The parts of a valid glob.
fn parts(text: &str) -> Vec<Part> {
    let chars: Vec<char> = text.chars().collect();
    let mut parts = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let part = match chars[at] {
            '*' => Part::Any,
            '?' => Part::One,
            '[' => {
                let not = chars.get(at + 1) == Some(&'!');
                let from = at + 1 + usize::from(not);
                // A bracket at the very start stands for itself.
                let length = chars.iter().skip(from + 1).position(|c| *c == ']').unwrap_or_default();
                let class = chars.get(from..=from + length).unwrap_or_default();
                at = from + class.len();
                if !not && is_backwards(class) { Part::Nothing } else { Part::One }
            }
            c => Part::Just(c),
        };
        parts.push(part);
        at += 1;
    }
    parts
}

/// Whether a class has only reversed ranges, and so no characters.
fn is_backwards(class: &[char]) -> bool {
    let mut rest = class;
    while let [first, '-', last, after @ ..] = rest {
        if first <= last {
            return false;
        }
        rest = after;
    }
    rest.is_empty() && !class.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_globs_that_never_match() {
        for (text, of, never_matches) in [
            ("nightly-*", Of::Name, false),
            ("[abc]x", Of::Name, false),
            ("[a-z]", Of::Name, false),
            ("[!z-a]", Of::Name, false),
            ("[z-ab]", Of::Name, false),
            ("[]z-a]", Of::Name, false),
            ("[z-a]*", Of::Name, true),
            (" nightly", Of::Name, true),
            ("nightly\t", Of::Name, true),
            ("*@example.com", Of::Address, false),
            ("ana*", Of::Address, false),
            ("ana?example.com", Of::Address, false),
            ("ana@example.com", Of::Address, false),
            ("ana", Of::Address, true),
            ("@example.com", Of::Address, true),
            ("ana@", Of::Address, true),
            ("a@b@c", Of::Address, true),
            ("ana smith@*", Of::Address, true),
        ] {
            assert!(Pattern::new(text).is_ok(), "{text}");
            assert_eq!(never(text, of).is_some(), never_matches, "{text}");
        }
    }
}
