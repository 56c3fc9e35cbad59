//! Every shell block of the documentation is run, against the simulated API and a daemon of its own.
//!
//! A new block is run without anybody listing it. Those that cannot run here are listed with the reason.

use std::process::Command;

use runwatch::sim::{Simulator, SimulatorSettings};

use crate::documentation::{blocks, example, is_synopsis, pages};
use crate::support::need;

const BUILDS: &str = "builds the project, which takes minutes; the gate does it";
const DOWNLOADS: &str = "downloads a release; packaging/checks/archive runs this block";
const SYSTEMD: &str = "needs root and systemd; tests/systemd does the same in a container";
const PORT: &str = "asks an installed service; tests of the port and the socket send these requests";
const TERMINALS: &str = "needs two terminals; the tests of the receivers do the same";

/// Blocks that are not run: the page, a text that only this block of it has, and why.
const NOT_RUN: [(&str, &str, &str); 15] = [
    ("README.md", "cargo run --release -- demo", BUILDS),
    ("README.md", "curl -fsSL --remote-name-all", DOWNLOADS),
    ("CONTRIBUTING.md", ".ci/run", BUILDS),
    ("docs/notifications.md", "python receiver.py", TERMINALS),
    ("docs/operate.md", "curl http://127.0.0.1:9464/metrics", PORT),
    ("docs/operate.md", "journalctl -u runwatch -p warning", SYSTEMD),
    ("docs/reference.md", "curl --unix-socket", PORT),
    ("docs/service.md", "sudo install -D -m 644 config.example.toml", SYSTEMD),
    ("docs/service.md", "secrets.conf", SYSTEMD),
    ("docs/service.md", "sudo systemctl enable --now runwatch", SYSTEMD),
    ("docs/service.md", "sudo systemctl reload runwatch", SYSTEMD),
    ("docs/service.md", "systemctl --user enable --now runwatch", SYSTEMD),
    ("docs/service.md", "the running daemon keeps the old program", SYSTEMD),
    ("docs/service.md", "sudo systemctl stop runwatch", SYSTEMD),
    ("docs/service.md", "sudo systemctl disable --now runwatch", SYSTEMD),
];

/// What the blocks find in their directory: quick polling, the names that they use, and a channel that fails for the run of
/// the daemon, so that there is a delivery to retry.
const CONFIG: &str = "[poll]\ninitial_interval = \"10ms\"\nmax_interval = \"50ms\"\nrequests_per_minute = 60000\n\
                      [[run]]\nid = \"r\"\n[[notify.log]]\nname = \"ops\"\n[[notify.log]]\nname = \"NAME\"\n\
                      [[notify.command]]\nname = \"broken\"\ncommand = [\"sh\", \"-c\", 'test \"$RUNWATCH_RUN_ID\" != r']\n";

/// The runs of the simulated API: one that has finished, and others that finish soon, one after the other.
const RUNS: [&str; 4] = [
    "id=r,duration=1s,age=10s",
    "id=3c90c3cc-0d44-4b50-8888-8dd25736052a,duration=1s",
    "id=newest,duration=1s",
    "id=longest,duration=15s,age=1s,spec=nightly-b",
];

/// Starts a daemon, and waits until it has delivered something.
const DAEMON: &str = "runwatch daemon >daemon.log 2>&1 & daemon=$!\n\
                      until runwatch deliveries list 2>&1 | grep -q ' delivered '; do kill -0 $daemon; done\n";

/// A block as a script that fails when one of its commands does.
fn script(block: &str, port: u16) -> String {
    let mut lines = String::from("trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n");
    let asks = ["add", "list", "show", "remove", "reload", "deliveries", "state", "daemon status"];
    let asks_daemon = |line: &str| asks.iter().any(|verb| line.contains(&format!("runwatch {verb}")));
    if block.lines().any(asks_daemon) && !block.lines().any(|line| line.trim_end() == "runwatch daemon") {
        lines.push_str(DAEMON);
    }
    let synopsis = is_synopsis(block);
    for line in block.lines() {
        let (command, comment) = line.split_once(" # ").unwrap_or((line, ""));
        let mut command = if synopsis { example(command) } else { command.to_owned() };
        for (placeholder, value) in [
            (" RUN ", " r "),
            ("retry NUMBER ", "retry 3 "),
            (" NUMBER ", " 1 "),
            (" 7 ", " 1 "),
            ("/root/", "./"),
        ] {
            command = format!("{command} ").replace(placeholder, value);
        }
        let command = command.trim_end().replace("127.0.0.1:8400", &format!("127.0.0.1:{port}"));
        let command =
            command.replace("runwatch simulate", &format!("runwatch simulate --listen 127.0.0.1:{port}"));
        let expected =
            comment.trim().strip_prefix("exits with ").and_then(|rest| rest.split([' ', ':']).next());
        let is_exact = !comment.contains(" if ");
        let command = match expected.filter(|code| *code != "0" && is_exact) {
            Some(code) => format!("code=0; {command} || code=$?; [ $code = {code} ]\n"),
            // It runs until somebody stops it, here the end of the script.
            None if command.starts_with("runwatch simulate") && !command.ends_with('&') => {
                let url = format!("http://127.0.0.1:{port}/");
                format!("{command} & until curl -s {url} >curl.log; do kill -0 $!; done\n")
            }
            None if command == "runwatch daemon" => DAEMON.to_owned(),
            None => format!("{command}\n"),
        };
        lines.push_str(&command);
    }
    lines
}

/// Runs a block in a directory of its own. The error says what came of it.
fn run(block: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runs = RUNS.map(|run| run.parse().unwrap()).to_vec();
    let simulator = runtime
        .block_on(Simulator::start(SimulatorSettings { runs, ..SimulatorSettings::default() }))
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let programs = dir.path().join("bin");
    std::fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_runwatch"), programs.join("runwatch")).unwrap();
    let sudo = programs.join("sudo");
    // Whoever runs the tests may be root: nothing but runwatch itself is run for a block that asks for root's rights.
    let only_runwatch =
        "#!/bin/sh\n[ \"$1\" = runwatch ] && exec \"$@\"\necho \"not run here: $*\" >&2\nexit 1\n";
    std::fs::write(&sudo, only_runwatch).unwrap();
    std::fs::set_permissions(&sudo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(dir.path().join("config.toml"), CONFIG).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = script(block, port);
    let output = Command::new("timeout")
        .args(["--kill-after=5", "60", "bash", "-euo", "pipefail", "-c", &script])
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()))
        .env("HOME", dir.path())
        .env("RUN_ID", "r")
        .env("DATAFRAMER_API_KEY", "any")
        .env("DATAFRAMER_BASE_URL", simulator.url())
        .env("RUNWATCH_CONFIG", dir.path().join("config.toml"))
        .env("RUNWATCH_SOCKET", dir.path().join("socket"))
        .output()
        .unwrap();
    let daemon = std::fs::read_to_string(dir.path().join("daemon.log")).unwrap_or_default();
    if output.status.success() { Ok(()) } else { Err(format!("{output:?}\n{script}\n{daemon}")) }
}

#[test]
fn every_shell_block_runs() {
    for program in ["curl", "jq", "timeout"] {
        if need::program(program).is_none() {
            return;
        }
    }
    let mut not_run = NOT_RUN.to_vec();
    let mut to_run = Vec::new();
    for (page, text) in pages() {
        for (line, block) in blocks(&text, "sh") {
            match not_run.iter().position(|(of, part, _)| *of == page && block.contains(part)) {
                Some(at) => drop(not_run.remove(at)),
                None => to_run.push((page.clone(), line, block)),
            }
        }
    }
    assert!(not_run.is_empty(), "no block is meant by {not_run:?}");
    assert!(to_run.len() > 15, "{}", to_run.len());
    let queue = std::sync::Mutex::new(to_run);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some((page, line, block)) = queue.lock().unwrap().pop() else { return };
                    if let Err(error) = run(&block) {
                        failed.lock().unwrap().push(format!("{page}:{line}: {error}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
