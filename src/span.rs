//! Durations as people write and read them: "30s", "5m", "2h", "1h 30m".

use std::time::Duration;

use jiff::{SpanRelativeTo, Unit};

/// Maximum duration, ten years: long enough for every use, and short enough that sums do not overflow.
pub const MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// Not a duration at all.
    #[error("`{0}` is not a length of time; expected a number and a unit, such as \"30s\", \"5m\" or \"2h\"")]
    Unreadable(String),
    /// A number alone could be seconds or milliseconds.
    #[error("`{0}` has no unit; expected one, such as \"{0}s\" for seconds")]
    NoUnit(String),
    /// Below zero.
    #[error("`{0}` is negative; expected a length of time above zero, such as \"30s\"")]
    Negative(String),
    /// Zero where that is not allowed.
    #[error("`{0}` is no time at all; expected a length of time above zero, such as \"30s\"")]
    Zero(String),
    /// Beyond [`MAX`].
    #[error("`{0}` is too long; expected at most ten years")]
    TooLong(String),
}

/// Parses a duration above zero, up to ten years.
pub fn parse(text: &str) -> Result<Duration, SpanError> {
    match parse_or_zero(text)? {
        Duration::ZERO => Err(SpanError::Zero(text.to_owned())),
        duration => Ok(duration),
    }
}

/// Parses a duration from zero to ten years.
pub fn parse_or_zero(text: &str) -> Result<Duration, SpanError> {
    let trimmed = text.trim();
    if trimmed.parse::<f64>().is_ok_and(|number| number != 0.0) {
        return Err(SpanError::NoUnit(text.to_owned()));
    }
    if trimmed == "0" {
        return Ok(Duration::ZERO);
    }
    let span: jiff::Span = trimmed.parse().map_err(|_| unreadable(text))?;
    if span.is_negative() {
        return Err(SpanError::Negative(text.to_owned()));
    }
    let seconds = span
        .total((Unit::Second, SpanRelativeTo::days_are_24_hours()))
        .map_err(|_| SpanError::Unreadable(text.to_owned()))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= MAX => Ok(duration),
        _ => Err(SpanError::TooLong(text.to_owned())),
    }
}

/// jiff rejects numbers beyond its own range. Those are too long, not unreadable.
fn unreadable(text: &str) -> SpanError {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit()).trim();
    if digits > 0 && ["s", "m", "h", "d", "ms", "w"].contains(&rest) {
        SpanError::TooLong(text.to_owned())
    } else {
        SpanError::Unreadable(text.to_owned())
    }
}

/// A duration in its two largest units, such as `2h 5m`, `9m 3s`, `4.2s` or `350ms`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let two = |a: u64, unit_a: &str, b: u64, unit_b: &str| match b {
        0 => format!("{a}{unit_a}"),
        _ => format!("{a}{unit_a} {b}{unit_b}"),
    };
    match seconds {
        0 if duration.subsec_millis() > 0 => format!("{}ms", duration.subsec_millis()),
        0 => "0s".to_owned(),
        1..10 if duration.subsec_millis() >= 100 => format!("{seconds}.{}s", duration.subsec_millis() / 100),
        1..60 => format!("{seconds}s"),
        60..3600 => two(minutes, "m", seconds % 60, "s"),
        3600..86_400 => two(hours, "h", minutes, "m"),
        _ => two(days, "d", hours, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, seconds) in [
            ("30s", 30.0),
            ("5m", 300.0),
            ("2h", 7200.0),
            ("1h 30m", 5400.0),
            ("1h30m", 5400.0),
            ("30d", 2_592_000.0),
            ("500ms", 0.5),
            ("1.5h", 5400.0),
            ("2 hours", 7200.0),
            ("1w", 604_800.0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(parse_or_zero("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_or_zero("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn refuses_the_rest_in_words() {
        assert!(matches!(parse("0s"), Err(SpanError::Zero(_))));
        assert!(matches!(parse("-5m"), Err(SpanError::Negative(_))));
        assert!(matches!(parse("5m ago"), Err(SpanError::Negative(_))));
        assert!(matches!(parse("30"), Err(SpanError::NoUnit(_))));
        assert!(matches!(parse(""), Err(SpanError::Unreadable(_))));
        assert!(matches!(parse("soon"), Err(SpanError::Unreadable(_))));
        assert!(matches!(parse("3 fortnights"), Err(SpanError::Unreadable(_))));
        for text in ["11y", "4000d", "99999999999999999999s", "9223372036854775807s", "1000000000000h"] {
            assert!(matches!(parse(text), Err(SpanError::TooLong(_) | SpanError::Unreadable(_))), "{text}");
        }
        assert!(matches!(parse("99999999999999999999s"), Err(SpanError::TooLong(_))));
    }

    #[test]
    fn writes_two_units_at_most() {
        for (millis, text) in [
            (0, "0s"),
            (350, "350ms"),
            (4_200, "4.2s"),
            (42_000, "42s"),
            (60_000, "1m"),
            (543_000, "9m 3s"),
            (7_500_000, "2h 5m"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(human(Duration::from_millis(millis)), text);
        }
    }
}
