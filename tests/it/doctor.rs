//! `runwatch doctor` beside a daemon: what counts is what the daemon's own surroundings have, not the caller's.

use crate::support::bin::runwatch;
use crate::support::daemon::{Home, stop};
use crate::support::stub::{Stub, error};

#[test]
fn a_healthy_daemon_is_not_wrong_for_what_the_caller_lacks() {
    let api = Stub::then_forever([], error(404));
    let home = Home::new(&api);
    // The key and a secret that only the daemon has, as systemd's credentials are.
    std::fs::write(home.path("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    home.configure(&format!(
        "[[notify.webhook]]\nurl = \"{}\"\nsecret_file = \"{}\"\n[[notify.log]]\n",
        api.url(),
        home.path("secret").display()
    ));
    let daemon = home.start();
    std::fs::remove_file(home.path("secret")).unwrap();
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
        output.stdout.contains("WRONG   channel command: /nowhere/program is no program here\n"),
        "{output:?}"
    );
    let state = format!("ok      state: {} can be written", home.state().display());
    assert!(output.stdout.contains(&state), "{output:?}");
    stop(daemon);
}
