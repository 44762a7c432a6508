//! What came out: for a terminal, for machines, for a browser.

pub mod html;
pub mod json;
pub mod junit;
pub mod list;
pub mod progress;
pub mod terminal;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::catalogue::{Item, Level};
use crate::expect::Rule;
use crate::run::{PluginReport, Report, Suite};
use crate::verdict::{CaseResult, Verdict};

/// A column of the matrix: a plugin of a suite.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// The suite.
    pub suite: &'a Suite,
    /// The plugin.
    pub plugin: &'a PluginReport,
}

/// The columns by plugin, in the order plugins first occur, so that the suites' versions of one plugin stand side by side.
pub fn columns(report: &Report) -> Vec<(&str, Vec<Column<'_>>)> {
    let mut groups: Vec<(&str, Vec<Column<'_>>)> = Vec::new();
    for (suite, plugin) in report.plugins() {
        let column = Column { suite, plugin };
        match groups.iter_mut().find(|(name, _)| *name == plugin.plugin) {
            Some((_, columns)) => columns.push(column),
            None => groups.push((&plugin.plugin, vec![column])),
        }
    }
    groups
}

/// How often each verdict occurs.
pub fn totals<'a>(plugins: impl IntoIterator<Item = &'a PluginReport>) -> BTreeMap<Verdict, usize> {
    let mut totals = BTreeMap::new();
    for case in plugins.into_iter().flat_map(|plugin| &plugin.cases) {
        *totals.entry(case.verdict).or_insert(0) += 1;
    }
    totals
}

/// Of the items that could be tried with a plugin: how many hold, and how many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Score {
    /// Those without a finding.
    pub held: usize,
    /// All that were tried.
    pub tried: usize,
}

/// Items that bind alike, for scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// What the specification demands.
    Must,
    /// What it recommends.
    Should,
    /// Conventions, practice and quality.
    Beyond,
}

impl Class {
    /// All of them, the strongest first.
    pub const ALL: [Self; 3] = [Self::Must, Self::Should, Self::Beyond];

    /// The class of a level.
    pub fn of(level: Level) -> Self {
        match level {
            Level::Must => Self::Must,
            Level::Should => Self::Should,
            _ => Self::Beyond,
        }
    }

    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::Beyond => "beyond",
        }
    }
}

/// The score of a plugin in one class of items.
pub fn score<'a>(items: impl IntoIterator<Item = &'a Item>, plugin: &PluginReport, class: Class) -> Score {
    let mut score = Score::default();
    for item in items.into_iter().filter(|item| Class::of(item.level) == class) {
        match plugin.item(&item.id) {
            None | Some(Verdict::Skip | Verdict::Broken) => {}
            Some(verdict) => {
                score.tried += 1;
                score.held += usize::from(verdict == Verdict::Pass);
            }
        }
    }
    score
}

/// Why cases were skipped, and how many for each reason: plugins left out as a whole first.
pub fn skips(report: &Report) -> Vec<(String, Vec<String>)> {
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    let mut put = |reason: &str, name: String| match reasons.iter_mut().find(|(known, _)| known == reason) {
        Some((_, names)) => names.push(name),
        None => reasons.push((reason.to_owned(), vec![name])),
    };
    for (suite, plugin) in report.plugins() {
        if let Some(why) = &plugin.skipped {
            put(why, format!("{} {}", suite.label, plugin.plugin));
        }
    }
    for (suite, plugin, case) in report.cases() {
        if case.verdict == Verdict::Skip {
            put(case.message(), format!("{} {} {}", suite.label, plugin.plugin, case.name()));
        }
    }
    reasons
}

/// A failure that nobody is surprised by.
pub(crate) fn is_known_failure(case: &CaseResult) -> bool {
    case.verdict == Verdict::Fail && case.known.is_some()
}

/// What a run came to, in a sentence.
pub fn conclusion(report: &Report, rule: Rule<'_>) -> String {
    let condemned = report.cases().filter(|(_, _, case)| rule.condemns(case)).count()
        + report.plugins().filter(|(suite, plugin)| rule.condemns_absence(suite, plugin)).count();
    let expected = report.cases().filter(|(_, _, case)| case.known.is_some()).count();
    let count = |verdict| report.cases().filter(|(_, _, case)| case.verdict == verdict).count();
    // Whoever reads nothing else must not take a failure that is known for none.
    let failures = match report.cases().filter(|(_, _, case)| is_known_failure(case)).count() {
        0 => String::new(),
        number => format!(", {number} of them failures"),
    };
    let mut text = match (condemned, expected) {
        (0, 0) => "everything that was tried holds".to_owned(),
        (0, known) => format!("nothing but {known} known deviations{failures}"),
        (number, 0) => format!("{number} deviations"),
        (number, known) => format!("{number} deviations, besides {known} that are known{failures}"),
    };
    if condemned == 0 && failures.is_empty() && rule.expectations.is_none() {
        let lesser = [Verdict::Warn, Verdict::Info].map(count);
        if lesser.iter().sum::<usize>() > 0 {
            text = format!("no failure; {} warnings, {} remarks", lesser[0], lesser[1]);
        }
    }
    if report.not_run > 0 {
        let _ = write!(text, "; interrupted, {} cases were not run", report.not_run);
    }
    text
}
