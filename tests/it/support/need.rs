//! What a test needs and a machine may lack: found at run time. Absent, the test is skipped, which is said at once and in
//! the closing summary of `cargo test`; with `CI=true` absent is a failure.

use std::io::Write as _;
use std::path::PathBuf;

use super::skips;

/// The Debian package of a program, where it has another name.
const PACKAGES: [(&str, &str); 8] = [
    ("Xvfb", "xvfb"),
    ("dbus-daemon", "dbus"),
    ("dunstctl", "dunst"),
    ("go", "golang-go"),
    ("node", "nodejs"),
    ("promtool", "prometheus"),
    ("systemd-nspawn", "systemd-container"),
    ("xdpyinfo", "x11-utils"),
];

/// The path of a program, or `None` with a loud word if it is not there.
pub fn program(name: &str) -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        let package =
            PACKAGES.iter().find(|(program, _)| *program == name).map_or(name, |(_, package)| package);
        absent(&format!("the program `{name}`"), &format!("apt-get install {package}"));
    }
    found
}

/// A variable that says where something is, or `None` with a loud word if it is not set.
pub fn variable(name: &str) -> Option<String> {
    let found = std::env::var(name).ok().filter(|value| !value.is_empty());
    if found.is_none() {
        absent(&format!("the variable {name}"), "see how .ci/run makes what it names");
    }
    found
}

/// Whether the tests are run by root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Root's rights, or `None` with a loud word without them.
pub fn root() -> Option<()> {
    let found = rustix::process::geteuid().is_root().then_some(());
    if found.is_none() {
        absent("root's rights", "run the tests as root");
    }
    found
}

/// A file system of so many kB at a directory that is there, or `None` with a loud word where this may not be made.
pub fn small_disk(dir: &std::path::Path, size: u32) -> Option<SmallDisk> {
    root()?;
    let mut mount = std::process::Command::new(program("mount")?);
    mount.args(["-t", "tmpfs", "-o", &format!("size={size}k,mode=0700"), "none"]).arg(dir);
    if !mount.status().is_ok_and(|status| status.success()) {
        absent("the right to mount a file system", "run the tests where root may mount");
        return None;
    }
    Some(SmallDisk { dir: dir.to_owned() })
}

/// A file system that goes with this.
pub struct SmallDisk {
    dir: PathBuf,
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what is still open there goes with whoever has it.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}

fn absent(what: &str, remedy: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{test} needs {what}, and CI must have it: {remedy}"
    );
    skips::note(&test, what, remedy);
    // Not `eprintln!`: the runner captures that, and shows nothing of a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test} needs {what}: {remedy}");
}
