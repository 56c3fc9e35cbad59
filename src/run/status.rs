//! The API's words for a run's status.
//!
//! Owns the vocabulary, its aliases over time, and which words are terminal. An unknown word is neither terminal nor
//! success.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::text::printable;

/// A run's status, as the API gave it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Option<String>", into = "Option<String>")]
pub enum RunStatus {
    /// Queued (aliases ACCEPTED, QUEUED).
    Pending,
    /// Generating samples (aliases RUNNING, `IN_PROGRESS`).
    Processing,
    /// Finished with results (aliases COMPLETED, READY).
    Succeeded,
    /// Finished without results. The API gives no reason.
    Failed,
    /// Stopped on request (alias CANCELLED).
    Canceled,
    /// A word that this version does not know, or none. It is never terminal.
    Unknown(Option<Box<str>>),
}

/// The terminal statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Terminal {
    /// Finished with results.
    Succeeded,
    /// Finished without results.
    Failed,
    /// Stopped on request.
    Canceled,
}

impl RunStatus {
    /// Parses the API's word. Ignores case and surrounding white space.
    pub fn parse(word: Option<&str>) -> Self {
        let Some(word) = word.map(str::trim) else { return Self::Unknown(None) };
        let known: &[(&str, Self)] = &[
            ("PENDING", Self::Pending),
            ("PROCESSING", Self::Processing),
            ("SUCCEEDED", Self::Succeeded),
            ("FAILED", Self::Failed),
            ("CANCELED", Self::Canceled),
            ("CANCELLED", Self::Canceled),
            ("COMPLETED", Self::Succeeded),
            ("READY", Self::Succeeded),
            ("RUNNING", Self::Processing),
            ("IN_PROGRESS", Self::Processing),
            ("ACCEPTED", Self::Pending),
            ("QUEUED", Self::Pending),
        ];
        known
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map_or_else(|| Self::Unknown(Some(printable(word, 40).into())), |(_, status)| status.clone())
    }

    /// The terminal status, or `None` while the run is active or the word is unknown.
    pub fn terminal(&self) -> Option<Terminal> {
        match self {
            Self::Succeeded => Some(Terminal::Succeeded),
            Self::Failed => Some(Terminal::Failed),
            Self::Canceled => Some(Terminal::Canceled),
            Self::Pending | Self::Processing | Self::Unknown(_) => None,
        }
    }

    /// The word for people and for JSON. An unknown word stays as the API gave it; a missing one is `UNKNOWN`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "PENDING",
            Self::Processing => "PROCESSING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Canceled => "CANCELED",
            Self::Unknown(Some(word)) => word,
            Self::Unknown(None) => "UNKNOWN",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<Option<String>> for RunStatus {
    fn from(word: Option<String>) -> Self {
        Self::parse(word.as_deref())
    }
}

impl From<RunStatus> for Option<String> {
    fn from(status: RunStatus) -> Self {
        match status {
            RunStatus::Unknown(word) => word.map(String::from),
            known => Some(known.as_str().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_word_ever_used() {
        for (words, status) in [
            ("PENDING ACCEPTED QUEUED queued", RunStatus::Pending),
            ("PROCESSING RUNNING IN_PROGRESS", RunStatus::Processing),
            ("SUCCEEDED COMPLETED READY succeeded", RunStatus::Succeeded),
            ("FAILED Failed", RunStatus::Failed),
            ("CANCELED CANCELLED", RunStatus::Canceled),
        ] {
            for word in words.split(' ') {
                assert_eq!(RunStatus::parse(Some(&format!(" {word}\n"))), status, "{word}");
            }
        }
    }

    #[test]
    fn an_unknown_word_is_no_end() {
        for word in [None, Some(""), Some("PAUSED"), Some("SUCCESS"), Some("FAILED_OVER"), Some("null")] {
            assert_eq!(RunStatus::parse(word).terminal(), None, "{word:?}");
        }
        assert_eq!(RunStatus::parse(Some("PAUSED")).as_str(), "PAUSED");
        assert_eq!(RunStatus::parse(None).as_str(), "UNKNOWN");
    }

    #[test]
    fn survives_a_round_trip_through_json() {
        for word in [None, Some("PAUSED"), Some("CANCELED")] {
            let status = RunStatus::parse(word);
            let json = serde_json::to_string(&status).unwrap();
            assert_eq!(serde_json::from_str::<RunStatus>(&json).unwrap(), status);
        }
    }
}
