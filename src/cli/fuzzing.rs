//! Entries for fuzzing (`fuzz/`): what is written to a terminal.

use super::safe;
use crate::run::text::is_hidden;

/// Nothing hidden in `text` reaches a terminal, except colours where they are shown.
pub fn terminal(text: &str) {
    let is_bad = |c: char| is_hidden(c) && !matches!(c, '\n' | '\t');
    assert!(!safe::for_terminal(text, false).chars().any(is_bad), "{text:?}");
    let coloured = safe::for_terminal(text, true);
    assert!(!console::strip_ansi_codes(&coloured).chars().any(is_bad), "{text:?}");
}
