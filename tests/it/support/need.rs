//! What a test needs and a machine may lack: found at run time. Absent, the test says loudly that it was skipped; with
//! `CI=true` absent is a failure.

use std::path::PathBuf;

/// The path of a program, or `None` with a loud word if it is not there.
pub fn program(name: &str) -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        absent(&format!("the program `{name}`"));
    }
    found
}

/// A variable that says where something is, or `None` with a loud word if it is not set.
pub fn variable(name: &str) -> Option<String> {
    let found = std::env::var(name).ok().filter(|value| !value.is_empty());
    if found.is_none() {
        absent(&format!("the variable {name}"));
    }
    found
}

/// Root's rights, or `None` with a loud word without them.
pub fn root() -> Option<()> {
    let found = rustix::process::geteuid().is_root().then_some(());
    if found.is_none() {
        absent("root's rights");
    }
    found
}

fn absent(what: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} needs {what}, and CI must have it");
    eprintln!("\n!!! SKIPPED: {test} needs {what}, which is not on this machine !!!\n");
}
