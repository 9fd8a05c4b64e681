//! Plain tables for terminals and Markdown.

use std::fmt::Write as _;

/// Rows of text under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names.
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self {
            rows: vec![columns.iter().map(|&name| name.to_owned()).collect()],
        }
    }

    /// Appends one row; it has as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a row has every column");
        self.rows.push(cells);
    }

    /// Aligned columns, two blanks apart.
    pub(crate) fn text(&self) -> String {
        let widths = self.widths();
        let mut out = String::new();
        for row in &self.rows {
            let line: Vec<String> = row.iter().zip(&widths).map(|(c, w)| pad(c, *w)).collect();
            let _ = writeln!(out, "{}", line.join("  ").trim_end());
        }
        out
    }

    /// The same as a Markdown table.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
            if index == 0 {
                let _ = writeln!(out, "|{}", "---|".repeat(row.len()));
            }
        }
        out
    }

    fn widths(&self) -> Vec<usize> {
        (0..self.rows[0].len())
            .map(|column| {
                self.rows
                    .iter()
                    .map(|row| row[column].chars().count())
                    .max()
            })
            .map(Option::unwrap_or_default)
            .collect()
    }
}

fn pad(cell: &str, width: usize) -> String {
    format!("{cell:<width$}")
}

/// A count with a comma before every third digit.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["model", "s"]);
        table.row(vec!["Late".into(), "7".into()]);
        assert_eq!(table.text(), "model  s\nLate   7\n");
    }

    #[test]
    fn markdown_keeps_bars_inside_cells() {
        let mut table = Table::new(&["a", "b"]);
        table.row(vec!["1|2".into(), "3".into()]);
        assert_eq!(table.markdown(), "| a | b |\n|---|---|\n| 1\\|2 | 3 |\n");
    }

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!(grouped(12), "12");
        assert_eq!(grouped(1234), "1,234");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
