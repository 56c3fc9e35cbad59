//! The documentation works: links have a target, shell blocks run, commands are accepted as written, and the receivers
//! receive.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use runwatch::sim::{Simulator, SimulatorSettings};

use crate::support::bin::runwatch;
use crate::support::body::run;
use crate::support::need;
use crate::support::stub::Stub;

/// Every page, by its path from the top.
pub fn pages() -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(top.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = docs.filter(|path| path.extension().is_some_and(|ext| ext == "md")).collect();
    paths.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(|name| top.join(name)));
    paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(top).unwrap().display().to_string();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// The headings of a page outside its blocks.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        in_block ^= line.starts_with("```");
        if !in_block && line.starts_with('#') {
            found.insert(anchor(line.trim_start_matches('#')));
        }
    }
    found
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for (page, text) in pages() {
        for part in text.split("](").skip(1) {
            let link = part.split(')').next().unwrap();
            if link.starts_with("http") || link.contains(char::is_whitespace) {
                continue;
            }
            links += 1;
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { top.join(&page) } else { top.join(&page).parent().unwrap().join(file) };
            assert!(target.exists(), "{page}: {link} leads nowhere");
            if !fragment.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                assert!(anchors(&text).contains(fragment), "{page}: no heading for {link}");
            }
        }
    }
    assert!(links > 30, "{links}");
}

/// The blocks of a page in a language, with the number of their first line.
pub fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut block {
            Some(_) if line.starts_with("```") => found.extend(block.take()),
            Some((_, lines)) => {
                lines.push_str(line);
                lines.push('\n');
            }
            None if line == format!("```{language}") => block = Some((number + 2, String::new())),
            None => {}
        }
    }
    found
}

#[test]
fn every_shell_block_is_a_script() {
    let mut count = 0;
    for (page, text) in pages() {
        for (line, block) in blocks(&text, "sh") {
            if is_synopsis(&block) {
                continue;
            }
            count += 1;
            let checked = Command::new("bash").args(["-n", "-c", &block]).output().unwrap();
            assert!(checked.status.success(), "{page}:{line}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
    assert!(count > 15, "{count}");
}

/// Whether a block says which arguments there are, and is not for running.
pub fn is_synopsis(block: &str) -> bool {
    block.contains("[--") || block.contains(" | --")
}

/// What a synopsis comes to: without what is optional, and with the first of several ways.
pub fn example(line: &str) -> String {
    let mut text = String::new();
    let mut depth = 0;
    for c in line.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            c if depth == 0 => text.push(c),
            _ => {}
        }
    }
    text.split(" | ").next().unwrap().replace('…', "")
}

#[test]
fn every_command_is_accepted_as_it_is_written() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runs = ["id=r,duration=0s"].map(|run| run.parse().unwrap()).to_vec();
    let simulator = runtime
        .block_on(Simulator::start(SimulatorSettings { runs, ..SimulatorSettings::default() }))
        .unwrap();
    let mut count = 0;
    for (page, text) in pages() {
        for (number, block) in blocks(&text, "sh") {
            for line in block.lines() {
                let line = line.split("  #").next().unwrap();
                let line = line.trim_start_matches("sudo ").trim_end_matches(" &");
                let Some(arguments) = line.strip_prefix("runwatch ") else { continue };
                let arguments = example(arguments);
                let arguments = arguments.split(" || ").next().unwrap().replace("$(date +%F)", "x");
                let arguments: Vec<String> = arguments
                    .split_whitespace()
                    .map(|word| match word.trim_matches('"') {
                        "RUN" | "$RUN_ID" | "3c90c3cc-0d44-4b50-8888-8dd25736052a" | "nightly" => {
                            "r".to_owned()
                        }
                        "NUMBER" => "1".to_owned(),
                        word => word.replace("/root/", "/nonexistent/"),
                    })
                    .collect();
                // These go on until somebody ends them: that the words are known is enough.
                let goes_on = matches!(arguments[0].as_str(), "daemon" | "simulate");
                let help = goes_on.then_some("--help".to_owned());
                let arguments: Vec<&str> = arguments.iter().chain(&help).map(String::as_str).collect();
                let output = runwatch(&arguments)
                    .base_url(&simulator.url())
                    .env("RUNWATCH_SOCKET", "/nonexistent/socket")
                    .config("[[notify.log]]\nname = \"ops\"\n")
                    .run();
                count += 1;
                assert_ne!(output.code, Some(2), "{page}:{number}: runwatch {arguments:?}: {output:?}");
            }
        }
    }
    assert!(count > 25, "{count}");
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A receiver at work, ended with this.
struct Receiver(Child);

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts a receiver, sends it an event twice over with the right secret and once with another, and compares what it printed.
fn receives(mut command: Command) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    command.env("WEBHOOK_SECRET", SECRET).env("PORT", port.to_string()).stdout(Stdio::piped());
    let mut receiver = Receiver(command.spawn().unwrap());
    let address = format!("127.0.0.1:{port}");
    crate::support::until::until("the receiver listens", || std::net::TcpStream::connect(&address).is_ok());
    let send = |secret: &str| {
        let api = Stub::with([run().status("SUCCEEDED").ok()]);
        let config = format!("[[notify.webhook]]\nurl = \"http://{address}/\"\nsecret = \"{secret}\"\n");
        let output = runwatch(&["watch", "r"]).api(&api).quick(&config).run();
        (output.code, output.stderr.contains("401"))
    };
    assert_eq!(send(SECRET), (Some(0), false));
    // Another event, as the stub is another API: the receiver tells them apart by their ids.
    assert_eq!(send(SECRET), (Some(0), false));
    assert!(send("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").1, "a wrong signature is refused");
    drop(receiver.0.kill());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut receiver.0.stdout.take().unwrap(), &mut said).unwrap();
    assert_eq!(said, "run.succeeded r\nrun.succeeded r\n");
}

/// The receiver that the page shows in a language, as a file.
fn shown(language: &str, name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let page = include_str!("../../docs/notifications.md");
    let found = blocks(page, language);
    assert_eq!(found.len(), 1, "{language}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, &found[0].1).unwrap();
    (dir, path)
}

#[test]
fn the_receiver_in_python_receives() {
    let Some(python) = need::variable("RUNWATCH_TEST_PYTHON") else { return };
    let (_dir, path) = shown("python", "receiver.py");
    let mut command = Command::new(python);
    command.arg(path).stderr(Stdio::null());
    receives(command);
}

#[test]
fn the_receiver_in_node_receives() {
    let Some(node) = need::program("node") else { return };
    let (_dir, path) = shown("js", "receiver.mjs");
    let mut command = Command::new(node);
    command.arg(path);
    receives(command);
}

#[test]
fn the_receiver_in_go_receives() {
    let Some(go) = need::program("go") else { return };
    let (dir, path) = shown("go", "receiver.go");
    let program = dir.path().join("receiver");
    let build = Command::new(go)
        .args(["build", "-o"])
        .args([&program, &path])
        .env("HOME", dir.path())
        .env("GO111MODULE", "off")
        .output()
        .unwrap();
    assert!(build.status.success(), "{build:?}");
    receives(Command::new(program));
}
