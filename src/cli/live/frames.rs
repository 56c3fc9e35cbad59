//! What the display looks like in each size.

use std::time::Duration;

use ratatui_core::style::Color;

use super::facts::{Facts, Name, Sign};
use super::frame::{Totals, last_line, picture, room};
use crate::cli::block::Size;
use crate::cli::pictures::compare;
use crate::run::Subject;

fn size(width: usize, height: usize) -> Size {
    Size { height, width, reflows: true }
}

/// A run with an id that begins with these eight digits.
fn facts(id: u32, name: Option<&str>, spec: Option<&str>) -> Facts {
    let id = format!("{id:08x}-0d44-4b50-8888-8dd25736052a").parse().unwrap();
    Facts { name: Name::of(&Subject { id, name: name.map(Into::into) }, spec), ..Facts::default() }
}

fn processing(facts: Facts, done: u64, total: u64) -> Facts {
    Facts {
        sign: Sign("▸", Color::Cyan),
        status: "PROCESSING".into(),
        samples: format!("{done}/{total}"),
        fraction: Some(done as f64 / total as f64),
        left: "~12m left".into(),
        elapsed: "4m 10s".into(),
        rate: "2.1/s".into(),
        ..facts
    }
}

/// One of each kind.
fn one_of_each() -> Vec<Facts> {
    let pending = Facts {
        sign: Sign("◦", Color::Reset),
        status: "PENDING".into(),
        samples: "0/20".into(),
        fraction: Some(0.0),
        elapsed: "9s".into(),
        ..facts(3, None, Some("nightly-👍-report"))
    };
    let unseen = Facts {
        sign: Sign("·", Color::Reset),
        status: "…".into(),
        elapsed: "1s".into(),
        ..facts(7, None, None)
    };
    vec![
        processing(facts(1, Some("tickets"), Some("support_tickets")), 54, 200),
        Facts { failed: Some(7), ..processing(facts(2, None, Some("請求書データ")), 1930, 2000) },
        pending,
        Facts {
            sign: Sign("!", Color::Yellow),
            trouble: Some("503 Service Unavailable: the upstream is overloaded".into()),
            ..processing(facts(4, None, Some("e\u{301}te\u{301} and its children, one after another")), 3, 8)
        },
        Facts {
            fraction: None,
            samples: "17".into(),
            left: String::new(),
            rate: String::new(),
            ..processing(facts(5, None, None), 1, 2)
        },
        unseen,
    ]
}

fn text(shown: &[Facts], more: usize, totals: Totals, size: Size) -> String {
    let lines = picture(shown, more, totals, size).lines(size.width - 1, false);
    assert!(lines.iter().all(|line| line.width < size.width), "none reaches the edge");
    lines.into_iter().map(|line| line.text + "\n").collect()
}

#[test]
fn thirty_runs_in_every_size() {
    let all: Vec<Facts> = (0..5).flat_map(|_| one_of_each()).collect();
    let totals = Totals { all: 30, finished: 3, failed: 1, ..Totals::default() };
    for (width, height) in
        [120, 80, 40].into_iter().flat_map(|width| [24, 5, 1].map(|height| (width, height)))
    {
        let size = size(width, height);
        let shown = &all[..room(30, size).min(27)];
        let text = text(shown, 27 - shown.len(), totals, size);
        assert!(text.lines().count() <= height.saturating_sub(1).max(1), "{width}x{height}");
        compare(&format!("watch-{width}x{height}.txt"), &text);
    }
}

#[test]
fn one_run_in_every_width() {
    let one = processing(facts(1, None, Some("support_tickets")), 54, 200);
    let totals = Totals { all: 1, ..Totals::default() };
    assert_eq!(text(&[], 3, Totals { all: 3, ..totals }, size(2, 1)), "\n", "nor does no room matter");
    let widths = [120, 80, 60, 50, 40, 30, 20, 2]
        .map(|width| format!("{width}\n{}", text(std::slice::from_ref(&one), 0, totals, size(width, 24))));
    compare("watch-widths.txt", &widths.concat());
}

#[test]
fn what_stays_is_in_columns_too() {
    let ended = |facts: Facts, sign, status: &str, outcome: &str| {
        let facts = Facts { sign, status: status.into(), ..facts };
        last_line(&facts, 24, outcome).lines(usize::MAX, false).remove(0).text + "\n"
    };
    let took = crate::span::human(Duration::from_secs(250));
    let lines = [
        ended(
            facts(1, Some("tickets"), None),
            Sign("✓", Color::Green),
            "SUCCEEDED",
            &format!("193/200, 7 failed in {took}"),
        ),
        ended(
            facts(2, None, Some("請求書データ")),
            Sign("✗", Color::Red),
            "FAILED",
            &format!("54/200 in {took}"),
        ),
        ended(
            facts(3, None, Some("support_tickets")),
            Sign("✗", Color::Red),
            "",
            "not found: the API does not know this run",
        ),
        ended(facts(4, None, None), Sign("…", Color::Reset), "PENDING", "0/20"),
    ];
    compare("watch-ended.txt", &lines.concat());
}
