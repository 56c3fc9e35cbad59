//! The last sanitiser of every text before it is written to a standard stream.
//!
//! Texts from outside are already made safe where they are inserted (`run::text`). This catches what that missed. It removes
//! what controls a terminal, and under GitHub Actions and Azure Pipelines what their runners would execute. Used by `out`,
//! and for usage errors, which clap words.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::guess;
use crate::run::text::{
    is_hidden, json_for_azure, json_for_github, json_for_terminal, one_line, without_logging_commands,
    without_workflow_commands,
};

/// Whether a runner of GitHub Actions reads what is printed.
pub(super) fn in_github() -> bool {
    static IN_GITHUB: OnceLock<bool> = OnceLock::new();
    *IN_GITHUB.get_or_init(|| std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true"))
}

/// Whether an agent of Azure Pipelines reads what is printed.
pub(super) fn in_azure() -> bool {
    static IN_AZURE: OnceLock<bool> = OnceLock::new();
    *IN_AZURE.get_or_init(|| std::env::var("TF_BUILD").is_ok_and(|value| value.eq_ignore_ascii_case("true")))
}

/// Whether a job of Buildkite runs this.
pub(super) fn in_buildkite() -> bool {
    static IN_BUILDKITE: OnceLock<bool> = OnceLock::new();
    *IN_BUILDKITE.get_or_init(|| std::env::var("BUILDKITE").is_ok_and(|value| value == "true"))
}

/// The text without dangerous characters. Line breaks stay, and with `colours` the escape sequences for colours.
pub(super) fn text(text: &str, colours: bool) -> Cow<'_, str> {
    let text = for_terminal(text, colours);
    if in_github() {
        Cow::Owned(without_workflow_commands(&text))
    } else if in_azure() {
        Cow::Owned(without_logging_commands(&text))
    } else {
        text
    }
}

/// JSON without dangerous characters: they are escaped, so that the value stays the same.
pub(super) fn json(json: &str) -> String {
    if in_github() {
        json_for_github(json)
    } else if in_azure() {
        json_for_azure(json)
    } else {
        json_for_terminal(json)
    }
}

/// Text without hidden characters, but for line ends, tabs and, where wanted, colours.
pub(super) fn for_terminal(text: &str, colours: bool) -> Cow<'_, str> {
    if !text.chars().any(|c| is_hidden(c) && !matches!(c, '\n' | '\t')) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let colour = if colours { colour(rest) } else { None };
        if let Some(colour) = colour {
            out.push_str(colour);
            rest = &rest[colour.len()..];
            continue;
        }
        let ends_line = rest.starts_with("\r\n");
        if is_hidden(c) && !matches!(c, '\n' | '\t') {
            if !ends_line {
                out.push(' ');
            }
        } else {
            out.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(out)
}

/// The escape sequence for a colour (SGR, ECMA-48 8.3.117) that the text begins with. Those with colons are not what this
/// program writes, and not everything that takes escapes out again knows them.
fn colour(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\x1b[")?;
    let length = parameters.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    parameters[length..].starts_with('m').then(|| &text[..length + 3])
}

/// The text of a usage error. Line breaks in arguments are removed, because they could forge another line.
pub(super) fn usage_error(error: &clap::Error) -> String {
    let is_clean = |arg: &str| !arg.chars().any(is_hidden);
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    if args.iter().all(|arg| is_clean(arg)) {
        return rendered(error);
    }
    // The same mistake, made with clean arguments, is worded without what was in them.
    let clean = |arg: String| arg.chars().map(|c| if is_hidden(c) { ' ' } else { c }).collect::<String>();
    match guess::parse(args.into_iter().map(clean).map(Into::into)) {
        Err(clean) if clean.use_stderr() => rendered(&clean),
        _ => one_line(&error.to_string()).into_owned() + "\n",
    }
}

fn rendered(error: &clap::Error) -> String {
    let text = error.render();
    if console::colors_enabled_stderr() { text.ansi().to_string() } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_stay_where_they_are_shown_and_nothing_else_does() {
        let text = "\x1b[31;1mred\x1b[0m\t\x1b[2Jx\x1b]0;t\x07\r\ny\rz\u{202e}\u{200b}\u{9b}31m\x1b[";
        assert_eq!(for_terminal(text, true), "\x1b[31;1mred\x1b[0m\t [2Jx ]0;t \ny z   31m [");
        assert_eq!(for_terminal(text, false), " [31;1mred [0m\t [2Jx ]0;t \ny z   31m [");
        assert!(matches!(for_terminal("a\n\tb – é", false), Cow::Borrowed(_)));
    }

    #[test]
    fn a_colour_has_numbers_and_semicolons_only() {
        assert_eq!(for_terminal("\x1b[:m\x1b[4:3m\x1b[m\x1b[;m", true), " [:m [4:3m\x1b[m\x1b[;m");
    }

    proptest! {
        #[test]
        fn nothing_hidden_gets_through(text in "\\PC*|(\\x1b|\\[|[0-9;m]|\\r|\\n|\u{9b}|.){0,40}") {
            let safe = for_terminal(&text, false);
            prop_assert!(!safe.chars().any(|c| is_hidden(c) && !matches!(c, '\n' | '\t')), "{safe:?}");
            let coloured = for_terminal(&text, true);
            let rest = console::strip_ansi_codes(&coloured);
            prop_assert!(!rest.chars().any(|c| is_hidden(c) && !matches!(c, '\n' | '\t')), "{coloured:?}");
        }
    }
}
