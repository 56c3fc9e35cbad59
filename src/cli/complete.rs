//! Shell completions: the script that a shell loads, and the candidates that the script asks this program for.
//!
//! Owns the run ids and channel names among them. A person waits for them at a prompt, so they come within a fixed time
//! or not at all, and nothing is ever printed about a failure.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use clap::CommandFactory as _;
use clap::builder::StyledStr;
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _,
};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::args::Cli;
use super::choose::is_active;
use super::exit::Exit;
use super::out;
use super::setup::{self, environment, path_variable};
use super::socket::candidates;
use crate::api::ApiClient;
use crate::config::{Config, Loaded, Overrides};
use crate::control::Client;
use crate::run::{RunId, printable};
use crate::{app, clock, config, small_file};

/// The variable that asks for candidates; the script sets it.
const VARIABLE: &str = "_RUNWATCH_COMPLETE";

/// The program's name, as the script calls it.
const PROGRAM: &str = "runwatch";

/// Maximum time for the candidates that come from outside this process.
const PATIENCE: Duration = Duration::from_millis(300);

/// How long cached runs are used without asking the API again.
const FRESH: Duration = Duration::from_secs(20);

/// How long they are used if the API does not answer in time.
const STALE: Duration = Duration::from_hours(1);

/// Maximum number of runs that are offered: a screenful to choose from, the newest first.
const OFFERED: usize = 100;

/// Answers a completion script, if it is one that asks.
pub(super) fn answer() -> Option<Exit> {
    path_variable(VARIABLE)?;
    let current_dir = std::env::current_dir().ok();
    let completing = CompleteEnv::with_factory(Cli::command).var(VARIABLE).bin(PROGRAM).completer(PROGRAM);
    // A shell has no use for an error.
    match completing.try_complete(std::env::args_os(), current_dir.as_deref()) {
        Ok(true) | Err(_) => Some(Exit::Succeeded),
        Ok(false) => None,
    }
}

/// Prints the script for a shell.
pub(super) fn script(shell: Shell) -> Exit {
    let mut script = Vec::new();
    let name = shell.to_string();
    let written = Shells::builtins()
        .completer(&name)
        .ok_or_else(|| std::io::Error::other("unknown shell"))
        .and_then(|shell| shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script));
    let written = written.and_then(|()| {
        if shell == Shell::Zsh {
            // zsh runs the whole file as the function at the first completion, when it has found it in its path.
            writeln!(
                script,
                "[ \"$funcstack[1]\" != _{PROGRAM} ] || _clap_dynamic_completer_{PROGRAM} \"$@\""
            )?;
        }
        out::verbatim(&String::from_utf8_lossy(&script))
    });
    written.err().map_or(Exit::Succeeded, |error| setup::cannot_print(&error))
}

/// Completes active runs of the account, several with commas, and `@FILE`.
pub(super) fn runs() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        if is_in_command() {
            return PathCompleter::any().complete(current);
        }
        let Some(text) = current.to_str() else { return Vec::new() };
        if let Some(path) = text.strip_prefix('@') {
            let files = PathCompleter::any().complete(OsStr::new(path));
            return files.into_iter().map(|file| file.add_prefix("@")).collect();
        }
        // An option is completed by its name.
        if text.starts_with('-') {
            return Vec::new();
        }
        let (before, last) = text.rsplit_once(',').map_or(("", text), |(before, last)| (before, last));
        let prefix = if before.is_empty() { String::new() } else { format!("{before},") };
        let is_named = |run: &Known| before.split(',').any(|id| id == run.id.as_str());
        let mut known = in_time(of_account);
        known.retain(|run| !is_named(run));
        offered(known, last).into_iter().map(|run| run.add_prefix(&prefix)).collect()
    })
}

/// Completes the active runs of the daemon.
pub(super) fn watched_runs() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        offered(in_time(of_daemon), current.to_str().unwrap_or_default())
    })
}

/// Completes the configured channels.
pub(super) fn channels() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let channels = in_time(|| Some(loaded()?.config.channels));
        channels.iter().map(|channel| CompletionCandidate::new(&*channel.name)).collect()
    })
}

/// Completes the words after `help`: a command, or one of the command before.
pub(super) fn topics() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let before = before();
        let topic: Vec<&String> = before.iter().skip_while(|word| *word != "help").skip(1).collect();
        let mut command = Cli::command();
        for word in &topic {
            let Some(subcommand) = command.find_subcommand(word) else { return Vec::new() };
            command = subcommand.clone();
        }
        let mut names: Vec<_> = command
            .get_subcommands()
            .map(|command| (command.get_name().to_owned(), command.get_about().cloned()))
            .collect();
        if topic.is_empty() {
            names.push(("exit-codes".to_owned(), Some("Every exit code and its meaning".into())));
        }
        let current = current.to_str().unwrap_or_default();
        names.retain(|(name, _)| name.starts_with(current));
        names.into_iter().map(|(name, about)| CompletionCandidate::new(name).help(about)).collect()
    })
}

/// The words of the command line that is completed: the shell passes them after `--`.
fn words() -> Vec<String> {
    let args = std::env::args_os().skip_while(|arg| arg != "--").skip(1);
    args.map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The words before the one that is completed. Shells give its number; fish ends with it.
fn before() -> Vec<String> {
    let mut words = words();
    let index = environment("_CLAP_COMPLETE_INDEX").and_then(|index| index.parse().ok());
    words.truncate(index.unwrap_or(words.len().saturating_sub(1)));
    words
}

/// Whether the word belongs to the command after `--`, because runs were named or chosen before.
fn is_in_command() -> bool {
    let before = before();
    let Some(end) = before.iter().position(|word| word == "--") else { return false };
    let chooses = |word: &String| {
        !word.starts_with('-') || ["--latest", "--mine", "--spec"].iter().any(|flag| word.starts_with(flag))
    };
    before[..end].iter().skip(2).any(chooses)
}

/// The runs that begin with what was typed.
fn offered(known: Vec<Known>, typed: &str) -> Vec<CompletionCandidate> {
    let known = known.into_iter().filter(|run| run.id.as_str().starts_with(typed)).take(OFFERED);
    let candidate = |(place, run): (usize, Known)| {
        let about = StyledStr::from(printable(&run.about, 80));
        CompletionCandidate::new(run.id.as_str()).help(Some(about)).display_order(Some(place))
    };
    known.enumerate().map(candidate).collect()
}

/// Gets something within [`PATIENCE`], or nothing. A file system that hangs must not hold up a prompt either, so it is
/// done by another thread, which ends with the process.
fn in_time<T: Default + Send + 'static>(get: impl FnOnce() -> Option<T> + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    // Nobody may be left to take it.
    let thread = std::thread::Builder::new().spawn(move || drop(sender.send(get())));
    let got = thread.ok().and_then(|_| receiver.recv_timeout(PATIENCE).ok());
    got.flatten().unwrap_or_default()
}

/// A run that can be offered.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    id: RunId,
    /// Its status and name or spec.
    about: String,
}

/// The cached runs of one account.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Cache {
    at: Timestamp,
    runs: Vec<Known>,
}

/// The configuration that the command line names, or the usual one.
fn loaded() -> Option<Loaded> {
    let words = words();
    let mut named = words.iter().enumerate().filter_map(|(at, word)| match word.as_str() {
        "--config" => words.get(at + 1).map(String::as_str),
        word => word.strip_prefix("--config="),
    });
    config::load(named.next_back().map(Path::new), &environment, &Overrides::default()).ok()
}

fn runtime() -> Option<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().ok()
}

/// The active runs of the account: from the cache, or from the API; if that takes too long, from an older cache.
fn of_account() -> Option<Vec<Known>> {
    let config = loaded()?.config;
    let file = cache_file(&config);
    let cache = file.as_deref().and_then(read_cache);
    let age =
        cache.as_ref().and_then(|cache| Duration::try_from(clock::wall().duration_since(cache.at)).ok());
    let younger_than = |limit: Duration| age.is_some_and(|age| age < limit);
    if younger_than(FRESH) {
        return cache.map(|cache| cache.runs);
    }
    let client = ApiClient::new(&app::api_settings(&config)).ok()?;
    // The rest is for what was done before and comes after.
    let asked =
        async { tokio::time::timeout(PATIENCE * 4 / 5, client.list_runs(|listed| is_active(listed))).await };
    let Some(listing) = runtime()?.block_on(asked).ok().and_then(Result::ok) else {
        return cache.filter(|_| younger_than(STALE)).map(|cache| cache.runs);
    };
    let known = |listed: &crate::api::Listed| {
        let spec = listed.run.details.as_ref().and_then(|details| details.spec_name.clone());
        Known { id: listed.id.clone(), about: about(listed.run.status.as_str(), spec) }
    };
    let cache = Cache { at: clock::wall(), runs: listing.runs.iter().map(known).collect() };
    if let Some(file) = file {
        // Without a cache, the API is asked each time.
        let _ = write_cache(&file, &cache);
    }
    Some(cache.runs)
}

/// The active runs that the daemon watches.
fn of_daemon() -> Option<Vec<Known>> {
    let state_dir = loaded().and_then(|loaded| loaded.config.state_dir);
    let runs =
        runtime()?.block_on(async { Client::connect(&candidates(state_dir.as_deref())).await?.runs().await });
    let mut runs = runs.ok()?.runs;
    runs.retain(|run| run.ended.is_none());
    let known = |run: crate::control::Run| {
        let status = run.status.as_ref().map_or("not seen yet", |status| status.as_str());
        Known { about: about(status, run.name), id: run.id }
    };
    Some(runs.into_iter().map(known).collect())
}

fn about(status: &str, name: Option<String>) -> String {
    name.map_or_else(|| status.to_owned(), |name| format!("{status} {name}"))
}

/// The file with the runs of this API and key. Another key may belong to another account.
fn cache_file(config: &Config) -> Option<PathBuf> {
    let absolute = |name| path_variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let dir = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    let key = config.api.key.read().ok()?;
    let account = format!("{}\n{}", config.api.base_url, key.expose());
    let hash = ring::digest::digest(&ring::digest::SHA256, account.as_bytes());
    let name = hash.as_ref().iter().take(8).fold(String::new(), |name, byte| format!("{name}{byte:02x}"));
    Some(dir.join(PROGRAM).join(format!("runs-{name}.json")))
}

fn read_cache(file: &Path) -> Option<Cache> {
    serde_json::from_str(&small_file::read_text(file, small_file::LARGE).ok()?).ok()
}

/// Replaces the cache, for this user only.
fn write_cache(file: &Path, cache: &Cache) -> std::io::Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let new = file.with_extension(std::process::id().to_string());
    let mut opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = serde_json::to_writer(&mut opened, cache).map_err(std::io::Error::from);
    written.and_then(|()| std::fs::rename(&new, file)).inspect_err(|_| drop(std::fs::remove_file(&new)))
}
