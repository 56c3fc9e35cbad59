//! Text for the log of a GitHub Actions job. The job's runner executes anything in a program's output that looks like a
//! command.
//!
//! `::command …::` counts at the start of a line, after white space. The older `##[command …]` counts anywhere in a
//! line (the runner's `ActionCommand.cs`). The runner ignores hidden characters when it compares, so `:\u{200b}:`
//! counts as `::`.

use super::{is_hidden, one_line};

/// Inserts a space inside every `::` and `##[`, so that no line is a command. Keeps the lines.
pub fn without_workflow_commands(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // The last two visible characters.
    let mut before = ['\n'; 2];
    for c in text.chars() {
        if is_hidden(c) && c != '\n' && c != '\r' {
            out.push(c);
            continue;
        }
        let completes = match c {
            ':' => before[1] == ':',
            '[' => before == ['#', '#'],
            _ => false,
        };
        if completes {
            out.push(' ');
        }
        out.push(c);
        before = [before[1], c];
    }
    out
}

/// The message of an annotation (`::error …::MESSAGE`): one line, escaped, and no command itself.
pub fn annotation_data(text: &str) -> String {
    let lines = text.split(['\r', '\n']).map(one_line).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    // GitHub shows each `%0A` as a new line.
    without_workflow_commands(&lines.join("\n")).replace('%', "%25").replace('\n', "%0A")
}

/// The value of an annotation's property (`::error title=VALUE::`).
pub fn annotation_property(text: &str) -> String {
    let line = without_workflow_commands(&one_line(text));
    line.replace('%', "%25").replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;

    #[test]
    fn commands_are_broken_wherever_they_stand() {
        for (text, safe) in [
            ("::error::x", ": :error: :x"),
            ("  ::add-mask::x", "  : :add-mask: :x"),
            ("r1: ##[add-mask]x", "r1: ## [add-mask]x"),
            ("###[x]", "### [x]"),
            (":::", ": : :"),
            ("a: b:c # [d] #[e]", "a: b:c # [d] #[e]"),
            (":\u{200b}:error::", ":\u{200b} :error: :"),
            ("a:\n:b", "a:\n:b"),
        ] {
            assert_eq!(without_workflow_commands(text), safe);
        }
    }

    #[test]
    fn an_annotation_ends_where_it_should() {
        assert_eq!(annotation_data("100%\n::error::x\r\n"), "100%25%0A: :error: :x");
        assert_eq!(annotation_data("a\u{1b}[1m\u{202e}b"), "a [1m b");
        assert_eq!(annotation_property("a,b: 5%::c\nd"), "a%2Cb%3A 5%25%3A %3Ac d");
    }

    proptest! {
        #[test]
        fn no_line_is_a_command(text in samples::hostile()) {
            let safe = without_workflow_commands(&text);
            let seen: String = safe.chars().filter(|c| !is_hidden(*c) || matches!(c, '\r' | '\n')).collect();
            prop_assert!(!safe.contains("::") && !safe.contains("##["), "{safe:?}");
            prop_assert!(!seen.contains("::") && !seen.contains("##["), "{safe:?}");
            prop_assert_eq!(without_workflow_commands(&safe), safe.as_str(), "done once is done for good");
            let without = |text: &str| text.replace(' ', "");
            prop_assert_eq!(without(&safe), without(&text), "only spaces are added");
        }

        #[test]
        fn annotations_are_one_line_that_reads_back(text in samples::hostile()) {
            let data = annotation_data(&text);
            prop_assert!(!data.chars().any(is_hidden) && !data.contains("::") && !data.contains("##["), "{data:?}");
            // Decodes as the runner does.
            let read = data.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%");
            prop_assert_eq!(one_line(&read), without_workflow_commands(&read.replace('\n', " ")));
            let property = annotation_property(&text);
            prop_assert!(!property.contains([':', ',']) && !property.chars().any(is_hidden), "{property:?}");
            let read = property.replace("%3A", ":").replace("%2C", ",").replace("%25", "%");
            prop_assert_eq!(read, without_workflow_commands(&one_line(&text)));
        }
    }
}
