//! Faults on request, seeded so that they can be repeated.

use std::str::FromStr;
use std::time::Duration;

use crate::span;

/// A kind of fault and its frequency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    kind: FaultKind,
    /// Probability from 0 to 1.
    share: f64,
}

/// A fault instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// Reset the connection.
    Reset,
    /// Cut the answer off in the middle.
    Truncate,
    /// 200 with an HTML page.
    Html,
    /// This status, with an error body.
    Status(u16),
}

/// All faults.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    /// The faults and their probabilities, tried in this order.
    pub faults: Vec<Fault>,
    /// Delay of every answer.
    pub latency: Duration,
    /// Sent with 429 and 503.
    pub retry_after: Option<RetryAfter>,
}

/// `Retry-After` in one of its formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// A number of seconds.
    Seconds(u64),
    /// An HTTP date this many seconds from now.
    Date(u64),
}

impl Faults {
    /// The fault for the next request, if any.
    pub(super) fn strike(&self, random: &mut fastrand::Rng) -> Option<FaultKind> {
        self.faults.iter().find(|fault| random.f64() < fault.share).map(|fault| fault.kind)
    }
}

impl FromStr for Fault {
    type Err = String;

    /// Parses `reset`, `truncate=5%`, `html=0.05` or a status such as `503=10%`. Without a share, the fault always
    /// happens.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, share) = text.split_once('=').unwrap_or((text, "100%"));
        let kind = match kind {
            "reset" => FaultKind::Reset,
            "truncate" => FaultKind::Truncate,
            "html" => FaultKind::Html,
            status => FaultKind::Status(status.parse().ok().filter(|code| (300..600).contains(code)).ok_or_else(
                || format!("`{status}` is not a fault; expected reset, truncate, html or an HTTP status from 300 to 599"),
            )?),
        };
        let number: Option<f64> = match share.strip_suffix('%') {
            Some(percent) => percent.parse().ok().map(|percent: f64| percent / 100.0),
            None => share.parse().ok(),
        };
        match number.filter(|share| (0.0..=1.0).contains(share)) {
            Some(share) => Ok(Self { kind, share }),
            None => Err(format!("`{share}` is not a share; expected something like 5% or 0.05")),
        }
    }
}

impl FromStr for RetryAfter {
    type Err = String;

    /// Parses `5s`, or `date:5s` for an HTTP date.
    fn from_str(text: &str) -> Result<Self, String> {
        let time = |text: &str| {
            span::parse_or_zero(text).map(|time| time.as_secs()).map_err(|error| error.to_string())
        };
        match text.strip_prefix("date:") {
            Some(rest) => time(rest).map(Self::Date),
            None => time(text).map(Self::Seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_as_often_as_asked() {
        let faults = Faults { faults: vec!["503=25%".parse().unwrap()], ..Faults::default() };
        let mut random = fastrand::Rng::with_seed(1);
        let struck = (0..10_000).filter(|_| faults.strike(&mut random).is_some()).count();
        assert!((2300..2700).contains(&struck), "{struck}");
        let always = Faults { faults: vec!["reset".parse().unwrap()], ..Faults::default() };
        assert_eq!(always.strike(&mut random), Some(FaultKind::Reset));
    }

    #[test]
    fn wrong_descriptions_are_refused() {
        for text in ["", "boom", "200", "600", "html=", "html=101%", "html=-1", "html=x"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
        assert_eq!("date:5s".parse(), Ok(RetryAfter::Date(5)));
        assert_eq!("2m".parse(), Ok(RetryAfter::Seconds(120)));
    }
}
