//! A cell of a GitHub Flavored Markdown table.
//!
//! Every character that could be markup becomes a character reference. By the specification (section 6.2), a reference
//! never starts markup. So the order of escapes does not matter, and a pipe or backslash cannot break the table.

use std::fmt::Write as _;

use super::one_line;

/// Interrupts a mention, an issue reference or an e-mail address. GitHub searches the rendered text for these, where
/// references are characters again, but never across an element.
const BREAK: &str = "<span></span>";

/// `text` on one line, shown as it is: no markup, HTML, link, image, mention or address in it has an effect.
pub fn markdown_cell(text: &str) -> String {
    let text = one_line(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' | '|' | '`' | '*' | '_' | '~' | '[' | ']' | '<' | '>' | '&' | '$' => reference(&mut out, c),
            '@' => {
                reference(&mut out, c);
                out.push_str(BREAK);
            }
            '#' if rest.as_str().starts_with(|next: char| next.is_ascii_digit()) => {
                reference(&mut out, c);
                out.push_str(BREAK);
            }
            // GitHub links bare addresses that contain these.
            ':' if rest.as_str().starts_with('/') => reference(&mut out, c),
            '.' if ends_with_www(&out) => reference(&mut out, c),
            _ => out.push(c),
        }
    }
    out
}

fn reference(out: &mut String, c: char) {
    let _ = write!(out, "&#{};", u32::from(c));
}

fn ends_with_www(text: &str) -> bool {
    text.len().checked_sub(3).and_then(|at| text.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case("www"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

    use super::super::samples;
    use super::*;

    /// The texts of the second row's cells, as a Markdown parser reads them. Panics on markup.
    fn cells(first: &str, second: &str) -> Vec<String> {
        let table = format!("| a | b |\n| --- | --- |\n| {first} | {second} |\n");
        let (mut cells, mut in_head) = (Vec::new(), false);
        for event in Parser::new_ext(&table, Options::all() - Options::ENABLE_SMART_PUNCTUATION) {
            match event {
                Event::Start(Tag::TableHead) => in_head = true,
                Event::End(TagEnd::TableHead) => in_head = false,
                Event::Start(Tag::TableCell) if !in_head => cells.push(String::new()),
                Event::Text(text) if !in_head => cells.last_mut().unwrap().push_str(&text),
                Event::InlineHtml(html) => assert!(BREAK.contains(&*html), "{html} in {table}"),
                Event::Start(Tag::Table(_) | Tag::TableRow | Tag::TableCell)
                | Event::End(_)
                | Event::Text(_) => {}
                other => panic!("{other:?} in {table}"),
            }
        }
        cells
    }

    #[test]
    fn nothing_gets_out_of_its_cell() {
        for text in [
            "a|b",
            "a\\|b",
            "a\\",
            "`a",
            "``a` |",
            "<script>",
            "![i](http://x)",
            "[l](u)",
            "<http://a.b>",
            "*a* _b_ ~~c~~",
            "&lt;b&gt;",
            "a\nb",
            "$x$",
            "[^1]",
            "- [ ] x",
        ] {
            let cell = markdown_cell(text);
            assert_eq!(cells(&cell, "z"), [&*one_line(text), "z"], "{cell}");
        }
        assert_eq!(markdown_cell("nightly (v2): 3 of 5!"), "nightly (v2): 3 of 5!");
    }

    #[test]
    fn github_finds_no_address_and_nobody_to_mention() {
        assert_eq!(markdown_cell("see https://a.b or www.c.d"), "see https&#58;//a.b or www&#46;c.d");
        assert_eq!(markdown_cell("a@b.cd #12"), "a&#64;<span></span>b.cd &#35;<span></span>12");
    }

    proptest! {
        #[test]
        fn a_cell_reads_as_the_text(text in samples::hostile()) {
            let cell = markdown_cell(&text);
            prop_assert_eq!(cells(&cell, &cell), [&*one_line(&text), &*one_line(&text)]);
        }
    }
}
