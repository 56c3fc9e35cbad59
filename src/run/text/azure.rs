//! The log of an Azure Pipelines job: its agent executes `##vso[command …]`, and formats `##[…]`, wherever in a line they stand.

use super::{is_hidden, one_line};

/// `text` with a space inside every `##`, so that no line of it has a command. Its lines stay lines.
pub fn without_logging_commands(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Whether the last character that is seen was a `#`.
    let mut after_hash = false;
    for c in text.chars() {
        if after_hash && c == '#' {
            out.push(' ');
        }
        // What is not seen may be passed over, but for a line's end.
        if !is_hidden(c) || matches!(c, '\n' | '\r') {
            after_hash = c == '#';
        }
        out.push(c);
    }
    out
}

/// The message of a logging command (`##vso[…]MESSAGE`): on one line, and no command itself.
pub fn logging_data(text: &str) -> String {
    without_logging_commands(&one_line(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;

    #[test]
    fn commands_are_broken_wherever_they_stand() {
        for (text, safe) in [
            ("##vso[task.complete]x", "# #vso[task.complete]x"),
            ("r1: ##[error]x", "r1: # #[error]x"),
            ("###", "# # #"),
            ("#\u{200b}#vso[x]", "#\u{200b} #vso[x]"),
            ("a # b #c\n#", "a # b #c\n#"),
            ("#\n#", "#\n#"),
        ] {
            assert_eq!(without_logging_commands(text), safe);
        }
        assert_eq!(logging_data("a\r\n##vso[b]\u{1b}[1m"), "a # #vso[b] [1m");
    }

    proptest! {
        #[test]
        fn no_line_has_a_command(text in samples::hostile()) {
            let safe = without_logging_commands(&text);
            let seen: String = safe.chars().filter(|c| !is_hidden(*c) || matches!(c, '\r' | '\n')).collect();
            prop_assert!(!safe.contains("##") && !seen.contains("##"), "{safe:?}");
            prop_assert_eq!(without_logging_commands(&safe), safe.as_str(), "done once is done for good");
            prop_assert_eq!(safe.replace(' ', ""), text.replace(' ', ""), "only spaces are added");
            let data = logging_data(&text);
            prop_assert!(!data.contains("##") && !data.chars().any(is_hidden), "{data:?}");
        }
    }
}
