//! The progress display in a real terminal (tmux): what is shown, and what remains.

use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::bin::{Running, runwatch};
use crate::support::need;

/// A terminal of 100 columns and 12 lines.
struct Terminal {
    socket: tempfile::TempDir,
}

impl Terminal {
    /// A shell in it, with a simulated API of these runs. `None` where there is no tmux.
    fn start() -> Option<Self> {
        need::program("tmux")?;
        let terminal = Self { socket: tempfile::tempdir().unwrap() };
        let shell = "env -i PATH=\"$PATH\" TERM=tmux-256color LANG=C.UTF-8 PS1='$ ' sh";
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "12", shell]);
        Some(terminal)
    }

    fn tmux(&self, args: &[&str]) -> String {
        let socket = self.socket.path().join("tmux");
        let output = Command::new("tmux").arg("-u").arg("-S").arg(socket).args(args).output().unwrap();
        assert!(output.status.success(), "tmux {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn type_line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.tmux(&["send-keys", "Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen shows something; gives the screen.
    #[track_caller]
    fn wait_for(&self, what: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if what(&screen) {
                return screen;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "this did not come up:\n{screen}");
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let socket = self.socket.path().join("tmux");
        drop(Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output());
    }
}

/// A simulated API, and the command line to watch it with.
fn simulate(runs: &[&str]) -> (Running, String) {
    use std::io::BufRead as _;
    let mut args = vec!["simulate", "--listen", "127.0.0.1:0"];
    args.extend(runs.iter().flat_map(|run| ["--run", run]));
    let mut simulator = runwatch(&args).spawn();
    let mut line = String::new();
    std::io::BufReader::new(simulator.take_stdout()).read_line(&mut line).unwrap();
    let url = line.trim().rsplit(' ').next().unwrap().to_owned();
    let binary = env!("CARGO_BIN_EXE_runwatch");
    (simulator, format!("DATAFRAMER_API_KEY=x DATAFRAMER_BASE_URL={url} {binary} watch"))
}

#[test]
fn shows_a_bar_a_run_and_leaves_finished_lines() {
    let Some(terminal) = Terminal::start() else { return };
    let (_simulator, watch) = simulate(&["id=aaa,duration=4s,samples=50", "id=bbb,duration=6s,end=failed"]);
    terminal.type_line(&format!("clear; {watch} aaa bbb; echo \"exit $?\""));
    let screen = terminal.wait_for(|screen| {
        let bar = |line: &&str| {
            line.starts_with("  aaa PROCESSING ━") && line.contains("/50  ") && line.contains("/s  about")
        };
        screen.lines().any(|line| bar(&line)) && screen.contains("  bbb PROCESSING ━")
    });
    assert_eq!(screen.matches("aaa PROCESSING").count(), 1, "drawn over itself:\n{screen}");
    let screen = terminal.wait_for(|screen| screen.contains("exit 1") && screen.trim_end().ends_with('$'));
    let lines: Vec<&str> = screen.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 4, "nothing else is left:\n{screen}");
    assert!(lines[0].starts_with("✓ aaa SUCCEEDED 50/50 in 4s"), "{screen}");
    assert!(lines[1].starts_with("✗ bbb FAILED"), "{screen}");
    assert_eq!(lines[2..], ["exit 1", "$"], "{screen}");
}

#[test]
fn watch_without_ids_offers_what_goes_on() {
    let Some(terminal) = Terminal::start() else { return };
    let (_simulator, watch) =
        simulate(&["id=aaa,duration=60s", "id=bbb,duration=2s", "id=ccc,duration=1s,age=9s"]);
    terminal.type_line(&format!("clear; {watch}; echo \"exit $?\""));
    let screen = terminal.wait_for(|screen| screen.contains("or nothing for all of these:"));
    assert!(screen.contains("  1 bbb") && screen.contains("  2 aaa") && !screen.contains("ccc"), "{screen}");
    // Whoever mistypes is asked again.
    terminal.type_line("3");
    terminal.wait_for(|screen| screen.contains("`3` is none of the numbers 1 to 2"));
    terminal.type_line("1");
    let screen = terminal.wait_for(|screen| screen.contains("exit 0"));
    assert!(screen.contains("✓ bbb SUCCEEDED") && !screen.contains("aaa PROCESSING ━"), "{screen}");
}

#[test]
fn ctrl_c_leaves_the_terminal_clean() {
    let Some(terminal) = Terminal::start() else { return };
    let (_simulator, watch) = simulate(&["id=aaa,duration=60s,samples=50", "id=bbb,queue=60s"]);
    terminal.type_line(&format!("clear; {watch} aaa bbb"));
    terminal.wait_for(|screen| screen.contains("  bbb PENDING    ━"));
    terminal.tmux(&["send-keys", "C-c"]);
    terminal.wait_for(|screen| screen.contains("… bbb PENDING") && screen.trim_end().ends_with('$'));
    terminal.type_line("echo \"exit $?\"; stty -a | grep -o ' echo '");
    let screen = terminal.wait_for(|screen| screen.contains("exit 130"));
    assert!(!screen.contains('━'), "no bar is left:\n{screen}");
    assert!(screen.lines().next().unwrap().starts_with("… aaa PROCESSING"), "{screen}");
    terminal.wait_for(|screen| screen.lines().any(|line| line == " echo"));
}

#[test]
fn more_runs_than_lines_are_counted() {
    let Some(terminal) = Terminal::start() else { return };
    let ids: Vec<String> = (10..40).map(|n| format!("r{n}")).collect();
    let runs: Vec<String> = ids.iter().map(|id| format!("id={id},duration=60s")).collect();
    let (_simulator, watch) = simulate(&runs.iter().map(String::as_str).collect::<Vec<_>>());
    terminal.type_line(&format!("clear; {watch} {}", ids.join(" ")));
    // They are asked about together and in parts: which one is shown first does not matter.
    let screen = terminal.wait_for(|screen| {
        screen.contains("  … and 20 more") && (10..20).all(|n| screen.contains(&format!("r{n} PROCESSING")))
    });
    assert!(!screen.contains("r20 PROCESSING"), "{screen}");
}
