//! The markup of a desktop notification's body, a subset of HTML read as XML (Desktop Notifications Specification, "Markup").

use super::is_hidden;

/// Escapes the text so that it shows as it is. Line breaks stay; other hidden characters become spaces.
pub fn desktop_markup(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push(c),
            // XML allows no control characters. With one of them, the service shows nothing, or the raw markup.
            _ if is_hidden(c) => out.push(' '),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;

    #[test]
    fn markup_is_shown_not_obeyed() {
        assert_eq!(
            desktop_markup("a <b>&amp;</b>\n'\u{202e}\""),
            "a &lt;b&gt;&amp;amp;&lt;/b&gt;\n&#39; &quot;"
        );
    }

    proptest! {
        #[test]
        fn what_is_shown_is_the_text(text in samples::hostile()) {
            let markup = desktop_markup(&text);
            prop_assert!(!markup.contains(['<', '>', '"', '\'']), "{markup:?}");
            let shown = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
                .iter()
                .fold(markup, |text, (reference, c)| text.replace(reference, c));
            let seen = |c: char| if is_hidden(c) && c != '\n' { ' ' } else { c };
            prop_assert_eq!(shown, text.chars().map(seen).collect::<String>());
        }
    }
}
