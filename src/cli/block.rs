//! The escape sequences that redraw a block of lines in place at the bottom of the screen. Pure.
//!
//! All other output goes above the block. A line of the block never reaches the right edge, because a wrapped line cannot
//! be redrawn in place.
//!
//! Not ratatui's inline viewport: it asks the terminal for the position of the cursor (`ESC[6n`) at the start and after
//! each resize. A paused or dumb terminal would not answer, and reading the answer takes keys that were typed for the
//! shell. Its height is fixed, too. This block computes the position from what it drew last.

use std::fmt::Write as _;

use super::picture::Drawn;

/// The block as it was drawn last.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// How wide each line is.
    widths: Vec<usize>,
    /// The size of the terminal then.
    size: Option<Size>,
    /// Widths of the lines that left the screen at its top when the terminal lost rows. They come back when it grows.
    pushed_out: Vec<usize>,
}

/// The lines and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Whether the terminal wraps lines again when it becomes narrower.
    pub(super) reflows: bool,
}

impl Size {
    /// How many rows a line of this width takes that was drawn in a wider terminal.
    fn rows(self, width: usize) -> usize {
        if self.reflows { width.div_ceil(self.width).max(1) } else { 1 }
    }
}

impl Block {
    /// Whether the block is not on the screen.
    pub(super) fn is_empty(&self) -> bool {
        self.widths.is_empty()
    }

    /// The text that replaces the block by `above` and, below it, `lines`. Leaves the cursor on the row after the block,
    /// so that an echo there (`^C`) is overwritten. In a terminal with one row, leaves it at the start of that row.
    pub(super) fn redraw(&mut self, above: &str, mut lines: Vec<Drawn>, size: Size) -> String {
        let is_same = self.size.is_none_or(|before| before == size);
        let up = self.rows_above_cursor(size);
        let mut text = match up {
            _ if self.is_empty() => String::new(),
            // The cursor stops at the first row of the screen.
            1.. if is_same && above.is_empty() && !lines.is_empty() => format!("\r\x1b[{up}A"),
            _ => wipe(up),
        };
        for line in above.lines() {
            let _ = writeln!(text, "{line}\x1b[K");
            self.pushed_out.clear();
        }
        // If the lines do not fit, keep the last ones, which include the totals.
        lines.drain(..lines.len().saturating_sub(size.height.saturating_sub(1).max(1)));
        for line in &lines {
            let end = if size.height == 1 { "\r" } else { "\x1b[K\n" };
            let _ = write!(text, "{}{end}", line.text);
        }
        if size.height > 1 && !lines.is_empty() {
            text.push_str("\x1b[J");
        }
        self.widths = lines.into_iter().map(|line| line.width).collect();
        self.size = Some(size).filter(|_| !self.is_empty());
        text
    }

    /// How many rows the block takes above the cursor, after the terminal changed to this size.
    fn rows_above_cursor(&mut self, size: Size) -> usize {
        let Some(before) = self.size else { return 0 };
        let rows: usize = self.widths.iter().map(|width| size.rows(*width)).sum();
        let mut above = if before.height == 1 { rows - 1 } else { rows };
        let mut grown = size.height.saturating_sub(before.height);
        // The line that left last comes back first.
        while grown > 0
            && let Some(width) = self.pushed_out.pop()
        {
            above += size.rows(width).min(grown);
            grown = grown.saturating_sub(size.rows(width));
        }
        let mut out_of_sight = above.saturating_sub(size.height - 1);
        for width in &self.widths {
            if out_of_sight == 0 {
                break;
            }
            out_of_sight = out_of_sight.saturating_sub(size.rows(*width));
            self.pushed_out.push(*width);
        }
        above
    }
}

/// Clears the cursor's row and `rows` rows above it. Leaves the cursor at the start of the first one.
///
/// Row by row: if a wrapped line is only overwritten, the terminal joins it with the next line when it becomes wider. And
/// tmux keeps in its history what `ESC[J` erases from the top of the screen.
fn wipe(rows: usize) -> String {
    format!("\r\x1b[2K{}", "\x1b[A\x1b[2K".repeat(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<Drawn> {
        let drawn = |text: &&str| Drawn { text: (*text).to_owned(), width: text.len() };
        texts.iter().map(drawn).collect()
    }

    const SIZE: Size = Size { height: 24, width: 80, reflows: true };
    const ONE: Size = Size { height: 1, ..SIZE };

    #[test]
    fn draws_over_itself() {
        let mut block = Block::default();
        assert_eq!(block.redraw("", lines(&["a", "b"]), SIZE), "a\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(block.redraw("", lines(&["c"]), SIZE), "\r\x1b[2Ac\x1b[K\n\x1b[J");
        assert_eq!(block.redraw("said\n", lines(&["d"]), SIZE), wipe(1) + "said\x1b[K\nd\x1b[K\n\x1b[J");
        assert_eq!(block.redraw("", lines(&[]), SIZE), "\r\x1b[2K\x1b[A\x1b[2K");
        assert!(block.is_empty());
        assert_eq!(block.redraw("", lines(&[]), SIZE), "");
    }

    #[test]
    fn one_line_is_drawn_without_leaving_it() {
        let mut block = Block::default();
        assert_eq!(block.redraw("", lines(&["a", "b"]), ONE), "b\r");
        assert_eq!(block.redraw("", lines(&["c"]), ONE), wipe(0) + "c\r");
        assert_eq!(block.redraw("said\n", lines(&["d"]), ONE), wipe(0) + "said\x1b[K\nd\r");
        assert_eq!(block.redraw("", lines(&[]), ONE), "\r\x1b[2K");
    }

    #[test]
    fn knows_that_a_narrower_terminal_has_wrapped_it() {
        let mut block = Block::default();
        block.redraw("", lines(&["0123456789", "0"]), SIZE);
        assert_eq!(block.redraw("", lines(&[]), Size { width: 5, ..SIZE }), wipe(3));
    }

    #[test]
    fn takes_away_what_comes_back_when_the_terminal_grows_again() {
        let low = Size { height: 3, ..SIZE };
        let mut block = Block::default();
        let up = |block: &mut Block, texts: &[&str], size| {
            let text = block.redraw("", lines(texts), size);
            text.split("a\x1b").next().unwrap().to_owned()
        };
        assert_eq!(up(&mut block, &["a", "b", "c", "d"], SIZE), "");
        // Four lines and the cursor's: two are out of sight.
        assert_eq!(up(&mut block, &["a", "b"], low), wipe(4));
        assert_eq!(up(&mut block, &["a", "b"], low), "\r\x1b[2A");
        assert_eq!(up(&mut block, &["a"], SIZE), wipe(4));
        assert_eq!(up(&mut block, &["a"], SIZE), "\r\x1b[1A");
    }
}
