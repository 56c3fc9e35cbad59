//! The result for Azure Pipelines: issues, output variables and a summary.
//!
//! Formats: "Logging commands" in Azure's documentation. The agent reads commands from standard output only, and executes
//! `##vso[…]` wherever in a line it stands.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::annotations::{Level, annotations};
use super::exit::Exit;
use super::outputs::outputs;
use super::verdict::Judged;
use crate::run::text::logging_data;

/// One error for a wait that could not begin, so that there are no runs to report.
pub(super) fn could_not_begin(exit: Exit) -> String {
    let mut text = String::new();
    issue(&mut text, "error", &format!("the wait could not begin: {}", exit.meaning()));
    text + &variables(&[], exit, Duration::ZERO)
}

/// One issue per run with a problem, the output variables, and the upload of the summary if it is in a file.
pub(super) fn commands(judged: &[Judged], exit: Exit, waited: Duration, summary: Option<&Path>) -> String {
    let mut text = String::new();
    for (level, message) in annotations(judged, false, "the lines above have") {
        match level {
            Level::Error => issue(&mut text, "error", &message),
            Level::Warning => issue(&mut text, "warning", &message),
            // Azure has no third level: the log says it.
            Level::Notice => {}
        }
    }
    text += &variables(judged, exit, waited);
    if let Some(path) = summary.and_then(|path| std::path::absolute(path).ok()) {
        let _ = writeln!(text, "##vso[task.uploadsummary]{}", logging_data(&path.to_string_lossy()));
    }
    text
}

fn issue(text: &mut String, kind: &str, message: &str) {
    let _ = writeln!(text, "##vso[task.logissue type={kind}]{}", logging_data(message));
}

fn variables(judged: &[Judged], exit: Exit, waited: Duration) -> String {
    outputs(judged, exit, waited).iter().fold(String::new(), |mut text, (name, value)| {
        let _ =
            writeln!(text, "##vso[task.setvariable variable={name};isOutput=true]{}", logging_data(value));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::super::verdict::samples::judged;
    use super::*;

    #[test]
    fn what_is_worth_an_issue_gets_one() {
        let mut all =
            vec![judged(1, Exit::Succeeded, 0), judged(2, Exit::Failed, 0), judged(3, Exit::Succeeded, 7)];
        all[1].reason = Some("a\r\n##vso[task.complete result=Succeeded]b".to_owned());
        let text =
            commands(&all, Exit::Failed, Duration::from_secs(5), Some(Path::new("/tmp/a ##vso[b].md")));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("##vso[task.logissue type=error]r2 "), "{text}");
        assert!(lines[0].ends_with(": a # #vso[task.complete result=Succeeded]b"), "{text}");
        assert!(lines[1].starts_with("##vso[task.logissue type=warning]r3 "), "{text}");
        assert_eq!(lines[2], "##vso[task.setvariable variable=verdict;isOutput=true]failed");
        assert_eq!(lines[8], "##vso[task.uploadsummary]/tmp/a # #vso[b].md");
        assert_eq!(lines.len(), 9, "{text}");
    }
}
