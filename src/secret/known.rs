//! All secrets of a process, from every source. Foreign text is shown without them.
//!
//! Only shares the redactor. Each configuration has one of these, and a secret that is read later (the API key from its
//! file) is added.

use std::sync::{Arc, PoisonError, RwLock};

use super::Redactor;

/// The known secrets of a process. Cheap to clone; all clones share what is added.
#[derive(Debug, Clone, Default)]
pub struct KnownSecrets(Arc<RwLock<Arc<Redactor>>>);

impl KnownSecrets {
    /// Adds secrets. None is ever removed, because later answers may still repeat a key that was replaced.
    pub fn learn(&self, learn: impl FnOnce(&mut Redactor)) {
        learn(Arc::make_mut(&mut self.0.write().unwrap_or_else(PoisonError::into_inner)));
    }

    /// A redactor with all secrets known now.
    pub fn redactor(&self) -> Arc<Redactor> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds all secrets of `other`.
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
