//! The Markdown summary: a table of the runs, for a CI system's page of the job.

use super::verdict::Judged;
use crate::run::RunStatus;
use crate::run::text::markdown_cell;
use crate::span;

/// A table of the runs, of `largest` bytes at most: the worst runs, where not all of them fit.
pub(super) fn summary(judged: &[Judged], largest: usize) -> String {
    let rows: Vec<String> = judged.iter().map(row).collect();
    let head = "### DataFramer runs\n\n| Run | Status | Verdict | Completed | Failed | Samples | Took |\n| --- | --- | --- | ---: | ---: | ---: | ---: |\n";
    // The blank line at the end, and a line that says how many are left out.
    let mut room = largest.saturating_sub(head.len() + 100);
    let mut worst_first: Vec<usize> = (0..judged.len()).collect();
    worst_first.sort_by_key(|at| judged[*at].verdict.rank());
    let fits = |at: &usize| {
        let left = room.checked_sub(rows[*at].len());
        room = left.unwrap_or(0);
        left.is_some()
    };
    let mut shown: Vec<usize> = worst_first.into_iter().take_while(fits).collect();
    shown.sort_unstable();
    let table: String = shown.iter().map(|at| rows[*at].as_str()).collect();
    let more = match judged.len() - shown.len() {
        0 => String::new(),
        more => format!("\n… and {more} more runs: there is no room for them\n"),
    };
    format!("{head}{table}{more}\n")
}

fn row(judged: &Judged) -> String {
    let state = &judged.run.watched.state;
    let count = |count: Option<u64>| count.map_or("–".to_owned(), |count| count.to_string());
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |\n",
        markdown_cell(judged.run.watched.subject.label()),
        markdown_cell(state.status.as_ref().map_or("–", RunStatus::as_str)),
        markdown_cell(&judged.reason.as_ref().map_or_else(
            || judged.verdict.word().to_owned(),
            |reason| format!("{}: {reason}", judged.verdict.word())
        )),
        count(state.progress.completed),
        count(state.progress.failed),
        count(state.progress.total),
        state.took().map_or("–".to_owned(), span::human),
    )
}

#[cfg(test)]
mod tests {
    use super::super::exit::Exit;
    use super::super::verdict::samples::judged;
    use super::*;

    #[test]
    fn a_summary_is_as_large_as_github_shows_and_has_the_worst() {
        let all: Vec<Judged> = (0..12_000)
            .map(|id| judged(id, if id % 4_000 == 3_999 { Exit::Failed } else { Exit::Succeeded }, 0))
            .collect();
        let text = summary(&all, 1 << 20);
        assert_eq!(text.lines().count(), 12_000 + 5, "all of them fit");
        let text = summary(&all, 100_000);
        assert!(text.len() <= 100_000 && text.len() > 99_000, "{}", text.len());
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| r")).collect();
        for failed in ["| r3999 |", "| r7999 |", "| r11999 |"] {
            assert!(rows.iter().any(|row| row.starts_with(failed)), "{failed}");
        }
        assert!(rows[0].starts_with("| r0 |"), "in the order asked for: {}", rows[0]);
        assert!(text.ends_with(&format!(
            "\n\n… and {} more runs: there is no room for them\n\n",
            12_000 - rows.len()
        )));
        assert!(summary(&all, 0).contains("… and 12000 more runs"), "the file is full already");
    }
}
