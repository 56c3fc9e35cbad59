//! `runwatch config show`: the settings in effect, and where each came from.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use console::measure_text_width;
use serde_json::{Value, json};

use super::exit::Exit;
use super::flags::{Global, ListFormat, Output};
use super::report;
use super::setup::{self, environment, path_variable};
use crate::config::{self, HIDDEN, Origin, Setting};
use crate::run::printable;
use crate::{daemon, small_file};

/// The widest setting that the column of origins leaves room for.
const WIDEST: usize = 48;

/// `runwatch config show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    output: Output,
}

/// Shows the settings. A configuration with errors is refused, with all of them.
pub(super) fn run(global: &Global, args: &ShowArgs) -> Exit {
    show(global, args).unwrap_or_else(|exit| exit)
}

fn show(global: &Global, args: &ShowArgs) -> Result<Exit, Exit> {
    let overrides = global.overrides(None);
    let loaded = config::load(global.config(), &environment, &overrides).map_err(|report| {
        setup::show(&report);
        Exit::Config
    })?;
    setup::show(&loaded.report);
    let path = loaded.path.as_deref();
    let text = path.map(|path| small_file::read_text(path, small_file::LARGE)).transpose();
    let text = text.map_err(|error| setup::refuse(format_args!("cannot read the configuration: {error}")))?;
    let mut settings =
        config::settings(&loaded.config, text.as_deref().unwrap_or_default(), &environment, &overrides);
    if loaded.config.state_dir.is_none() {
        settings.insert(0, state_dir());
    }
    // Nothing here is a secret by now. This is for one that was written in the wrong place.
    let redactor = loaded.config.known.redactor();
    for setting in settings.iter_mut().filter(|setting| setting.value != HIDDEN) {
        if let Value::String(text) = &mut setting.value {
            *text = redactor.redact(text).into_owned();
        }
    }
    let shown = match args.output.format {
        ListFormat::Text => as_text(&settings, path),
        ListFormat::Json => as_json(&settings, path),
    };
    setup::print_result(&shown)?;
    Ok(Exit::Succeeded)
}

/// The state directory where the file names none.
fn state_dir() -> Setting {
    let is_set = |name: &&str| path_variable(name).is_some_and(|value| !value.is_empty());
    let variable = ["STATE_DIRECTORY", "XDG_STATE_HOME"].into_iter().find(is_set);
    let dir = daemon::directory(None, &path_variable);
    Setting {
        table: String::new(),
        index: None,
        key: "state_dir".to_owned(),
        value: dir.map_or(Value::Null, |dir| dir.to_string_lossy().into()),
        origin: variable.map_or(Origin::Default, Origin::Variable),
    }
}

/// As a configuration file, with the origin of each setting as a comment.
fn as_text(settings: &[Setting], path: Option<&Path>) -> String {
    let file = path.map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    let mut text = format!("# Configuration file: {}\n", printable(&file, 1000));
    let mut last = (String::new(), None);
    for setting in settings {
        let table = (setting.table.clone(), setting.index);
        if table != last {
            let (open, close) = if setting.index.is_some() { ("[[", "]]") } else { ("[", "]") };
            let _ = writeln!(text, "\n{open}{}{close}", setting.table);
            last = table;
        }
        let line = match &setting.value {
            Value::Null => format!("# {} is not set", setting.key),
            value => format!("{} = {}", setting.key, printable(&spaced(value), 1000)),
        };
        let gap = " ".repeat(WIDEST.saturating_sub(measure_text_width(&line)));
        let origin = match setting.origin {
            Origin::Default => "default".to_owned(),
            Origin::File(number) => format!("{}:{number}", printable(&file, 1000)),
            Origin::Variable(name) => format!("environment variable {name}"),
            Origin::Flag(name) => format!("flag {name}"),
        };
        let _ = writeln!(text, "{line}{gap}  # {origin}");
    }
    text
}

/// A value as it is written in a file.
fn spaced(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}

fn as_json(settings: &[Setting], path: Option<&Path>) -> String {
    let file = path.map(|path| path.to_string_lossy());
    let setting = |setting: &Setting| {
        let from = match setting.origin {
            Origin::Default => json!({ "kind": "default" }),
            Origin::File(line) => json!({ "kind": "file", "file": file, "line": line }),
            Origin::Variable(name) => json!({ "kind": "environment", "name": name }),
            Origin::Flag(name) => json!({ "kind": "flag", "name": name }),
        };
        json!({ "name": setting.name(), "value": setting.value, "from": from })
    };
    let settings: Vec<_> = settings.iter().map(setting).collect();
    report::line(&json!({ "version": 1, "file": file, "settings": settings }))
}
