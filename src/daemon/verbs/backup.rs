//! `backup`: a copy of the state, for whoever may use the socket.
//!
//! The daemon has the state locked: nobody else could read it. Everything goes on while it is copied.

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
