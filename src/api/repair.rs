//! Repairs slightly broken JSON, as gateways and careless servers write it, to read the status in it.
//!
//! `NaN`, numbers out of range and other bare words become `null`. Raw control characters and lone surrogates in
//! strings become escapes. A comma before a closing bracket is dropped, and UTF-16 becomes UTF-8. Text that is cut off
//! stays broken. Tried only if the body is not valid JSON.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::body::{is_object, without_bom};

/// The body as JSON; `None` if it is not a JSON object, or nothing in it can be repaired.
pub(super) fn json(body: &[u8]) -> Option<Bytes> {
    let text = text(body);
    if !is_object(text.as_bytes()) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(c) = rest.chars().next() {
        let length = if c == '"' {
            string(rest, &mut out)
        } else if is_in_word(c) {
            word(rest, &mut out)
        } else if c == ',' && rest[1..].trim_ascii_start().starts_with(['}', ']']) {
            1
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    (out.as_bytes() != body).then(|| out.into())
}

/// A body as text. UTF-16 is detected by its byte order mark, or by the zero next to the first character, which is
/// ASCII in JSON.
fn text(body: &[u8]) -> Cow<'_, str> {
    let units = |unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = body.as_chunks().0.iter().map(|bytes| unit(*bytes)).collect();
        String::from_utf16_lossy(&units).trim_start_matches('\u{feff}').to_owned().into()
    };
    match body {
        [0xff, 0xfe, ..] | [1..=0x7f, 0, ..] => units(u16::from_le_bytes),
        [0xfe, 0xff, ..] | [0, 1..=0x7f, ..] => units(u16::from_be_bytes),
        _ => String::from_utf8_lossy(without_bom(body)),
    }
}

fn is_in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_')
}

/// Copies a number or a literal, or `null` for anything else. Returns its length.
fn word(text: &str, out: &mut String) -> usize {
    let length = text.find(|c| !is_in_word(c)).unwrap_or(text.len());
    let word = &text[..length];
    let is_json = serde_json::from_str::<IgnoredAny>(word).is_ok();
    let is_too_large = word.parse().is_ok_and(f64::is_infinite);
    out.push_str(if is_json && !is_too_large { word } else { "null" });
    length
}

/// Copies a string with its quotes. Returns its length.
fn string(text: &str, out: &mut String) -> usize {
    out.push('"');
    let mut at = 1;
    while let Some(c) = text[at..].chars().next() {
        at += c.len_utf8();
        match c {
            '"' => {
                out.push(c);
                break;
            }
            '\\' => at += escape(&text[at..], out),
            '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    at
}

/// Copies an escape with its backslash. Returns its length. Half a surrogate pair becomes U+FFFD.
fn escape(text: &str, out: &mut String) -> usize {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix('u')?.get(..4)?, 16).ok();
    let taken = match (unit(text), text.get(5..).and_then(|rest| unit(rest.strip_prefix('\\')?))) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 11,
        (Some(0xd800..=0xdfff), _) => {
            out.push_str("\\ufffd");
            return 5;
        }
        _ => text.chars().next().map_or(0, char::len_utf8),
    };
    out.push('\\');
    out.push_str(&text[..taken]);
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_has_one_meaning_is_repaired() {
        for (body, repaired) in [
            ("\u{feff}{\"a\":1}", "{\"a\":1}"),
            (
                r#"{"a":NaN,"b":[-Infinity,Infinity],"c":1e400,"d":-1E999}"#,
                r#"{"a":null,"b":[null,null],"c":null,"d":null}"#,
            ),
            (r#"{"NaN":"NaN, 1e400","x":1.5e3}"#, ""),
            ("{\"a\":\"x\ty\u{1}\"}", r#"{"a":"x\u0009y\u0001"}"#),
            (r#"{"a":"\ud83e\uddea \ud83e x \uddea"}"#, r#"{"a":"\ud83e\uddea \ufffd x \ufffd"}"#),
            (r#"{"a":"\\" ,"b":"\"NaN"}"#, ""),
            (r#"{"a":NaN"#, r#"{"a":null"#),
            (
                r#"{"a":NaNs,"b":undefined,"c":0x1F,"d":True,"e":01}"#,
                r#"{"a":null,"b":null,"c":null,"d":null,"e":null}"#,
            ),
            (r#"{"a":[1,2,],"b":",}", }"#, r#"{"a":[1,2],"b":",}" }"#),
            (r#"{"a":1,,"b":2}"#, ""),
        ] {
            let said = json(body.as_bytes()).map(|body| String::from_utf8(body.to_vec()).unwrap());
            assert_eq!(said.unwrap_or_default(), repaired, "{body}");
        }
        let lossy = json(b"{\"a\":\"\xff\",\"b\":NaN}").unwrap();
        assert_eq!(lossy, "{\"a\":\"\u{fffd}\",\"b\":null}");
    }

    proptest! {
        /// Valid JSON stays as it is, and no input causes a panic.
        #[test]
        fn json_is_not_touched(text in "\\PC{0,30}", number in any::<f64>(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let value = serde_json::json!({ "a": [text, number, true, null], "b": { "c": text } });
            prop_assert_eq!(json(value.to_string().as_bytes()), None);
            if let Some(repaired) = json(&bytes) {
                prop_assert!(std::str::from_utf8(&repaired).is_ok());
            }
            let broken = value.to_string().replace("true", "NaN");
            let repaired: Value = serde_json::from_slice(&json(broken.as_bytes()).unwrap()).unwrap();
            prop_assert_eq!(&repaired["a"][2], &Value::Null);
            prop_assert_eq!(&repaired["b"], &value["b"]);
        }
    }
}
