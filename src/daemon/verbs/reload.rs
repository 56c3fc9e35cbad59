//! `reload`: asks the daemon's loop to read the configuration again, and waits for the answer.
//!
//! The loop does the work (`daemon::reload`), because it owns the parts that are replaced.

use tokio::sync::oneshot;

use crate::control::ReloadAnswer;
use crate::daemon::handle::{Handle, Order, Refusal};
use crate::daemon::reload::ReloadError;

impl Handle {
    pub(in crate::daemon) async fn reload(&self) -> Result<ReloadAnswer, Refusal> {
        let (reply, answer) = oneshot::channel();
        let gone = || Refusal::Unavailable("the daemon is stopping".to_owned());
        self.orders.send(Order::Reload(reply)).await.map_err(|_| gone())?;
        let message = answer.await.map_err(|_| gone())?.map_err(|error| match error {
            ReloadError::Refused(problems) => Refusal::Bad(problems),
            ReloadError::Failed(why) | ReloadError::Shortage(why) => Refusal::Unavailable(format!(
                "the configuration was not read again, and the one in use is kept: {why}"
            )),
        })?;
        Ok(ReloadAnswer { message })
    }
}
