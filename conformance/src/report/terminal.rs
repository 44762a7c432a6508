//! The report for a person at a terminal: a matrix, then what did not hold and how to see it again, then the totals.

mod matrix;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Class, conclusion, score, skips, totals};
use crate::expect::Rule;
use crate::lab::quote;
use crate::replay::{self, Place};
use crate::run::{PluginReport, Report, Suite};
use crate::verdict::{CaseResult, Verdict};

/// How to write it.
#[derive(Debug, Clone, Copy)]
pub struct Style<'a> {
    /// With ANSI colours.
    pub colour: bool,
    /// Columns of the terminal.
    pub width: usize,
    /// Rows also for the items that hold with every plugin.
    pub all: bool,
    /// Where replay scripts were written.
    pub replay: Option<&'a Path>,
    /// How the report is judged.
    pub rule: Rule<'a>,
}

/// The width of the terminal, between 60 and 160; 100 where there is none.
pub fn width() -> usize {
    static WIDTH: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *WIDTH.get_or_init(|| {
        let from_environment = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        from_environment.or_else(ask_terminal).unwrap_or(100).clamp(60, 160)
    })
}

fn ask_terminal() -> Option<usize> {
    let terminal = std::fs::File::open("/dev/tty").ok()?;
    let output = Command::new("stty").arg("size").stdin(terminal).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(1)?.parse().ok().filter(|columns| *columns > 0)
}

impl Style<'_> {
    fn paint(&self, verdict: Verdict, text: &str) -> String {
        let code = match verdict {
            Verdict::Pass => "32",
            Verdict::Skip => "90",
            Verdict::Info => "36",
            Verdict::Warn => "33",
            Verdict::Fail => "1;31",
            Verdict::Broken => "1;35",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn faint(&self, text: &str) -> String {
        self.paint(Verdict::Skip, text)
    }
}

/// Writes the report.
///
/// # Errors
/// What writing said.
pub fn write(report: &Report, style: Style<'_>, out: &mut dyn Write) -> io::Result<()> {
    matrix::write(report, style, out)?;
    for verdict in [Verdict::Broken, Verdict::Fail, Verdict::Warn, Verdict::Info] {
        findings(report, style, verdict, out)?;
    }
    reasons(report, style, out)?;
    if !report.stale.is_empty() {
        writeln!(out, "\n{}", style.bold("expected, and did not occur:"))?;
        for stale in &report.stale {
            writeln!(out, "  {stale}")?;
        }
    }
    summary(report, style, out)
}

fn findings(report: &Report, style: Style<'_>, verdict: Verdict, out: &mut dyn Write) -> io::Result<()> {
    let cases: Vec<_> = report.cases().filter(|(_, _, case)| case.verdict == verdict).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let title = match verdict {
        Verdict::Broken => "the harness could not do its part",
        Verdict::Fail => "failures: a MUST is broken",
        Verdict::Warn => "warnings: a SHOULD is broken, or the worse of two readings was chosen",
        _ => "remarks: beyond the specification",
    };
    writeln!(out, "\n{}", style.bold(title))?;
    for (suite, plugin, case) in cases {
        finding(report, style, (suite, plugin, case), out)?;
    }
    Ok(())
}

fn finding(
    report: &Report,
    style: Style<'_>,
    (suite, plugin, case): (&Suite, &PluginReport, &CaseResult),
    out: &mut dyn Write,
) -> io::Result<()> {
    let sign = style.paint(case.verdict, case.verdict.symbol());
    let whose = if report.suites.len() > 1 {
        format!("{} of {}", plugin.plugin, suite.label)
    } else {
        plugin.plugin.clone()
    };
    write!(out, "{sign} {} {whose}", style.bold(&case.name()))?;
    match &case.known {
        Some(why) => writeln!(out, "  {}", style.faint(&format!("known: {why}")))?,
        None => writeln!(out)?,
    }
    for finding in case.findings.iter().filter(|finding| finding.verdict > Verdict::Pass) {
        let aside = if finding.verdict == case.verdict { "" } else { finding.verdict.word() };
        let text =
            if aside.is_empty() { finding.message.clone() } else { format!("{aside}: {}", finding.message) };
        for line in wrap(&text, style.width.saturating_sub(4)) {
            writeln!(out, "    {line}")?;
        }
    }
    if case.verdict < Verdict::Warn || case.known.is_some() {
        return Ok(());
    }
    if let Some(step) = decisive(case) {
        writeln!(out, "    {}", style.faint(&format!("$ {step}")))?;
    }
    let place = Place { suite, plugin: &plugin.plugin, item: None };
    let again = match style.replay {
        Some(_) if case.journal.is_empty() => return Ok(()),
        Some(directory) => format!("sh {}", directory.join(replay::file_name(place, case)).display()),
        None => format!(
            "cni-conformance --bin {} --plugin {} --only {} --replay .",
            quote(&format!("{}={}", suite.label, suite.directory.display())),
            plugin.plugin,
            case.name()
        ),
    };
    writeln!(out, "    {}", style.faint(&format!("replay: {again}")))
}

/// The line that shows the finding.
fn decisive(case: &CaseResult) -> Option<&str> {
    let step = case.worst().find_map(|finding| finding.step)?;
    case.journal.get(step).map(|step| step.shell.as_str())
}

fn reasons(report: &Report, style: Style<'_>, out: &mut dyn Write) -> io::Result<()> {
    const NAMED: usize = 4;
    let skips = skips(report);
    if skips.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", style.bold("skipped"))?;
    for (reason, names) in skips {
        let number = format!("{:4} ", names.len());
        for (index, line) in wrap(&reason, style.width.saturating_sub(7)).iter().enumerate() {
            writeln!(out, "{}  {line}", if index == 0 { number.as_str() } else { "     " })?;
        }
        let mut list = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        if names.len() > NAMED {
            let _ = write!(list, ", and {} more", names.len() - NAMED);
        }
        for line in wrap(&list, style.width.saturating_sub(7)) {
            writeln!(out, "       {}", style.faint(&line))?;
        }
    }
    Ok(())
}

fn summary(report: &Report, style: Style<'_>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    let name = |suite: &Suite, plugin: &PluginReport| {
        if report.suites.len() > 1 {
            format!("{} {}", suite.label, plugin.plugin)
        } else {
            plugin.plugin.clone()
        }
    };
    let longest =
        report.plugins().map(|(suite, plugin)| name(suite, plugin).chars().count()).max().unwrap_or(0);
    for (suite, plugin) in report.plugins() {
        let mut line = format!("{:longest$}", name(suite, plugin));
        if plugin.skipped.is_some() {
            writeln!(out, "{line}  {}", style.faint("left out"))?;
            continue;
        }
        for class in Class::ALL {
            let score = score(report.items(), plugin, class);
            let _ = write!(line, "  {} {:>3}/{:<3}", class.word(), score.held, score.tried);
        }
        let totals = totals([plugin]);
        for verdict in Verdict::ALL {
            if let Some(number) = totals.get(&verdict) {
                let _ = write!(line, "  {}", style.paint(verdict, &format!("{} {number}", verdict.symbol())));
            }
        }
        writeln!(out, "{line}")?;
    }
    for suite in report.suites.iter().filter(|suite| !suite.unknown.is_empty()) {
        let text = format!(
            "{}: no profile for {}; --profile gives one",
            suite.suite.label,
            suite.unknown.join(", ")
        );
        wrap(&text, style.width).iter().try_for_each(|line| writeln!(out, "{}", style.faint(line)))?;
    }
    for exposed in &report.exposed {
        let text = format!("not isolated: {exposed}");
        wrap(&text, style.width)
            .iter()
            .try_for_each(|line| writeln!(out, "{}", style.paint(Verdict::Warn, line)))?;
    }
    let totals = totals(report.plugins().map(|(_, plugin)| plugin));
    let counts: Vec<String> = Verdict::ALL
        .iter()
        .filter_map(|verdict| {
            let number = totals.get(verdict)?;
            Some(style.paint(*verdict, &format!("{number} {}", verdict.word())))
        })
        .collect();
    let number: usize = totals.values().sum();
    writeln!(out, "{number} cases in {:.1} s: {}", report.seconds, counts.join(", "))?;
    writeln!(out, "{}", style.bold(&conclusion(report, style.rule)))
}

/// Lines of at most `width` characters, broken at blanks where there are any.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(20);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let mut word = word.to_owned();
            let used = line.chars().count();
            if used > 0 && used + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            } else if used > 0 {
                line.push(' ');
            }
            while word.chars().count() > width {
                let rest = word.chars().skip(width).collect();
                lines.push(word.chars().take(width).collect());
                word = rest;
            }
            line.push_str(&word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn lines_are_broken_at_blanks() {
        let text = "the quick brown fox jumps over the lazy dog";
        assert_eq!(wrap(text, 20), ["the quick brown fox", "jumps over the lazy", "dog"]);
        assert_eq!(wrap(&"x".repeat(45), 20), ["x".repeat(20), "x".repeat(20), "x".repeat(5)]);
        assert_eq!(wrap("a\n\nb", 20), ["a", "", "b"]);
    }
}
