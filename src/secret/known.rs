//! The secrets that a process has, wherever it learned them: what it shows of foreign text has none of them.
//!
//! Owns the sharing only. A configuration has one of these; who reads a secret later (the API key, from its file) adds it.

use std::sync::{Arc, PoisonError, RwLock};

use super::Redactor;

/// The known secrets of a process. Cheap to clone; every clone learns what any of them learns.
#[derive(Debug, Clone, Default)]
pub struct KnownSecrets(Arc<RwLock<Arc<Redactor>>>);

impl KnownSecrets {
    /// Learns more. Nothing is ever forgotten: a key that was replaced may be repeated in answers that are still to come.
    pub fn learn(&self, learn: impl FnOnce(&mut Redactor)) {
        learn(Arc::make_mut(&mut self.0.write().unwrap_or_else(PoisonError::into_inner)));
    }

    /// What takes out all that is known now.
    pub fn redactor(&self) -> Arc<Redactor> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Learns everything that `other` knows.
    pub fn learn_all_of(&self, other: &Self) {
        let other = other.redactor();
        self.learn(|redactor| redactor.add_all_of(&other));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_learns_all_know() {
        let (known, other) = (KnownSecrets::default(), KnownSecrets::default());
        let clone = known.clone();
        known.learn(|redactor| redactor.add("hunter2"));
        other.learn(|redactor| redactor.add("correct horse"));
        assert_eq!(clone.redactor().redact("hunter2, correct horse"), "[REDACTED], correct horse");
        clone.learn_all_of(&other);
        assert_eq!(known.redactor().redact("hunter2, correct horse"), "[REDACTED], [REDACTED]");
        assert_eq!(other.redactor().redact("hunter2"), "hunter2");
    }
}
