//! The report for programs.
//!
//! One object, the serde form of [`Report`]: `schema` 1, `harness`, `kernel`, `started`, `seconds`, `sections` (the catalogue) and `suites`. A
//! suite has `label`, `directory` and `plugins`; a plugin `plugin`, `about`, `versions`, `cases`, and `skipped` if it was left out; a case `item`,
//! `case`, `verdict` (`pass` `skip` `info` `warn` `fail` `broken`), `findings`, `millis`, `journal` unless it passed, and `known` with the reason if
//! the deviation was expected. A finding has `verdict`, `message` and the index of its `step` in the journal; a step `shell`, `outcome`, `stdout`,
//! `stderr`, and `together` in a race. Fields that would be empty are left out. `schema` grows when a field goes or changes its meaning.

use std::io::{self, Write};

use crate::run::Report;

/// Writes the report.
///
/// # Errors
/// What writing said.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}
