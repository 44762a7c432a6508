//! The report for programs.
//!
//! One object, the serde form of [`Report`]: `schema` 1, `harness`, `kernel`, `started`, `seconds`, `sections` (the catalogue) and `suites`. A
//! suite has `label`, `directory` and `plugins`; a plugin `plugin`, `about`, `versions`, `cases`, and `skipped` if it was left out; a case `item`,
//! `case`, `verdict` (`pass` `skip` `info` `warn` `fail` `broken`), `findings`, `millis`, `journal` unless it passed, and `known` with the reason if
//! the deviation was expected. A finding has `verdict`, `message` and the index of its `step` in the journal; a step `shell`, `outcome`, `stdout`,
//! `stderr`, and `together` in a race. Fields that would be empty are left out. `schema` grows when a field goes or changes its meaning.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::run::Report;

/// Writes the report.
///
/// # Errors
/// What writing said.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}

/// Reads reports and joins them: the facts of the first, the suites of all.
///
/// # Errors
/// The file that cannot be read, is no report, or is one of another schema.
pub fn read(files: &[PathBuf]) -> Result<Report, String> {
    let mut joined: Option<Report> = None;
    for file in files {
        let failed = |error: &dyn std::fmt::Display| format!("--from {}: {error}", file.display());
        let bytes = fs::read(file).map_err(|error| failed(&error))?;
        let report: Report = serde_json::from_slice(&bytes).map_err(|error| failed(&error))?;
        if report.schema != Report::SCHEMA {
            return Err(failed(&format!("its schema is {}, not {}", report.schema, Report::SCHEMA)));
        }
        match &mut joined {
            None => joined = Some(report),
            Some(joined) => {
                let taken = |label: &str| joined.suites.iter().any(|suite| suite.suite.label == label);
                if let Some(twice) = report.suites.iter().find(|suite| taken(&suite.suite.label)) {
                    return Err(failed(&format!("there is a suite `{}` already", twice.suite.label)));
                }
                joined.seconds += report.seconds;
                joined.not_run += report.not_run;
                joined.suites.extend(report.suites);
            }
        }
    }
    joined.ok_or_else(|| "--from: no file".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What programs rely on. If this test has to change because something went or changed its meaning, [`Report::SCHEMA`] grows.
    #[test]
    fn the_form_is_stable() {
        let whole = json!({
            "schema": 1, "harness": "0.1.0", "kernel": "6.1", "started": "2026-03-01T12:00:00Z", "seconds": 1.5,
            "exposed": ["why"], "not_run": 2, "stale": ["which"],
            "sections": [{ "title": "ADD", "items": [
                { "id": "ADD-03", "level": "must", "source": "section 2", "statement": "what", "unchecked": "why" },
            ]}],
            "suites": [{ "label": "go", "directory": "/opt/cni/bin", "unknown": ["dhcp"], "plugins": [{
                "plugin": "bridge", "about": "what", "versions": ["1.0.0"], "skipped": "why", "cases": [{
                    "item": "ADD-03", "case": "second-add", "verdict": "fail", "millis": 12, "known": "why",
                    "findings": [{ "verdict": "fail", "message": "what", "step": 0 }],
                    "journal": [{ "shell": "true", "outcome": "status 0", "stdout": "a", "stderr": "b", "together": true }],
                }],
            }]}],
        });
        let report: Report = serde_json::from_value(whole.clone()).unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), whole);
        let mut least = whole;
        for (pointer, keys) in [
            ("", &["exposed", "not_run", "stale"][..]),
            ("/sections/0/items/0", &["unchecked"]),
            ("/suites/0", &["unknown"]),
            ("/suites/0/plugins/0", &["skipped"]),
            ("/suites/0/plugins/0/cases/0", &["known", "journal"]),
            ("/suites/0/plugins/0/cases/0/findings/0", &["step"]),
        ] {
            let Some(Value::Object(object)) = least.pointer_mut(pointer) else { panic!("{pointer}") };
            for key in keys {
                object.remove(*key);
            }
        }
        let report: Report = serde_json::from_value(least.clone()).unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), least);
    }
}
