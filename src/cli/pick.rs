//! Asks a person which of the active runs to watch: a list to select from, filtered as they type.

use std::fmt;
use std::io;

use inquire::list_option::ListOption;
use inquire::ui::RenderConfig;
use inquire::validator::Validation;
use inquire::{InquireError, MultiSelect};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::exit::Exit;
use super::live::short;
use super::out;
use super::runs::row;
use super::signals::Signals;
use super::stream::Stream;
use super::table::{Column, render};
use super::times::relative;
use crate::api::Listed;
use crate::run::{RunId, printable};
use crate::{blocking, clock};

/// Columns before an option, and one free column after it.
const BESIDE: usize = 7;

/// Rows for the question, an error, the hint and the cursor.
const ABOVE_AND_BELOW: usize = 4;

const HINT: &str = "type to filter, ↑↓ to move, space to select, → all, ← none";

/// A run to select.
struct Offer {
    line: String,
    /// The text that the filter searches.
    text: String,
    name: String,
    id: RunId,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// Asks which of these runs to watch.
pub(super) async fn pick(listed: &[Listed]) -> Result<Vec<RunId>, Exit> {
    let size = Stream::Stdout.size();
    let offers = offers(listed, size.width);
    let page = size.height.saturating_sub(ABOVE_AND_BELOW).max(3);
    let cannot = |error: &dyn fmt::Display| {
        out::error(format_args!(
            "cannot ask which runs to watch: {error}; name them, or see `runwatch runs`"
        ));
        Exit::Usage
    };
    let mut signals = Signals::in_foreground().map_err(|error| cannot(&error))?;
    let terminal = tcgetattr(io::stdin()).map_err(|error| cannot(&error))?;
    let answer = tokio::select! {
        answer = blocking::run("question", move || ask(offers, page)) => answer.map_err(|error| cannot(&error))?,
        signal = signals.next() => {
            // The thread waits for a key until the process ends, so it cannot restore the terminal.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &terminal);
            let _ = out::verbatim("\r\n\x1b[J\x1b[?25h");
            return Err(signal);
        }
    };
    match answer {
        Ok(runs) => Ok(runs),
        Err(InquireError::OperationInterrupted) => Err(Exit::Interrupted),
        Err(InquireError::OperationCanceled) => {
            out::error("no answer: nothing is watched");
            Err(Exit::Usage)
        }
        Err(error) => Err(cannot(&error)),
    }
}

/// Asks, on this thread, until there is an answer.
fn ask(offers: Vec<Offer>, page: usize) -> Result<Vec<RunId>, InquireError> {
    // The score keeps the order of the list, the newest first.
    let matches = |typed: &str, offer: &Offer, _: &str, at: usize| {
        let found = typed.to_lowercase().split_whitespace().all(|word| offer.text.contains(word));
        found.then(|| -i64::try_from(at).unwrap_or(i64::MAX))
    };
    let answer = |chosen: &[ListOption<&Offer>]| match chosen {
        [one] => one.value.name.clone(),
        several => format!("{} runs", several.len()),
    };
    let colours =
        if Stream::Stdout.has_colours() { RenderConfig::default_colored() } else { RenderConfig::empty() };
    let at_least_one = |chosen: &[ListOption<&Offer>]| {
        let none = || Validation::Invalid("select at least one run, with the space bar".into());
        Ok(if chosen.is_empty() { none() } else { Validation::Valid })
    };
    let question = MultiSelect::new("Watch which runs?", offers)
        .with_help_message(HINT)
        .with_page_size(page)
        .with_scorer(&matches)
        .with_formatter(&answer)
        .with_validator(at_least_one)
        .with_render_config(colours);
    Ok(question.prompt()?.into_iter().map(|offer| offer.id).collect())
}

fn offers(listed: &[Listed], width: usize) -> Vec<Offer> {
    let now = clock::wall();
    // Nobody copies an id from here, so the start of a UUID is enough.
    let columns = [
        Column::whole("SPEC").cut(9).rank(1),
        Column::whole("RUN").cut(9),
        Column::whole("STATUS"),
        Column::whole("SAMPLES").rank(2),
        Column::whole("CREATED").rank(3),
        Column::whole("BY").rank(4),
    ];
    let rows: Vec<_> = listed
        .iter()
        .map(|listed| {
            let [_, status, samples, created, spec, by] = row(listed, |at| relative(at, now));
            [spec, short(&listed.id), status, samples, created, by]
        })
        .collect();
    let lines = render(&columns, &rows, Some(width.saturating_sub(BESIDE)), false);
    // The first line is the head.
    let offer = |((listed, row), line): ((&Listed, &[String; 6]), &str)| {
        let [spec, run, ..] = row;
        Offer {
            line: line.to_owned(),
            text: format!("{} {}", listed.id, row.join(" ")).to_lowercase(),
            name: printable(&format!("{spec} {run}"), usize::MAX),
            id: listed.id.clone(),
        }
    };
    listed.iter().zip(&rows).zip(lines.lines().skip(1)).map(offer).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::picture::columns;
    use crate::cli::pictures::compare;
    use crate::run::{Details, Progress, Run, RunStatus};

    fn listed(id: u32, spec: Option<&str>, by: &str) -> Listed {
        let details = Details {
            spec_name: spec.map(Into::into),
            created_by_email: Some(by.into()),
            ..Details::default()
        };
        Listed {
            id: format!("{id:08x}-0d44-4b50-8888-8dd25736052a").parse().unwrap(),
            run: Run {
                status: RunStatus::Processing,
                progress: Progress { completed: Some(54), failed: Some(u64::from(id)), total: None },
                created_at: Some(clock::wall() - Duration::from_secs(330)),
                completed_at: None,
                spec_id: None,
                details: Some(Box::new(details)),
            },
        }
    }

    #[test]
    fn a_line_fits_the_terminal_and_all_of_the_run_is_searched() {
        let runs = [
            listed(0, Some("support_tickets"), "ana@example.com"),
            listed(7, Some("請求書データ\u{1b}[2J"), "bernardo.de.la.vega@example.com"),
            listed(1, None, ""),
        ];
        let drawn = [120, 80, 40].map(|width| {
            let line = |offer: Offer| {
                assert!(columns(&offer.line) + BESIDE <= width, "{}", offer.line);
                format!("> [ ] {}\n", offer.line)
            };
            format!("{width}\n{}", offers(&runs, width).into_iter().map(line).collect::<String>())
        });
        compare("pick.txt", &drawn.concat());
        let ana = &offers(&runs, 40)[0];
        assert!(ana.text.contains("ana@example.com") && ana.text.contains("8dd25736052a"), "{}", ana.text);
        assert_eq!(ana.id, runs[0].id);
    }
}
