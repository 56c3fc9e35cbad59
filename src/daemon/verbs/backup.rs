//! `backup`: a copy of the state, for those who may use the socket.
//!
//! The daemon has the state locked, so no other process can read it. The daemon works normally during the copy.

use crate::control::Answer;
use crate::daemon::handle::{Handle, Refusal};

/// <https://www.iana.org/assignments/media-types/application/vnd.sqlite3>.
const CONTENT_TYPE: &str = "application/vnd.sqlite3";

impl Handle {
    pub(in crate::daemon) async fn backup(&self) -> Result<Answer, Refusal> {
        let snapshot = self.parts()?.store.snapshot().await?;
        Ok(Answer::file(CONTENT_TYPE, snapshot))
    }
}
