//! Removes the request's secrets from answers, because a gateway may repeat the request's headers.
//!
//! Applied to everything that leaves the client and may be shown. Leaves ids, counts and known statuses alone.

use bytes::Bytes;

use super::PollError;
use crate::run::{Details, Run, RunStatus};
use crate::secret::Redactor;

pub(super) fn error(redactor: &Redactor, mut error: PollError) -> PollError {
    error.message = redactor.redact(&error.message).into_owned();
    error
}

pub(super) fn run(redactor: &Redactor, mut run: Run) -> Run {
    if let RunStatus::Unknown(Some(word)) = &mut run.status {
        *word = redactor.redact(word).into();
    }
    if let Some(details) = &mut run.details {
        let Details { spec_name, dataset_name, created_by_email, .. } = &mut **details;
        for text in [spec_name, dataset_name, created_by_email].into_iter().flatten() {
            *text = redactor.redact(text).into_owned();
        }
    }
    run
}

/// Redacts a JSON body. A body without secrets keeps its bytes.
pub(super) fn body(redactor: &Redactor, body: Bytes) -> Bytes {
    let Ok(text) = std::str::from_utf8(&body) else { return body };
    match redactor.redact_json(text) {
        std::borrow::Cow::Borrowed(_) => body,
        std::borrow::Cow::Owned(text) => text.into(),
    }
}
