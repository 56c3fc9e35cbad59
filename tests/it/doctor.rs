//! `runwatch doctor` with a daemon: it checks the daemon's environment, not the caller's.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::bin::{Output, Runwatch, runwatch};
use crate::support::daemon::{Home, stop};
use crate::support::need;
use crate::support::stub::{Stub, error};

#[test]
fn a_healthy_daemon_is_not_wrong_for_what_the_caller_lacks() {
    let api = Stub::then_forever([], error(404));
    let home = Home::new(&api);
    // The key and a secret that only the daemon has, as systemd's credentials.
    std::fs::create_dir(home.path("credentials")).unwrap();
    std::fs::write(home.path("credentials/secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    home.configure(&format!(
        "[[notify.webhook]]\nurl = \"{}\"\nsecret_file = \"{}\"\n[[notify.log]]\n",
        api.url(),
        home.path("secret").display()
    ));
    let daemon = home
        .prepared(&["daemon"])
        .env("NOTIFY_SOCKET", home.path("notify"))
        .env("CREDENTIALS_DIRECTORY", home.path("credentials"))
        .spawn();
    home.wait_for("READY=1");
    let doctor = |args: &[&str]| {
        runwatch(&[&["doctor"], args].concat())
            .without("DATAFRAMER_API_KEY")
            .env("RUNWATCH_CONFIG", home.path("config.toml"))
            .env("RUNWATCH_SOCKET", home.socket())
            .run()
    };
    let output = doctor(&[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    for part in
        ["ok      key: the API accepts it", "ok      channel webhook: ", "it made these checks itself"]
    {
        assert!(output.stdout.contains(part), "`{part}` is missing: {output:?}");
    }
    assert!(!output.stdout.contains("WRONG"), "{output:?}");
    // What a flag names is meant, and checked here.
    let key = home.path("nothing");
    std::fs::write(&key, "").unwrap();
    let output = doctor(&["--api-key-file", key.to_str().unwrap(), "--base-url", &api.url()]);
    assert_eq!(output.code, Some(78), "{output:?}");
    stop(daemon);
    // Without a daemon, the caller's own surroundings are all there is.
    let output = doctor(&[]);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stdout.contains("WRONG   key: "), "{output:?}");
    assert!(output.stdout.contains("-       daemon: no daemon listens on"), "{output:?}");
}

#[test]
fn what_is_wrong_in_the_daemons_surroundings_is_found_there() {
    let api = Stub::then_forever([], error(401));
    let home = Home::new(&api);
    home.configure("[[notify.command]]\ncommand = [\"/nowhere/program\"]\n");
    let daemon = home.start();
    let output = runwatch(&["doctor"]).env("RUNWATCH_SOCKET", home.socket()).run();
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stdout.contains("WRONG   key: "), "{output:?}");
    assert!(
        output.stdout.contains("WRONG   channel command: /nowhere/program is not a program here\n"),
        "{output:?}"
    );
    let state = format!("ok      state: {} can be written", home.state().display());
    assert!(output.stdout.contains(&state), "{output:?}");
    stop(daemon);
}

/// A daemon with a webhook whose secret is its own, and its API; both answer.
fn with_secret(api: &Stub) -> Home {
    let home = Home::new(api);
    std::fs::write(home.path("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    home.configure(&webhook(&home, api));
    home
}

fn webhook(home: &Home, receiver: &Stub) -> String {
    let secret = home.path("secret");
    format!("[[notify.webhook]]\nurl = \"{}\"\nsecret_file = \"{}\"\n", receiver.url(), secret.display())
}

/// `runwatch doctor` by somebody who has no key.
fn doctor(home: &Home, args: &[&str]) -> Runwatch {
    runwatch(&[&["doctor"], args].concat())
        .without("DATAFRAMER_API_KEY")
        .env("RUNWATCH_CONFIG", home.path("config.toml"))
        .env("RUNWATCH_SOCKET", home.socket())
}

/// What is wrong, a line each.
fn wrong(output: &Output) -> Vec<&str> {
    output.stdout.lines().filter_map(|line| line.strip_prefix("WRONG   ")).collect()
}

#[test]
fn says_how_the_daemons_configuration_and_the_file_differ() {
    let api = Stub::then_forever([], error(404));
    let home = with_secret(&api);
    let daemon = home.start();
    let file = home.path("config.toml");
    let shown = file.display().to_string();
    let output = doctor(&home, &[]).run();
    assert_eq!((output.code, wrong(&output).len()), (Some(0), 0), "{output:?}");
    assert!(output.stdout.contains(&format!("ok      configuration: {shown} is in use\n")), "{output:?}");
    // The same file, named: that is still about the daemon.
    let output = doctor(&home, &["--config", &shown]).run();
    assert_eq!((output.code, wrong(&output).len()), (Some(0), 0), "{output:?}");

    home.configure(&(webhook(&home, &api) + "[[notify.log]]\n"));
    let output = doctor(&home, &[]).run();
    assert_eq!(output.code, Some(0), "{output:?}");
    let changed =
        format!("-       configuration: {shown} has changed since the daemon read it\n        to use it: ");
    assert!(output.stdout.contains(&changed), "{output:?}");

    home.configure("topsecret_nonsense = 1\n");
    assert_eq!(home.run(&["reload"]).code, Some(78));
    let output = doctor(&home, &[]).run();
    assert_eq!(output.code, Some(78), "{output:?}");
    let [refused] = wrong(&output)[..] else { panic!("{output:?}") };
    assert!(refused.starts_with(&format!("configuration: {shown} has a mistake")), "{refused}");

    home.configure(&webhook(&home, &api));
    let output = doctor(&home, &[]).run();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(
        output.stdout.contains(" is in use again, after a reload was refused\n        to clear "),
        "{output:?}"
    );

    // A user with a configuration of their own learns that there are two.
    std::fs::write(home.path("other.toml"), "").unwrap();
    let output = doctor(&home, &[]).env("RUNWATCH_CONFIG", home.path("other.toml")).run();
    assert_eq!(output.code, Some(0), "{output:?}");
    let two = format!(
        "other.toml, the daemon reads {shown}\n        to check yours as well: runwatch doctor --config"
    );
    assert!(output.stdout.contains(&two), "{output:?}");
    stop(daemon);
}

#[test]
fn beside_a_stopped_daemon_only_the_daemon_is_wrong() {
    let api = Stub::then_forever([], error(404));
    let home = with_secret(&api);
    let daemon = home.start();
    std::fs::remove_file(home.path("secret")).unwrap();
    daemon.signal(rustix::process::Signal::STOP);
    let output = doctor(&home, &[]).run();
    daemon.signal(rustix::process::Signal::CONT);
    assert_eq!(output.code, Some(78), "{output:?}");
    let [silent] = wrong(&output)[..] else { panic!("{output:?}") };
    assert!(silent.starts_with("daemon: ") && silent.contains("waited 5s for an answer"), "{silent}");
    assert!(output.stdout.contains("systemctl restart runwatch\n"), "{output:?}");
    // Its state directory is not this user's.
    assert!(!output.stdout.contains("state: "), "{output:?}");
    stop(daemon);
}

#[test]
fn what_only_the_daemon_may_read_is_not_wrong_for_others() {
    let Some(setpriv) = need::root().and(need::program("setpriv")) else { return };
    let api = Stub::then_forever([], error(404));
    let home = with_secret(&api);
    let daemon = home.start();
    let mode = |name: &str, mode| {
        std::fs::set_permissions(home.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("", 0o755);
    mode("config.toml", 0o644);
    mode("secret", 0o600);
    let output = doctor(&home, &[]).of_user(1234, &setpriv).run();
    assert_eq!((output.code, wrong(&output).len()), (Some(0), 0), "{output:?}");
    for part in [
        "-       key: this user has no API key; the daemon reads its own\n",
        "-       channel webhook: cannot read the webhook secret",
        "-       daemon: you may not use ",
        "`sudo runwatch doctor` asks the daemon",
    ] {
        assert!(output.stdout.contains(part), "`{part}` is missing: {output:?}");
    }
    stop(daemon);
}

#[test]
fn an_api_that_hangs_takes_no_other_check_along() {
    let api = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", api.local_addr().unwrap());
    let home = Home::at(&url);
    home.configure("[[notify.log]]\n[api]\nrequest_timeout = \"200ms\"\n[discover]\n");
    let daemon = home.start();
    let output = home.run(&["doctor"]);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(wrong(&output).iter().any(|line| line.starts_with("API: ")), "{output:?}");
    assert!(output.stdout.contains("ok      channel log: "), "{output:?}");
    stop(daemon);
}
