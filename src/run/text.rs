//! Strings that came from outside, made safe to print.
//!
//! Owns one rule: nothing that the API, a proxy or a receiver answered reaches a terminal, a log or a notification with
//! control characters in it, or at any length it likes.

/// `text` on one line, trimmed, without control characters and at most `max` characters long (an ellipsis marks the cut).
///
/// Control characters and line breaks become single spaces, so that an answer cannot move the cursor, colour the
/// terminal or forge a second log line.
pub fn printable(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max * 4));
    let mut kept = 0;
    let mut gap = false;
    for c in text.trim().chars() {
        if c.is_control() || c.is_whitespace() || is_bidi_control(c) {
            gap = !out.is_empty();
            continue;
        }
        if gap {
            out.push(' ');
            kept += 1;
            gap = false;
        }
        if kept >= max {
            out.push('…');
            break;
        }
        out.push(c);
        kept += 1;
    }
    out
}

/// Marks that reorder the text around them on screen: they let one name pass for another.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn keeps_plain_text_as_it_is() {
        assert_eq!(printable("support_tickets – été", 40), "support_tickets – été");
    }

    #[test]
    fn takes_out_what_moves_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nERROR: c\u{202e}d", 40), "a [2Jb ERROR: c d");
    }

    #[test]
    fn cuts_by_characters_and_says_so() {
        assert_eq!(printable("ééééé", 3), "ééé…");
        assert_eq!(printable("ééé", 3), "ééé");
    }
}
