//! Lines for a terminal as cells, and the escape sequences that show them.
//!
//! A cell has one visible character, one or two columns wide, and a style, as in ratatui. Foreign text in cells cannot
//! control the terminal. `live` fills pictures, and `screen` draws them.

use std::ops::Range;
use std::sync::Arc;

use ratatui_core::buffer::{Buffer, Cell};
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::text::Span;

use crate::run::text::is_hidden;

/// Lines of cells.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    cells: Buffer,
    links: Vec<Link>,
}

/// A hyperlink on some columns of a line.
#[derive(Debug, Clone)]
struct Link {
    line: u16,
    columns: Range<u16>,
    url: Arc<str>,
}

/// One line as it is written, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Drawn {
    /// The text, with escape sequences.
    pub(super) text: String,
    /// How many columns it takes.
    pub(super) width: usize,
}

/// The columns that a text takes.
pub(super) fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

/// The text in at most `width` columns. An ellipsis marks a cut.
pub(super) fn cut(text: &str, width: usize) -> String {
    console::truncate_str(text, width, "…").into_owned()
}

impl Picture {
    /// Blank lines.
    pub(super) fn blank(width: usize, height: usize) -> Self {
        let size = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        Self { cells: Buffer::empty(Rect::new(0, 0, size(width), size(height))), links: Vec::new() }
    }

    /// Puts a text on a line, up to the right edge.
    pub(super) fn put(&mut self, column: usize, line: usize, text: &str, style: Style) {
        if let Some((x, y)) = self.position(column, line) {
            self.cells.set_stringn(x, y, text, usize::MAX, style);
        }
    }

    /// Makes `width` columns a link.
    pub(super) fn link(&mut self, column: usize, line: usize, width: usize, url: &Arc<str>) {
        // Any other character is not part of a URL, and could end the sequence early.
        let is_safe = url.chars().all(|c| c.is_ascii_graphic());
        if let Some((x, y)) = self.position(column, line).filter(|_| is_safe) {
            let end = x.saturating_add(u16::try_from(width).unwrap_or(u16::MAX));
            self.links.push(Link { line: y, columns: x..end, url: Arc::clone(url) });
        }
    }

    fn position(&self, column: usize, line: usize) -> Option<(u16, u16)> {
        let (x, y) = (u16::try_from(column).ok()?, u16::try_from(line).ok()?);
        (x < self.cells.area.width && y < self.cells.area.height).then_some((x, y))
    }

    /// The lines, each at most `width` columns wide.
    pub(super) fn lines(&self, width: usize, colours: bool) -> Vec<Drawn> {
        (0..self.cells.area.height).map(|line| self.line(line, width, colours)).collect()
    }

    fn line(&self, line: u16, width: usize, colours: bool) -> Drawn {
        let cell = |x: u16| self.cells.cell((x, line));
        let is_blank = |x: &u16| cell(*x).is_none_or(|cell| cell.symbol() == " ");
        let blank = (0..self.cells.area.width).rev().take_while(is_blank).count();
        let end = usize::from(self.cells.area.width) - blank;
        let mut drawn = Drawn { text: String::new(), width: 0 };
        let plain = Cell::default().style();
        let (mut style, mut url) = (plain, None);
        while drawn.width < end {
            let Some(cell) = u16::try_from(drawn.width).ok().and_then(cell) else { break };
            let symbol = if cell.symbol().chars().any(is_hidden) { " " } else { cell.symbol() };
            let wide = columns(symbol).max(1);
            if drawn.width + wide > width {
                break;
            }
            let here = self.link_at(line, drawn.width);
            if here != url {
                drawn.text.push_str(&hyperlink(here));
                url = here;
            }
            if colours && cell.style() != style {
                drawn.text.push_str(&sgr(cell));
                style = cell.style();
            }
            drawn.text.push_str(symbol);
            drawn.width += wide;
        }
        if url.is_some() {
            drawn.text.push_str(&hyperlink(None));
        }
        if colours && style != plain {
            drawn.text.push_str("\x1b[0m");
        }
        drawn
    }

    fn link_at(&self, line: u16, column: usize) -> Option<&str> {
        let is_here = |link: &&Link| {
            link.line == line
                && (usize::from(link.columns.start)..usize::from(link.columns.end)).contains(&column)
        };
        self.links.iter().find(is_here).map(|link| &*link.url)
    }
}

/// The sequence that begins a link, or ends it (OSC 8).
fn hyperlink(url: Option<&str>) -> String {
    format!("\x1b]8;;{}\x1b\\", url.unwrap_or_default())
}

/// The sequence for the style of a cell (ECMA-48 8.3.117), of those that are used.
fn sgr(cell: &Cell) -> String {
    let mut codes = String::from("\x1b[0");
    for (modifier, code) in [(Modifier::BOLD, ";1"), (Modifier::DIM, ";2")] {
        if cell.modifier.contains(modifier) {
            codes.push_str(code);
        }
    }
    codes.push_str(match cell.fg {
        Color::Red => ";31",
        Color::Green => ";32",
        Color::Yellow => ";33",
        Color::Cyan => ";36",
        Color::DarkGray => ";90",
        _ => "",
    });
    codes.push('m');
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(text: &str, style: Style) -> Picture {
        let mut picture = Picture::blank(20, 1);
        picture.put(0, 0, text, style);
        picture
    }

    fn text(picture: &Picture, width: usize) -> (String, usize) {
        let drawn = picture.lines(width, false).remove(0);
        (drawn.text, drawn.width)
    }

    #[test]
    fn a_line_ends_with_its_last_character_and_before_the_edge() {
        assert_eq!(text(&picture("ab ", Style::new()), 9), ("ab".to_owned(), 2));
        assert_eq!(text(&picture("abcdef", Style::new()), 4), ("abcd".to_owned(), 4));
        assert_eq!(
            text(&picture("日本語", Style::new()), 5),
            ("日本".to_owned(), 4),
            "no half of a wide one"
        );
        assert_eq!(text(&picture("e\u{301}x👍", Style::new()), 9), ("e\u{301}x👍".to_owned(), 4));
    }

    #[test]
    fn styles_end_where_they_do_and_are_left_out_without_colours() {
        let mut picture = picture("ok", Style::new().fg(Color::Green));
        picture.put(3, 0, "x", Style::new());
        assert_eq!(picture.lines(9, true)[0].text, "\x1b[0;32mok\x1b[0m x");
        assert_eq!(picture.lines(9, false)[0].text, "ok x");
    }

    #[test]
    fn links_are_closed_even_where_they_are_cut() {
        let mut picture = picture("nightly", Style::new());
        picture.link(0, 0, 7, &"https://x/1".into());
        let open = "\x1b]8;;https://x/1\x1b\\";
        assert_eq!(picture.lines(9, false)[0].text, format!("{open}nightly\x1b]8;;\x1b\\"));
        assert_eq!(picture.lines(3, false)[0].text, format!("{open}nig\x1b]8;;\x1b\\"));
    }

    #[test]
    fn nothing_controls_the_terminal() {
        let mut picture = picture("a\x1b[2J\u{202e}b\u{9b}c", Style::new());
        picture.link(0, 0, 5, &"https://x/\x07".into());
        let drawn = &picture.lines(20, true)[0];
        assert!(!drawn.text.chars().any(is_hidden), "{drawn:?}");
    }
}
