//! The identifier of a run, checked once on input.
//!
//! Defines what an acceptable id is and how to extract one from a run URL. The API declares the path parameter as a
//! plain string. So every possible path segment is accepted, and the API client encodes it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use uuid::Uuid;

use super::text::{is_hidden, printable};

/// Maximum length of an id in bytes. The API's ids are UUIDs (36 bytes); this leaves room but rejects a pasted file.
const MAX_BYTES: usize = 200;

/// A run's id: not empty, no white space, quotes, control or invisible characters, not `.` or `..`, at most 200 bytes.
/// A UUID is stored in lower case with dashes, so that each run has one id and gets one notification.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(Arc<str>);

/// Why a string is not a run id, with advice on what to type instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunIdError {
    /// Empty, or white space only.
    #[error(
        "the run id is empty; expected the id the API gave, such as 3c90c3cc-0d44-4b50-8888-8dd25736052a"
    )]
    Empty,
    /// `.` and `..` would address another path of the API.
    #[error("`{0}` is not a run id: it would name another page of the API")]
    Dots(String),
    /// The quotes are part of the argument.
    #[error("the run id {0} was pasted with quotes or punctuation; without them: {1}")]
    Quoted(String, String),
    /// White space or control characters inside.
    #[error(
        "the run id `{0}` has white space or control characters in it; expected one id, such as 3c90c3cc-0d44-4b50-8888-8dd25736052a"
    )]
    Space(String),
    /// An invisible character, such as one that reverses the text.
    #[error(
        "the run id `{0}` has an invisible character in it (U+{1:04X}); type it, or copy it from the API"
    )]
    Hidden(String, u32),
    /// Longer than any id.
    #[error("the run id `{0}` is {1} bytes long; no run id is longer than {MAX_BYTES}")]
    TooLong(String, usize),
    /// A URL without a run.
    #[error("`{0}` is a URL without a run in it; expected a run id, or a URL that ends in /runs/<run id>/")]
    NotARunUrl(String),
}

impl RunId {
    /// The id as the API uses it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the id is a UUID, as the API's own ids are.
    pub fn is_uuid(&self) -> bool {
        uuid(&self.0).is_some()
    }
}

impl FromStr for RunId {
    type Err = RunIdError;

    /// Accepts an id, or a URL (or path) with `/runs/<id>` in it, as copied from a browser or from the documentation.
    fn from_str(text: &str) -> Result<Self, RunIdError> {
        let text = text.trim();
        let shown = || printable(text, 60);
        if text.is_empty() {
            return Err(RunIdError::Empty);
        }
        if let Some(bare) = unquoted(text) {
            let bare = printable(bare, 60);
            return Err(if bare.is_empty() { RunIdError::Empty } else { RunIdError::Quoted(shown(), bare) });
        }
        if text.contains("://") || text.starts_with('/') || text.contains("/runs/") {
            let id = id_in_url(text).ok_or_else(|| RunIdError::NotARunUrl(shown()))?;
            return if id.contains("://") { Err(RunIdError::NotARunUrl(shown())) } else { id.parse() };
        }
        if text == "." || text == ".." {
            return Err(RunIdError::Dots(text.to_owned()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(RunIdError::Space(shown()));
        }
        if let Some(hidden) = text.chars().find(|c| is_hidden(*c)) {
            return Err(RunIdError::Hidden(shown(), hidden.into()));
        }
        if let Some(uuid) = uuid(text) {
            return Ok(Self(uuid.hyphenated().to_string().into()));
        }
        if text.len() > MAX_BYTES {
            return Err(RunIdError::TooLong(shown(), text.len()));
        }
        Ok(Self(text.into()))
    }
}

/// Reads a UUID in any case: with or without dashes, in braces, as a URN (RFC 9562, section 4).
pub(super) fn uuid(text: &str) -> Option<Uuid> {
    const URN: &str = "urn:uuid:";
    let is_urn = text.get(..URN.len()).is_some_and(|start| start.eq_ignore_ascii_case(URN));
    let bare = if is_urn { &text[URN.len()..] } else { text };
    let bare = bare.strip_prefix('{').and_then(|inside| inside.strip_suffix('}')).unwrap_or(bare);
    if bare.len() == 32 || bare.len() == 36 { Uuid::try_parse(bare).ok() } else { None }
}

/// The text without quotes or other punctuation around it (on either end), if there is any.
fn unquoted(text: &str) -> Option<&str> {
    const QUOTES: [char; 13] = ['"', '\'', '`', '“', '”', '‘', '’', '«', '»', '<', '>', ',', ';'];
    let bare = text.trim_matches(QUOTES);
    (text.starts_with(QUOTES) || text.ends_with(QUOTES)).then_some(bare)
}

/// The path segment after the last `runs` of a URL or path, percent-decoded. Ignores the query and the fragment.
fn id_in_url(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next()?;
    let mut segments = path.split('/').rev().filter(|s| !s.is_empty()).peekable();
    while let Some(segment) = segments.next() {
        if segments.peek() == Some(&"runs") {
            return percent_encoding::percent_decode_str(segment).decode_utf8().ok().map(Into::into);
        }
    }
    None
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RunId {
    type Error = RunIdError;

    fn try_from(text: String) -> Result<Self, RunIdError> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

    fn id(text: &str) -> Result<String, RunIdError> {
        text.parse::<RunId>().map(String::from)
    }

    #[test]
    fn accepts_what_can_be_a_path_segment() {
        for text in [UUID, "run 1".replace(' ', "-").as_str(), "a/b", "50%", "é", "..."] {
            assert_eq!(id(text).as_deref(), Ok(text));
        }
        assert_eq!(id(&format!("  {UUID}\n")).as_deref(), Ok(UUID));
    }

    #[test]
    fn takes_the_id_out_of_a_run_url() {
        for url in [
            format!("https://df-api.dataframer.ai/api/dataframer/runs/{UUID}/"),
            format!("https://app.example.com/workspace/runs/{UUID}?tab=files#top"),
            format!("https://df-api.dataframer.ai/api/dataframer/runs/{UUID}/files/download/"),
            format!("/api/dataframer/runs/{UUID}"),
            format!("df-api.dataframer.ai/api/dataframer/runs/{UUID}/"),
        ] {
            assert_eq!(id(&url).as_deref(), Ok(UUID), "{url}");
        }
        assert_eq!(id("https://h/runs/a%2Fb/").as_deref(), Ok("a/b"));
    }

    #[test]
    fn refuses_the_rest_in_words() {
        assert_eq!(id(" \t"), Err(RunIdError::Empty));
        assert!(matches!(id("."), Err(RunIdError::Dots(_))));
        assert!(matches!(id(".."), Err(RunIdError::Dots(_))));
        assert!(matches!(id("https://h/runs/%2e%2e/"), Err(RunIdError::Dots(_))));
        assert!(matches!(id("https://h/specs/1/"), Err(RunIdError::NotARunUrl(_))));
        assert!(matches!(id("https://h/runs/"), Err(RunIdError::NotARunUrl(_))));
        assert!(matches!(id("a b"), Err(RunIdError::Space(_))));
        assert!(matches!(id(&"x".repeat(201)), Err(RunIdError::TooLong(_, 201))));
    }

    #[test]
    fn a_uuid_is_one_run_however_it_is_written() {
        let (simple, upper) = (UUID.replace('-', ""), UUID.to_uppercase());
        for text in [
            upper.clone(),
            format!("{{{upper}}}"),
            format!("urn:uuid:{UUID}"),
            format!("URN:UUID:{upper}"),
            simple.clone(),
            simple.to_uppercase(),
            format!("{{{simple}}}"),
            format!("https://df-api.dataframer.ai/api/dataframer/runs/{upper}/"),
            format!("https://h/runs/%7B{upper}%7D/"),
        ] {
            assert_eq!(id(&text).as_deref(), Ok(UUID), "{text}");
        }
        for text in ["Nightly-Run", &upper[1..], &format!("{{{upper}"), &format!("{upper}x"), "urn:uuid:x"] {
            assert_eq!(id(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_not_seen_is_refused_wherever_it_stands() {
        for c in [
            '\u{202e}',
            '\u{2800}',
            '\u{3164}',
            '\u{115f}',
            '\u{ffa0}',
            '\u{2060}',
            '\u{1d159}',
            '\u{16fe4}',
            '\u{2066}',
            '\u{200e}',
            '\u{61c}',
            '\u{200b}',
            '\u{200d}',
            '\u{2060}',
            '\u{feff}',
            '\u{ad}',
            '\u{e0041}',
        ] {
            for text in
                [format!("{c}r1"), format!("r{c}1"), format!("r1{c}"), format!("https://h/runs/r{c}1/")]
            {
                let error = id(&text).unwrap_err();
                assert!(matches!(error, RunIdError::Hidden(..)), "{text:?}: {error}");
                assert!(!error.to_string().chars().any(is_hidden), "{error:?}");
            }
        }
        for c in ['\u{7f}', '\u{9b}', '\u{1b}', '\0', '\u{2028}', '\u{a0}', '\u{3000}'] {
            assert!(matches!(id(&format!("r{c}1")), Err(RunIdError::Space(_))), "{c:?}");
        }
    }

    proptest! {
        /// Every accepted id is safe to show, and parses to itself.
        #[test]
        fn an_id_is_plain_text(text in "\\PC{0,40}|[a-fA-F0-9{}-]{30,40}|.{0,20}") {
            if let Ok(id) = text.parse::<RunId>() {
                prop_assert!(!id.as_str().chars().any(|c| is_hidden(c) || c.is_whitespace()));
                prop_assert_eq!(printable(id.as_str(), 200), id.as_str());
                prop_assert_eq!(id.as_str().parse::<RunId>(), Ok(id.clone()));
            }
        }
    }

    #[test]
    fn quotes_without_an_id_are_an_empty_id() {
        for text in ["\"\"", ",", "' '", "\"\u{200b}\""] {
            assert_eq!(id(text), Err(RunIdError::Empty), "{text}");
        }
    }

    #[test]
    fn quotes_are_shown_without() {
        for text in [
            format!("\"{UUID}\""),
            format!("'{UUID}'"),
            format!("\"{UUID}\","),
            format!("{UUID},"),
            format!("<{UUID}>"),
        ] {
            let error = id(&text).unwrap_err();
            assert!(error.to_string().ends_with(&format!("without them: {UUID}")), "{error}");
        }
    }
}
