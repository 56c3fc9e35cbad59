//! The kind of an answer's body, whatever its headers say.

use reqwest::header::{CONTENT_TYPE, HeaderMap};

/// Whether the headers declare an HTML page.
pub(super) fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
    kind.is_some_and(|kind| kind.starts_with(b"text/html") || kind.starts_with(b"application/xhtml"))
}

/// Whether a body is an HTML page, whatever its content type.
pub(super) fn looks_like_html(body: &[u8]) -> bool {
    first_byte(without_bom(body)) == Some(b'<')
}

/// The body without the byte order mark that some gateways add (RFC 8259, section 8.1, allows ignoring it).
pub(super) fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)
}

pub(super) fn is_object(json: &[u8]) -> bool {
    first_byte(json) == Some(b'{')
}

fn first_byte(body: &[u8]) -> Option<u8> {
    body.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}
