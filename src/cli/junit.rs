//! The result as JUnit XML: one test case per run.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::exit::Exit;
use super::report;
use super::verdict::Judged;
use crate::run::RunStatus;
use crate::run::text::one_line;

/// The name of the report and of its one suite.
const NAME: &str = "DataFramer runs";

/// The document. A wait that could not begin has no runs, so one test case says why.
pub(super) fn document(judged: &[Judged], exit: Exit) -> String {
    let mut suite = TestSuite::new(NAME);
    if judged.is_empty() {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_type(exit.word()).set_message(exit.meaning());
        suite.add_test_case(TestCase::new("wait", status));
    }
    suite.add_test_cases(judged.iter().map(case));
    let mut report = Report::new(NAME);
    report.add_test_suite(suite);
    // Strings only, which always serialise.
    report.to_string().unwrap_or_default()
}

fn case(judged: &Judged) -> TestCase {
    let state = &judged.run.watched.state;
    let mut status = match kind(judged.verdict) {
        Kind::Success => TestCaseStatus::success(),
        Kind::Skipped => TestCaseStatus::skipped(),
        Kind::NonSuccess(kind) => TestCaseStatus::non_success(kind),
    };
    let line = report::text(std::slice::from_ref(judged));
    if judged.verdict != Exit::Succeeded {
        let word = judged.verdict.word();
        let reason = judged
            .reason
            .as_ref()
            .map_or_else(|| line.trim_end().to_owned(), |reason| one_line(reason).into_owned());
        status.set_message(reason);
        if judged.verdict != Exit::StillRunning {
            status.set_type(word);
        }
    }
    let mut case = TestCase::new(one_line(judged.run.watched.subject.label()).into_owned(), status);
    case.set_classname("dataframer.run");
    case.set_time(state.took().unwrap_or(Duration::ZERO));
    let properties = [
        ("id", Some(judged.run.watched.subject.id.to_string())),
        ("verdict", Some(judged.verdict.word().to_owned())),
        ("status", state.status.as_ref().map(|status| RunStatus::as_str(status).to_owned())),
        ("samples_completed", state.progress.completed.map(|count| count.to_string())),
        ("samples_failed", state.progress.failed.map(|count| count.to_string())),
        ("number_of_samples", state.progress.total.map(|count| count.to_string())),
    ];
    for (name, value) in properties {
        if let Some(value) = value {
            case.add_property(Property::new(name, one_line(&value).into_owned()));
        }
    }
    // Jenkins shows no properties, but what a test printed.
    case.set_system_out(line.trim_end());
    case
}

/// A verdict as test runners know it.
enum Kind {
    Success,
    Skipped,
    NonSuccess(NonSuccessKind),
}

fn kind(verdict: Exit) -> Kind {
    match verdict {
        Exit::Succeeded => Kind::Success,
        // The wait ended before the run did, because of another one.
        Exit::StillRunning => Kind::Skipped,
        Exit::Failed | Exit::Canceled | Exit::BelowThreshold | Exit::TimedOut => {
            Kind::NonSuccess(NonSuccessKind::Failure)
        }
        _ => Kind::NonSuccess(NonSuccessKind::Error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quick_junit::Report;

    use super::super::verdict::samples::judged;
    use super::*;

    #[test]
    fn every_verdict_has_its_place() {
        let verdicts =
            [Exit::Succeeded, Exit::Failed, Exit::BelowThreshold, Exit::NotFound, Exit::StillRunning];
        let all: Vec<Judged> =
            verdicts.iter().enumerate().map(|(id, verdict)| judged(id, *verdict, 0)).collect();
        let report = Report::deserialize_from_str(&document(&all, Exit::NotFound)).unwrap();
        assert_eq!((report.tests, report.failures, report.errors), (5, 2, 1));
        assert_eq!(
            report.test_suites[0].disabled.unwrap_or(0)
                + report.test_suites[0]
                    .test_cases
                    .iter()
                    .filter(|case| matches!(case.status, TestCaseStatus::Skipped { .. }))
                    .count(),
            1,
            "the run that the wait did not wait for"
        );
    }

    proptest! {
        #[test]
        fn what_is_hostile_stays_text(reason in "(\\PC|[\\x00-\\x1f]|]]>|<!--|&lt;|&#0;|<!DOCTYPE x>|\"|'|\u{202e}|\u{fffe}){0,30}") {
            let mut run = judged(1, Exit::Failed, 0);
            run.reason = Some(reason);
            let xml = document(&[run], Exit::Failed);
            let report = Report::deserialize_from_str(&xml).unwrap();
            prop_assert_eq!((report.tests, report.failures, report.test_suites.len()), (1, 1, 1), "{}", xml);
            prop_assert!(!xml.chars().any(|c| c != '\n' && crate::run::text::is_hidden(c)), "{xml:?}");
        }
    }
}
