//! What was measured, for a terminal and, with the same columns, for a page.

use std::fmt::Write as _;

use crate::report::Report;
use crate::verdict::{Bound, Row, Verdict};

/// Rows of cells, the first of which is the heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    /// One more row.
    pub fn push(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
    }

    /// Whether there is nothing below the heading.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// In columns; numbers to the right.
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                let right = self.is_numeric(column);
                let _ =
                    if right { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// In Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if index == 0 {
                let rule = |column| if self.is_numeric(column) { "--:" } else { "---" };
                let rules: Vec<&str> = (0..row.len()).map(rule).collect();
                let _ = writeln!(text, "| {} |", rules.join(" | "));
            }
        }
        text
    }

    fn is_numeric(&self, column: usize) -> bool {
        let cells = || self.rows.iter().skip(1).filter_map(|row| row.get(column));
        cells().next().is_some()
            && cells().all(|cell| cell.is_empty() || cell.starts_with(|first: char| first.is_ascii_digit()))
    }
}

/// The targets and what came of them; of a run that was asked for some scenarios only, those.
pub fn of_rows(rows: &[Row]) -> Table {
    let mut table = Table::new(&["measure", "ours", "against", "", "ratio", "target", "verdict"]);
    let whole = rows.iter().all(|row| row.verdict == Verdict::NotAsked);
    for row in rows.iter().filter(|row| whole || row.verdict != Verdict::NotAsked) {
        let verdict = match &row.verdict {
            Verdict::Met => "met".to_owned(),
            Verdict::Missed | Verdict::FarOff => "MISSED".to_owned(),
            Verdict::NotMeasured(why) => format!("not measured: {why}"),
            Verdict::NotAsked => "not in this run".to_owned(),
        };
        let bound = match row.bound {
            Bound::AtMost(bound) => format!("at most {bound}"),
            Bound::AtLeast(bound) => format!("at least {bound}"),
        };
        let number = |value: Option<f64>| {
            value.map(|value| format!("{} {}", short(value), row.unit)).unwrap_or_default()
        };
        let ratio = row.ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
        table.push([
            row.measure.to_owned(),
            number(row.ours),
            number(row.against),
            row.whose.clone(),
            ratio,
            bound,
            verdict,
        ]);
    }
    table
}

/// All times, with their spread, and counts beside them.
pub fn of_series(report: &Report) -> Table {
    let heading = [
        "scenario",
        "verb",
        "who",
        "ms",
        "quartiles",
        "cpu ms",
        "programs",
        "calls",
        "netlink",
        "waits",
        "waited ms",
    ];
    let mut table = Table::new(&heading);
    for series in &report.series {
        let mut row = vec![
            series.scenario.clone(),
            series.verb.clone(),
            series.contender.clone(),
            short(series.wall.median),
            format!("{} to {}", short(series.wall.lower), short(series.wall.upper)),
            short(series.cpu.median),
        ];
        match report.count_of(series).map(|count| count.counts) {
            Some(counts) => row.extend([
                counts.execs.to_string(),
                counts.calls.to_string(),
                counts.requests.to_string(),
                counts.waits.to_string(),
                short(counts.waited_ms),
            ]),
            None => row.resize(heading.len(), String::new()),
        }
        table.push(row);
    }
    table
}

/// A number with three digits that count.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size < 0.1 => format!("{value:.3}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Table, short};

    fn table() -> Table {
        let mut table = Table::new(&["who", "ms"]);
        table.push(["ours".to_owned(), "9.5".to_owned()]);
        table.push(["reference".to_owned(), "110".to_owned()]);
        table
    }

    #[test]
    fn numbers_stand_to_the_right() {
        assert_eq!(table().text(), "who         ms\nours       9.5\nreference  110\n");
    }

    #[test]
    fn a_page_has_the_same_cells() {
        assert_eq!(table().markdown(), "| who | ms |\n| --- | --: |\n| ours | 9.5 |\n| reference | 110 |\n");
    }

    #[test]
    fn three_digits_count() {
        assert_eq!(
            [0.0, 0.0456, 0.123, 1.5, 12.34, 1234.5].map(short),
            ["0", "0.046", "0.12", "1.50", "12.3", "1234"]
        );
    }
}
