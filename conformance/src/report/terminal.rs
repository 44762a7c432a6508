//! The table a person sees.

use std::io::{self, Write};

use crate::run::Report;
use crate::verdict::Verdict;

/// Writes the findings and a line of totals.
///
/// # Errors
/// What writing said.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut totals = std::collections::BTreeMap::new();
    for suite in &report.suites {
        for plugin in &suite.plugins {
            if let Some(why) = &plugin.skipped {
                writeln!(out, "skip {} {}: {why}", suite.suite.label, plugin.plugin)?;
            }
            for case in &plugin.cases {
                *totals.entry(case.verdict).or_insert(0) += 1;
                if case.verdict != Verdict::Pass {
                    writeln!(
                        out,
                        "{} {} {} {}/{}",
                        case.verdict.word(),
                        suite.suite.label,
                        plugin.plugin,
                        case.item,
                        case.case
                    )?;
                    for finding in &case.findings {
                        writeln!(out, "    {}: {}", finding.verdict.word(), finding.message)?;
                    }
                }
            }
        }
    }
    for (verdict, number) in totals {
        write!(out, "{number} {}  ", verdict.word())?;
    }
    writeln!(out, "in {:.1} s", report.seconds)
}
