//! Reads the list of runs as it arrives, one run at a time.
//!
//! Splits a JSON array into its elements. The list of a company with fifty thousand runs is tens of megabytes long, so
//! only the wanted runs are kept in memory.

use std::fmt;

use super::PollError;
use super::wire;
use crate::run::{Run, RunId};

/// Maximum size of an element, in bytes. A run in the list has no files and takes less than a kilobyte.
const LONGEST: usize = 64 * 1024;

/// A run in the list: without its number of samples, but with its details.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its id.
    pub id: RunId,
    /// The fields that runwatch uses.
    pub run: Run,
}

/// Entries of a list that could not be read. Their runs are missing from the result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many entries.
    pub count: usize,
    /// Describes the first one.
    first: String,
}

impl Skipped {
    /// Adds the `number`th entry of the list, counted from 1.
    fn add(&mut self, number: usize, id: Option<&RunId>, why: &str) {
        if self.count == 0 {
            let run = id.map(|id| format!(", the run {id},")).unwrap_or_default();
            self.first = format!("entry {number}{run} {why}");
        }
        self.count += 1;
    }
}

/// Such as `2 entries of the list of runs were skipped; entry 7, the run r1, is larger than 64 KiB`.
impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, were) = if self.count == 1 { ("entry", "was") } else { ("entries", "were") };
        write!(f, "{} {entries} of the list of runs {were} skipped; {}", self.count, self.first)
    }
}

/// Reads the entries of a list one after another.
#[derive(Debug, Default)]
pub(super) struct Entries {
    read: usize,
    pub(super) skipped: Skipped,
}

impl Entries {
    /// Reads one element from the splitter; `None` if it is not a run that can be polled.
    pub(super) fn read(&mut self, element: Element<'_>) -> Option<Listed> {
        self.read += 1;
        match element {
            Element::Whole(json) => match wire::listed(json) {
                Ok((id, run)) => return Some(Listed { id, run }),
                Err(_) => self.skipped.add(self.read, wire::id_in(json).as_ref(), "cannot be read"),
            },
            Element::TooLong(head) => {
                let why = format!("is larger than {} KiB", LONGEST >> 10);
                self.skipped.add(self.read, wire::id_in(head).as_ref(), &why);
            }
        }
        None
    }
}

/// An element of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element<'a> {
    /// The whole element.
    Whole(&'a [u8]),
    /// The start of an element that is too long to be a run.
    TooLong(&'a [u8]),
}

/// Splits a list into elements while it arrives.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// Number of open brackets and braces.
    depth: usize,
    /// The depth of the list's elements; `None` before the list has begun.
    list: Option<usize>,
    /// What may come next between two elements.
    next: Next,
    in_string: bool,
    escaped: bool,
    /// The element being read.
    element: Vec<u8>,
    /// Whether the element is too long to be a run. The rest of it is dropped.
    too_long: bool,
    /// The last string outside the list: the field name of a wrapped list.
    name: Vec<u8>,
    /// Number of bytes before the list or its wrapper.
    before: usize,
}

/// What may come next between the elements of the list.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// An element, or the end.
    #[default]
    First,
    /// A comma, or the end.
    Comma,
    /// An element.
    Element,
    /// The list has ended.
    Nothing,
}

/// A byte order mark may come before everything else.
const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];

impl Splitter {
    /// Reads more bytes, and passes every complete element to `take`.
    pub(super) fn feed(&mut self, bytes: &[u8], take: &mut impl FnMut(Element<'_>)) -> Result<(), PollError> {
        for &byte in bytes {
            self.read(byte, take)?;
        }
        Ok(())
    }

    /// Whether the list is complete. An incomplete list says nothing about missing runs.
    pub(super) fn finish(&self) -> Result<(), PollError> {
        if self.has_ended() && self.depth == 0 {
            return Ok(());
        }
        Err(broken(if self.list.is_none() { "it is not a list" } else { "it breaks off" }))
    }

    fn has_ended(&self) -> bool {
        self.next == Next::Nothing
    }

    fn read(&mut self, byte: u8, take: &mut impl FnMut(Element<'_>)) -> Result<(), PollError> {
        let in_list = self.list.filter(|_| !self.has_ended());
        if in_list.is_some_and(|list| self.depth > list) {
            self.keep(byte);
        } else if !self.in_string {
            self.between(byte, in_list)?;
        }
        if self.in_string {
            self.string(byte);
            return Ok(());
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.name.clear();
            }
            b'[' | b'{' => self.open(byte),
            b']' | b'}' => self.close(byte, take)?,
            _ => {}
        }
        Ok(())
    }

    /// Keeps a byte of an element.
    fn keep(&mut self, byte: u8) {
        self.too_long |= self.element.len() >= LONGEST;
        if !self.too_long {
            self.element.push(byte);
        }
    }

    /// Handles a byte outside the elements: around the list, or between two of them.
    fn between(&mut self, byte: u8, in_list: Option<usize>) -> Result<(), PollError> {
        if byte.is_ascii_whitespace() {
            return Ok(());
        }
        let Some(_) = in_list else {
            let begins = self.depth == 0 && !self.has_ended();
            let is_bom = begins && BOM.get(self.before) == Some(&byte);
            self.before += 1;
            return match byte {
                b'<' if begins => Err(broken("it is a web page; is base_url right?")),
                b'[' | b'{' if begins => Ok(()),
                _ if self.depth == 0 && !is_bom => Err(broken("it is not JSON")),
                _ => Ok(()),
            };
        };
        self.next = match (self.next, byte) {
            (Next::First | Next::Element, b'{') | (Next::First | Next::Comma, b']') => self.next,
            (Next::Comma, b',') => Next::Element,
            (Next::First | Next::Element, _) => return Err(broken("an entry is not a run")),
            (Next::Comma | Next::Nothing, _) => return Err(broken("there is something between two entries")),
        };
        Ok(())
    }

    fn string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ if self.depth <= 1 && self.name.len() < 32 => self.name.push(byte),
            _ => {}
        }
    }

    fn open(&mut self, byte: u8) {
        self.depth += 1;
        // A bare list, or a list in a wrapper under the name that newer resources use.
        let begins = byte == b'[' && (self.depth == 1 || (self.depth == 2 && self.name == b"results"));
        if self.list.is_none() && begins {
            self.list = Some(self.depth);
        } else if self.list.is_some_and(|list| self.depth == list + 1) && !self.has_ended() {
            self.too_long = false;
            self.element.clear();
            self.element.push(byte);
        }
    }

    fn close(&mut self, byte: u8, take: &mut impl FnMut(Element<'_>)) -> Result<(), PollError> {
        self.depth = self.depth.checked_sub(1).ok_or_else(|| broken("it is not JSON"))?;
        if let Some(list) = self.list.filter(|_| !self.has_ended()) {
            if self.depth == list {
                if byte != b'}' {
                    return Err(broken("an entry is not a run"));
                }
                take(if self.too_long {
                    Element::TooLong(&self.element)
                } else {
                    Element::Whole(&self.element)
                });
                self.element.clear();
                self.next = Next::Comma;
            } else if self.depth < list {
                self.next = Next::Nothing;
            }
        }
        Ok(())
    }
}

fn broken(why: &str) -> PollError {
    PollError::transient(format!("the list of runs cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run::RunStatus;

    const LIST: &[u8] = include_bytes!("../../tests/fixtures/api/runs_list.json");

    /// The elements of a list that arrives in pieces of this size.
    fn split(json: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, PollError> {
        let (mut splitter, mut elements) = (Splitter::default(), Vec::new());
        for piece in json.chunks(piece) {
            splitter.feed(piece, &mut |element| {
                let (Element::Whole(json) | Element::TooLong(json)) = element;
                elements.push(json.to_vec());
            })?;
        }
        splitter.finish()?;
        Ok(elements)
    }

    #[test]
    fn the_list_of_the_api_comes_apart_however_it_arrives() {
        let whole: Vec<serde_json::Value> = serde_json::from_slice(LIST).unwrap();
        for piece in [1, 7, 1000, LIST.len()] {
            let elements = split(LIST, piece).unwrap();
            let parsed: Vec<serde_json::Value> =
                elements.iter().map(|element| serde_json::from_slice(element).unwrap()).collect();
            assert_eq!(parsed, whole, "in pieces of {piece}");
        }
        let first = Entries::default().read(Element::Whole(&split(LIST, 99).unwrap()[0])).unwrap();
        assert_eq!(first.id.as_str(), whole[0]["id"].as_str().unwrap());
        assert_eq!(first.run.status, RunStatus::parse(whole[0]["status"].as_str()));
        assert!(first.run.details.is_some(), "which run it is can be told");
    }

    #[test]
    fn a_wrapped_list_is_one_too() {
        let wrapped =
            br#"{"count":2,"names":["x"],"results":[{"id":"a"},{"id":"b","x":[{"]":"}"}]}],"next":null}"#;
        let elements = split(wrapped, 5).unwrap();
        assert_eq!(elements, [&br#"{"id":"a"}"#[..], br#"{"id":"b","x":[{"]":"}"}]}"#]);
        assert_eq!(split(b"[]", 1).unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn what_breaks_off_or_is_no_list_is_an_error() {
        for json in [
            "",
            "[",
            "[{\"id\":\"a\"}",
            "{\"results\":[{}]",
            "{\"id\":\"a\"}",
            "<html>[]</html>",
            "]",
            "[[1]]",
            "7",
            "[null]",
            "[7]",
            "[{},null]",
            "[{} {}]",
            "[{},]",
            "[,{}]",
            "[{},,{}]",
            "[{} x,{}]",
            "[\"a\",{}]",
            "[{}] x",
            "[{}][{}]",
            "x[{}]",
            "\u{feff}\u{feff}[{}]",
            "{\"results\":[null]}",
            "[{]]",
        ] {
            assert!(split(json.as_bytes(), 3).is_err(), "{json}");
        }
    }

    #[test]
    fn a_byte_order_mark_and_white_space_do_not_matter() {
        for json in ["\u{feff}[{}]", " \n[ {} ]\r\n", "\u{feff} {\"results\" : [ {} ]} "] {
            assert_eq!(split(json.as_bytes(), 2).unwrap(), [b"{}"], "{json}");
        }
    }

    #[test]
    fn an_element_that_cannot_be_read_is_skipped_and_counted() {
        let long = |id: &str| format!(r#"{{{id}"x":"{}"}}"#, "]},".repeat(LONGEST));
        let list = format!(r#"[{{"id":"a"}},{},{{"id":"c"}},{{"id":7}},{}]"#, long(r#""id":"b","#), long(""));
        let (mut splitter, mut entries, mut read) = (Splitter::default(), Entries::default(), Vec::new());
        for piece in list.as_bytes().chunks(1000) {
            let mut take =
                |element: Element<'_>| read.extend(entries.read(element).map(|one| one.id.to_string()));
            splitter.feed(piece, &mut take).unwrap();
            assert!(splitter.element.capacity() <= 2 * LONGEST, "it takes no memory");
        }
        splitter.finish().unwrap();
        assert_eq!(read, ["a", "c"]);
        assert_eq!(
            entries.skipped.to_string(),
            "3 entries of the list of runs were skipped; entry 2, the run b, is larger than 64 KiB"
        );
        let mut entries = Entries::default();
        assert_eq!(entries.read(Element::Whole(br#"{"id":"a","status":"FAILED","status":"PENDING"}"#)), None);
        let said = "1 entry of the list of runs was skipped; entry 1, the run a, cannot be read";
        assert_eq!(entries.skipped.to_string(), said);
    }

    proptest! {
        /// Every cut of the list is an error, because an incomplete list says nothing about missing runs.
        #[test]
        fn a_list_that_is_cut_is_never_whole(cut in 0usize..LIST.len() - 2) {
            prop_assume!(!LIST[cut..].iter().all(u8::is_ascii_whitespace));
            prop_assert!(split(&LIST[..cut], 64).is_err());
        }

        /// No input causes a panic.
        #[test]
        fn anything_is_borne(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = split(&bytes, 7);
        }
    }
}
