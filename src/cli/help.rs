//! `help` and `man`, made from the command-line definition.

use std::path::Path;

use clap::CommandFactory as _;

use super::args::Cli;
use super::exit::Exit;
use super::{out, setup};

/// Shows the help of a command, or the exit codes.
pub(super) fn help(topic: &[String]) -> Exit {
    if let [word] = topic
        && word == "exit-codes"
    {
        return print(&Exit::table());
    }
    let mut command = Cli::command();
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
    let mut command = Cli::command();
    command.build();
    let Some(dir) = dir else {
        return match page(command) {
            Ok(page) => print_verbatim(&String::from_utf8_lossy(&page)),
            Err(error) => cannot_write(&error),
        };
    };
    match std::fs::create_dir_all(dir).and_then(|()| write_pages(&command, dir)) {
        Ok(()) => Exit::Succeeded,
        Err(error) => cannot_write(&error),
    }
}

fn write_pages(command: &clap::Command, dir: &Path) -> std::io::Result<()> {
    // Building has given subcommands a name such as `runwatch-watch`.
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    std::fs::write(dir.join(format!("{name}.1")), page(command.clone())?)?;
    command.get_subcommands().try_for_each(|subcommand| write_pages(subcommand, dir))
}

/// A page, with the exit codes as a section of their own.
fn page(command: clap::Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command);
    man.render(&mut page)?;
    page.extend_from_slice(b".SH \"EXIT STATUS\"\n");
    for exit in Exit::ALL {
        let meaning = exit.meaning().replace('-', "\\-");
        page.extend_from_slice(format!(".TP\n\\fB{}\\fR\n{meaning}\n", exit.code()).as_bytes());
    }
    page.extend_from_slice(b".PP\nWith several runs the worst decides.\n");
    Ok(page)
}

fn print(text: &str) -> Exit {
    setup::print_result(text).err().unwrap_or(Exit::Succeeded)
}

/// Prints what a program reads: not a character may change.
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
