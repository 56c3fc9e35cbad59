//! The display at the bottom of a terminal, and lines that are written above it. Used by the writing thread in `out`.

use std::io;

use super::block::Block;
use super::picture::Picture;
use super::stream::Stream;

/// A picture for a stream.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) on: Stream,
    pub(super) picture: Picture,
}

/// What the terminal shows at its bottom.
#[derive(Debug, Default)]
pub(super) struct Screen {
    on: Stream,
    block: Block,
    picture: Option<Picture>,
}

impl Screen {
    /// Replaces the picture. The next write draws it.
    pub(super) fn show(&mut self, frame: Frame) {
        self.on = frame.on;
        self.picture = Some(frame.picture);
    }

    /// Draws the picture, or removes the last one from the screen.
    pub(super) fn draw(&mut self) -> io::Result<()> {
        if self.is_bare() { Ok(()) } else { self.redraw("") }
    }

    fn is_bare(&self) -> bool {
        self.picture.is_none() && self.block.is_empty()
    }

    /// Writes lines above the picture.
    pub(super) fn write_above(&mut self, to: Stream, text: &[u8]) -> io::Result<()> {
        match std::str::from_utf8(text) {
            _ if self.is_bare() => to.write(text),
            Ok(text) if to == self.on => self.redraw(text),
            _ => {
                // Both streams may lead to the same terminal. If the terminal is lost, `readers` notices it.
                let _ = self.on.write(self.block.redraw("", Vec::new(), self.on.size()).as_bytes());
                let written = to.write(text);
                let _ = self.redraw("");
                written
            }
        }
    }

    fn redraw(&mut self, above: &str) -> io::Result<()> {
        let size = self.on.size();
        let lines = self
            .picture
            .as_ref()
            .map_or_else(Vec::new, |picture| picture.lines(size.width - 1, self.on.has_colours()));
        if lines.is_empty() {
            self.picture = None;
        }
        let text = self.block.redraw(above, lines, size);
        self.on.write(text.as_bytes())
    }
}
