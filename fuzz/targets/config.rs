//! A configuration file: nothing that is shown about it has eight characters of a secret in it.
#![no_main]

use std::path::Path;

use libfuzzer_sys::{Corpus, fuzz_target};
use runwatch::config::{Loaded, Overrides, Report, Severity, parse};

/// Replaces every `@` in the file.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn shows_secret(text: &str) -> bool {
    let text = text.to_lowercase();
    let secret = SECRET.to_lowercase();
    secret.as_bytes().windows(8).any(|part| std::str::from_utf8(part).is_ok_and(|part| text.contains(part)))
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    if shows_secret(text) {
        return Corpus::Reject;
    }
    let text = text.replace('@', SECRET);
    let parsed = parse(Some((Path::new("/nowhere/config.toml"), &text)), &|_| None, &Overrides::default());
    let (Ok(Loaded { report, .. }) | Err(report)) = &parsed;
    let report: &Report = report;
    let titles: String =
        report.problems.iter().map(|problem| format!("{} {:?}\n", problem.title, problem.help)).collect();
    for shown in [
        report.render(Severity::Error, false),
        report.render(Severity::Warning, true),
        report.render_usable(false),
        titles,
        format!("{parsed:?}"),
    ] {
        assert!(!shows_secret(&shown), "{shown}");
    }
    Corpus::Keep
});
