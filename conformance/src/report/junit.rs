//! The report for the test pages of CI systems: the XML of `JUnit`, a test suite for each plugin.
//!
//! A test case fails here if and only if it makes the run fail, so a page agrees with the exit status: known deviations are skipped, and
//! warnings pass, with their text as output, unless the run is strict.

use std::io::{self, Write};

use crate::expect::Rule;
use crate::replay::{self, Place};
use crate::run::{PluginReport, Report, Suite};
use crate::verdict::{CaseResult, Verdict};

/// Writes the report.
///
/// # Errors
/// What writing said.
pub fn write(report: &Report, rule: Rule<'_>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(out, "<testsuites name=\"cni-conformance\" time=\"{:.3}\">", report.seconds)?;
    for (suite, plugin) in report.plugins() {
        suite_of(report, rule, (suite, plugin), out)?;
    }
    writeln!(out, "</testsuites>")
}

fn suite_of(
    report: &Report,
    rule: Rule<'_>,
    (suite, plugin): (&Suite, &PluginReport),
    out: &mut dyn Write,
) -> io::Result<()> {
    let name = escape(&format!("{}.{}", suite.label, plugin.plugin));
    let absent = rule.condemns_absence(suite, plugin);
    let outcomes: Vec<(&CaseResult, Outcome)> =
        plugin.cases.iter().map(|case| (case, Outcome::of(case, rule))).collect();
    let count = |wanted: Outcome| outcomes.iter().filter(|(_, outcome)| *outcome == wanted).count();
    let extra = usize::from(plugin.skipped.is_some());
    writeln!(
        out,
        "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{}\" timestamp=\"{}\">",
        outcomes.len() + extra,
        count(Outcome::Failure) + usize::from(absent),
        count(Outcome::Error),
        count(Outcome::Skipped) + usize::from(!absent) * extra,
        seconds(plugin.cases.iter().map(|case| case.millis).sum()),
        report.started.trim_end_matches('Z'),
    )?;
    writeln!(out, "    <properties>")?;
    for (key, value) in [("kernel", report.kernel.as_str()), ("versions", &plugin.versions.join(" "))] {
        writeln!(out, "      <property name=\"{key}\" value=\"{}\"/>", escape(value))?;
    }
    writeln!(out, "    </properties>")?;
    if let Some(why) = &plugin.skipped {
        let tag = if absent { "failure" } else { "skipped" };
        writeln!(out, "    <testcase classname=\"{name}\" name=\"{}\" time=\"0\">", escape(&plugin.plugin))?;
        writeln!(out, "      <{tag} message=\"{}\"/>", escape(why))?;
        writeln!(out, "    </testcase>")?;
    }
    for (case, outcome) in outcomes {
        let place = Place { suite, plugin: &plugin.plugin, item: report.items().find(|i| i.id == case.item) };
        test_case(&name, place, case, outcome, out)?;
    }
    writeln!(out, "  </testsuite>")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Skipped,
    Failure,
    Error,
}

impl Outcome {
    fn of(case: &CaseResult, rule: Rule<'_>) -> Self {
        match case.verdict {
            Verdict::Broken => Self::Error,
            _ if rule.condemns(case) => Self::Failure,
            Verdict::Skip => Self::Skipped,
            _ if case.known.is_some() => Self::Skipped,
            _ => Self::Passed,
        }
    }
}

fn test_case(
    class: &str,
    place: Place<'_>,
    case: &CaseResult,
    outcome: Outcome,
    out: &mut dyn Write,
) -> io::Result<()> {
    write!(
        out,
        "    <testcase classname=\"{class}\" name=\"{}\" time=\"{}\"",
        escape(&case.name()),
        seconds(case.millis)
    )?;
    if case.verdict == Verdict::Pass {
        return writeln!(out, "/>");
    }
    writeln!(out, ">")?;
    let kind = case.verdict.word();
    let message = match &case.known {
        Some(why) => format!("known {kind}: {why}"),
        None => case.message().to_owned(),
    };
    let message = escape(&message);
    let mut lines: Vec<String> =
        case.findings.iter().map(|f| format!("{}: {}", f.verdict.word(), f.message)).collect();
    lines.extend(place.item.map(|item| format!("{}: {}", item.level.word(), item.statement)));
    let replay = if case.journal.is_empty() { String::new() } else { replay::script(place, case) };
    let text = escape(&format!("{}\n\n{replay}", lines.join("\n")));
    match outcome {
        Outcome::Failure => {
            writeln!(out, "      <failure type=\"{kind}\" message=\"{message}\">{text}</failure>")?;
        }
        Outcome::Error => writeln!(out, "      <error type=\"{kind}\" message=\"{message}\">{text}</error>")?,
        Outcome::Skipped => writeln!(out, "      <skipped message=\"{message}\"/>")?,
        Outcome::Passed => writeln!(out, "      <system-out>{text}</system-out>")?,
    }
    writeln!(out, "    </testcase>")
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a test run")]
fn seconds(millis: u64) -> String {
    format!("{:.3}", millis as f64 / 1000.0)
}

/// For XML 1.0, which cannot have most control characters, not even escaped.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_a_plugin_prints_breaks_the_document() {
        assert_eq!(escape("<a b=\"&\">\u{1b}[0m\n"), "&lt;a b=&quot;&amp;&quot;&gt;\\u{1b}[0m&#10;");
    }
}
