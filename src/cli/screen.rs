//! The terminal that the progress display and the log share.
//!
//! Owns a block of lines that is drawn over itself at the bottom of the screen, and the rule that everything else goes
//! above it, not through it. A line of the block never reaches the edge: one that wraps cannot be drawn over.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use console::{Term, measure_text_width, truncate_str};
use tracing_subscriber::fmt::MakeWriter;

use super::out;

/// The screen. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Screen {
    block: Arc<Mutex<Block>>,
}

#[derive(Debug, Default)]
struct Block {
    /// The lines as they were drawn.
    lines: Vec<String>,
}

impl Screen {
    /// The lines and columns there are.
    pub(super) fn size() -> (usize, usize) {
        let (height, width) = Term::stdout().size();
        (usize::from(height).max(2), usize::from(width).max(20))
    }

    /// Draws the block anew.
    pub(super) fn draw(&self, lines: Vec<String>) {
        let (_, width) = Self::size();
        let mut block = self.block();
        show(&block.redraw("", lines, width));
    }

    /// Prints lines above the block, on standard output, and draws the block anew.
    pub(super) fn say_and_draw(&self, said: &str, lines: Vec<String>) {
        let (_, width) = Self::size();
        let mut block = self.block();
        show(&block.redraw(&format!("{said}\n"), lines, width));
    }

    /// Prints lines above the block, on standard output.
    #[cfg(feature = "simulator")]
    pub(super) fn say(&self, said: &str) {
        let lines = self.block().lines.clone();
        self.say_and_draw(said, lines);
    }

    fn block(&self) -> MutexGuard<'_, Block> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A terminal that has gone away shows nothing more; the watch goes on.
fn show(text: &str) {
    drop(out::stdout(text));
}

impl Block {
    /// What to write so that `above` stands where the block was and `lines` below it. The cursor is left on the line
    /// after the block: what the terminal echoes there (`^C`) is overwritten.
    fn redraw(&mut self, above: &str, lines: Vec<String>, width: usize) -> String {
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
    fn back(&self, width: usize) -> String {
        // A terminal that has become narrower has wrapped what was drawn for a wider one.
        let rows: usize = self.lines.iter().map(|line| measure_text_width(line).div_ceil(width).max(1)).sum();
        if rows == 0 { String::new() } else { format!("\r\x1b[{rows}A") }
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = AboveBlock<'a>;

    fn make_writer(&'a self) -> AboveBlock<'a> {
        AboveBlock { block: self.block() }
    }
}

/// Writes to standard error, with the block out of the way.
pub(super) struct AboveBlock<'a> {
    block: MutexGuard<'a, Block>,
}

impl Write for AboveBlock<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.block.lines.is_empty() {
            return io::stderr().lock().write(text);
        }
        let (_, width) = Screen::size();
        show(&(self.block.back(width) + "\x1b[J"));
        let written = io::stderr().lock().write(text);
        self.block.lines.iter().for_each(|line| show(&format!("{line}\n")));
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
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
        assert_eq!(block.lines, ["012345…"]);
    }

    #[test]
    fn knows_that_a_narrower_terminal_has_wrapped_it() {
        let mut block = Block::default();
        block.redraw("", lines(&["0123456789", "0"]), 80);
        assert_eq!(block.back(5), "\r\x1b[3A");
    }
}
