//! What did not hold, item by item: what was found, what was done and came of it, and a script that does it again.

use std::io::{self, Write};

use super::{Prose, Text, anchor, badge};
use crate::catalogue::Item;
use crate::expect::Rule;
use crate::lab::Step;
use crate::replay::{self, Place};
use crate::run::{PluginReport, Report, Suite};
use crate::verdict::{CaseResult, Verdict};

type Found<'a> = (&'a Suite, &'a PluginReport, &'a CaseResult);

/// Writes the section, if there is anything to write.
pub(super) fn write(report: &Report, rule: Rule<'_>, out: &mut dyn Write) -> io::Result<()> {
    let found: Vec<Found<'_>> = report.cases().filter(|(_, _, case)| case.verdict > Verdict::Pass).collect();
    if found.is_empty() {
        return Ok(());
    }
    let number = found.len();
    writeln!(out, "<section id=\"evidence\">\n<h2>Findings <span class=\"count\">{number}</span></h2>")?;
    for item in report.items() {
        let of_item: Vec<&Found<'_>> = found.iter().filter(|(_, _, case)| case.item == item.id).collect();
        if of_item.is_empty() {
            continue;
        }
        writeln!(
            out,
            "<article class=\"item\" id=\"{0}\">\n<h3><b>{0}</b> <i class=\"level\">{1}</i> {2} <small>{3}</small></h3>",
            Text(&item.id),
            item.level.word(),
            Prose(&item.statement),
            Text(&item.source)
        )?;
        let mut last = None;
        for (suite, plugin, case) in of_item {
            let target = anchor(report, suite, &plugin.plugin, &item.id);
            // The first case of a plugin is where its cell of the matrix leads.
            let id = (last.as_ref() != Some(&target)).then(|| target.clone());
            case_of(report, rule, item, (suite, plugin, case), id.as_deref(), out)?;
            last = Some(target);
        }
        writeln!(out, "</article>")?;
    }
    writeln!(out, "</section>")
}

fn case_of(
    report: &Report,
    rule: Rule<'_>,
    item: &Item,
    (suite, plugin, case): Found<'_>,
    id: Option<&str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let index = report.suites.iter().position(|other| other.suite == *suite).unwrap_or_default();
    let word = case.verdict.word();
    let known = if case.known.is_some() { " known" } else { "" };
    writeln!(
        out,
        "<details class=\"case{known}\" data-p=\"{}\" data-s=\"{index}\" data-v=\"{word}\">",
        Text(&plugin.plugin)
    )?;
    let whose = if report.suites.len() > 1 {
        format!("{} <small>of</small> {}", Text(&plugin.plugin), Text(&suite.label))
    } else {
        Text(&plugin.plugin).to_string()
    };
    writeln!(
        out,
        "<summary>{} <b>{whose}</b> <code>{}</code> <span class=\"gist\">{}</span></summary>",
        badge(case.verdict),
        Text(&case.case),
        Text(case.message())
    )?;
    // Within, not on, the element that folds: a browser opens it for a link to its inside.
    let id = id.map_or(String::new(), |id| format!(" id=\"{}\"", Text(id)));
    writeln!(out, "<div class=\"inside\"{id}>")?;
    if let Some(why) = &case.known {
        writeln!(out, "<p class=\"aside\">Known: {}</p>", Text(why))?;
    } else if rule.expectations.is_some() {
        writeln!(out, "<p class=\"aside\">Not among the known deviations.</p>")?;
    }
    findings(case, out)?;
    journal(case, out)?;
    if !case.journal.is_empty() {
        let script = replay::script(Place { suite, plugin: &plugin.plugin, item: Some(item) }, case);
        writeln!(
            out,
            "<details class=\"replay\"><summary>Replay script</summary><button type=\"button\" class=\"copy\" hidden>Copy</button><pre>{}</pre></details>",
            Text(&script)
        )?;
    }
    writeln!(out, "</div></details>")
}

fn findings(case: &CaseResult, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<ul class=\"findings\">")?;
    for finding in &case.findings {
        let step = finding.step.map_or(String::new(), |step| format!(" <small>step {}</small>", step + 1));
        writeln!(out, "<li>{} <span>{}</span>{step}</li>", badge(finding.verdict), Text(&finding.message))?;
    }
    writeln!(out, "</ul>")
}

fn journal(case: &CaseResult, out: &mut dyn Write) -> io::Result<()> {
    if case.journal.is_empty() {
        return Ok(());
    }
    writeln!(out, "<h4>What was done <small>{} ms</small></h4>\n<ol class=\"journal\">", case.millis)?;
    for (index, step) in case.journal.iter().enumerate() {
        let shows = case.findings.iter().any(|finding| finding.step == Some(index));
        step_of(step, shows, out)?;
    }
    writeln!(out, "</ol>")
}

fn step_of(step: &Step, shows: bool, out: &mut dyn Write) -> io::Result<()> {
    let class = match (shows, step.together) {
        (true, _) => " class=\"shows\"",
        (false, true) => " class=\"together\"",
        (false, false) => "",
    };
    write!(out, "<li{class}><code>{}</code>", Text(&step.shell))?;
    if !step.outcome.is_empty() {
        write!(out, "<p class=\"outcome\">{}</p>", Text(&step.outcome))?;
    }
    for (name, text) in [("stdout", &step.stdout), ("stderr", &step.stderr)] {
        if !text.is_empty() {
            write!(out, "<pre data-name=\"{name}\">{}</pre>", Text(text.trim_end()))?;
        }
    }
    writeln!(out, "</li>")
}
