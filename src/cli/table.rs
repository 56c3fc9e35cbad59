//! Text in columns.

use console::measure_text_width;

use crate::run::printable;

/// The widest that foreign text may make a cell, in characters.
const WIDEST: usize = 300;

/// A table of foreign text: each cell stays on its line. Rows in columns as wide as their widest cell; the first row is the head. Columns that are empty but for their head are
/// left out.
pub(super) fn render<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| printable(cell, WIDEST))).collect();
    let used: Vec<usize> =
        (0..N).filter(|column| rows.iter().skip(1).any(|row| !row[*column].is_empty())).collect();
    let width = |column: usize| rows.iter().map(|row| measure_text_width(&row[column])).max().unwrap_or(0);
    let widths: Vec<usize> = used.iter().map(|column| width(*column)).collect();
    let line = |row: &[String; N]| {
        let cells = used.iter().zip(&widths).map(|(column, width)| {
            let cell = &row[*column];
            format!("{cell}{}", " ".repeat(width - measure_text_width(cell)))
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_and_empty_ones_are_left_out() {
        let rows = [["A", "B", "C"], ["1", "", "été"], ["22", "", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(render(&rows), "A   C\n1   été\n22  x\n");
    }
}
