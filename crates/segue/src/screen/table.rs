//! Tables without lines: columns that line up, and one that gives way when the terminal is narrow.

use super::style::Paint;
use super::text::{cut, padded, width};

/// Space between two columns.
const GAP: usize = 2;
/// No column is made narrower than this.
const NARROWEST: usize = 8;

/// A table being filled. Cells may hold colours.
#[derive(Debug, Default)]
pub struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// Columns that give way, the first one first.
    give: Vec<usize>,
}

impl Table {
    /// A table with these column heads.
    pub fn new(heads: &[&'static str]) -> Table {
        Table { heads: heads.to_vec(), ..Table::default() }
    }

    /// These columns are cut where the terminal is too narrow, in this order.
    #[must_use]
    pub fn give_way(mut self, columns: &[usize]) -> Table {
        self.give = columns.to_vec();
        self
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines of the table, within `cells` cells where that is given.
    pub fn lines(&self, paint: Paint, cells: Option<usize>) -> Vec<String> {
        let mut widths: Vec<usize> = self
            .heads
            .iter()
            .enumerate()
            .map(|(column, head)| {
                let of = |row: &Vec<String>| row.get(column).map_or(0, |cell| width(cell));
                self.rows.iter().map(of).max().unwrap_or(0).max(head.len())
            })
            .collect();
        if let Some(cells) = cells {
            self.narrow(&mut widths, cells);
        }
        let heads = self.heads.iter().map(|head| paint.dim(*head)).collect::<Vec<_>>();
        std::iter::once(&heads).chain(&self.rows).map(|row| line(row, &widths)).collect()
    }

    fn narrow(&self, widths: &mut [usize], cells: usize) {
        for column in &self.give {
            let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
            let too_much = total.saturating_sub(cells);
            if let Some(width) = widths.get_mut(*column) {
                *width = width.saturating_sub(too_much).max(NARROWEST.min(*width));
            }
        }
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        if column > 0 {
            text.push_str(&" ".repeat(GAP));
        }
        text.push_str(&padded(&cut(cell, *width), *width));
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["ID", "NAME", "STATE"]).give_way(&[1]);
        table.row(vec![
            "1".into(),
            "a name that is long".into(),
            "\u{1b}[32mcompleted\u{1b}[0m".into(),
        ]);
        table.row(vec!["22".into(), "日本".into(), "running".into()]);
        table
    }

    #[test]
    fn columns_line_up_whatever_is_in_them() {
        let lines = table().lines(Paint::new(false), None);
        assert_eq!(lines[0], "ID  NAME                 STATE");
        assert_eq!(lines[2], "22  日本                 running");
    }

    #[test]
    fn a_narrow_terminal_cuts_the_column_that_gives_way() {
        let lines = table().lines(Paint::new(false), Some(25));
        assert!(lines.iter().all(|line| width(line) <= 25), "{lines:?}");
        assert!(lines[1].contains("a name th…"), "{lines:?}");
        assert!(table().lines(Paint::new(false), Some(3))[1].contains("completed"));
    }
}
