//! A block of lines that is drawn over itself at the bottom of the screen, as the escape sequences that do so. Pure.
//!
//! Everything else goes above the block, not through it. A line of the block never reaches the edge: one that wraps
//! cannot be drawn over.
//!
//! Why not ratatui's inline viewport: it asks the terminal where the cursor is (`ESC[6n`) when it starts and whenever
//! the size changes. It would wait for the answer of a terminal that is paused or that does not know the question, and
//! take keys that were typed for the shell. Its height is fixed, too. Here nothing is asked: the cursor's place follows
//! from what was drawn.

use std::fmt::Write as _;

use super::picture::Drawn;

/// What was drawn last.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// How wide each line is.
    widths: Vec<usize>,
    /// The size of the terminal then.
    size: Option<Size>,
    /// How wide the lines are that a terminal which became lower has pushed out of sight. One that grows again brings
    /// them back.
    pushed_out: Vec<usize>,
}

/// The lines and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Whether a terminal that becomes narrower wraps the lines that are too long for it.
    pub(super) reflows: bool,
}

impl Size {
    /// How many rows a line takes that was drawn when it fitted.
    fn rows(self, width: usize) -> usize {
        if self.reflows { width.div_ceil(self.width).max(1) } else { 1 }
    }
}

impl Block {
    /// Whether there is nothing on the screen to be careful of.
    pub(super) fn is_empty(&self) -> bool {
        self.widths.is_empty()
    }

    /// What to write so that `above` stands where the block was and `lines` below it. The cursor is left on the line
    /// after the block: what the terminal echoes there (`^C`) is overwritten. Where the terminal has one line only, the
    /// cursor is left at its start.
    pub(super) fn redraw(&mut self, above: &str, mut lines: Vec<Drawn>, size: Size) -> String {
        let is_same = self.size.is_none_or(|before| before == size);
        let up = self.rows_above_cursor(size);
        let mut text = match up {
            _ if self.is_empty() => String::new(),
            // Beyond the first line of the screen, the cursor goes no further.
            1.. if is_same && above.is_empty() && !lines.is_empty() => format!("\r\x1b[{up}A"),
            _ => wipe(up),
        };
        for line in above.lines() {
            let _ = writeln!(text, "{line}\x1b[K");
            self.pushed_out.clear();
        }
        // Of what does not fit, the last lines say most: the totals are there.
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

    /// How many rows of the screen the block takes above the cursor, if the terminal has this size now.
    fn rows_above_cursor(&mut self, size: Size) -> usize {
        let Some(before) = self.size else { return 0 };
        let rows: usize = self.widths.iter().map(|width| size.rows(*width)).sum();
        let mut above = if before.height == 1 { rows - 1 } else { rows };
        let mut grown = size.height.saturating_sub(before.height);
        // The last that went comes back first.
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

/// Clears the cursor's row and those above it, and leaves the cursor at the start of the first one.
///
/// One by one: a wrapped line that is only written over is joined with the next one when the terminal grows again, and
/// what `ESC[J` erases from the top of the screen on, tmux keeps as history.
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
