//! Foreign text for every medium: a terminal, GitHub, Azure, Markdown, a desktop, JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runwatch::run::text::*;

fn without_spaces(text: &str) -> String {
    text.replace(' ', "")
}

fn seen(text: &str) -> String {
    text.chars().filter(|c| !is_hidden(*c) || matches!(c, '\r' | '\n')).collect()
}

fuzz_target!(|text: &str| {
    runwatch::cli::fuzzing::terminal(text);

    let line = one_line(text);
    assert!(!line.chars().any(|c| is_hidden(c) || c.is_whitespace() && c != ' '));
    assert_eq!(one_line(&line), line);
    for max in [0, 1, 7, 40] {
        assert!(printable(text, max).chars().count() <= max + 1);
    }

    let github = without_workflow_commands(text);
    for shown in [&*github, &seen(&github), &annotation_data(text)] {
        assert!(!shown.contains("::") && !shown.contains("##["), "{shown:?}");
    }
    assert_eq!(without_workflow_commands(&github), github);
    assert_eq!(without_spaces(&github), without_spaces(text));
    assert!(!annotation_data(text).chars().any(is_hidden));
    let property = annotation_property(text);
    assert!(!property.contains([':', ',']) && !property.chars().any(is_hidden));

    let azure = without_logging_commands(text);
    for shown in [&*azure, &seen(&azure), &logging_data(text)] {
        assert!(!shown.contains("##"), "{shown:?}");
    }
    assert_eq!(without_spaces(&azure), without_spaces(text));

    let cell = markdown_cell(text);
    assert!(!cell.chars().any(is_hidden) && !cell.contains(['\n', '\r']), "{cell:?}");
    let markup = desktop_markup(text);
    assert!(!markup.contains(['<', '>', '"', '\'']), "{markup:?}");

    let value = serde_json::json!({ text: [text] });
    let json = value.to_string();
    for safe in [json_for_github(&json), json_for_azure(&json), json_for_terminal(&json)] {
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).ok().as_ref(), Some(&value));
        assert!(!safe.chars().any(is_hidden), "{safe:?}");
    }
});
