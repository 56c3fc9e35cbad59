//! The spec of a run. The durations of earlier runs of a spec predict those of later ones.

use std::fmt;

use uuid::Uuid;

/// A spec's id: a UUID, as the API declares it. A value of another form is ignored, and predicts nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpecId(Uuid);

impl SpecId {
    /// Reads a UUID.
    pub fn parse(text: &str) -> Option<Self> {
        super::id::uuid(text).map(Self)
    }
}

impl fmt::Display for SpecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
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
