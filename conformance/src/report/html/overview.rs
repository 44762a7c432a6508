//! Plugins across, items down; above it the summary and the filter.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{Prose, Text, anchor};
use crate::catalogue::{Item, Section};
use crate::report::{Class, Column, Score, columns, score, totals};
use crate::run::{PluginReport, Report};
use crate::verdict::Verdict;

/// A row for each plugin, suites side by side one below the other.
pub(super) fn summary(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let several = report.suites.len() > 1;
    writeln!(
        out,
        "<section id=\"summary\">\n<h2>Summary</h2>\n<p class=\"aside\">Of the items that were tried, how many hold; then the verdicts of the cases, of which an item may have several.</p>\n<div class=\"scroll\"><table class=\"summary\">"
    )?;
    write!(out, "<thead><tr><th scope=\"col\">Plugin</th>")?;
    if several {
        write!(out, "<th scope=\"col\">Suite</th>")?;
    }
    for (class, title) in
        Class::ALL.iter().zip(["of the MUSTs hold", "of the SHOULDs hold", "of what is beyond"])
    {
        write!(out, "<th scope=\"col\" title=\"{title}\">{}</th>", class.word())?;
    }
    for verdict in Verdict::ALL {
        write!(out, "<th scope=\"col\" class=\"number\">{}</th>", verdict.word())?;
    }
    writeln!(out, "<th scope=\"col\" class=\"wide\">Versions</th></tr></thead>")?;
    for (name, columns) in columns(report) {
        writeln!(out, "<tbody>")?;
        for (index, column) in columns.iter().enumerate() {
            let suite =
                report.suites.iter().position(|suite| suite.suite == *column.suite).unwrap_or_default();
            write!(out, "<tr data-p=\"{}\" data-s=\"{suite}\">", Text(name))?;
            if index == 0 {
                write!(
                    out,
                    "<th scope=\"rowgroup\" rowspan=\"{}\">{}<small>{}</small></th>",
                    columns.len(),
                    Text(name),
                    Text(&column.plugin.about)
                )?;
            }
            if several {
                write!(out, "<td>{}</td>", Text(&column.suite.label))?;
            }
            numbers(report, column, out)?;
            writeln!(out, "</tr>")?;
        }
        writeln!(out, "</tbody>")?;
    }
    wholes(report, out)?;
    writeln!(out, "</table></div>\n</section>")
}

/// How many of how many hold, as a bar and in numbers.
fn scores(scores: [(Class, Score); 3], out: &mut dyn Write) -> io::Result<()> {
    for (class, score) in scores {
        if score.tried == 0 {
            write!(out, "<td class=\"score\">none</td>")?;
            continue;
        }
        // Rounded down: never 100 when something does not hold.
        let percent = score.held * 100 / score.tried;
        let state = if score.held == score.tried { "whole" } else { class.word() };
        write!(
            out,
            "<td class=\"score\"><span class=\"bar {state}\"><i style=\"width:{percent}%\"></i></span> {}/{}</td>",
            score.held, score.tried
        )?;
    }
    Ok(())
}

fn verdicts(totals: &BTreeMap<Verdict, usize>, out: &mut dyn Write) -> io::Result<()> {
    for verdict in Verdict::ALL {
        let number = totals.get(&verdict).copied().unwrap_or_default();
        let none = if number == 0 { " none" } else { "" };
        write!(out, "<td class=\"number{none}\"><span class=\"{}\">{number}</span></td>", verdict.word())?;
    }
    Ok(())
}

/// A row for each suite as a whole, where it has more than one plugin.
fn wholes(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let suites: Vec<_> = report.suites.iter().filter(|suite| suite.plugins.len() > 1).collect();
    for (index, suite) in suites.iter().enumerate() {
        write!(out, "{}<tr class=\"whole\">", if index == 0 { "<tbody>" } else { "" })?;
        if index == 0 {
            write!(out, "<th scope=\"rowgroup\" rowspan=\"{}\">All plugins</th>", suites.len())?;
        }
        if report.suites.len() > 1 {
            write!(out, "<td>{}</td>", Text(&suite.suite.label))?;
        }
        scores(Class::ALL.map(|class| (class, sum(report, &suite.plugins, class))), out)?;
        verdicts(&totals(&suite.plugins), out)?;
        write!(out, "<td class=\"wide\"></td></tr>")?;
    }
    writeln!(out, "{}", if suites.is_empty() { "" } else { "</tbody>" })
}

fn sum(report: &Report, plugins: &[PluginReport], class: Class) -> Score {
    plugins
        .iter()
        .map(|plugin| score(report.items(), plugin, class))
        .fold(Score::default(), |sum, one| Score { held: sum.held + one.held, tried: sum.tried + one.tried })
}

fn numbers(report: &Report, column: &Column<'_>, out: &mut dyn Write) -> io::Result<()> {
    let width = Class::ALL.len() + Verdict::ALL.len() + 1;
    if let Some(why) = &column.plugin.skipped {
        return write!(out, "<td colspan=\"{width}\" class=\"left-out\">left out: {}</td>", Text(why));
    }
    scores(Class::ALL.map(|class| (class, score(report.items(), column.plugin, class))), out)?;
    verdicts(&totals([column.plugin]), out)?;
    let versions = &column.plugin.versions;
    let range = match (versions.first(), versions.last()) {
        (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
        (Some(only), _) => only.clone(),
        _ => "does not say".to_owned(),
    };
    write!(out, "<td class=\"wide\">{}</td>", Text(&range))
}

/// The controls, which need the page's script and are hidden without it.
pub(super) fn filter(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<form id=\"filter\" hidden>\n<fieldset><legend>Show</legend>")?;
    for verdict in Verdict::ALL {
        let word = verdict.word();
        writeln!(
            out,
            "<label class=\"chip {word}\"><input type=\"checkbox\" name=\"verdict\" value=\"{word}\" checked> <span aria-hidden=\"true\">{}</span> {word}</label>",
            verdict.symbol()
        )?;
    }
    if report.cases().any(|(_, _, case)| case.known.is_some()) {
        writeln!(
            out,
            "<label class=\"chip\"><input type=\"checkbox\" name=\"known\" checked> known</label>"
        )?;
    }
    writeln!(out, "</fieldset>")?;
    writeln!(out, "<label>Plugin <select name=\"plugin\"><option value=\"\">all</option>")?;
    for (name, _) in columns(report) {
        writeln!(out, "<option>{}</option>", Text(name))?;
    }
    writeln!(out, "</select></label>")?;
    if report.suites.len() > 1 {
        writeln!(out, "<label>Suite <select name=\"suite\"><option value=\"\">all</option>")?;
        for (index, suite) in report.suites.iter().enumerate() {
            writeln!(out, "<option value=\"{index}\">{}</option>", Text(&suite.suite.label))?;
        }
        writeln!(out, "</select></label>")?;
    }
    writeln!(
        out,
        "<label class=\"search\">Text <input type=\"search\" name=\"text\" placeholder=\"GC, lease, exit status …\"></label>"
    )?;
    writeln!(out, "<button type=\"reset\">Reset</button> <output></output>\n</form>")
}

/// The matrix.
pub(super) fn matrix(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let groups = columns(report);
    let several = report.suites.len() > 1;
    let number = groups.iter().map(|(_, columns)| columns.len()).sum::<usize>();
    writeln!(out, "<section id=\"matrix\">\n<h2>Items</h2>")?;
    legend(out)?;
    // Long names of many plugins would leave no room for what the items say.
    let upright = if groups.len() > 8 && !several { " upright" } else { "" };
    let several_class = if several { " several" } else { "" };
    writeln!(out, "<div class=\"scroll\"><table class=\"matrix{several_class}{upright}\">\n<thead>")?;
    write!(out, "<tr><th scope=\"col\" rowspan=\"{}\">Item</th>", 1 + usize::from(several))?;
    for (name, columns) in &groups {
        let span = columns.len();
        write!(
            out,
            "<th scope=\"colgroup\" colspan=\"{span}\" data-p=\"{0}\"><span>{0}</span></th>",
            Text(name)
        )?;
    }
    writeln!(out, "</tr>")?;
    if several {
        write!(out, "<tr>")?;
        for (name, columns) in &groups {
            for column in columns {
                let suite =
                    report.suites.iter().position(|suite| suite.suite == *column.suite).unwrap_or_default();
                let label = Text(&column.suite.label);
                write!(
                    out,
                    "<th scope=\"col\" data-p=\"{}\" data-s=\"{suite}\"><span>{label}</span></th>",
                    Text(name)
                )?;
            }
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</thead>")?;
    for section in &report.sections {
        let columns = || groups.iter().flat_map(|(_, columns)| columns);
        let run = |item: &&Item| columns().any(|column| column.plugin.item(&item.id).is_some());
        let items: Vec<&Item> = section.item.iter().filter(run).collect();
        if items.is_empty() {
            continue;
        }
        title(section, &items, columns(), number, out)?;
        for item in items {
            row(report, item, &groups, out)?;
        }
        writeln!(out, "</tbody>")?;
    }
    writeln!(out, "</table></div>\n</section>")
}

fn legend(out: &mut dyn Write) -> io::Result<()> {
    let meaning = |verdict| match verdict {
        Verdict::Pass => "holds",
        Verdict::Skip => "could not be tried here",
        Verdict::Info => "remark, beyond the specification",
        Verdict::Warn => "breaks a SHOULD, or the worse of two readings",
        Verdict::Fail => "breaks a MUST",
        Verdict::Broken => "the harness could not do its part",
    };
    write!(out, "<ul class=\"legend\">")?;
    for verdict in Verdict::ALL {
        let (word, sign) = (verdict.word(), verdict.symbol());
        write!(out, "<li><span class=\"cell {word}\">{sign}</span> {}</li>", meaning(verdict))?;
    }
    let fail = Verdict::Fail;
    write!(
        out,
        "<li><span class=\"cell {} known\">{}</span> hatched: known</li>",
        fail.word(),
        fail.symbol()
    )?;
    writeln!(out, "<li><span class=\"cell na\">·</span> does not apply</li></ul>")
}

fn title<'a>(
    section: &Section,
    items: &[&Item],
    columns: impl Iterator<Item = &'a Column<'a>>,
    number: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let columns: Vec<_> = columns.collect();
    let whole = |item: &&&Item| {
        columns.iter().all(|c| c.plugin.item(&item.id).is_none_or(|verdict| verdict <= Verdict::Pass))
    };
    let held = items.iter().filter(whole).count();
    writeln!(
        out,
        "<tbody>\n<tr class=\"section\"><th scope=\"rowgroup\" colspan=\"{}\">{} <small>{held} of {} without a finding</small></th></tr>",
        number + 1,
        Text(&section.title),
        items.len()
    )
}

fn row(
    report: &Report,
    item: &Item,
    groups: &[(&str, Vec<Column<'_>>)],
    out: &mut dyn Write,
) -> io::Result<()> {
    write!(
        out,
        "<tr class=\"item\"><th scope=\"row\"><b>{}</b> <i class=\"level\">{}</i> <span>{}</span></th>",
        Text(&item.id),
        item.level.word(),
        Prose(&item.statement)
    )?;
    for (name, columns) in groups {
        for (index, column) in columns.iter().enumerate() {
            let first = if index == 0 { " first" } else { "" };
            cell(report, item, name, column, first, out)?;
        }
    }
    writeln!(out, "</tr>")
}

fn cell(
    report: &Report,
    item: &Item,
    name: &str,
    column: &Column<'_>,
    first: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    let suite = report.suites.iter().position(|suite| suite.suite == *column.suite).unwrap_or_default();
    let place = format!("data-p=\"{}\" data-s=\"{suite}\"", Text(name));
    let Some(verdict) = column.plugin.item(&item.id) else {
        return write!(out, "<td class=\"cell na{first}\" {place}>·</td>");
    };
    let cases = || column.plugin.cases.iter().filter(|case| case.item == item.id);
    let known = cases().filter(|case| case.verdict == verdict).all(|case| case.known.is_some());
    let known = if known && verdict != Verdict::Pass { " known" } else { "" };
    let mut told: Vec<String> =
        cases().map(|case| format!("{}: {}", case.case, case.verdict.word())).collect();
    told.insert(0, format!("{} of {}", name, column.suite.label));
    let (word, sign) = (verdict.word(), verdict.symbol());
    let title = told.join("\n");
    let title = Text(&title);
    write!(out, "<td class=\"cell {word}{known}{first}\" {place} data-v=\"{word}\" title=\"{title}\">")?;
    if verdict > Verdict::Pass {
        let target = anchor(report, column.suite, name, &item.id);
        write!(out, "<a href=\"#{}\" aria-label=\"{word}\">{sign}</a></td>", Text(&target))
    } else {
        write!(out, "<span aria-label=\"{word}\">{sign}</span></td>")
    }
}
