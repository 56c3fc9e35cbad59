//! The desktop channel: a notification by the freedesktop.org specification, through notify-rust.
//!
//! Handles what can go wrong there: no session bus, a notification service that never answers, and one that reads the
//! body as markup.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use notify_rust::{Hint, Notification};
use tokio::time::timeout;

use super::{Message, Notice, Notifier, NotifyError, Urgency};
use crate::BoxFuture;
use crate::run::RunId;
use crate::run::text::desktop_markup;

/// Maximum time for the notification service's answer, which comes at once or never.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// The service's name on the bus.
const SERVICE: &str = "org.freedesktop.Notifications";

/// Maximum number of runs whose notification ids are kept to replace the notifications later.
const REMEMBERED: usize = 1000;

/// Shows events to the user at the screen.
#[derive(Debug, Default)]
pub struct Desktop {
    /// The service's id of the last notification for a run, which the next one replaces.
    shown: Mutex<HashMap<RunId, u32>>,
}

impl Notifier for Desktop {
    fn send<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async {
            let run = notice.payload.data.run_id.as_ref();
            self.try_to_show(Message::of(&notice.payload), run).await
        })
    }

    fn send_all<'a>(&'a self, notices: &'a [Notice]) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async {
            let payloads: Vec<_> = notices.iter().map(|notice| &notice.payload).collect();
            self.try_to_show(Message::of_many(&payloads), None).await
        })
    }
}

impl Desktop {
    async fn try_to_show(&self, message: Message, run: Option<&RunId>) -> Result<(), NotifyError> {
        if session_bus().is_none() {
            return Err(NotifyError::retryable(
                "there is no session bus to show it on; a system service has none: \
                 run runwatch in the session (systemd/user/runwatch.service)",
            ));
        }
        let silent = |_| NotifyError::retryable("the notification service does not answer");
        timeout(TIMEOUT, self.show(message, run)).await.map_err(silent)?
    }

    async fn show(&self, message: Message, run: Option<&RunId>) -> Result<(), NotifyError> {
        let Message { title, body, urgency } = message;
        let failed = |error: String| {
            NotifyError::retryable(format!(
                "the desktop could not show it: {}",
                crate::run::printable(&error, 200)
            ))
        };
        let markup = takes_markup().await.map_err(|error| failed(error.to_string()))?;
        let mut notification = Notification::new();
        notification
            .appname("runwatch")
            .summary(&title)
            .body(&if markup { desktop_markup(&body) } else { body })
            .urgency(match urgency {
                Urgency::Low => notify_rust::Urgency::Low,
                Urgency::Normal => notify_rust::Urgency::Normal,
                Urgency::Critical => notify_rust::Urgency::Critical,
            })
            .hint(Hint::Category("transfer.complete".to_owned()));
        let before = run.and_then(|run| self.remembered().get(run).copied());
        if let Some(id) = before {
            notification.id(id);
        }
        let shown = notification.show_async().await.map_err(|error| failed(error.to_string()))?;
        if let Some(run) = run {
            let mut remembered = self.remembered();
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(run.clone(), shown.id());
        }
        Ok(())
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, u32>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address of the session bus, if this process has one.
pub fn session_bus() -> Option<String> {
    if let Some(address) =
        std::env::var("DBUS_SESSION_BUS_ADDRESS").ok().filter(|address| !address.is_empty())
    {
        return Some(address);
    }
    let socket = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?).join("bus");
    socket.exists().then(|| format!("unix:path={}", socket.display()))
}

/// Whether there is a session with a notification service, running or started on demand. Takes half a second at most.
pub async fn is_there() -> bool {
    let ask = async {
        let bus = zbus::Connection::session().await?;
        let dbus = Some("org.freedesktop.DBus");
        for method in ["ListNames", "ListActivatableNames"] {
            let reply = bus.call_method(dbus, "/org/freedesktop/DBus", dbus, method, &()).await?;
            let names: Vec<String> = reply.body().deserialize()?;
            if names.iter().any(|name| name == SERVICE) {
                return zbus::Result::Ok(true);
            }
        }
        Ok(false)
    };
    session_bus().is_some() && matches!(timeout(Duration::from_millis(500), ask).await, Ok(Ok(true)))
}

/// Whether the service reads the body as markup. (notify-rust asks this only with a blocking call, which is not allowed
/// in a runtime.)
async fn takes_markup() -> zbus::Result<bool> {
    let bus = zbus::Connection::session().await?;
    let name = Some(SERVICE);
    let reply = bus.call_method(name, "/org/freedesktop/Notifications", name, "GetCapabilities", &()).await?;
    let capabilities: Vec<String> = reply.body().deserialize()?;
    Ok(capabilities.iter().any(|capability| capability == "body-markup"))
}
