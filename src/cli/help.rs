//! `help` and `man`, made from the command-line definition and from `manual`.

use std::io::Write as _;
use std::path::Path;

use jiff::Timestamp;

use super::args::Cli;
use super::exit::Exit;
use super::manual::{self, Row, Uses};
use super::{out, output_file, setup};

/// Has the date of the newest release, for the man pages.
const CHANGELOG: &str = include_str!("../../CHANGELOG.md");

/// Shows the help of a command, or the exit codes.
pub(super) fn help(topic: &[String]) -> Exit {
    if let [word] = topic
        && word == "exit-codes"
    {
        return print(&Exit::table());
    }
    let mut command = Cli::described();
    command.build();
    let mut found = &mut command;
    for word in topic {
        let Some(subcommand) = found.find_subcommand_mut(word) else {
            out::error(format_args!("there is no command `{word}`; see: runwatch help"));
            return Exit::Usage;
        };
        found = subcommand;
    }
    print(&found.render_long_help().to_string())
}

/// Prints the man page, or writes the page of every command into a directory.
pub(super) fn man(dir: Option<&Path>) -> Exit {
    let mut command = Cli::described();
    command.build();
    let date = date(setup::environment("SOURCE_DATE_EPOCH").as_deref());
    let Some(dir) = dir else {
        return match page(&command, "", &[], &date) {
            Ok(page) => print_verbatim(&String::from_utf8_lossy(&page)),
            Err(error) => cannot_write(&error),
        };
    };
    match std::fs::create_dir_all(dir).and_then(|()| write_pages(&command, "", &[], &date, dir)) {
        Ok(()) => Exit::Succeeded,
        Err(error) => cannot_write(&error),
    }
}

/// The date of the pages, the same for each build of the same source: `SOURCE_DATE_EPOCH`, which packagers set, or the
/// newest release in the changelog.
fn date(epoch: Option<&str>) -> String {
    let seconds = epoch.and_then(|epoch| epoch.trim().parse().ok());
    if let Some(at) = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
        return at.strftime("%Y-%m-%d").to_string();
    }
    let heading = CHANGELOG.lines().filter_map(|line| line.strip_prefix("## "));
    heading
        .filter_map(|heading| heading.split_once(" - "))
        .map(|(_, date)| date.trim().to_owned())
        .next()
        .unwrap_or_default()
}

/// Writes the page of a command and of those below it. `path` is its name without `runwatch`; `above` are the pages of
/// the commands above.
fn write_pages(
    command: &clap::Command,
    path: &str,
    above: &[String],
    date: &str,
    dir: &Path,
) -> std::io::Result<()> {
    let name = page_name(command);
    output_file::create(&dir.join(format!("{name}.1")))?.write_all(&page(command, path, above, date)?)?;
    let above = [above, &[name]].concat();
    command.get_subcommands().try_for_each(|subcommand| {
        let path = format!("{path} {}", subcommand.get_name()).trim().to_owned();
        write_pages(subcommand, &path, &above, date, dir)
    })
}

/// Building has given subcommands a name such as `runwatch-watch`.
fn page_name(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// A page.
fn page(command: &clap::Command, path: &str, above: &[String], date: &str) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let source = format!("runwatch {}", env!("CARGO_PKG_VERSION"));
    let man = clap_mangen::Man::new(command.clone()).date(date).source(source).manual("runwatch manual");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let variables = if path.is_empty() { manual::all_variables() } else { Uses::of(path).variables() };
    let codes: Vec<(String, &str)> =
        Exit::ALL.iter().map(|exit| (exit.code().to_string(), exit.meaning())).collect();
    let codes: Vec<Row<'_>> = codes.iter().map(|(code, meaning)| (code.as_str(), *meaning)).collect();
    section(&mut page, "EXIT STATUS", &codes);
    page.extend_from_slice(b".PP\nWith several runs the worst decides.\n");
    section(&mut page, "ENVIRONMENT", &variables);
    if !variables.is_empty() {
        section(&mut page, "FILES", &manual::FILES);
    }
    section(&mut page, "EXAMPLES", manual::examples(path));
    let below = command.get_subcommands().map(page_name);
    let others: Vec<String> = above.iter().cloned().chain(below).collect();
    if !others.is_empty() {
        let link = |name: &String| format!("\\fB{}\\fR(1)", escaped(name));
        let links: Vec<String> = others.iter().map(link).collect();
        page.extend_from_slice(format!(".SH \"SEE ALSO\"\n{}\n", links.join(", ")).as_bytes());
    }
    Ok(page)
}

/// A section of names and meanings.
fn section(page: &mut Vec<u8>, title: &str, rows: &[Row<'_>]) {
    if rows.is_empty() {
        return;
    }
    page.extend_from_slice(format!(".SH \"{title}\"\n").as_bytes());
    for (name, meaning) in rows {
        page.extend_from_slice(format!(".TP\n\\fB{}\\fR\n{}\n", escaped(name), escaped(meaning)).as_bytes());
    }
}

/// Text as roff shows it: a dash is a dash, and a line does not begin with a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn print(text: &str) -> Exit {
    setup::print_result(text).err().unwrap_or(Exit::Succeeded)
}

/// Prints text for programs, unchanged.
fn print_verbatim(text: &str) -> Exit {
    match out::verbatim(text) {
        Ok(()) => Exit::Succeeded,
        Err(error) => setup::cannot_print(&error),
    }
}

fn cannot_write(error: &std::io::Error) -> Exit {
    out::error(format_args!("cannot write the man pages: {error}"));
    Exit::Internal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::guess;

    #[test]
    fn the_date_is_that_of_the_source() {
        assert_eq!(date(Some("1790000000")), "2026-09-21");
        let of_release = date(None);
        assert!(of_release.parse::<jiff::civil::Date>().is_ok(), "{of_release:?}");
    }

    #[test]
    fn every_example_is_a_command_line() {
        let mut command = Cli::described();
        command.build();
        let mut paths = vec![String::new()];
        for subcommand in command.get_subcommands() {
            paths.push(subcommand.get_name().to_owned());
            let below = subcommand.get_subcommands();
            paths.extend(below.map(|below| format!("{} {}", subcommand.get_name(), below.get_name())));
        }
        let mut count = 0;
        for path in &paths {
            for (line, meaning) in manual::examples(path) {
                count += 1;
                assert!(meaning.ends_with('.'), "{line}");
                let Some(arguments) = line.strip_prefix("runwatch ") else { continue };
                assert!(arguments.starts_with(path.as_str()), "{line} is an example of {path}");
                // Quotes are for the shell.
                let args = line.replace(['\'', '"'], "");
                let parsed = guess::parse(args.split(' ').map(std::ffi::OsString::from));
                assert!(parsed.is_ok(), "{arguments}: {}", parsed.unwrap_err());
            }
        }
        assert!(count > 20, "{count}");
    }
}
