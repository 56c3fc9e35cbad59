//! A key between two keys of a table, for reading around damage.

use rusqlite::types::Value;

/// A key between two keys; `None` if there is none.
pub(super) fn between(low: Option<&Value>, high: Option<&Value>) -> Option<Value> {
    if let (Some(Value::Integer(_)), _) | (_, Some(Value::Integer(_))) = (low, high) {
        let integer = |value: Option<&Value>| match value {
            Some(Value::Integer(number)) => Some(i128::from(*number)),
            _ => None,
        };
        let (low, high) = (integer(low).unwrap_or(0), integer(high).unwrap_or(1 << 40));
        let middle = low + (high - low) / 2;
        return (low < middle && middle < high)
            .then_some(middle)
            .and_then(|n| i64::try_from(n).ok().map(Value::Integer));
    }
    let text = |value: Option<&Value>| match value {
        Some(Value::Text(text)) => Some(text.clone().into_bytes()),
        _ => None,
    };
    middle(&text(low).unwrap_or_default(), text(high).as_deref()).map(Value::Text)
}

/// A printable text between two others, in byte order. Most keys are printable ASCII.
fn middle(low: &[u8], high: Option<&[u8]>) -> Option<String> {
    const FIRST: u8 = b' ';
    const LAST: u8 = b'~';
    let mut middle = Vec::new();
    let mut limit = high;
    for at in 0..64 {
        let from = low.get(at).copied().unwrap_or(FIRST).clamp(FIRST, LAST);
        let to = limit.map_or(LAST + 1, |limit| limit.get(at).copied().unwrap_or(FIRST));
        let to = to.clamp(FIRST, LAST + 1);
        if to > from + 1 {
            middle.push(from + (to - from) / 2);
            break;
        }
        middle.push(from);
        if to > from {
            // Any text with this start is below the limit.
            limit = None;
        }
    }
    let is_between = *middle > *low && high.is_none_or(|high| *middle < *high);
    String::from_utf8(middle).ok().filter(|_| is_between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_key_between_any_two() {
        let text = |low: &str, high: Option<&str>| middle(low.as_bytes(), high.map(str::as_bytes));
        for (low, high) in
            [("", None), ("", Some("b")), ("a", Some("b")), ("a", Some("az")), ("run-19", Some("run-2"))]
        {
            let found = text(low, high).unwrap();
            assert!(
                found.as_str() > low && high.is_none_or(|high| found.as_str() < high),
                "{low} {high:?}: {found}"
            );
        }
        assert_eq!(text("a", Some("a ")), None);
        let integer = |low, high| between(Some(&Value::Integer(low)), Some(&Value::Integer(high)));
        assert_eq!(integer(1, 9), Some(Value::Integer(5)));
        assert_eq!(integer(1, 2), None);
    }
}
