//! `runwatch config check`: reads a configuration without the network, and shows every problem.

use std::path::Path;

use super::exit::Exit;
use super::flags::Global;
use super::setup::{environment, show};
use super::{out, setup};
use crate::config::{self, KeySource, Severity};
use crate::run::printable;

/// Checks the named file, or the one in use.
pub(super) fn run(global: &Global, file: Option<&Path>) -> Exit {
    let flag = file.or(global.config.as_deref());
    let located = config::locate(flag, &environment);
    let name = located.path().map_or_else(
        || "no configuration file, defaults only".to_owned(),
        |path| printable(&path.to_string_lossy(), 1000),
    );
    let loaded = match config::load(flag, &environment, &global.overrides(None)) {
        Ok(loaded) => loaded,
        Err(report) => {
            show(&report);
            let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
            out::stderr(&format!("{name}: {}\n", counted(errors, warnings)));
            return Exit::Config;
        }
    };
    show(&loaded.report);
    let mut warnings = loaded.report.count(Severity::Warning);
    // A key file was read with the rest. From the environment, the key need not be set here and now.
    if let key @ KeySource::Environment(set) = &loaded.config.api.key
        && let Err(error) = key.read()
    {
        let service =
            if set.is_none() { " (a service has its own, from LoadCredential= in its unit)" } else { "" };
        out::stderr(&format!("warning: {error}{service}\n"));
        warnings += 1;
    }
    let errors = loaded.report.count(Severity::Error);
    let summary = format!("{name}: {}\n", counted(errors, warnings));
    if errors > 0 {
        out::stderr(&summary);
        return Exit::Config;
    }
    setup::print_result(&summary).err().unwrap_or(Exit::Succeeded)
}

fn counted(errors: usize, warnings: usize) -> String {
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => "OK".to_owned(),
        (0, warnings) => format!("OK, {}", plural(warnings, "warning")),
        (errors, 0) => plural(errors, "error"),
        (errors, warnings) => format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")),
    }
}
