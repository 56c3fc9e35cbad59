//! Checks the rules in `lib.rs`: the imports between modules, and the header of every file.

use std::path::{Path, PathBuf};

/// Every module with what it may import of ours. `config` may import the settings in `notify` and `poll`.
const MAY_IMPORT: [(&str, &[&str]); 18] = [
    ("run", &[]),
    ("blocking", &[]),
    ("clock", &["run"]),
    ("http", &["run", "blocking", "secret", "small_file"]),
    ("secret", &[]),
    ("small_file", &[]),
    ("span", &[]),
    ("api", &["run", "blocking", "clock", "http", "secret", "span"]),
    ("store", &["run", "clock"]),
    ("notify", &["run", "store", "clock", "http", "secret", "span"]),
    ("poll", &["run", "api", "store", "clock", "span"]),
    ("config", &["run", "notify", "poll", "http", "secret", "small_file", "span"]),
    ("sim", &["run", "clock", "http", "secret", "span"]),
    ("words", &["run", "poll", "span", "clock"]),
    ("control", &["run", "http", "span", "store"]),
    (
        "daemon",
        &[
            "api", "app", "blocking", "clock", "config", "control", "doctor", "http", "notify", "poll",
            "run", "span", "store", "words",
        ],
    ),
    ("doctor", &["api", "app", "blocking", "clock", "config", "control", "http", "notify", "run", "span"]),
    ("app", &["small_file", "api", "clock", "config", "http", "notify", "poll", "run", "secret", "store"]),
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file's shipped code: without its tests and comments.
fn shipped(path: &Path) -> String {
    // Files of their own for tests are shipped in no build.
    let name = path.file_stem().unwrap().to_string_lossy();
    if name == "tests" || name.ends_with("_tests") {
        return String::new();
    }
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn modules_import_only_what_lib_rs_says() {
    let src = root().join("src");
    let mut checked = 0;
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else { continue };
        for part in shipped(&path).split("crate::").skip(1) {
            let imported: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let fine = imported == module || imported == "BoxFuture" || allowed.contains(&imported.as_str());
            assert!(fine, "{} imports crate::{imported}, which {module} may not", relative.display());
        }
        checked += 1;
    }
    assert!(checked > 40, "{checked} files checked");
}

#[test]
fn nothing_imports_the_command_line() {
    for path in sources(&root().join("src")) {
        if path.to_str().unwrap().contains("/src/cli/") || path.ends_with("main.rs") {
            continue;
        }
        assert!(!shipped(&path).contains("crate::cli"), "{}", path.display());
    }
}

#[test]
fn backoff_is_used_in_one_file() {
    let users: Vec<_> =
        sources(&root().join("src")).into_iter().filter(|path| shipped(path).contains("backoff::")).collect();
    assert_eq!(users, [root().join("src/poll/schedule.rs")]);
}

#[test]
fn every_file_says_what_it_is() {
    for dir in ["src", "tests", "benches"] {
        for path in sources(&root().join(dir)) {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("//! "), "{} has no //! at its head", path.display());
        }
    }
}

#[test]
fn no_program_inherits_everything() {
    let files = sources(&root().join("src"));
    let starts: Vec<_> = files.iter().filter(|path| shipped(path).contains("Command::new(")).collect();
    assert!(starts.len() >= 3, "{starts:?}");
    for path in starts {
        assert!(shipped(path).contains("environment::inherited("), "{}", path.display());
    }
}

#[test]
fn the_scheduler_is_one_object_in_one_file() {
    let adds = |path: &PathBuf| shipped(path).contains("impl Scheduler");
    let files: Vec<_> = sources(&root().join("src")).into_iter().filter(adds).collect();
    assert_eq!(files, [root().join("src/poll/scheduler.rs")], "other parts are structs of their own");
}
