//! Makes foreign text safe to show: one function per medium, used where the text is output.
//!
//! Owns the list of characters that must never reach a terminal, a log or a notification, and the escapes of each
//! medium: one line ([`printable`]), JSON ([`json_for_terminal`]), GitHub's and Azure's logs and
//! annotations, a Markdown table cell, and desktop markup. Foreign text comes from the API, a proxy, a receiver, a program, the command line or a file.
//! Secrets are removed elsewhere (`crate::secret`).

mod azure;
mod github;
mod json;
mod markdown;
mod markup;

use std::borrow::Cow;

pub use azure::{logging_data, without_logging_commands};
pub use github::{annotation_data, annotation_property, without_workflow_commands};
pub use json::{json_for_azure, json_for_github, json_for_terminal};
pub use markdown::markdown_cell;
pub use markup::desktop_markup;

/// `text` on one line, trimmed, without hidden characters and at most `max` characters long. An ellipsis marks a cut.
///
/// Hidden characters, line breaks and white space become single spaces. The text can then not move the cursor, change
/// colours, forge a second log line, or look like other text.
pub fn printable(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max.saturating_mul(4)));
    let mut kept = 0;
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() || is_hidden(c) {
            gap = !out.is_empty();
            continue;
        }
        if kept >= max {
            out.push('…');
            break;
        }
        if gap {
            gap = false;
            kept += 1;
            if kept >= max {
                out.push('…');
                break;
            }
            out.push(' ');
        }
        out.push(c);
        kept += 1;
    }
    out
}

/// [`printable`] without a limit. Borrows text that is clean already.
pub fn one_line(text: &str) -> Cow<'_, str> {
    let is_clean = |c: char| c == ' ' || !(c.is_whitespace() || is_hidden(c));
    let is_trimmed = !text.starts_with(' ') && !text.ends_with(' ') && !text.contains("  ");
    if is_trimmed && text.chars().all(is_clean) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(printable(text, usize::MAX))
    }
}

/// Whether a character is not visible as itself: it controls the terminal, reorders or hides the text around it, breaks
/// the line, or has no width.
///
/// Unicode's categories Cc, Zl and Zp, `Bidi_Control`, and `Default_Ignorable_Code_Point` (Unicode 16). Also three
/// characters that are drawn as nothing: the blank Braille pattern, the Khitan filler and the null notehead.
pub fn is_hidden(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{2800}' | '\u{16fe4}' | '\u{1d159}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Inputs for the tests of every medium.
#[cfg(test)]
mod samples {
    use proptest::prelude::*;

    /// Every hidden character that is known from attacks on terminals or readers.
    pub(super) fn hidden() -> Vec<char> {
        [
            0x00..=0x1f,
            0x7f..=0x9f,
            0xad..=0xad,
            0x34f..=0x34f,
            0x61c..=0x61c,
            0x180e..=0x180e,
            0x200b..=0x200f,
            0x2028..=0x202e,
            0x2060..=0x2069,
            0xfe0f..=0xfe0f,
            0xfeff..=0xfeff,
            0xe0001..=0xe007f,
        ]
        .into_iter()
        .flatten()
        .filter_map(char::from_u32)
        .collect()
    }

    /// Hostile text: a dense mix of markup, commands and hidden characters.
    pub(super) fn hostile() -> impl Strategy<Value = String> {
        let pieces = prop_oneof![
            prop::sample::select(vec![
                ":",
                "::",
                "##",
                "#",
                "[",
                "]",
                "##[error]",
                "##vso[task.complete]",
                "::error::",
                "::set-output name=a::",
                "\\",
                "|",
                "`",
                "*",
                "_",
                "~~",
                "(",
                ")",
                "!",
                "<",
                ">",
                "&",
                "&lt;",
                "&#124;",
                "<script>",
                "![i](u)",
                "[l](http://x)",
                "http://a.b/c",
                "www.a.b",
                "a@b.cd",
                "@octocat",
                "#12",
                "$x$",
                "%",
                "%0A",
                "%25",
                ",",
                "\r",
                "\n",
                "\r\n",
                "\t",
                " ",
                "\"",
                "'",
                "{",
                "}",
                "\\|",
                "\\u003a",
                "é",
                "\u{1F9EA}",
            ])
            .prop_map(str::to_owned),
            prop::sample::select(hidden()).prop_map(String::from),
            any::<char>().prop_map(String::from),
            "[a-z0-9]{1,4}",
        ];
        prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_plain_text_as_it_is() {
        assert_eq!(printable("support_tickets – été", 40), "support_tickets – été");
        assert_eq!(printable("日本語 \u{1F9EA} a\u{301}", 40), "日本語 \u{1F9EA} a\u{301}");
    }

    #[test]
    fn takes_out_what_moves_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nERROR: c\u{202e}d", 40), "a [2Jb ERROR: c d");
    }

    #[test]
    fn takes_out_every_hidden_character() {
        for c in samples::hidden() {
            assert!(is_hidden(c), "U+{:04X}", u32::from(c));
            assert_eq!(printable(&format!("a{c}b"), 9), "a b", "U+{:04X}", u32::from(c));
            assert_eq!(one_line(&format!("{c}a{c}")), "a", "U+{:04X}", u32::from(c));
        }
    }

    #[test]
    fn cuts_by_characters_and_says_so() {
        assert_eq!(printable("ééééé", 3), "ééé…");
        assert_eq!(printable("ééé", 3), "ééé");
        assert_eq!(printable("ééé \n", 3), "ééé");
        assert_eq!(printable("ab cd", 2), "ab…");
    }

    proptest! {
        /// The result is one line, within its limit, without hidden characters, and stays the same when processed
        /// again.
        #[test]
        fn what_is_printable_is_safe(text in samples::hostile(), max in 0usize..40) {
            let shown = printable(&text, max);
            prop_assert!(shown.chars().count() <= max + 1, "{shown:?}");
            prop_assert!(!shown.chars().any(|c| is_hidden(c) || c.is_whitespace() && c != ' '), "{shown:?}");
            prop_assert!(!shown.contains("  ") && shown.trim() == shown, "{shown:?}");
            let whole = printable(&text, usize::MAX);
            prop_assert_eq!(one_line(&text), whole.as_str());
            prop_assert!(matches!(one_line(&whole), Cow::Borrowed(_)));
        }
    }
}
