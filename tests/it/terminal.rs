//! The progress display in a real terminal (tmux): what is shown, and what remains.

use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::bin::{Running, runwatch};
use crate::support::{need, tmux};

struct Terminal {
    socket: tempfile::TempDir,
}

impl Terminal {
    /// A shell in a terminal of 100 columns and 12 lines. `None` where there is no tmux.
    fn start() -> Option<Self> {
        Self::of(100, 12)
    }

    /// A shell in a terminal of this size.
    fn of(width: u32, height: u32) -> Option<Self> {
        need::program("tmux")?;
        let terminal = Self { socket: tempfile::tempdir().unwrap() };
        let shell = "env -i PATH=\"$PATH\" TERM=tmux-256color LANG=C.UTF-8 PS1='$ ' sh";
        let (width, height) = (width.to_string(), height.to_string());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, shell]);
        Some(terminal)
    }

    fn resize(&self, width: u32, height: u32) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    fn tmux(&self, args: &[&str]) -> String {
        tmux::tmux(self.socket.path(), args)
    }

    fn type_line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.tmux(&["send-keys", "Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen and what has scrolled off it.
    fn history(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-S", "-"])
    }

    /// The screen with its colours.
    fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
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
    let (_simulator, watch) =
        simulate(&["id=aaa,duration=4s,samples=50,spec=s", "id=bbb,duration=6s,end=failed,spec=s"]);
    terminal.type_line(&format!("clear; {watch} aaa bbb; echo \"exit $?\""));
    let screen = terminal.wait_for(|screen| {
        let bar = |line: &str| {
            line.starts_with("▸ s aaa  PROCESSING  ") && line.contains("/50  █") && line.contains(" left ")
        };
        screen.lines().any(bar) && screen.contains("▸ s bbb  PROCESSING  ") && screen.contains("░")
    });
    assert_eq!(screen.matches("aaa  PROCESSING").count(), 1, "drawn over itself:\n{screen}");
    assert!(screen.contains("\n  0 of 2 finished\n"), "{screen}");
    let screen = terminal.wait_for(|screen| screen.contains("exit 1") && screen.trim_end().ends_with('$'));
    let lines: Vec<&str> = screen.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 5, "nothing else is left:\n{screen}");
    assert!(lines[0].starts_with("✓ s aaa  SUCCEEDED   50/50 in 4s"), "{screen}");
    assert!(lines[1].starts_with("✗ s bbb  FAILED "), "{screen}");
    assert_eq!(lines[2..], ["2 of 2 finished, 1 failed", "exit 1", "$"], "{screen}");
}

#[test]
fn watch_without_ids_asks_which_of_the_active_runs() {
    let Some(terminal) = Terminal::of(80, 12) else { return };
    let (_simulator, watch) = simulate(&[
        "id=aaa,duration=60s,spec=tickets",
        "id=bbb,duration=2s,spec=invoices",
        "id=ccc,duration=1s,age=9s",
    ]);
    terminal.type_line(&format!("clear; {watch}; echo \"exit $?\""));
    let screen = terminal.wait_for(|screen| screen.contains("type to filter"));
    assert!(screen.contains("? Watch which runs?"), "{screen}");
    assert!(screen.contains("[ ] tickets   aaa  PROCESSING") && !screen.contains("ccc"), "{screen}");
    // Enter alone selects nothing.
    terminal.tmux(&["send-keys", "Enter"]);
    terminal.wait_for(|screen| screen.contains("select at least one run"));
    terminal.tmux(&["send-keys", "-l", "INV"]);
    terminal.wait_for(|screen| screen.contains("[ ] invoices") && !screen.contains("tickets"));
    terminal.tmux(&["send-keys", "Space"]);
    terminal.wait_for(|screen| screen.contains("[x] invoices"));
    terminal.tmux(&["send-keys", "Enter"]);
    let screen = terminal.wait_for(|screen| screen.contains("exit 0"));
    assert!(screen.contains("Watch which runs? invoices bbb\n✓ invoices bbb  SUCCEEDED"), "{screen}");
    assert!(!screen.contains("aaa"), "{screen}");
}

#[test]
fn a_question_that_is_given_up_leaves_the_terminal_clean() {
    let Some(terminal) = Terminal::of(80, 12) else { return };
    let (_simulator, watch) = simulate(&["id=aaa,duration=60s"]);
    let pid = terminal.socket.path().join("pid");
    let (variables, command) = watch.split_once(" /").unwrap();
    let script = format!("echo $$ > {}; exec /{command}", pid.display());
    for (key, code) in [(Some("C-c"), 130), (Some("Escape"), 2), (None, 143)] {
        terminal.type_line(&format!(
            "clear; {variables} sh -c '{script}'; echo \"exit $?\"; stty -a | grep -o ' echo '"
        ));
        terminal.wait_for(|screen| screen.contains("type to filter"));
        if let Some(key) = key {
            terminal.tmux(&["send-keys", key]);
        } else {
            let pid = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        terminal.wait_for(|screen| screen.contains(&format!("exit {code}\n echo\n")));
        assert_eq!(terminal.tmux(&["display", "-p", "#{cursor_flag}"]).trim(), "1", "the cursor is shown");
    }
}

#[test]
fn ctrl_c_leaves_the_terminal_clean() {
    let Some(terminal) = Terminal::start() else { return };
    let (_simulator, watch) = simulate(&["id=aaa,duration=60s,samples=50", "id=bbb,queue=60s"]);
    terminal.type_line(&format!("clear; {watch} aaa bbb"));
    terminal.wait_for(|screen| screen.contains("◦ support_tickets bbb  PENDING "));
    terminal.tmux(&["send-keys", "C-c"]);
    terminal.wait_for(|screen| {
        screen.contains("… support_tickets bbb  PENDING") && screen.trim_end().ends_with('$')
    });
    terminal.type_line("echo \"exit $?\"; stty -a | grep -o ' echo '");
    let screen = terminal.wait_for(|screen| screen.contains("exit 130"));
    assert!(!screen.contains(['█', '░']), "no bar is left:\n{screen}");
    assert!(screen.lines().next().unwrap().starts_with("… support_tickets aaa  PROCESSING"), "{screen}");
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
        let shown = |n| screen.contains(&format!(" r{n}  PROCESSING"));
        screen.contains("\n  and 20 more · 0 of 30 finished\n") && (10..20).all(shown)
    });
    assert!(!screen.contains("r20  "), "{screen}");
}

#[test]
fn a_terminal_that_changes_its_height_shows_no_old_lines() {
    let Some(terminal) = Terminal::of(80, 24) else { return };
    let ids: Vec<String> = (10..20).map(|n| format!("r{n}")).collect();
    let runs: Vec<String> = ids.iter().map(|id| format!("id={id},duration=60s,spec=s")).collect();
    let (_simulator, watch) = simulate(&runs.iter().map(String::as_str).collect::<Vec<_>>());
    terminal.type_line(&format!("clear; echo before; {watch} {}", ids.join(" ")));
    terminal.wait_for(|screen| ids.iter().all(|id| screen.contains(&format!("▸ s {id}  PROCESSING"))));
    terminal.resize(80, 5);
    terminal.wait_for(|screen| screen.contains("and 7 more · 0 of 10 finished"));
    terminal.resize(80, 1);
    terminal.wait_for(|screen| screen == "  0 of 10 finished\n");
    terminal.resize(80, 24);
    terminal.wait_for(|screen| screen.contains("▸ s r19  PROCESSING"));
    let history = terminal.history();
    assert!(history.starts_with("before\n▸ s r10  "), "{history}");
    assert_eq!(history.lines().filter(|line| !line.is_empty()).count(), 12, "{history}");
}

#[test]
fn a_narrow_terminal_keeps_name_status_and_counts() {
    let Some(terminal) = Terminal::of(40, 8) else { return };
    let runs = ["id=aaa,duration=60s,samples=50,spec=請求書", "id=bbb,queue=60s,spec=e\u{301}te\u{301}"];
    let (_simulator, watch) = simulate(&runs);
    terminal.type_line(&format!("clear; {watch} aaa bbb"));
    let screen = terminal.wait_for(|screen| screen.contains("/50 ") && screen.contains("e\u{301} bbb"));
    let column = |id: &str| {
        let line = screen.lines().find(|line| line.contains(id)).unwrap();
        console::measure_text_width(line.split_once(" P").unwrap().0)
    };
    assert_eq!(column("請求書 aaa"), column("bbb"), "columns of cells, not of characters:\n{screen}");
}

#[test]
fn a_status_has_a_colour_unless_nobody_wants_one() {
    for (variable, coloured) in [("X=1", true), ("NO_COLOR=1", false)] {
        let Some(terminal) = Terminal::start() else { return };
        let (_simulator, watch) = simulate(&["id=aaa,duration=60s"]);
        terminal.type_line(&format!("clear; {variable} {watch} aaa"));
        terminal.wait_for(|screen| screen.contains(" aaa  PROCESSING"));
        let screen = terminal.coloured();
        assert_eq!(screen.contains("\u{1b}[36mPROCESSING"), coloured, "{screen:?}");
        assert_eq!(screen.contains('\u{1b}'), coloured, "{screen:?}");
    }
}

#[test]
fn wait_draws_on_standard_error_and_leaves_the_result_alone() {
    let Some(terminal) = Terminal::start() else { return };
    let (_simulator, watch) =
        simulate(&["id=aaa,duration=4s,samples=50,spec=s", "id=bbb,duration=3s,spec=s"]);
    let wait = watch.replace(" watch", " wait");
    terminal.type_line(&format!("clear; {wait} aaa bbb; echo \"exit $?\""));
    terminal.wait_for(|screen| screen.contains("▸ s aaa  PROCESSING") && screen.contains("░"));
    let screen = terminal.wait_for(|screen| screen.contains("exit 0"));
    let lines: Vec<&str> = screen.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines[0].starts_with("aaa SUCCEEDED 50/50"), "only the result is left:\n{screen}");
    assert!(lines[1].starts_with("bbb SUCCEEDED") && lines[2] == "exit 0", "{screen}");
    // Where the result goes elsewhere, each run leaves a line.
    terminal.type_line(&format!("clear; {wait} aaa -o json > /dev/null; echo \"end $?\""));
    let screen = terminal.wait_for(|screen| screen.contains("end 0"));
    assert!(screen.starts_with("✓ s aaa  SUCCEEDED   50/50 in 4s\nend 0"), "{screen}");
}
