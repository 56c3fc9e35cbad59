//! The state of this machine's `runwatch.service`, from systemd.
//!
//! Used by `doctor` if no daemon answers: systemd knows whether there should be one, and how it ended. The question goes over
//! D-Bus, so that no program is started.

use std::time::Duration;

use tokio::time::timeout;

use crate::control::Finding;

/// The unit's name, as the README installs it.
const UNIT: &str = "runwatch.service";

/// Maximum time for systemd's answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A unit that systemd has loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// `active`, `reloading`, `inactive`, `failed`, `activating` or `deactivating`.
    active: String,
    /// Whether it starts with the machine.
    enabled: bool,
    /// How it last ended: `success`, `exit-code`, `signal`, `watchdog` and others.
    result: String,
    /// The exit code of its process.
    code: i32,
}

impl Unit {
    /// The unit of this machine; `None` if it is not installed or there is no systemd.
    pub(super) async fn of_this_machine() -> Option<Self> {
        timeout(PATIENCE, Self::ask()).await.ok()?.ok().flatten()
    }

    async fn ask() -> zbus::Result<Option<Self>> {
        let bus = zbus::Connection::system().await?;
        let systemd = Some("org.freedesktop.systemd1");
        let manager = Some("org.freedesktop.systemd1.Manager");
        let loaded =
            bus.call_method(systemd, "/org/freedesktop/systemd1", manager, "LoadUnit", &UNIT).await?;
        let path: zbus::OwnedObjectPath = loaded.body().deserialize()?;
        let get = async |interface: &str, name: &str| -> zbus::Result<zbus::OwnedVariant> {
            let properties = Some("org.freedesktop.DBus.Properties");
            let of = (format!("org.freedesktop.systemd1.{interface}"), name);
            bus.call_method(systemd, &path, properties, "Get", &of).await?.body().deserialize()
        };
        if String::try_from(get("Unit", "LoadState").await?)? != "loaded" {
            return Ok(None);
        }
        Ok(Some(Self {
            active: get("Unit", "ActiveState").await?.try_into()?,
            enabled: String::try_from(get("Unit", "UnitFileState").await?)? == "enabled",
            result: get("Service", "Result").await?.try_into()?,
            code: get("Service", "ExecMainStatus").await?.try_into()?,
        }))
    }

    /// Why no daemon answers, according to the unit's state.
    pub(super) fn without_a_daemon(&self) -> Finding {
        let log = "journalctl -u runwatch";
        match &*self.active {
            "failed" => {
                let remedy = format!("`{log}` says why; then: systemctl start runwatch");
                let remedy = cure(self.code).map_or(remedy.clone(), |cure| format!("{cure}; {remedy}"));
                Finding::wrong("daemon", format!("{UNIT} has failed: {}", self.end()), remedy)
            }
            "active" | "reloading" => Finding::wrong(
                "daemon",
                format!("{UNIT} is active, but its socket is missing"),
                "the daemon makes it again within 10 seconds; if not: systemctl restart runwatch",
            ),
            "activating" | "deactivating" => Finding::absent("daemon", format!("{UNIT} is {}", self.active))
                .with_remedy(format!("ask again in a moment; `{log}` shows its progress")),
            _ if self.enabled => Finding::wrong(
                "daemon",
                format!("{UNIT} is enabled and does not run"),
                "start it: systemctl start runwatch",
            ),
            _ => Finding::absent("daemon", format!("{UNIT} does not run"))
                .with_remedy("start it: systemctl enable --now runwatch"),
        }
    }

    fn end(&self) -> String {
        match (&*self.result, meaning(self.code)) {
            ("exit-code", Some(meaning)) => format!("exit code {}, {meaning}", self.code),
            ("exit-code", None) => format!("exit code {}", self.code),
            (result, _) => result.to_owned(),
        }
    }
}

/// What the unit's exit codes mean: ours, and those of systemd where it cannot start a program.
fn meaning(code: i32) -> Option<&'static str> {
    Some(match code {
        2 => "wrong usage",
        70 => "internal error",
        78 => "bad configuration",
        203 => "its program cannot be executed",
        216 => "its group does not exist",
        217 => "its user does not exist",
        243 => "a file in LoadCredential= is missing or cannot be read",
        _ => return None,
    })
}

fn cure(code: i32) -> Option<&'static str> {
    match code {
        78 => Some("`runwatch config check` shows mistakes in the file"),
        243 => Some("`systemctl cat runwatch` shows which files it needs"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::FindingState;

    fn unit(active: &str, enabled: bool, result: &str, code: i32) -> Finding {
        let unit = Unit { active: active.to_owned(), enabled, result: result.to_owned(), code };
        unit.without_a_daemon()
    }

    #[test]
    fn every_state_says_what_to_do_next() {
        for (finding, state, found, remedy) in [
            (
                unit("failed", true, "exit-code", 243),
                FindingState::Wrong,
                "exit code 243, a file in LoadCredential= is missing",
                "systemctl cat runwatch",
            ),
            (unit("failed", true, "exit-code", 78), FindingState::Wrong, "bad configuration", "config check"),
            (unit("failed", true, "exit-code", 9), FindingState::Wrong, "exit code 9", "journalctl"),
            (unit("failed", true, "watchdog", 9), FindingState::Wrong, "has failed: watchdog", "journalctl"),
            (unit("active", true, "success", 0), FindingState::Wrong, "socket is missing", "restart"),
            (unit("activating", true, "exit-code", 70), FindingState::Absent, "is activating", "in a moment"),
            (unit("inactive", true, "success", 0), FindingState::Wrong, "is enabled", "systemctl start"),
            (unit("inactive", false, "success", 0), FindingState::Absent, "does not run", "enable --now"),
        ] {
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.found.contains(found), "{finding:?}");
            assert!(finding.remedy.as_ref().is_some_and(|said| said.contains(remedy)), "{finding:?}");
        }
    }
}
