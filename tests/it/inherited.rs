//! The environment on the built binary: what a command channel's program inherits, and a variable that names an invalid
//! file.

use crate::support::bin::runwatch;

#[test]
fn a_program_inherits_no_secret_and_nothing_of_the_service_manager() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("environment");
    let config =
        format!("[[notify.command]]\ncommand = [\"/bin/sh\", \"-c\", 'env > \"{}\"']\n", out.display());
    let tested = runwatch(&["notify", "test"])
        .config(&config)
        .env("DATAFRAMER_CUSTOM_HEADERS", "X-Token: marker1")
        .env("HTTPS_PROXY", "http://user:marker2@127.0.0.1:9")
        .env("http_proxy", "user:mar/ker3@127.0.0.1:9")
        .env("All_Proxy", "socks5://marker4@127.0.0.1:9")
        .env("DATABASE_URL", "postgres://user:marker5@db/x")
        .env("NOTIFY_SOCKET", "/nowhere/marker6")
        .env("WATCHDOG_USEC", "60000000")
        .env("WATCHDOG_PID", "1")
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDNAMES", "marker7")
        .env("CREDENTIALS_DIRECTORY", "/nowhere/marker8")
        .env("RUNWATCH_EVENT_ID", "marker9")
        .env("INVOCATION_ID", "0123")
        .run();
    assert_eq!(tested.code, Some(0), "{tested:?}");
    let environment = std::fs::read_to_string(out).unwrap();
    for part in ["marker", "ker3", "test-key", "NOTIFY_SOCKET", "WATCHDOG", "LISTEN", "CREDENTIALS"] {
        assert!(!environment.contains(part), "{part}: {environment}");
    }
    for line in [
        "HTTPS_PROXY=http://127.0.0.1:9",
        "http_proxy=127.0.0.1:9",
        "All_Proxy=socks5://127.0.0.1:9",
        "DATABASE_URL=postgres://db/x",
        "INVOCATION_ID=0123",
        "RUNWATCH_EVENT_TYPE=runwatch.test",
    ] {
        assert!(environment.lines().any(|found| found == line), "{line}: {environment}");
    }
    assert!(environment.contains("\nPATH=") || environment.starts_with("PATH="), "{environment}");
}

#[test]
fn a_pipe_where_the_environment_names_authorities_is_an_error_at_once() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for (path, what) in
        [(pipe.as_path(), "a pipe"), (dir.path(), "a directory"), ("/dev/zero".as_ref(), "a device")]
    {
        for args in [&["wait", "r"][..], &["doctor"], &["notify", "test"]] {
            let ended = runwatch(args)
                .base_url("https://127.0.0.1:9")
                .config("[[notify.webhook]]\nurl = \"https://127.0.0.1:9\"\nunsigned = true\n")
                .env("SSL_CERT_FILE", path)
                .run();
            assert!(ended.code.is_some_and(|code| code != 0), "{args:?}: {ended:?}");
            let text = format!("{}{}", ended.stdout, ended.stderr);
            assert!(text.contains("that SSL_CERT_FILE names") && text.contains(what), "{args:?}: {text}");
        }
    }
}
