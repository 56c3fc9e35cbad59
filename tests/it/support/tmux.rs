//! A tmux server of a test's own, whose socket is in the test's folder.

use std::path::Path;
use std::process::Command;

/// Runs a command of tmux, which must succeed, and returns what it prints.
pub fn tmux(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("tmux").arg("-u").arg("-S").arg(dir.join("tmux")).args(args).output().unwrap();
    assert!(output.status.success(), "tmux {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
