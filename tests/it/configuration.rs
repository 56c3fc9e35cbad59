//! The configuration on the built binary: unreadable files, secrets in messages, and mistakes.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::support::bin::{Running, Runwatch, runwatch};
use crate::support::body::run;
use crate::support::need;
use crate::support::stub::{Stub, answer, error};
use crate::support::until::until;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Without the right to read what the mode of a file forbids. `None` where that takes a program that is not here.
fn ordinary(command: Runwatch) -> Option<Runwatch> {
    if need::is_root() {
        let setpriv = need::program("setpriv")?;
        Some(command.under(&setpriv, &["--bounding-set=-dac_override,-dac_read_search"]))
    } else {
        Some(command)
    }
}

fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

/// Does something to the configuration file's place.
type Damage = fn(&Path);

/// Where a daemon's files are.
struct Place(tempfile::TempDir);

impl Place {
    fn config(&self) -> PathBuf {
        self.0.path().join("config.toml")
    }

    fn command(&self, args: &[&str], api: &Stub) -> Option<Runwatch> {
        let command = runwatch(args).api(api).env("STATE_DIRECTORY", self.0.path().join("state"));
        ordinary(command.env("RUNWATCH_CONFIG", self.config()))
    }

    /// Takes the file away.
    fn clear(&self) {
        let path = self.config();
        drop(std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)));
    }
}

/// Waits until a daemon answers.
fn await_socket(place: &Place) {
    let socket = place.0.path().join("state/runwatch.sock");
    until("a daemon's socket", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
}

fn stop(daemon: Running) -> String {
    daemon.signal(Signal::TERM);
    let output = daemon.wait();
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stderr
}

#[test]
fn what_cannot_be_read_is_never_an_empty_configuration() {
    let place = Place(tempfile::tempdir().unwrap());
    let api = Stub::with([run().status("FAILED").ok()]);
    let receiver = Stub::then_forever([], error(500));
    let good = format!(
        "[[notify.webhook]]\nurl = \"{}\"\nsecret = \"{SECRET}\"\n[[run]]\nid = \"a\"\n",
        receiver.url()
    );
    std::fs::write(place.config(), &good).unwrap();
    let Some(command) = place.command(&["daemon"], &api) else { return };
    let daemon = command.spawn();
    receiver.next();
    let damages: [(&str, Damage); 6] = [
        ("No such file", |_| {}),
        ("Permission denied", |path| {
            std::fs::write(path, "").unwrap();
            chmod(path, 0);
        }),
        ("it is a directory", |path| std::fs::create_dir(path).unwrap()),
        ("it is a pipe", pipe),
        ("it is not UTF-8 text", |path| std::fs::write(path, [0xff]).unwrap()),
        ("No such file", |path| std::os::unix::fs::symlink("/nowhere/config", path).unwrap()),
    ];
    for (said, damage) in damages {
        place.clear();
        damage(&place.config());
        let reload = place.command(&["reload"], &api).unwrap().run();
        assert_eq!(reload.code, Some(78), "{said}: {reload:?}");
        assert!(reload.stderr.contains(said), "{said}: {reload:?}");
        let listed = place
            .command(&["deliveries", "list", "--output", "json"], &api)
            .unwrap()
            .env("RUNWATCH_CONFIG", "");
        let pending = listed.run().json()["deliveries"].to_string();
        assert!(pending.contains("\"pending\"") && pending.contains("\"webhook\""), "{said}: {pending}");
    }
    // Its secret is not in the log, wherever it stood in the file that was refused.
    place.clear();
    std::fs::write(
        place.config(),
        good.replace(&format!("secret = \"{SECRET}\""), &format!("secrets = [\n  \"{SECRET}==\",\n  7,\n]")),
    )
    .unwrap();
    let reload = place.command(&["reload"], &api).unwrap().run();
    assert_eq!(reload.code, Some(78), "{reload:?}");
    let log = stop(daemon);
    assert_eq!(log.matches("the configuration is refused").count(), 7, "{log}");
    for window in SECRET.as_bytes().windows(8).skip(6) {
        let window = std::str::from_utf8(window).unwrap();
        assert!(!log.contains(window) && !reload.stderr.contains(window), "{window}: {log}{reload:?}");
    }
    // A restart is no way around it: nothing is dropped.
    for (said, damage) in damages {
        place.clear();
        damage(&place.config());
        let output = place.command(&["daemon"], &api).unwrap().run();
        assert_eq!(output.code, Some(78), "{said}: {output:?}");
        assert!(output.stderr.contains(said), "{said}: {output:?}");
    }
    place.clear();
    std::fs::write(place.config(), &good).unwrap();
    let daemon = place.command(&["daemon"], &Stub::with([])).unwrap().spawn();
    await_socket(&place);
    let retry = place.command(&["deliveries", "list", "--output", "json"], &api).unwrap().run();
    assert_eq!(retry.json()["deliveries"][0]["state"], "pending", "{retry:?}");
    stop(daemon);
}

#[test]
fn a_pipe_in_place_of_a_file_is_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    pipe(&path);
    let shown = path.to_str().unwrap();
    let webhook = |line: &str| format!("[[notify.webhook]]\nunsigned = true\n{line}\n");
    for (command, said) in [
        (runwatch(&["status", "a", "--config", shown]), "the configuration file"),
        (runwatch(&["status", "a", "--api-key-file", shown]), "API key"),
        (runwatch(&["status", "a"]).config(&format!("[api]\napi_key_file = \"{shown}\"\n")), "API key"),
        (runwatch(&["status", "a"]).config(&format!("[api]\nca_file = \"{shown}\"\n")), "CA file"),
        (
            runwatch(&["config", "check"])
                .config(&webhook(&format!("url = \"https://h\"\nca_file = \"{shown}\""))),
            "CA file",
        ),
        (runwatch(&["daemon"]).config(&webhook(&format!("url_file = \"{shown}\""))), "webhook URL"),
        (
            runwatch(&["daemon"])
                .config(&format!("[[notify.webhook]]\nurl = \"https://h\"\nsecret_file = \"{shown}\"\n")),
            "webhook secret",
        ),
    ] {
        let output = command.env("STATE_DIRECTORY", dir.path().join("state")).run();
        assert_eq!(output.code, Some(78), "{said}: {output:?}");
        let stderr = &output.stderr;
        assert!(
            stderr.contains(said) && stderr.contains("it is a pipe, not a regular file"),
            "{said}: {output:?}"
        );
    }
}

#[test]
fn a_daemon_needs_a_file_and_a_command_does_not() {
    let home = tempfile::tempdir().unwrap();
    let api = Stub::with([run().ok(), run().ok()]);
    let command =
        |args: &[&str]| runwatch(args).api(&api).env("HOME", home.path()).env("STATE_DIRECTORY", home.path());
    let output = command(&["daemon"]).run();
    assert_eq!(output.code, Some(78), "{output:?}");
    for part in
        ["there is no configuration file", ".config/runwatch/config.toml", "/etc/runwatch/config.toml"]
    {
        assert!(output.stderr.contains(part), "{part}: {output:?}");
    }
    assert_eq!(command(&["status", "a"]).run().code, Some(0));
    // A directory that may not be searched may have one in it.
    let hidden = home.path().join(".config");
    std::fs::create_dir(&hidden).unwrap();
    std::fs::create_dir(hidden.join("runwatch")).unwrap();
    std::fs::write(hidden.join("runwatch/config.toml"), "").unwrap();
    assert_eq!(command(&["status", "a"]).run().code, Some(0));
    chmod(&hidden, 0);
    for args in [&["daemon"][..], &["status", "a"], &["config", "check"]] {
        let Some(command) = ordinary(command(args)) else { return };
        let output = command.run();
        assert_eq!(output.code, Some(78), "{args:?}: {output:?}");
        assert!(output.stderr.contains("cannot search for the configuration file"), "{args:?}: {output:?}");
    }
    chmod(&hidden, 0o700);
}

#[test]
fn a_channel_for_the_daemon_only_is_left_out_unless_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("webhook-secret");
    std::fs::write(&secret, SECRET).unwrap();
    chmod(&secret, 0);
    let receiver = Stub::with([answer(204, &[], "")]);
    let config = format!(
        "[[notify.webhook]]\nname = \"theirs\"\nurl = \"https://h\"\nsecret_file = {secret:?}\n\
         [[notify.webhook]]\nname = \"ours\"\nurl = \"{}\"\nunsigned = true\n",
        receiver.url()
    );
    let command = |args: &[&str], api: &Stub| {
        ordinary(runwatch(args).api(api).env("STATE_DIRECTORY", dir.path()).quick(&config))
    };
    let api = Stub::with([run().status("SUCCEEDED").ok()]);
    let Some(watch) = command(&["watch", "a"], &api) else { return };
    let output = watch.run();
    assert_eq!(output.code, Some(0), "{output:?}");
    let left_out = "warning: the channel `theirs` is left out: cannot read the webhook secret";
    assert!(output.stderr.contains(left_out) && output.stderr.contains("Permission denied"), "{output:?}");
    receiver.next();
    let nothing = Stub::with([]);
    for args in [
        &["watch", "a", "--notify", "theirs"][..],
        &["wait", "a", "--notify", "ours,theirs"],
        &["notify", "test", "theirs"],
        &["config", "check"],
        &["daemon"],
    ] {
        let output = command(args, &nothing).unwrap().run();
        assert_eq!(output.code, Some(78), "{args:?}: {output:?}");
        assert!(output.stderr.contains("cannot read the webhook secret"), "{args:?}: {output:?}");
    }
}

#[test]
fn a_hundred_thousand_mistakes_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let table = |n: u32| format!("[[run]]\nid = \"run-{n}\"\nnmae = \"x\"\nnotify = [\"nobody\"]\n");
    std::fs::write(&path, (0..100_000).map(table).collect::<Vec<_>>().concat()).unwrap();
    let output = runwatch(&["config", "check", path.to_str().unwrap()]).run();
    assert_eq!(output.code, Some(78), "{output:?}");
    assert_eq!(output.stderr.matches("error: ").count(), 50, "{output:?}");
    for part in ["config.toml:3:1", "did you mean `name`?", "199950 more errors", ": 200000 errors"] {
        assert!(output.stderr.contains(part), "{part}: {output:?}");
    }
}

#[test]
fn nothing_of_a_configuration_moves_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a\u{1b}[2J\u{202e}b\n::error::x.toml");
    let text = "\"k\\u001b[2J\\u202e\\u200b\\n::error::y\" = 1\n[[run]]\nid = \"a\\u001b]0;x\\u0007\\u061cb\"\n\
                [poll]\nbatch = \"a\\u001b[31m\\nb\"\n";
    std::fs::write(&path, text).unwrap();
    for path in [path.clone(), path.join("not-there")] {
        let output = runwatch(&["config", "check"]).env("RUNWATCH_CONFIG", &path).run();
        assert_eq!(output.code, Some(78), "{output:?}");
        let bad = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{200b}\u{61c}".contains(c);
        assert!(!output.stderr.contains(bad), "{output:?}");
        assert!(!output.stderr.lines().any(|line| line.trim_start().starts_with("::")), "{output:?}");
    }
}

#[test]
fn a_command_line_in_place_of_a_program_is_cut_before_its_arguments() {
    let config = "[[notify.command]]\ncommand = [\"/nowhere/curl -H Kq8zX91vvT\", \"Kq8zX91vvT\"]\n";
    for (args, says) in [
        (&["config", "check"][..], "give each argument as a string of its own"),
        (&["notify", "test"], "cannot start /nowhere/curl …: "),
        (&["doctor"], "/nowhere/curl … is not a program here"),
    ] {
        let output = runwatch(args).config(config).run();
        let shown = format!("{}{}", output.stdout, output.stderr);
        assert!(shown.contains(says), "{args:?}: {output:?}");
        assert!(!shown.contains("Kq8zX91v"), "{output:?}");
    }
}

#[test]
fn a_proxy_that_the_api_needs_must_be_one() {
    for (variable, code) in [("HTTPS_PROXY", 78), ("http_proxy", 0)] {
        let check = runwatch(&["config", "check"]).base_url("https://df-api.example.invalid");
        let output = check.env(variable, "http://u:Kq8zX91vvT@proxy:port").config("").run();
        assert_eq!(output.code, Some(code), "{output:?}");
        let kind = if code == 0 { "warning" } else { "error" };
        assert!(output.stderr.contains(&format!("{kind}: {variable} is not a proxy")), "{output:?}");
        assert!(!output.stderr.contains("Kq8zX"), "{output:?}");
    }
}

#[test]
fn a_named_configuration_must_be_there_for_commands_of_the_daemon_too() {
    for args in [&["list"][..], &["remove", "r1"], &["deliveries", "list"], &["reload"]] {
        let args = [args, &["--config", "/nowhere/config.toml"]].concat();
        let output = runwatch(&args).run();
        assert_eq!(output.code, Some(78), "{output:?}");
        assert!(
            output.stderr.contains("cannot read the configuration file /nowhere/config.toml"),
            "{output:?}"
        );
    }
}

#[test]
fn a_key_file_for_the_service_only_leaves_users_their_own_key() {
    let api = Stub::then_forever([], run().status("SUCCEEDED").ok());
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "the-key-of-the-service").unwrap();
    chmod(&key, 0);
    let command = |args: &[&str]| {
        let config = format!("[api]\napi_key_file = \"{}\"\n", key.display());
        ordinary(runwatch(args).api(&api).config(&config).env("STATE_DIRECTORY", dir.path().join("state")))
    };
    let Some(status) = command(&["status", "a"]) else { return };
    let output = status.run();
    assert_eq!(output.code, Some(0), "{output:?}");
    for part in
        ["warning: `api_key_file`: cannot read the API key", "the key in DATAFRAMER_API_KEY is used instead"]
    {
        assert!(output.stderr.contains(part), "`{part}` is missing: {output:?}");
    }
    // Without one, and for the service itself, it is an error.
    for command in [
        command(&["status", "a"]).unwrap().without("DATAFRAMER_API_KEY"),
        command(&["status", "a", "--api-key-file", key.to_str().unwrap()]).unwrap(),
        command(&["daemon"]).unwrap(),
    ] {
        let output = command.run();
        assert_eq!(output.code, Some(78), "{output:?}");
        assert!(
            output.stderr.contains("error: ") && output.stderr.contains("Permission denied"),
            "{output:?}"
        );
    }
}
