//! Which spec a run was made from: what runs of one spec took is a guess at what the next one takes.

use std::fmt;

/// A spec's id: a UUID, as the API types it. Anything else is no spec, and takes part in no guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpecId(u128);

impl SpecId {
    /// Reads the 36 characters of a UUID.
    pub fn parse(text: &str) -> Option<Self> {
        let dashes = [8, 13, 18, 23].iter().all(|at| text.as_bytes().get(*at) == Some(&b'-'));
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let whole = text.len() == 36 && dashes && digits.len() == 32;
        u128::from_str_radix(&digits, 16).ok().filter(|_| whole).map(Self)
    }
}

impl fmt::Display for SpecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        f.write_str(&parts.join("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_one_and_nothing_else() {
        let text = "00c90c3c-0d44-4b50-8888-8dd25736052a";
        assert_eq!(SpecId::parse(text).unwrap().to_string(), text);
        assert_eq!(SpecId::parse(&text.to_uppercase()), SpecId::parse(text));
        for other in ["", "7", &text[1..], &text.replace('-', "0"), &text.replace('c', "x"), "é\u{e9}00-"] {
            assert_eq!(SpecId::parse(other), None, "{other}");
        }
    }
}
