//! The matrix: items down by section, plugins across, and under each plugin the suites side by side.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::{Style, wrap};
use crate::catalogue::{Item, Section};
use crate::report::{Column, columns};
use crate::run::Report;
use crate::verdict::Verdict;

const ID: usize = 8;

/// How wide each plugin's part is.
struct Layout<'a> {
    groups: Vec<(&'a str, Vec<Column<'a>>)>,
    widths: Vec<usize>,
    several: bool,
}

impl<'a> Layout<'a> {
    fn new(report: &'a Report, width: usize) -> Self {
        let groups = columns(report);
        let least = |columns: &[Column<'_>]| 2 * columns.len() - 1;
        let mut widths: Vec<usize> =
            groups.iter().map(|(name, columns)| name.chars().count().max(least(columns))).collect();
        // Long names are cut, the longest first, until a line fits.
        while ID + widths.iter().map(|width| width + 2).sum::<usize>() > width {
            let shrinkable = groups.iter().zip(&widths).enumerate();
            let longest = shrinkable
                .filter(|(_, ((_, columns), width))| **width > least(columns).max(3))
                .max_by_key(|(_, (_, width))| **width)
                .map(|(index, _)| index);
            let Some(index) = longest else { break };
            widths[index] -= 1;
        }
        Self { groups, widths, several: report.suites.len() > 1 }
    }

    fn used(&self) -> usize {
        ID + self.widths.iter().map(|width| width + 2).sum::<usize>()
    }

    fn cells(&self, id: &str) -> impl Iterator<Item = Option<Verdict>> {
        self.groups.iter().flat_map(|(_, columns)| columns).map(move |column| column.plugin.item(id))
    }

    fn row(&self, item: &Item, style: Style<'_>) -> String {
        let mut line = format!("{:ID$}", item.id);
        for ((_, columns), width) in self.groups.iter().zip(&self.widths) {
            for (index, column) in columns.iter().enumerate() {
                let cell = match column.plugin.item(&item.id) {
                    Some(verdict) => style.paint(verdict, verdict.symbol()),
                    None => style.faint("·"),
                };
                line.push_str(if index == 0 { "" } else { " " });
                line.push_str(&cell);
            }
            line.push_str(&" ".repeat(width + 2 - (2 * columns.len() - 1)));
        }
        line
    }

    fn heads(&self, style: Style<'_>, report: &Report) -> Vec<String> {
        let mut first = " ".repeat(ID);
        let mut second = first.clone();
        for ((name, columns), width) in self.groups.iter().zip(&self.widths) {
            let name: String = name.chars().take(*width).collect();
            let _ = write!(first, "{name:width$}  ");
            let letters: Vec<String> = columns
                .iter()
                .map(|column| letter(report.suites.iter().position(|suite| suite.suite == *column.suite)))
                .collect();
            let _ = write!(second, "{:width$}  ", letters.join(" "));
        }
        let mut heads = vec![style.bold(first.trim_end())];
        if self.several {
            heads.push(second.trim_end().to_owned());
        }
        heads
    }
}

fn letter(index: Option<usize>) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
    index
        .and_then(|index| LETTERS.get(index))
        .map_or("*".to_owned(), |letter| char::from(*letter).to_string())
}

/// Writes the matrix of the sections that were run.
pub(super) fn write(report: &Report, style: Style<'_>, out: &mut dyn Write) -> io::Result<()> {
    let layout = Layout::new(report, style.width);
    if layout.groups.is_empty() {
        return Ok(());
    }
    let legend: Vec<String> = Verdict::ALL
        .iter()
        .map(|verdict| format!("{} {}", style.paint(*verdict, verdict.symbol()), verdict.word()))
        .collect();
    writeln!(out, "{}  · does not apply\n", legend.join("  "))?;
    if layout.several {
        for (index, suite) in report.suites.iter().enumerate() {
            let (label, directory) = (&suite.suite.label, suite.suite.directory.display());
            writeln!(out, "{} = {label}  {}", letter(Some(index)), style.faint(&directory.to_string()))?;
        }
        writeln!(out)?;
    }
    for head in layout.heads(style, report) {
        writeln!(out, "{head}")?;
    }
    for section in &report.sections {
        section_rows(section, &layout, style, out)?;
    }
    Ok(())
}

fn section_rows(
    section: &Section,
    layout: &Layout<'_>,
    style: Style<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let run: Vec<&Item> =
        section.item.iter().filter(|item| layout.cells(&item.id).any(|cell| cell.is_some())).collect();
    if run.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", style.bold(&section.title))?;
    let mut held = Vec::new();
    for item in run {
        let verdicts: BTreeSet<Verdict> = layout.cells(&item.id).flatten().collect();
        if !style.all && verdicts.iter().all(|verdict| *verdict == Verdict::Pass) {
            held.push(item.id.as_str());
            continue;
        }
        let row = layout.row(item, style);
        let room = style.width.saturating_sub(layout.used());
        let level = item.level.word();
        let text: String = format!("{level}: {}", item.statement);
        let text = if room < 20 { String::new() } else { cut(&text, room) };
        writeln!(out, "{}", format!("{row}{}", style.faint(&text)).trim_end())?;
    }
    if !held.is_empty() {
        let text = format!("hold with every plugin: {}", held.join(" "));
        for (index, line) in wrap(&text, style.width.saturating_sub(ID)).iter().enumerate() {
            let sign = if index == 0 { style.paint(Verdict::Pass, "✓") } else { " ".to_owned() };
            writeln!(out, "{sign}{}{line}", " ".repeat(ID - 1))?;
        }
    }
    Ok(())
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let short: String = text.chars().take(width.saturating_sub(2)).collect();
    format!("{} …", short.trim_end())
}
