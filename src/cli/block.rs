//! A block of lines that is drawn over itself at the bottom of the screen, as the escape sequences that do so. Pure.
//!
//! Everything else goes above the block, not through it. A line of the block never reaches the edge: one that wraps
//! cannot be drawn over.

use std::fmt::Write as _;

use console::{measure_text_width, truncate_str};

/// What was drawn last.
#[derive(Debug, Default)]
pub(super) struct Block {
    lines: Vec<String>,
}

impl Block {
    /// Whether there is nothing on the screen to be careful of.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines as they were drawn.
    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// What to write so that `above` stands where the block was and `lines` below it. The cursor is left on the line
    /// after the block: what the terminal echoes there (`^C`) is overwritten.
    pub(super) fn redraw(&mut self, above: &str, lines: Vec<String>, width: usize) -> String {
        let mut text = self.back(width);
        for line in above.lines() {
            let _ = writeln!(text, "{line}\x1b[K");
        }
        self.lines = lines.into_iter().map(|line| truncate_str(&line, width - 1, "…").into_owned()).collect();
        for line in &self.lines {
            let _ = writeln!(text, "{line}\x1b[K");
        }
        text.push_str("\x1b[J");
        text
    }

    /// What moves the cursor to the first column of the block's first line.
    pub(super) fn back(&self, width: usize) -> String {
        // A terminal that has become narrower has wrapped what was drawn for a wider one.
        let rows: usize = self.lines.iter().map(|line| measure_text_width(line).div_ceil(width).max(1)).sum();
        if rows == 0 { String::new() } else { format!("\r\x1b[{rows}A") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn draws_over_itself() {
        let mut block = Block::default();
        assert_eq!(block.redraw("", lines(&["a", "b"]), 80), "a\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(block.redraw("", lines(&["c"]), 80), "\r\x1b[2Ac\x1b[K\n\x1b[J");
        assert_eq!(block.redraw("said\n", lines(&[]), 80), "\r\x1b[1Asaid\x1b[K\n\x1b[J");
        assert_eq!(block.redraw("", lines(&[]), 80), "\x1b[J");
    }

    #[test]
    fn never_reaches_the_edge() {
        let mut block = Block::default();
        block.redraw("", lines(&["0123456789"]), 8);
        assert_eq!(block.lines(), ["012345…"]);
    }

    #[test]
    fn knows_that_a_narrower_terminal_has_wrapped_it() {
        let mut block = Block::default();
        block.redraw("", lines(&["0123456789", "0"]), 80);
        assert_eq!(block.back(5), "\r\x1b[3A");
    }
}
