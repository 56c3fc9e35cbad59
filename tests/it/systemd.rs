//! The units in a real systemd, booted in a container. `tests/systemd/` has the assertions.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::need;

/// The end of the container that hangs.
const BOUND: &str = "120s";

/// Boots a systemd with our units and runs a script in it; panics with what it said if it fails.
///
/// The variable `root` names the root of a Debian with what `.ci/run` puts there. It is not written to.
fn in_systemd(root: &str, script: &str) {
    let Some(root) = need::variable(root) else { return };
    if need::root().and(need::program("systemd-nspawn")).is_none() {
        return;
    }
    // One at a time: containers that are started from one control group share its children, by name.
    let turn = std::fs::File::create(std::env::temp_dir().join("runwatch-test-systemd.lock")).unwrap();
    turn.lock().unwrap();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("log");
    let bind = |how: &str, from: &Path, to: &str| format!("--{how}={}:{to}", from.display());
    std::fs::write(&log, "").unwrap();
    // Nothing is bound below /tmp: a systemd that boots empties it.
    let output = Command::new("timeout")
        .args(["--kill-after=10s", BOUND, "systemd-nspawn", "--quiet", "--boot", "--volatile=overlay"])
        .args(["--private-network", "--register=no", "--keep-unit", "--console=pipe"])
        .arg(format!("--machine=runwatch-{script}-{:08x}", fastrand::u32(..)))
        .arg(format!("--directory={root}"))
        .arg(bind("bind-ro", Path::new(env!("CARGO_BIN_EXE_runwatch")), "/usr/local/bin/runwatch"))
        .arg(bind("bind-ro", &repository.join("systemd"), "/test/units"))
        .arg(bind("bind-ro", &repository.join("tests/systemd"), "/test/scripts"))
        .arg(bind(
            "bind-ro",
            &repository.join("tests/systemd/test@.service"),
            "/etc/systemd/system/test@.service",
        ))
        .arg(bind("bind", &log, "/test/log"))
        .arg(format!("systemd.unit=test@{script}.service"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    eprintln!("{said}");
    let console = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{console}\n{errors}", output.status);
    // A container that ends well without having run the script proves nothing.
    assert!(said.contains("ok: it stopped well"), "{console}\n{errors}");
}

/// Debian 13: systemd 257.
const NEW: &str = "RUNWATCH_TEST_SYSTEMD_ROOT";

/// Debian 12: systemd 252, which does not know `Type=notify-reload`.
const OLD: &str = "RUNWATCH_TEST_OLD_SYSTEMD_ROOT";

#[test]
fn the_system_service_keeps_what_it_promises() {
    in_systemd(NEW, "system");
}

#[test]
fn the_user_service_shows_a_notification() {
    in_systemd(NEW, "user");
}

#[test]
fn the_system_service_works_with_an_older_systemd() {
    in_systemd(OLD, "system");
}

#[test]
fn the_user_service_works_with_an_older_systemd() {
    in_systemd(OLD, "user");
}
