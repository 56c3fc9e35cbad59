//! Runs as a command line names them: an id or a URL, several with commas, `@FILE`, or `-` for standard input.
//!
//! Refuses at once what cannot be an id. A mistyped option would otherwise be polled for a minute, because a new run may be
//! unknown to the API for a moment. `choose` has the runs that flags choose.

use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::exit::Exit;
use super::out;
use crate::run::{RunId, printable};
use crate::{blocking, small_file};

/// Maximum size of a list of runs, in bytes.
const LARGEST: u64 = 1 << 20;

/// Maximum number of runs in a list.
const MOST: usize = 10_000;

/// One argument that names runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// The runs themselves.
    Runs(Vec<RunId>),
    /// A file with one run per line.
    File(PathBuf),
    /// Standard input, with one run per line.
    Stdin,
}

/// Reads an argument; files are read by [`resolve`].
pub(super) fn named(text: &str) -> Result<Named, String> {
    match text.trim().strip_prefix('@') {
        Some("") => Err("expected the name of a file after @".to_owned()),
        Some(path) => Ok(Named::File(path.into())),
        None if text == "-" => Ok(Named::Stdin),
        None => ids(text).map(Named::Runs),
    }
}

/// One id or URL, or several with commas.
fn ids(text: &str) -> Result<Vec<RunId>, String> {
    let text = text.trim();
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    // A comma at the end was pasted, and one in a URL belongs to it.
    let is_pasted = text.starts_with(',') || text.ends_with(',');
    let is_url = text.contains("://") && !parts.iter().all(|part| part.contains("://"));
    if is_pasted || is_url { id(text).map(|id| vec![id]) } else { parts.into_iter().map(id).collect() }
}

fn id(text: &str) -> Result<RunId, String> {
    const QUOTES: [char; 2] = ['"', '\''];
    let shown = || printable(text, 60);
    let id: RunId = text.parse().map_err(|error: crate::run::RunIdError| error.to_string())?;
    if text.starts_with('-') {
        return Err(format!("`{}` is not a run id: no id begins with a dash", shown()));
    }
    if text.starts_with('@') {
        return Err(format!(
            "`{}` is not a run id: no id begins with @, and a list names no other file",
            shown()
        ));
    }
    if id.as_str().contains(QUOTES) {
        return Err(format!("`{}` is not a run id: no id has quotes in it", shown()));
    }
    Ok(id)
}

/// The runs that the arguments name, in their order. Shows what is wrong with a list.
pub(super) async fn resolve(named: &[Named]) -> Result<Vec<RunId>, Exit> {
    let mut runs = Vec::new();
    for named in named {
        match named {
            Named::Runs(ids) => runs.extend_from_slice(ids),
            Named::File(path) => {
                let file = path.clone();
                let read = blocking::run("list of runs", move || small_file::read_text(&file, LARGEST)).await;
                runs.extend(list(&format!("the file {}", path.display()), read.flatten(), Some(path))?);
            }
            Named::Stdin => {
                let read = blocking::run("list of runs", standard_input).await;
                runs.extend(list("standard input", read.flatten(), None)?);
            }
        }
    }
    Ok(runs)
}

fn standard_input() -> std::io::Result<String> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(LARGEST + 1).read_to_string(&mut text)?;
    if read as u64 > LARGEST {
        return Err(std::io::Error::new(
            ErrorKind::FileTooLarge,
            format!("it is larger than {LARGEST} bytes"),
        ));
    }
    Ok(text)
}

/// The runs of a list that was read.
fn list(what: &str, read: std::io::Result<String>, path: Option<&Path>) -> Result<Vec<RunId>, Exit> {
    let runs = read.map_err(|error| {
        let is_no_file = path.is_some() && error.kind() == ErrorKind::NotFound;
        let hint = if is_no_file { "; @ before a word names a file of run ids" } else { "" };
        format!("cannot read the run ids in {what}: {error}{hint}")
    });
    let runs = runs.and_then(|text| lines(&text).map_err(|error| format!("{what}: {error}")));
    let runs = runs.and_then(|runs| match runs.len() {
        0 => Err(format!("there are no run ids in {what}")),
        MOST.. if runs.len() > MOST => {
            Err(format!("{what} has {} run ids; at most {MOST} are watched", runs.len()))
        }
        _ => Ok(runs),
    });
    runs.map_err(|error| {
        out::error(error);
        Exit::Usage
    })
}

/// The runs of a list: one or several with commas in a line; blank lines, and what follows a `#`, do not count.
fn lines(text: &str) -> Result<Vec<RunId>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut runs = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        // A # inside a word can be part of a URL.
        let comment =
            line.find('#').filter(|at| line[..*at].chars().next_back().is_none_or(char::is_whitespace));
        let line = line[..comment.unwrap_or(line.len())].trim();
        if !line.is_empty() {
            runs.extend(ids(line).map_err(|error| format!("line {number}: {error}"))?);
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

    fn read(text: &str) -> Result<Vec<String>, String> {
        named(text).map(|named| match named {
            Named::Runs(ids) => ids.iter().map(ToString::to_string).collect(),
            other => vec![format!("{other:?}")],
        })
    }

    #[test]
    fn an_argument_names_runs_or_where_they_stand() {
        let url = format!("https://h/runs/{UUID}/?tab=a,b");
        for (text, expected) in [
            ("r1", &["r1"][..]),
            ("r1,r2, r3", &["r1", "r2", "r3"]),
            (&format!("{},{UUID}", UUID.to_uppercase()), &[UUID, UUID]),
            (&url, &[UUID]),
            (&format!("{url},https://h/runs/r2/").replace("?tab=a,b", ""), &[UUID, "r2"]),
            ("@runs.txt", &["File(\"runs.txt\")"]),
            ("-", &["Stdin"]),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_can_be_no_id_is_refused_at_once() {
        for (text, said) in [
            ("-x", "begins with a dash"),
            ("--any", "begins with a dash"),
            ("r1,-x", "begins with a dash"),
            ("r1,@x", "names no other file"),
            ("@", "name of a file"),
            ("it's", "quotes in it"),
            ("a\"b", "quotes in it"),
            ("\"r1\"", "without them: r1"),
            ("r1,", "without them: r1"),
            ("r1,,r2", "empty"),
            ("", "empty"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_has_one_run_per_line_and_comments() {
        let text =
            format!("\u{feff}# of tonight\r\n\nr1 # the first\r\nhttps://h/runs/{UUID}/#top\n  r2,r3\n#r4\n");
        let ids: Vec<String> = lines(&text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(ids, ["r1", UUID, "r2", "r3"]);
        assert!(lines("r1\n\n--any\n").unwrap_err().starts_with("line 3: "));
        assert!(lines("a b\n").unwrap_err().contains("white space"));
    }
}
