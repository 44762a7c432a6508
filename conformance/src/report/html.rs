//! The report as one page that stands alone: no other file, nothing from a network, readable without its script.

mod evidence;
mod overview;

use std::fmt;
use std::io::{self, Write};

use super::{conclusion, is_known_failure, skips};
use crate::expect::Rule;
use crate::run::{Report, Suite};
use crate::verdict::Verdict;

const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// Writes the page.
///
/// # Errors
/// What writing said.
pub fn write(report: &Report, rule: Rule<'_>, out: &mut dyn Write) -> io::Result<()> {
    let labels: Vec<&str> = report.suites.iter().map(|suite| suite.suite.label.as_str()).collect();
    writeln!(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
    // Nothing can be loaded, whatever a plugin may have printed.
    writeln!(
        out,
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">"
    )?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    writeln!(out, "<link rel=\"icon\" href=\"data:,\">")?;
    writeln!(out, "<title>CNI conformance: {}</title>\n<style>\n{STYLE}</style>", Text(&labels.join(", ")))?;
    writeln!(out, "</head>\n<body>")?;
    header(report, rule, out)?;
    writeln!(out, "<main>")?;
    overview::summary(report, out)?;
    overview::filter(report, out)?;
    overview::matrix(report, out)?;
    evidence::write(report, rule, out)?;
    skipped(report, out)?;
    writeln!(out, "</main>")?;
    footer(report, out)?;
    writeln!(out, "<script>\n{SCRIPT}</script>\n</body>\n</html>")
}

/// Text between tags or in a quoted attribute, escaped. Control characters are written out, so that nothing is invisible.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(c)?,
                c if c.is_control() => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A sentence of the catalogue: what stands between backticks there is code.
struct Prose<'a>(&'a str);

impl fmt::Display for Prose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<&str> = self.0.split('`').collect();
        let paired = parts.len() % 2 == 1;
        for (index, part) in parts.iter().enumerate() {
            match (index % 2 == 1, paired) {
                (true, true) => write!(f, "<code>{}</code>", Text(part))?,
                (false, true) => write!(f, "{}", Text(part))?,
                (_, false) => write!(f, "{}{}", if index == 0 { "" } else { "`" }, Text(part))?,
            }
        }
        Ok(())
    }
}

/// Where the evidence on an item with a plugin of a suite is, within the page.
fn anchor(report: &Report, suite: &Suite, plugin: &str, item: &str) -> String {
    let index = report.suites.iter().position(|other| other.suite == *suite).unwrap_or_default();
    format!("{index}.{plugin}.{item}")
}

/// A verdict as a coloured sign with its word.
fn badge(verdict: Verdict) -> String {
    format!(
        "<span class=\"badge {0}\"><span aria-hidden=\"true\">{1}</span> {0}</span>",
        verdict.word(),
        verdict.symbol()
    )
}

fn header(report: &Report, rule: Rule<'_>, out: &mut dyn Write) -> io::Result<()> {
    let cases = report.cases().count();
    let date = report.started.replace('T', " ").replace('Z', " UTC");
    writeln!(out, "<header>\n<h1>CNI conformance</h1>")?;
    let status = match rule.status(report) {
        0 if report.cases().any(|(_, _, case)| is_known_failure(case)) => "known",
        0 => "good",
        _ => "bad",
    };
    let sentence = conclusion(report, rule);
    let mut letters = sentence.chars();
    let sentence: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    writeln!(out, "<p class=\"conclusion {status}\">{}.</p>", Text(&sentence))?;
    writeln!(out, "<dl class=\"facts\">")?;
    for (name, value) in [
        ("Date", date),
        ("Kernel", report.kernel.clone()),
        ("Harness", format!("cni-conformance {}", report.harness)),
        ("Cases", format!("{cases} in {:.0} s", report.seconds)),
    ] {
        writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", Text(&value))?;
    }
    for suite in &report.suites {
        let (label, directory) = (&suite.suite.label, suite.suite.directory.display().to_string());
        let shown = if *label == directory { "Plugins" } else { label };
        writeln!(out, "<div><dt>{}</dt><dd><code>{}</code></dd></div>", Text(shown), Text(&directory))?;
    }
    writeln!(out, "</dl>")?;
    for exposed in &report.exposed {
        writeln!(out, "<p class=\"aside\">Not isolated: {}.</p>", Text(exposed))?;
    }
    writeln!(out, "</header>")
}

fn skipped(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let skips = skips(report);
    if skips.is_empty() {
        return Ok(());
    }
    let number: usize = skips.iter().map(|(_, names)| names.len()).sum();
    writeln!(out, "<section id=\"skipped\">\n<h2>Not tried <span class=\"count\">{number}</span></h2>")?;
    for (reason, names) in skips {
        writeln!(
            out,
            "<details class=\"reason\"><summary>{} <span class=\"count\">{}</span> {}</summary><ul>",
            badge(Verdict::Skip),
            names.len(),
            Text(&reason)
        )?;
        for name in names {
            writeln!(out, "<li>{}</li>", Text(&name))?;
        }
        writeln!(out, "</ul></details>")?;
    }
    writeln!(out, "</section>")
}

fn footer(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<footer>")?;
    for suite in report.suites.iter().filter(|suite| !suite.unknown.is_empty()) {
        writeln!(
            out,
            "<p>No profile describes, and so nothing was tried with, these of {}: {}.</p>",
            Text(&suite.suite.label),
            Text(&suite.unknown.join(", "))
        )?;
    }
    for stale in &report.stale {
        writeln!(out, "<p>Expected, and did not occur: {}.</p>", Text(stale))?;
    }
    writeln!(
        out,
        "<p>A failure breaks a MUST of the specification, a warning a SHOULD or takes the worse of two readings, a remark is beyond it. \
         Each case runs in namespaces of its own; a replay script makes the same again, as root or as a user, and changes nothing of \
         the machine.</p>\n</footer>"
    )
}

#[cfg(test)]
mod tests {
    use super::{Prose, Text};

    #[test]
    fn nothing_a_plugin_prints_becomes_markup() {
        let text = "<script>'\"&\u{1b}[0m\n";
        assert_eq!(Text(text).to_string(), "&lt;script&gt;&#39;&quot;&amp;\\u{1b}[0m\n");
        assert_eq!(Prose("the `<key>` is, or `not").to_string(), "the `&lt;key&gt;` is, or `not");
        assert_eq!(Prose("the `<key>` is").to_string(), "the <code>&lt;key&gt;</code> is");
    }
}
