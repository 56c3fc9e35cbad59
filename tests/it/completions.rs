//! Shell completions: the candidates that the binary gives, and what each shell makes of them.

use std::process::Command;
use std::time::Duration;

use runwatch::sim::{Simulator, SimulatorSettings};
use tokio::time::Instant;

use crate::support::bin::{Output, runwatch};
use crate::support::{need, tmux};

/// A simulated API with these runs; it serves as long as both live.
fn simulate(runs: &[&str]) -> (tokio::runtime::Runtime, Simulator) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runs = runs.iter().map(|run| run.parse().unwrap()).collect();
    let settings = SimulatorSettings { runs, ..SimulatorSettings::default() };
    let simulator = runtime.block_on(Simulator::start(settings)).unwrap();
    (runtime, simulator)
}

/// What the binary offers for the last of these words.
fn ask(url: &str, home: &std::path::Path, words: &[&str]) -> Output {
    let args: Vec<&str> = ["--", "runwatch"].iter().chain(words).copied().collect();
    runwatch(&args)
        .base_url(url)
        .env("HOME", home)
        .env("_RUNWATCH_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n")
        .run()
}

/// The candidates that are no options.
fn words(output: &Output) -> Vec<&str> {
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    output.stdout.lines().filter(|line| !line.starts_with('-')).collect()
}

#[test]
fn ids_of_active_runs_are_offered_and_kept_for_a_moment() {
    let home = tempfile::tempdir().unwrap();
    let (runtime, simulator) =
        simulate(&["id=aaa,duration=1h", "id=aab,duration=1h,spec=nightly", "id=abc,duration=1s,age=9s"]);
    let url = simulator.url();
    let offered = |args: &[&str]| {
        let output = ask(&url, home.path(), args);
        words(&output).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for verb in ["watch", "wait", "status", "add"] {
        assert_eq!(offered(&[verb, "a"]), ["aab", "aaa"], "{verb}");
    }
    assert_eq!(offered(&["wait", "aaa", "aab"]), ["aab"]);
    assert_eq!(offered(&["wait", "aaa,"]), ["aaa,aab"]);
    assert_eq!(offered(&["wait", "--", "a"]), ["aab", "aaa"]);
    // Only the owner may read what is kept of them.
    let cache = std::fs::read_dir(home.path().join(".cache/runwatch")).unwrap().next().unwrap().unwrap();
    let rights = std::os::unix::fs::PermissionsExt::mode(&cache.metadata().unwrap().permissions());
    assert_eq!(rights & 0o777, 0o600);
    drop((simulator, runtime));
    assert_eq!(offered(&["watch", "aa"]), ["aab", "aaa"], "from the cache");
}

#[test]
fn an_api_that_does_not_answer_is_given_up_without_a_word() {
    let home = tempfile::tempdir().unwrap();
    // It takes connections, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let nothing: [&str; 0] = [];
    for (url, args) in
        [(url.as_str(), ["watch", "a"]), ("http://127.0.0.1:1", ["wait", "a"]), ("x", ["status", "a"])]
    {
        assert_eq!(words(&ask(url, home.path(), &args)), nothing, "{url}");
    }
    for verb in ["remove", "show"] {
        assert_eq!(words(&ask("http://127.0.0.1:1", home.path(), &[verb, ""])), nothing, "{verb}");
    }
}

#[test]
fn commands_channels_and_files_are_offered_where_they_are_meant() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("list");
    std::fs::write(&file, "").unwrap();
    let (dir, file) = (home.path().to_str().unwrap(), file.to_str().unwrap());
    let offered = |args: &[&str]| {
        let output = ask("http://127.0.0.1:1", home.path(), args);
        words(&output).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let topics = offered(&["help", ""]);
    assert!(topics.contains(&"wait".to_owned()) && topics.contains(&"exit-codes".to_owned()), "{topics:?}");
    assert_eq!(offered(&["help", "config", "c"]), ["check"]);
    assert_eq!(offered(&["completions", "z"]), ["zsh"]);
    let start = format!("{dir}/l");
    for args in [
        &["config", "check", &start][..],
        &["runs", "--config", &start],
        &["state", "backup", &start],
        &["wait", "r", "--junit", &start],
        &["wait", "r", "--", &start],
        &["watch", "--latest", "--", "cat", &start],
    ] {
        assert_eq!(offered(args), [file], "{args:?}");
    }
    assert_eq!(offered(&["wait", &format!("@{dir}/l")]), [format!("@{file}")]);
    for args in [
        &["watch", &start][..],
        &["wait", "r", "--timeout", &start],
        &["runs", "--spec", &start],
        &["notify", "test", &start],
        &["help", &start],
    ] {
        assert_eq!(offered(args), [""; 0], "{args:?}");
    }
    let config = home.path().join("config.toml");
    std::fs::write(&config, "[[notify.log]]\nname = \"ops\"\n[[notify.log]]\nname = \"omega\"\n").unwrap();
    let config = config.to_str().unwrap();
    assert_eq!(offered(&["--config", config, "notify", "test", "op"]), ["ops"]);
    assert_eq!(offered(&["wait", "--config", config, "--notify", "ops,om"]), ["ops,omega"]);
}

/// A shell in a terminal, with the completions as they are installed for it.
struct Shell {
    dir: tempfile::TempDir,
}

impl Shell {
    /// `None` where the shell or tmux is missing.
    fn start(name: &str, url: &str) -> Option<Self> {
        need::program("tmux")?;
        let program = need::program(name)?;
        let shell = Self { dir: tempfile::tempdir().unwrap() };
        let (dir, home) = (shell.dir.path(), shell.dir.path().join("home"));
        std::fs::create_dir_all(home.join("functions")).unwrap();
        std::fs::write(home.join("a-file"), "").unwrap();
        let script = runwatch(&["completions", name]).run();
        assert_eq!(script.code, Some(0), "{script:?}");
        let file = home.join(if name == "zsh" { "functions/_runwatch" } else { "script" });
        std::fs::write(&file, &script.stdout).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_runwatch"), dir.join("runwatch")).unwrap();
        let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
        let args = match name {
            "bash" => "--norc --noprofile",
            "zsh" => "-f",
            _ => "--no-config",
        };
        let command = format!(
            "cd '{home}'; env -i PATH='{path}' HOME='{home}' TERM=tmux-256color LANG=C.UTF-8 DATAFRAMER_API_KEY=x \
             DATAFRAMER_BASE_URL='{url}' '{}' {args}",
            program.display(),
            home = home.display(),
        );
        shell.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "30", &command]);
        shell.type_line(match name {
            "bash" => "PS1='ready '; source ./script",
            "zsh" => "PS1='ready '; fpath=(~/functions $fpath); autoload -U compinit; compinit -u",
            _ => "function fish_prompt; echo -n 'ready '; end; source ./script",
        });
        shell.wait_for("the prompt", |screen| screen.trim_end().ends_with("ready"));
        Some(shell)
    }

    fn tmux(&self, args: &[&str]) -> String {
        tmux::tmux(self.dir.path(), args)
    }

    fn type_line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.tmux(&["send-keys", "Enter"]);
    }

    #[track_caller]
    fn wait_for(&self, what: &str, is_there: impl Fn(&str) -> bool) {
        let began = Instant::now();
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]);
            if is_there(&screen) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{what} did not come up:\n{screen}");
        }
    }

    /// Types words on a line of their own, completes the last, and waits for what the line becomes.
    #[track_caller]
    fn completes(&self, typed: &str, line: &str) {
        self.tmux(&["send-keys", "C-u"]);
        self.type_line("clear");
        self.wait_for("an empty screen", |screen| screen.trim() == "ready");
        self.tmux(&["send-keys", "-l", typed]);
        self.tmux(&["send-keys", "Tab"]);
        self.wait_for(line, |screen| screen.lines().any(|shown| shown.trim_end() == format!("ready {line}")));
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let socket = self.dir.path().join("tmux");
        drop(Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output());
    }
}

fn completes_in(name: &str) {
    let (_runtime, simulator) = simulate(&["id=only-run,duration=1h"]);
    let Some(shell) = Shell::start(name, &simulator.url()) else { return };
    // The first completion loads what is installed.
    shell.completes("runwatch wat", "runwatch watch");
    shell.completes("runwatch watch on", "runwatch watch only-run");
    shell.completes("runwatch wait r --jun", "runwatch wait r --junit");
    shell.completes("runwatch config check a-f", "runwatch config check a-file");
    shell.completes("runwatch help deliv", "runwatch help deliveries");
}

#[test]
fn bash_completes() {
    completes_in("bash");
}

#[test]
fn zsh_completes() {
    completes_in("zsh");
}

#[test]
fn fish_completes() {
    completes_in("fish");
}
