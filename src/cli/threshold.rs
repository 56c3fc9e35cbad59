//! Sample thresholds: a number of samples or a share of them.

use std::str::FromStr;

/// A number of samples, or a share of the samples asked for in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threshold {
    /// A number of samples.
    Count(u64),
    /// Millionths of `number_of_samples`.
    Share(u32),
}

impl Threshold {
    /// Whether `count` samples are more than this; `None` if that needs a total and there is none.
    pub fn is_exceeded_by(self, count: u64, total: Option<u64>) -> Option<bool> {
        self.compare(count, total).map(std::cmp::Ordering::is_gt)
    }

    /// Whether `count` samples are at least this; `None` if that needs a total and there is none.
    pub fn is_reached_by(self, count: u64, total: Option<u64>) -> Option<bool> {
        self.compare(count, total).map(std::cmp::Ordering::is_ge)
    }

    fn compare(self, count: u64, total: Option<u64>) -> Option<std::cmp::Ordering> {
        Some(match self {
            Self::Count(limit) => count.cmp(&limit),
            // In whole numbers: 5% of 200 is exactly 10.
            Self::Share(millionths) => {
                (u128::from(count) * 1_000_000).cmp(&(u128::from(total?) * u128::from(millionths)))
            }
        })
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "invalid threshold `{text}`: expected a number of samples such as 10, or a share such as 5%"
            )
        };
        let text = text.trim();
        let Some(percent) = text.strip_suffix('%') else {
            return text.parse().map(Self::Count).map_err(|_| wrong());
        };
        let (whole, fraction) = percent.trim().split_once('.').unwrap_or((percent.trim(), ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 4 {
            return Err(wrong());
        }
        let millionths: u32 = format!("{whole}{fraction:0<4}").parse().map_err(|_| wrong())?;
        if millionths > 1_000_000 {
            return Err(format!("`{text}` is more than all samples; expected at most 100%"));
        }
        Ok(Self::Share(millionths))
    }
}

impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Share(millionths) => write!(f, "{}%", f64::from(*millionths) / 10_000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(text: &str) -> Threshold {
        text.parse().unwrap()
    }

    #[test]
    fn shares_are_exact() {
        let five = threshold("5%");
        assert_eq!(five.is_exceeded_by(10, Some(200)), Some(false));
        assert_eq!(five.is_exceeded_by(11, Some(200)), Some(true));
        assert_eq!(threshold("99.5%").is_reached_by(199, Some(200)), Some(true));
        assert_eq!(threshold("99.5%").is_reached_by(198, Some(200)), Some(false));
        assert_eq!(threshold("0%").is_exceeded_by(1, Some(20_000)), Some(true));
        assert_eq!(five.is_exceeded_by(1, None), None, "a share of nothing known");
        assert_eq!(threshold("10").is_exceeded_by(10, None), Some(false));
    }

    #[test]
    fn reads_and_writes() {
        for text in ["0", "10", "5%", "2.5%", "100%", "0.0001%"] {
            assert_eq!(threshold(text).to_string(), text);
        }
        for text in ["", "%", "-1", "5 samples", "101%", "1.23456%", "1e3", ".5%", "99999999999999999999"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
