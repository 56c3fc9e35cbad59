//! JSON for display: the same value, with dangerous characters as `\u` escapes.
//!
//! Takes whole JSON texts, from runwatch or the API. Dangerous characters occur only inside strings, where an escape
//! keeps the value.

use std::fmt::Write as _;

use super::is_hidden;

/// The same JSON value with hidden characters escaped. JSON allows DEL, C1, bidirectional and zero-width characters in
/// strings as they are.
pub fn json_for_terminal(json: &str) -> String {
    escaped(json, |_, _| false)
}

/// The same JSON value, also safe from GitHub's runner: see `super::github`.
pub fn json_for_github(json: &str) -> String {
    escaped(json, |before, c| match c {
        ':' => before.ends_with(':'),
        '[' => before.ends_with("##"),
        _ => false,
    })
}

/// The same JSON value, in which Azure's agent finds no command: see `super::azure`.
pub fn json_for_azure(json: &str) -> String {
    escaped(json, |before, c| c == '#' && before.ends_with('#'))
}

/// `completes` says whether a character completes what must not be there, from what is before it.
fn escaped(json: &str, completes: impl Fn(&str, char) -> bool) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut after_backslash) = (false, false);
    for c in json.chars() {
        if !in_string {
            in_string = c == '"';
            out.push(c);
            continue;
        }
        if is_hidden(c) || completes(&out, c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
        in_string = after_backslash || c != '"';
        after_backslash = !after_backslash && c == '\\';
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::samples;
    use super::*;

    #[test]
    fn what_is_dangerous_is_escaped_and_the_rest_is_left() {
        let json = "{\"a\":\"x::error::##[y]\u{202e}\u{9b}\\\\::\\\"##[\",\"::b\":[[1]]}\n";
        assert_eq!(
            json_for_github(json),
            "{\"a\":\"x:\\u003aerror:\\u003a##\\u005by]\\u202e\\u009b\\\\:\\u003a\\\"##\\u005b\",\":\\u003ab\":[[1]]}\n"
        );
        assert_eq!(json_for_terminal("[\"::é\u{e0041}\"]"), "[\"::é\\udb40\\udc41\"]");
    }

    proptest! {
        #[test]
        fn it_is_the_same_value_and_no_command(key in samples::hostile(), text in samples::hostile(), pretty: bool) {
            let value = serde_json::json!({ key.as_str(): [text, { "a": key }], "b": null });
            let json = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let json = json.unwrap();
            for safe in [json_for_github(&json), json_for_azure(&json), json_for_terminal(&json)] {
                prop_assert_eq!(serde_json::from_str::<Value>(&safe).unwrap(), value.clone());
                prop_assert!(!safe.chars().any(|c| is_hidden(c) && c != '\n'), "{safe:?}");
            }
            let safe = json_for_github(&json);
            prop_assert!(!safe.contains("::") && !safe.contains("##["), "{safe:?}");
            let safe = json_for_azure(&json);
            prop_assert!(!safe.contains("##"), "{safe:?}");
        }
    }
}
