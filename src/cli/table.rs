//! Tables: complete for programs, cut to the width of the terminal for people.
//!
//! Written by hand because crates for tables (comfy-table) can wrap or cut columns, but not drop them by priority. Here
//! ids are never cut, because people copy them. If not even the most important columns fit, each row takes two lines.

use console::{Style, measure_text_width, truncate_str};

use super::stream::Stream;
use crate::run::printable;

/// Maximum length of a cell, in characters.
const WIDEST: usize = 300;

/// Spaces between columns, and before the second line of a row.
const GAP: usize = 2;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    head: &'static str,
    /// Minimum width it may be cut to; `None` if it must not be cut.
    min: Option<usize>,
    /// The column with the highest rank is dropped first; rank 0 is never dropped.
    rank: u8,
}

impl Column {
    /// A column that is never cut or dropped.
    pub(super) const fn whole(head: &'static str) -> Self {
        Self { head, min: None, rank: 0 }
    }

    /// The same column, which may be cut down to this width.
    pub(super) const fn cut(self, min: usize) -> Self {
        Self { min: Some(min), ..self }
    }

    /// The same column, which may be dropped. Higher ranks are dropped first.
    pub(super) const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }
}

/// A table for standard output: cut to the terminal, or complete if it is not a terminal.
pub(super) fn for_stdout<const N: usize>(columns: &[Column; N], rows: &[[String; N]]) -> String {
    let width = Stream::Stdout.is_terminal().then(|| Stream::Stdout.size().width);
    render(columns, rows, width, width.is_some())
}

/// A table of foreign text. Cells stay on their line, and empty columns are left out. `width` is that of the terminal;
/// `None` for a complete table.
pub(super) fn render<const N: usize>(
    columns: &[Column; N],
    rows: &[[String; N]],
    width: Option<usize>,
    coloured: bool,
) -> String {
    let head = columns.map(|column| column.head.to_owned());
    let rows: Vec<[String; N]> = std::iter::once(&head)
        .chain(rows)
        .map(|row| row.each_ref().map(|cell| printable(cell, WIDEST)))
        .collect();
    let used = (0..N).filter(|column| rows.iter().skip(1).any(|row| !row[*column].is_empty()));
    let natural = |column: usize| rows.iter().map(|row| measure_text_width(&row[column])).max().unwrap_or(0);
    let used: Vec<Fitted> = used.map(|at| Fitted { at, column: columns[at], width: natural(at) }).collect();
    let Some(width) = width else { return lines(&rows, &[used], coloured) };
    if let Some(fitted) = fit(used.clone(), width) {
        return lines(&rows, &[fitted], coloured);
    }
    let (first, rest) = used.split_at(1.min(used.len()));
    let rest = fit(rest.to_vec(), width.saturating_sub(GAP)).unwrap_or_else(|| rest.to_vec());
    lines(&rows, &[first.to_vec(), rest], coloured)
}

/// A column that is shown.
#[derive(Clone)]
struct Fitted {
    at: usize,
    column: Column,
    width: usize,
}

/// The columns that fit, with their widths. `None` if the columns of rank 0 do not fit.
fn fit(mut columns: Vec<Fitted>, width: usize) -> Option<Vec<Fitted>> {
    loop {
        let needed = columns.iter().map(|fitted| fitted.width + GAP).sum::<usize>().saturating_sub(GAP);
        let Some(excess) = needed.checked_sub(width).filter(|excess| *excess > 0) else {
            return Some(columns);
        };
        let spare = |fitted: &Fitted| fitted.width.saturating_sub(fitted.column.min.unwrap_or(fitted.width));
        if columns.iter().map(spare).sum::<usize>() >= excess {
            // Always cut the widest column.
            for _ in 0..excess {
                let widest =
                    columns.iter_mut().filter(|fitted| spare(fitted) > 0).max_by_key(|fitted| fitted.width);
                widest?.width -= 1;
            }
            return Some(columns);
        }
        let least = columns.iter().enumerate().max_by_key(|(_, fitted)| fitted.column.rank)?;
        if least.1.column.rank == 0 {
            return None;
        }
        let least = least.0;
        columns.remove(least);
    }
}

/// The rows, with one line for each group of columns. All lines but the first are indented.
fn lines<const N: usize>(rows: &[[String; N]], groups: &[Vec<Fitted>], coloured: bool) -> String {
    let mut text = String::new();
    for row in rows {
        for (group, columns) in groups.iter().enumerate() {
            let cells = columns.iter().map(|fitted| {
                let cell = truncate_str(&row[fitted.at], fitted.width, "…");
                let padding = " ".repeat(fitted.width.saturating_sub(measure_text_width(&cell)));
                match style(fitted.column.head, &cell).filter(|_| coloured) {
                    Some(style) => format!("{}{padding}", style.apply_to(cell)),
                    None => format!("{cell}{padding}"),
                }
            });
            let line = cells.collect::<Vec<_>>().join(&" ".repeat(GAP));
            let indent = if group == 0 { 0 } else { GAP };
            text += &" ".repeat(indent);
            text += line.trim_end();
            text.push('\n');
        }
    }
    text
}

/// The colour of a status.
fn style(head: &str, cell: &str) -> Option<Style> {
    let plain = Style::new();
    match cell.split(' ').next()? {
        _ if !matches!(head, "STATUS" | "STATE") => None,
        "SUCCEEDED" | "delivered" => Some(plain.green()),
        "FAILED" | "dead" => Some(plain.red()),
        "CANCELED" => Some(plain.yellow()),
        "PROCESSING" | "pending" => Some(plain.cyan()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_and_empty_ones_are_left_out() {
        let columns = ["A", "B", "C"].map(Column::whole);
        let rows = [["1", "", "été"], ["22", "", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(render(&columns, &rows, None, false), "A   C\n1   été\n22  x\n");
    }

    #[test]
    fn what_is_longest_is_cut_before_what_matters_least_is_left_out() {
        let columns = [
            Column::whole("ID"),
            Column::whole("TEXT").cut(4).rank(1),
            Column::whole("OTHER").cut(3).rank(2),
        ];
        let rows = [["12345", "日本語日本語", "words"].map(str::to_owned)];
        let drawn = |width| render(&columns, &rows, Some(width), false);
        assert_eq!(drawn(26), "ID     TEXT          OTHER\n12345  日本語日本語  words\n");
        assert_eq!(drawn(20), "ID     TEXT    OTHER\n12345  日本…   words\n");
        assert_eq!(drawn(14), "ID     TEXT\n12345  日本語…\n", "no room for 5 + 4 + 3 and two gaps");
        assert_eq!(drawn(8), "ID\n12345\n");
    }

    #[test]
    fn where_not_even_the_most_important_fits_a_row_takes_two_lines() {
        let columns = [Column::whole("ID"), Column::whole("STATUS"), Column::whole("MORE").rank(1)];
        let rows = [["123456789012", "FAILED", "x"].map(str::to_owned)];
        assert_eq!(
            render(&columns, &rows, Some(14), false),
            "ID\n  STATUS  MORE\n123456789012\n  FAILED  x\n"
        );
        assert_eq!(render(&columns, &rows, Some(10), false), "ID\n  STATUS\n123456789012\n  FAILED\n");
    }
}
