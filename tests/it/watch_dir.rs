//! The watched directory on the built binary: removed, replaced, made by runwatch, with entries that are not files, and
//! on a file system that hangs.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::{Pid, Signal};

use crate::support::bin::Running;
use crate::support::body::run;
use crate::support::daemon::{Home, ask, stop};
use crate::support::need;
use crate::support::stub::{Stub, answer};
use crate::support::until::until;

/// A daemon's home with a receiver, and an API of which every run has failed.
fn home() -> (Home, Stub) {
    let api = Stub::then_forever([], run().status("FAILED").ok());
    let receiver = Stub::then_forever([], answer(204, &[], ""));
    let home = Home::new(&api);
    home.configure(&format!("[[notify.webhook]]\nurl = \"{}\"\nunsigned = true\n", receiver.url()));
    // It answers for as long as the test lasts.
    std::mem::forget(api);
    (home, receiver)
}

/// The run of the next event.
fn next(receiver: &Stub) -> String {
    let told: serde_json::Value = serde_json::from_slice(&receiver.next().body).unwrap();
    told["data"]["run_id"].as_str().unwrap_or_default().to_owned()
}

fn touch(dir: &Path, name: &str) {
    std::fs::write(dir.join(name), "").unwrap();
}

#[test]
fn a_directory_that_is_renamed_removed_and_made_anew_is_followed() {
    let (home, receiver) = home();
    let (spool, away) = (home.path("spool"), home.path("away"));
    let daemon = home.start_with(&["--watch-dir", spool.to_str().unwrap()]);
    touch(&spool, "first");
    assert_eq!(next(&receiver), "first");
    // Both at once: in between there would be no directory, which the daemon may notice and say.
    std::fs::create_dir(&away).unwrap();
    renameat_with(CWD, &spool, CWD, &away, RenameFlags::EXCHANGE).unwrap();
    touch(&away, "away");
    touch(&spool, "second");
    assert_eq!(next(&receiver), "second");
    std::fs::remove_dir_all(&spool).unwrap();
    let is_said = || ask(&home.socket(), "GET /readyz").1.contains("there is no such directory");
    until("said", is_said);
    std::fs::create_dir(&spool).unwrap();
    touch(&spool, "third");
    assert_eq!(next(&receiver), "third");
    until("well again", || !is_said());
    touch(&spool, "fourth");
    assert_eq!(next(&receiver), "fourth");
    let log = stop(daemon);
    assert_eq!(log.matches("there is no such directory").count(), 1, "{log}");
}

#[test]
fn a_link_that_is_swapped_is_followed() {
    let (home, receiver) = home();
    for release in ["one", "two"] {
        std::fs::create_dir(home.path(release)).unwrap();
    }
    symlink(home.path("one"), home.path("spool")).unwrap();
    touch(&home.path("two"), "second");
    let daemon = home.start_with(&["--watch-dir", home.path("spool").to_str().unwrap()]);
    touch(&home.path("one"), "first");
    assert_eq!(next(&receiver), "first");
    symlink(home.path("two"), home.path("new")).unwrap();
    std::fs::rename(home.path("new"), home.path("spool")).unwrap();
    assert_eq!(next(&receiver), "second");
    touch(&home.path("two"), "third");
    assert_eq!(next(&receiver), "third");
    stop(daemon);
}

#[test]
fn without_inotify_files_are_found_and_a_link_that_is_swapped_is_followed() {
    let Some(strace) = need::program("strace") else { return };
    let (home, receiver) = home();
    for release in ["one", "two"] {
        std::fs::create_dir(home.path(release)).unwrap();
    }
    symlink(home.path("one"), home.path("spool")).unwrap();
    let spool = home.path("spool");
    // As where the user's limit of instances is reached.
    let tracer = ["-D", "-I", "1", "-f", "-qq", "-o", "/dev/null", "-e", "inject=inotify_init1:error=EMFILE"];
    let daemon = home.prepared(&["daemon", "--watch-dir", spool.to_str().unwrap()]);
    let daemon = daemon.env("NOTIFY_SOCKET", home.path("notify")).under(&strace, &tracer);
    let log = home.path("log");
    let daemon = daemon.log(&log).stdout(std::process::Stdio::null()).spawn();
    home.wait_for("READY=1");
    touch(&home.path("one"), "first");
    assert_eq!(next(&receiver), "first");
    touch(&home.path("two"), "second");
    symlink(home.path("two"), home.path("new")).unwrap();
    std::fs::rename(home.path("new"), home.path("spool")).unwrap();
    assert_eq!(next(&receiver), "second");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code, Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("new files in it are found within 5s"), "{log}");
}

#[test]
fn what_is_no_file_or_no_id_holds_nothing_up_and_is_said_once() {
    let (home, receiver) = home();
    let spool = home.path("spool");
    std::fs::create_dir_all(spool.join("directory")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, spool.join("fifo"), 0o600.into()).unwrap();
    symlink("/nowhere", spool.join("link")).unwrap();
    for name in ["two words", "a\n::error::b", "\u{1b}[2Jc", "-", " spaces \r", ".hidden", "d.tmp"] {
        touch(&spool, name);
    }
    let daemon = home.start_with(&["--watch-dir", spool.to_str().unwrap()]);
    let mut seen = vec![next(&receiver), next(&receiver)];
    touch(&spool, "e f");
    touch(&spool, "last");
    seen.push(next(&receiver));
    assert_eq!(seen[2], "last");
    seen.sort();
    assert_eq!(seen, ["-", "last", "spaces"]);
    let log = stop(daemon);
    for name in
        ["two words", "a ::error::b", "[2Jc", "e f", "`fifo` is a FIFO", "`link` is a link to nothing"]
    {
        assert_eq!(log.matches(name).count(), 1, "{name}: {log}");
    }
    assert!(!log.contains("\n::error") && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn a_directory_that_is_made_is_its_owners_alone_under_any_umask() {
    let (home, _receiver) = home();
    let spool = home.path("below/spool");
    let args = ["daemon", "--watch-dir", spool.to_str().unwrap()];
    // A shell, because the umask is the process's.
    let umask = ["-c", "umask 000; exec \"$0\" \"$@\""];
    let daemon = home.prepared(&args).env("NOTIFY_SOCKET", home.path("notify"));
    let daemon = daemon.under(Path::new("/bin/sh"), &umask).spawn();
    home.wait_for("READY=1");
    for dir in [&spool, &home.path("below")] {
        assert_eq!(std::fs::metadata(dir).unwrap().permissions().mode() & 0o7777, 0o700, "{}", dir.display());
    }
    stop(daemon);
}

#[test]
fn a_file_system_that_hangs_holds_nothing_up() {
    let Some(strace) = need::program("strace") else { return };
    let (home, receiver) = home();
    let spool = home.path("spool");
    std::fs::create_dir(&spool).unwrap();
    touch(&spool, "never-listed");
    // Much longer than a test may take. -D: the daemon is our child. -I 1: strace can be ended.
    let inject = "inject=getdents64:delay_enter=600000000";
    let spool = spool.to_str().unwrap();
    let tracer = ["-D", "-I", "1", "-f", "-qq", "-o", "/dev/null", "-e", inject, "-P", spool];
    let daemon = home.prepared(&["daemon", "--watch-dir", spool]).env("NOTIFY_SOCKET", home.path("notify"));
    // Strace holds its streams for longer than the daemon.
    let log = home.path("log");
    let daemon = daemon.under(&strace, &tracer).log(&log).stdout(std::process::Stdio::null()).spawn();
    home.wait_for("READY=1");
    let status =
        |daemon: &Running| std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let tracer =
        status(&daemon).lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok());
    assert_eq!(ask(&home.socket(), "GET /healthz").0, 200);
    assert_eq!(home.run(&["add", "by-hand"]).code, Some(0));
    assert_eq!(next(&receiver), "by-hand");
    daemon.signal(Signal::TERM);
    // It is at its end; that its parent is told of it takes the tracer, which does not notice.
    until("ended", || status(&daemon).contains("State:\tZ"));
    rustix::process::kill_process(Pid::from_raw(tracer.unwrap()).unwrap(), Signal::KILL).unwrap();
    assert_eq!(daemon.wait().code, Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains("never-listed") && log.contains("stopped"), "{log}");
}
