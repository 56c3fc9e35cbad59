//! Which characters of a line of a file may be shown.

use std::ops::Range;

use super::{
    PLAIN_KEYS, TEXT_KEYS, UNKNOWN, cost, has_only_words, is_bare, is_key, is_known_key, is_literal, is_uuid,
    visible,
};

/// One line of a file. Every character that is not known to be harmless becomes a star.
pub(in crate::config) fn line(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut shown = vec![false; chars.len()];
    Line { chars: &chars, shown: &mut shown }.read();
    let indented = chars.iter().take_while(|c| matches!(c, ' ' | '\t')).count();
    let masked = chars.iter().zip(&shown).enumerate().map(|(at, (c, shown))| {
        let plain = c.is_alphanumeric() || c.is_ascii_punctuation() || *c == ' ';
        if at < indented || (*shown && plain) { *c } else { '*' }
    });
    masked.collect()
}

/// The line being read, and the part of it that may be shown so far.
struct Line<'c> {
    chars: &'c [char],
    shown: &'c mut [bool],
}

impl Line<'_> {
    fn read(&mut self) {
        let end = self.chars.len();
        let start = self.skip_blank(0);
        if self.at(start) == Some('[') {
            return self.header(start);
        }
        let key_end = self.while_key(start);
        let text: String = self.chars[start..key_end].iter().collect();
        let equals = self.skip_blank(key_end);
        if self.at(equals) != Some('=') || !is_key(&text) {
            // This is no setting. A known word before something else probably is a key.
            let word: String = self.chars[start..].iter().take_while(|c| is_bare(**c)).collect();
            if is_known_key(&word) {
                self.show(start..start + word.len());
            }
            return;
        }
        if equals > key_end || has_only_words(&text) {
            self.show_text(start..key_end, UNKNOWN - 1);
        } else {
            // The sign may be part of a secret that is not a key.
            self.show(start..key_end.min(start + UNKNOWN - 1));
        }
        self.show(key_end..equals + 1);
        let value = self.skip_blank(equals + 1);
        self.show(equals + 1..value);
        let key = text.rsplit('.').next().unwrap_or_default().trim();
        if let Some(pieces) = self.simple_value(value..end) {
            // Without a blank, the sign and the key may be part of a secret that continues in a bare value.
            let joined = match (value == equals + 1, equals == key_end) {
                (false, _) => 0,
                (true, false) => 1,
                (true, true) => 1 + key_end - start,
            };
            self.value(key, &pieces, joined);
        }
    }

    /// `[table]` or `[[table]]`, and perhaps a comment.
    fn header(&mut self, start: usize) {
        let open = self.chars[start..].iter().take_while(|c| **c == '[').count();
        let name_end = self.while_key(start + open);
        let name: String = self.chars[start + open..name_end].iter().collect();
        let close = self.chars[name_end..].iter().take_while(|c| **c == ']').count();
        let rest = self.skip_blank(name_end + close);
        if open == close && open <= 2 && is_key(&name) && matches!(self.at(rest), None | Some('#')) {
            self.show(start..start + open);
            self.show_text(start + open..name_end, UNKNOWN);
            self.show(name_end..name_end + close);
        }
    }

    /// The pieces of a value that ends on its line: one scalar, or a list of them. `None` for anything else.
    fn simple_value(&self, range: Range<usize>) -> Option<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        if self.at(at) == Some('[') {
            pieces.push(Piece::Mark(at));
            at = self.skip_blank(at + 1);
            while self.at(at) != Some(']') {
                let piece = self.scalar(at)?;
                at = self.skip_blank(piece.end());
                pieces.push(piece);
                match self.at(at) {
                    Some(',') => {
                        pieces.push(Piece::Mark(at));
                        at = self.skip_blank(at + 1);
                    }
                    Some(']') => {}
                    _ => return None,
                }
            }
            pieces.push(Piece::Mark(at));
            at += 1;
        } else {
            let piece = self.scalar(at)?;
            at = piece.end();
            pieces.push(piece);
        }
        matches!(self.at(self.skip_blank(at)), None | Some('#')).then_some(pieces)
    }

    /// A string on one line, or a number, boolean or date.
    fn scalar(&self, start: usize) -> Option<Piece> {
        let quote = self.at(start)?;
        if matches!(quote, '"' | '\'') {
            let length = self.chars[start + 1..].iter().position(|c| matches!(*c, '"' | '\'' | '\\'))?;
            let end = start + 1 + length;
            // Without escapes, and not the start of a string over several lines.
            let whole = self.chars[end] == quote && self.at(end + 1) != Some(quote);
            return whole.then_some(Piece::Text(start..end + 1));
        }
        let bare = |c: &&char| c.is_ascii_alphanumeric() || matches!(**c, '+' | '-' | '_' | '.' | ':');
        let length = self.chars[start..].iter().take_while(bare).count();
        (length > 0).then(|| Piece::Bare(start..start + length))
    }

    /// Shows a value. The `joined` characters before it may belong to it.
    fn value(&mut self, key: &str, pieces: &[Piece], mut joined: usize) {
        let plain = PLAIN_KEYS.contains(&key);
        if !plain && !TEXT_KEYS.contains(&key) {
            return;
        }
        let mut unknown = UNKNOWN;
        for piece in pieces {
            match piece {
                Piece::Mark(at) => {
                    self.show(*at..at + 1);
                    joined += 1;
                }
                Piece::Bare(range) => {
                    let text: String = self.chars[range.clone()].iter().collect();
                    if plain && is_literal(&text) {
                        self.show(range.clone());
                    } else {
                        unknown -= self.show_text(range.clone(), unknown.saturating_sub(joined));
                    }
                }
                Piece::Text(range) => {
                    self.show(range.start..range.start + 1);
                    self.show(range.end - 1..range.end);
                    let inner = range.start + 1..range.end - 1;
                    let text: String = self.chars[inner.clone()].iter().collect();
                    if key == "id" && is_uuid(&text) {
                        self.show(inner);
                    } else {
                        unknown -= self.show_text(inner, unknown);
                    }
                }
            }
        }
        let gaps = pieces.windows(2).map(|pair| pair[0].end()..pair[1].start());
        gaps.for_each(|gap| self.show(gap));
    }

    /// Shows the part of a text that may be shown. Returns how many of its characters are unknown.
    fn show_text(&mut self, range: Range<usize>, unknown: usize) -> usize {
        let text: String = self.chars[range.clone()].iter().collect();
        let length = visible(&text, unknown);
        self.show(range.start..range.start + length);
        cost(&text).min(unknown)
    }

    fn show(&mut self, range: Range<usize>) {
        self.shown[range].fill(true);
    }

    fn at(&self, at: usize) -> Option<char> {
        self.chars.get(at).copied()
    }

    fn skip_blank(&self, from: usize) -> usize {
        from + self.chars[from..].iter().take_while(|c| matches!(c, ' ' | '\t')).count()
    }

    /// The end of a possible key, dotted or not.
    fn while_key(&self, from: usize) -> usize {
        let length = self.chars[from..].iter().take_while(|c| is_bare(**c) || **c == '.').count();
        from + length
    }
}

/// A piece of a value, by character positions.
enum Piece {
    /// A bracket or a comma.
    Mark(usize),
    /// A string with its quotes.
    Text(Range<usize>),
    /// A number, a boolean or a date.
    Bare(Range<usize>),
}

impl Piece {
    fn start(&self) -> usize {
        match self {
            Self::Mark(at) => *at,
            Self::Text(range) | Self::Bare(range) => range.start,
        }
    }

    fn end(&self) -> usize {
        match self {
            Self::Mark(at) => at + 1,
            Self::Text(range) | Self::Bare(range) => range.end,
        }
    }
}
