//! `runwatch config init` and `runwatch config path`: a first configuration, and where it is.

use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::exit::Exit;
use super::flags::Global;
use super::out;
use super::setup::{self, environment};
use crate::config::{self, EXAMPLE, Located};

/// `runwatch config init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The file to create, `-` for standard output; by default where runwatch looks for it
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// Set up these channels; the others stay commented out
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    notify: Vec<Kind>,
}

/// A kind of channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Desktop,
    Webhook,
    Command,
    Log,
}

impl Kind {
    /// The table in the example, and the settings that it needs.
    fn lines(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Desktop => ("[[notify.desktop]]", &["name"]),
            Self::Webhook => ("[[notify.webhook]]", &["name", "url", "secret"]),
            Self::Command => ("[[notify.command]]", &["name", "command"]),
            Self::Log => ("[[notify.log]]", &["name"]),
        }
    }
}

/// Creates a configuration. A file that exists is left alone.
pub(super) fn init(global: &Global, args: &InitArgs) -> Exit {
    let text = match example(&args.notify) {
        Ok(text) => text,
        Err(exit) => return exit,
    };
    if args.file.as_deref() == Some(Path::new("-")) {
        return setup::print_result(&text).err().unwrap_or(Exit::Succeeded);
    }
    let place = args.file.clone().or_else(|| default_place(global));
    let Some(path) = place else {
        out::error("there is no place for a configuration: name a FILE, or set HOME");
        return Exit::Usage;
    };
    if let Err(error) = create(&path, &text) {
        let hint =
            if error.kind() == ErrorKind::AlreadyExists { "; edit it, or name another FILE" } else { "" };
        out::error(format_args!("cannot create the configuration file {}: {error}{hint}", path.display()));
        return Exit::Config;
    }
    let shown = path.display();
    let mut next = format!("created {shown}\n");
    for (kind, key, what) in [
        (Kind::Webhook, "url = ", "to the URL of your receiver: nobody receives what is sent to example.com"),
        (Kind::Command, "command = ", "to the program to run for each event"),
    ] {
        let line =
            text.lines().position(|line| line.starts_with(key)).filter(|_| args.notify.contains(&kind));
        if let Some(line) = line {
            let _ = writeln!(next, "change `{}` in line {} {what}", key.trim_end_matches(" = "), line + 1);
        }
    }
    let _ = writeln!(next, "then check it: runwatch config check {shown}");
    setup::print_result(&next).err().unwrap_or(Exit::Succeeded)
}

/// Only its owner may read it: secrets may be added to it.
fn create(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn default_place(global: &Global) -> Option<PathBuf> {
    match config::locate(global.config(), &environment) {
        Located::Nowhere(places) => places.into_iter().next(),
        located => located.path().map(Path::to_owned),
    }
}

/// The example with these channels set up. A webhook gets a secret of its own.
fn example(kinds: &[Kind]) -> Result<String, Exit> {
    let mut text = String::with_capacity(EXAMPLE.len());
    let mut table = "";
    for line in EXAMPLE.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if line.is_empty() {
            table = "";
        } else if bare.starts_with("[[") {
            table = bare;
        }
        let chosen = kinds.iter().map(|kind| kind.lines()).find(|(head, _)| *head == table);
        let is_set = |(head, keys): (&str, &[&str])| {
            bare == head
                || keys.iter().any(|key| bare.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = ")))
        };
        if chosen.is_some_and(is_set) {
            if bare.starts_with("secret = ") {
                text.push_str("secret = \"");
                text.push_str(&new_secret()?);
                text.push('"');
            } else {
                text.push_str(bare);
            }
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    Ok(text)
}

/// A signing secret of 32 random bytes.
fn new_secret() -> Result<String, Exit> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        out::error("cannot make a secret: the system gives no random bytes");
        Exit::Internal
    })?;
    Ok(format!("whsec_{}", STANDARD.encode(bytes)))
}

/// Prints the path of the configuration file in use.
pub(super) fn path(global: &Global) -> Exit {
    match config::locate(global.config(), &environment) {
        Located::Nowhere(places) => {
            let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
            let looked = places.join(" and ");
            setup::refuse(format_args!(
                "there is no configuration file: looked for {looked}; create one with: runwatch config init"
            ))
        }
        Located::Hidden(path, error) => {
            setup::refuse(format_args!("cannot look for the configuration file {}: {error}", path.display()))
        }
        Located::Named(path) | Located::Found(path) => {
            setup::print_result(&format!("{}\n", path.display())).err().unwrap_or(Exit::Succeeded)
        }
    }
}
