//! Command lines that people type by habit: `runwatch RUN` means `runwatch watch RUN`, and verbs of other tools (`ls`) get
//! a hint.
//!
//! Parses with clap first. Guesses only about what clap refuses, so no guess changes a valid command line.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _};

use super::args::Cli;
use crate::run::{RunId, printable};

/// Verbs of other tools, and what to run instead.
const VERBS: [(&str, &str); 17] = [
    ("ls", "runwatch list (runs of the daemon), or runwatch runs (runs of the account)"),
    ("ps", "runwatch runs (active runs of the account), or runwatch list (runs of the daemon)"),
    ("get", "runwatch status RUN"),
    ("info", "runwatch status RUN, or runwatch show RUN (of the daemon)"),
    ("describe", "runwatch show RUN"),
    ("logs", "runwatch show RUN (a run's deliveries), or journalctl -u runwatch (the daemon's log)"),
    ("log", "runwatch show RUN (a run's deliveries), or journalctl -u runwatch (the daemon's log)"),
    ("tail", "runwatch watch RUN"),
    ("follow", "runwatch watch RUN"),
    ("rm", "runwatch remove RUN"),
    ("delete", "runwatch remove RUN (stops watching; the run continues)"),
    ("cancel", "runwatch remove RUN (stops watching; runwatch cannot cancel a run)"),
    ("kill", "runwatch remove RUN (stops watching; runwatch cannot cancel a run)"),
    ("stop", "runwatch remove RUN (stops watching a run), or systemctl stop runwatch (the service)"),
    ("start", "runwatch daemon, or systemctl start runwatch (the service)"),
    ("restart", "runwatch reload (reads the configuration again), or systemctl restart runwatch"),
    ("test", "runwatch notify test"),
];

/// Reads a command line. The first argument is the program's name.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    let error = match read(args.clone()) {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    if let Some((at, whose)) = behind_mine(&args) {
        if !whose.contains('@') {
            let mut error = without_dashes(error);
            tip(&mut error, &format!("for the runs of `{}`, write --mine={}", shown(&whose), shown(&whose)));
            return Err(error);
        }
        let mut guessed = args;
        guessed[at] = format!("--mine={whose}").into();
        guessed.remove(at + 1);
        return read(guessed).map_err(without_dashes);
    }
    let Some(at) = unknown_command(&error, &args) else { return Err(without_dashes(error)) };
    let word = args[at].to_string_lossy().into_owned();
    if is_run(&word) {
        let mut guessed = args;
        guessed.insert(at, "watch".into());
        return read(guessed).map_err(without_dashes);
    }
    Err(with_hint(error, &word))
}

/// As clap reads it. The help of every command is built only where it is shown.
fn read(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let error = match Cli::try_parse_from(&args) {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    let is_help =
        matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    if is_help { Err(Cli::described().try_get_matches_from(args).err().unwrap_or(error)) } else { Err(error) }
}

/// The position of `--mine` and the word after it, which clap takes for a run.
fn behind_mine(args: &[OsString]) -> Option<(usize, String)> {
    let options = args.split(|arg| arg == "--").next()?;
    let at = options.iter().position(|arg| arg == "--mine")?;
    let word = options.get(at + 1)?.to_str()?;
    (!word.starts_with(['-', '@'])).then(|| (at, word.to_owned()))
}

fn shown(word: &str) -> String {
    printable(word, 60)
}

/// The position of the word that clap took for an unknown command of `runwatch` itself.
fn unknown_command(error: &clap::Error, args: &[OsString]) -> Option<usize> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let at = args.iter().skip(1).position(|arg| *arg == **word)? + 1;
    let command = Cli::command();
    // Behind a command that is known, it is a command of that one.
    let is_known = |arg: &OsString| command.find_subcommand(arg).is_some();
    (!args[1..at].iter().any(is_known)).then_some(at)
}

/// Whether a word can only be a run: a UUID, or a URL of a run.
fn is_run(word: &str) -> bool {
    let is_url = word.contains("://");
    word.split(',').all(|part| part.parse::<RunId>().is_ok_and(|id| is_url || id.is_uuid()))
}

/// Adds a hint for a verb of another tool. It replaces clap's suggestion of a similar word.
fn with_hint(mut error: clap::Error, word: &str) -> clap::Error {
    if let Some((_, instead)) = VERBS.iter().find(|(verb, _)| verb.eq_ignore_ascii_case(word)) {
        error.remove(ContextKind::SuggestedSubcommand);
        tip(&mut error, &format!("use {instead}"));
    } else if error.get(ContextKind::SuggestedSubcommand).is_none() && word.parse::<RunId>().is_ok() {
        tip(&mut error, "to watch a run, use runwatch watch RUN");
    }
    error
}

/// Removes clap's tip to pass an option as a value (`-- --any`), because no run, file or channel has such a name.
fn without_dashes(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::StyledStrs(mut tips)) = error.remove(ContextKind::Suggested) {
        tips.retain(|tip| !tip.to_string().contains("'-- "));
        if !tips.is_empty() {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
    }
    error
}

fn tip(error: &mut clap::Error, text: &str) {
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(text.to_owned())]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Verb;

    const ID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

    fn read(line: &str) -> Result<Cli, String> {
        let args = ["runwatch"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        parse(args).map_err(|error| error.to_string())
    }

    #[test]
    fn a_run_alone_is_watched() {
        let url = format!("https://df-api.dataframer.ai/api/dataframer/runs/{ID}/");
        for line in [
            ID.to_owned(),
            url.clone(),
            format!("{url} --any --timeout 5m"),
            format!("--log-level debug {ID} {url}"),
            format!("{} --no-notify", ID.to_uppercase()),
        ] {
            let cli = read(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(matches!(cli.command, Verb::Watch(_)), "{line}: {:?}", cli.command);
        }
    }

    #[test]
    fn what_is_no_run_is_not_watched() {
        for (line, said) in [
            ("wacth r", "'watch'"),
            ("statsu", "'status'"),
            ("nightly", "runwatch watch RUN"),
            ("https://example.com/", "unrecognized"),
            ("config x", "unrecognized"),
            ("--no-such-flag", "unexpected argument"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
        // Of a known command it is an argument, or none.
        assert!(read(&format!("reload {ID}")).is_err());
        assert!(read(&format!("config {ID}")).is_err());
    }

    #[test]
    fn verbs_of_other_tools_get_a_command() {
        let mut command = Cli::command();
        command.build();
        for (verb, instead) in VERBS {
            let error = read(&format!("{verb} x")).unwrap_err();
            assert!(error.contains(instead) && !error.contains("similar"), "{verb}: {error}");
            for (_, rest) in
                instead.match_indices("runwatch ").map(|(at, word)| instead.split_at(at + word.len()))
            {
                let first = rest.split([' ', ',']).next().unwrap();
                let is_command = command.find_subcommand(first).is_some();
                assert!(
                    is_command || rest.starts_with("cannot") || rest.starts_with('('),
                    "{instead}: {first}"
                );
            }
        }
        assert!(read("LS").unwrap_err().contains("runwatch list"));
    }

    #[test]
    fn an_address_behind_mine_is_whose() {
        for line in
            ["runs --mine ana@example.com", "watch --mine ana@example.com --any", "wait --any --mine ana@h"]
        {
            assert!(read(line).is_ok(), "{line}: {:?}", read(line));
        }
        for line in ["runs --mine ana", "watch --mine ana --any"] {
            let error = read(line).unwrap_err();
            assert!(error.contains("--mine=ana"), "{line}: {error}");
        }
        // A run beside it stays what it is: refused.
        assert!(read("watch r --mine").is_err());
    }

    #[test]
    fn no_tip_passes_an_option_as_a_value() {
        for line in ["status r --any", "watch -x", "add --any", "remove --force r"] {
            let error = read(line).unwrap_err();
            assert!(error.contains("unexpected argument") && !error.contains("'-- "), "{line}: {error}");
        }
    }
}
