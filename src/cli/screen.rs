//! The display at the bottom of a terminal, and how lines get past it. Used by the thread that writes, in `out`.

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
    /// Has this picture shown from the next writing on.
    pub(super) fn show(&mut self, frame: Frame) {
        self.on = frame.on;
        self.picture = Some(frame.picture);
    }

    /// Draws what is to be shown, if anything is or was.
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
                // Both streams may lead to the same terminal. If that is lost, `readers` notices.
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
