//! Removes secrets from foreign text, because a gateway, a receiver or a program may repeat what it was sent.
//!
//! Knows these forms of a secret: as it is, in any case, percent-encoded once or twice, escaped for HTML, base64 in
//! every alignment, hexadecimal, and any eight characters in a row of these. The same for the bytes of a secret that is
//! base64, such as `whsec_…`. Used when foreign text arrives, before it
//! is cut to a length. A cut could otherwise leave more than seven characters.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{
    GeneralPurpose, GeneralPurposeConfig, STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use reqwest::Url;

/// The replacement for a secret.
pub const REDACTED: &str = "[REDACTED]";

/// Minimum number of characters in a row of a secret that are removed.
const WINDOW: usize = 8;

/// Minimum length of a secret, in characters. Removing shorter ones would damage ordinary words.
const SHORTEST: usize = 4;

/// Minimum length of a decoded secret that is no text, in bytes. Removing less would damage other text.
const SHORTEST_BINARY: usize = 16;

/// What signing secrets begin with; the rest is base64.
const SIGNING: &str = "whsec_";

/// Base64 with or without padding.
const DECODE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const DECODE_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// URL encoders may leave these characters as they are (RFC 3986, section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Removes known secrets from text.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Every `WINDOW` bytes in a row of every form, in lower case.
    windows: HashSet<[u8; WINDOW]>,
    /// One bit per hash of a window's first half, which quickly excludes most text.
    beginnings: Vec<u64>,
    /// Secrets shorter than a window, in lower case.
    short: Vec<String>,
}

impl Redactor {
    /// A redactor for these secrets.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Self {
        let mut redactor = Self::default();
        for secret in secrets {
            redactor.add(secret);
        }
        redactor
    }

    /// Adds a secret.
    pub fn add(&mut self, secret: &str) {
        let secret = secret.trim();
        if (SHORTEST..WINDOW).contains(&secret.len()) {
            let secret = secret.to_ascii_lowercase();
            if !self.short.contains(&secret) {
                self.short.push(secret);
            }
        }
        for form in forms(secret) {
            let form = form.to_ascii_lowercase();
            self.beginnings.resize(1024, 0);
            for window in form.as_bytes().windows(WINDOW).filter_map(|window| window.try_into().ok()) {
                if is_unreadable(window) {
                    continue;
                }
                let (word, bit) = beginning(window);
                self.beginnings[word] |= bit;
                self.windows.insert(window);
            }
        }
    }

    /// Adds the value of a header. The part after a scheme (`Bearer …`) counts separately, and so does the decoded
    /// content of `Basic …`. A short value counts only if the header's name suggests a secret, because other short
    /// values are words such as `true`.
    pub fn add_header(&mut self, name: &str, value: &str) {
        let name = name.to_ascii_lowercase();
        let (scheme, credentials) = value.trim().split_once(' ').unwrap_or(("", value));
        if value.len() < WINDOW && !is_telling(&name) {
            return;
        }
        self.add(credentials);
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded =
                STANDARD.decode(credentials.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            self.add(decoded.as_deref().unwrap_or_default());
        } else if !scheme.is_empty() && !name.contains("auth") {
            self.add(value);
        }
    }

    /// Adds all secrets of another redactor.
    pub fn add_all_of(&mut self, other: &Self) {
        self.windows.extend(&other.windows);
        if self.beginnings.len() < other.beginnings.len() {
            self.beginnings.resize(other.beginnings.len(), 0);
        }
        for (bits, more) in self.beginnings.iter_mut().zip(&other.beginnings) {
            *bits |= more;
        }
        for secret in &other.short {
            if !self.short.contains(secret) {
                self.short.push(secret.clone());
            }
        }
    }

    /// Adds the parts of a URL that may be secret: the user and password, every part of the path except plain words,
    /// the query and the fragment. The last part of the path counts even if it is a word, unless it is as short as
    /// `hook`. The values of the query count, except `wait=true` and the like.
    pub fn add_url(&mut self, url: &Url) {
        let is_word = |part: &str| part.len() <= 12 && part.bytes().all(|byte| byte.is_ascii_lowercase());
        let is_short = |part: &str| part.len() < WINDOW && is_word(part);
        let path: Vec<&str> = url.path().split('/').filter(|part| !part.is_empty()).collect();
        let last = path.last().copied().filter(|part| !is_short(part));
        let words = path.iter().copied().filter(|part| !is_word(part));
        let query = url.query().into_iter().flat_map(|query| query.split('&'));
        let values = query.filter_map(|pair| match pair.split_once('=') {
            Some((name, value)) => (is_telling(name) || !is_short(value)).then_some(value),
            None => Some(pair),
        });
        let login = [Some(url.username()), url.password(), url.fragment()].into_iter().flatten();
        let parts: Vec<&str> = words.chain(last).chain(values).chain(login).collect();
        for part in parts {
            self.add(part);
            self.add(&percent_decode_str(part).decode_utf8_lossy());
        }
    }

    /// `text` without the secrets.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let found = self.find(text);
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let (mut out, mut shown) = (String::with_capacity(text.len()), 0);
        for (begin, end) in found {
            out.push_str(&text[shown..begin]);
            out.push_str(REDACTED);
            shown = end;
        }
        out.push_str(&text[shown..]);
        Cow::Owned(out)
    }

    /// JSON without the secrets in its strings; it stays valid JSON. Also finds escaped secrets.
    pub fn redact_json<'t>(&self, json: &'t str) -> Cow<'t, str> {
        if self.windows.is_empty() && self.short.is_empty() {
            return Cow::Borrowed(json);
        }
        let (mut out, mut copied) = (String::new(), 0);
        let mut rest = 0;
        while let Some(begin) = json[rest..].find('"').map(|at| rest + at) {
            let Some(length) = string_length(&json[begin..]) else { break };
            let (token, end) = (&json[begin..begin + length], begin + length);
            rest = end;
            let text = if token.contains('\\') {
                let Ok(text) = serde_json::from_str::<String>(token) else { continue };
                Cow::Owned(text)
            } else {
                Cow::Borrowed(&token[1..length - 1])
            };
            if let Cow::Owned(text) = self.redact(&text) {
                out.push_str(&json[copied..begin]);
                out.push_str(&serde_json::Value::from(text).to_string());
                copied = end;
            }
        }
        if copied == 0 {
            return Cow::Borrowed(json);
        }
        out.push_str(&json[copied..]);
        Cow::Owned(out)
    }

    /// The byte ranges of secrets in order, separate, at character boundaries. Also finds escaped secrets, in whole
    /// JSON or a piece of it.
    fn find(&self, text: &str) -> Vec<(usize, usize)> {
        let mut found = self.hits(text);
        if text.contains('\\') {
            let (plain, places) = unescaped(text);
            found.extend(
                self.hits(&plain).into_iter().map(|(begin, end)| (places[begin].0, places[end - 1].1)),
            );
        }
        found.sort_unstable();
        let mut apart: Vec<(usize, usize)> = Vec::new();
        for (begin, end) in found {
            let (begin, end) = (text.floor_char_boundary(begin), text.ceil_char_boundary(end));
            match apart.last_mut() {
                Some(last) if begin <= last.1 => last.1 = last.1.max(end),
                _ => apart.push((begin, end)),
            }
        }
        apart
    }

    /// The byte ranges of known pieces, which may overlap.
    fn hits(&self, text: &str) -> Vec<(usize, usize)> {
        let lower = text.to_ascii_lowercase();
        let mut found: Vec<(usize, usize)> = Vec::new();
        if !self.windows.is_empty() {
            let is_known = |window: &[u8]| {
                let Ok(window) = <[u8; WINDOW]>::try_from(window) else { return false };
                let (word, bit) = beginning(window);
                self.beginnings[word] & bit != 0 && self.windows.contains(&window)
            };
            let hits = lower.as_bytes().windows(WINDOW).enumerate().filter(|(_, window)| is_known(window));
            found.extend(hits.map(|(at, _)| (at, at + WINDOW)));
        }
        for secret in &self.short {
            found.extend(lower.match_indices(secret.as_str()).map(|(at, _)| (at, at + secret.len())));
        }
        found
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

/// Text without JSON escapes, and for each of its bytes the byte range in `text` that it comes from.
fn unescaped(text: &str) -> (String, Vec<(usize, usize)>) {
    let (mut plain, mut places) = (String::with_capacity(text.len()), Vec::with_capacity(text.len()));
    let mut rest = text.char_indices();
    while let Some((begin, c)) = rest.next() {
        let mut shown = c;
        if c == '\\'
            && let Some((at, escaped)) = rest.next()
        {
            let unit = || text.get(at + 1..at + 5).and_then(|hex| u32::from_str_radix(hex, 16).ok());
            shown = match escaped {
                'u' if unit().is_some() => {
                    let unit = unit().and_then(char::from_u32);
                    rest.by_ref().take(4).for_each(drop);
                    unit.unwrap_or(char::REPLACEMENT_CHARACTER)
                }
                other => other,
            };
        }
        let end = text.len() - rest.as_str().len();
        plain.push(shown);
        places.resize(plain.len(), (begin, end));
    }
    (plain, places)
}

/// Whether a name suggests that its value is a secret.
fn is_telling(name: &str) -> bool {
    const WORDS: [&str; 8] = ["auth", "key", "token", "secret", "cookie", "pass", "sign", "session"];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// The index of the word and the bit for a window's first half.
fn beginning(window: [u8; WINDOW]) -> (usize, u64) {
    let [a, b, c, d, ..] = window;
    let hash = u32::from_le_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b1) >> 16;
    ((hash >> 6) as usize, 1 << (hash & 63))
}

/// Whether a window has nothing but replacement characters, which many bytes become.
fn is_unreadable(window: [u8; WINDOW]) -> bool {
    const REPLACEMENT: [u8; 3] = [0xef, 0xbf, 0xbd];
    window.iter().all(|byte| REPLACEMENT.contains(byte))
}

/// A secret in every form.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    let escaped = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    for quote in ["\"", "&quot;", "&#34;"] {
        for apostrophe in ["'", "&#39;", "&#x27;"] {
            forms.push(escaped.replace('\'', apostrophe).replace('"', quote));
        }
    }
    encode(secret.as_bytes(), &mut forms);
    // A key that is base64 itself may be shown decoded.
    let encoded = secret.strip_prefix(SIGNING).unwrap_or(secret);
    let decoded = [&DECODE, &DECODE_URL_SAFE].into_iter().find_map(|engine| engine.decode(encoded).ok());
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    if let Some(bytes) = decoded.filter(|bytes| is_text(bytes) || bytes.len() >= SHORTEST_BINARY) {
        // As a lenient reader of UTF-8 shows them, as one of Latin-1, and as a program's source.
        forms.push(String::from_utf8_lossy(&bytes).into_owned());
        forms.push(bytes.iter().map(|byte| char::from(*byte)).collect());
        forms.push(bytes.iter().map(|byte| std::ascii::escape_default(*byte).to_string()).collect());
        encode(&bytes, &mut forms);
    }
    forms
}

/// Adds the encodings of some bytes.
fn encode(bytes: &[u8], forms: &mut Vec<String>) {
    for kept in [NON_ALPHANUMERIC, UNRESERVED] {
        let encoded = percent_encode(bytes, kept).to_string();
        // A redirect encodes its target once more.
        forms.push(encoded.replace('%', "%25"));
        forms.push(encoded);
    }
    for before in ["", "%", "\\x"] {
        forms.push(bytes.iter().map(|byte| format!("{before}{byte:02x}")).collect::<Vec<_>>().concat());
    }
    // After a prefix of any length. The characters shared with the prefix or suffix are cut off.
    for (before, shared) in [(&b""[..], 0), (b"\0", 2), (b"\0\0", 3)] {
        let bytes = [before, bytes].concat();
        let whole = bytes.len() * 8 / 6;
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            forms.push(engine.encode(&bytes).get(shared..whole).unwrap_or_default().to_owned());
        }
    }
}

/// Length of the JSON string at the start of `json`, with quotes; `None` if it is cut off.
fn string_length(json: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in json.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
