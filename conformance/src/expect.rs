//! Deviations that are known: a file that says which, so that a run fails on the others only.
//!
//! ```toml
//! [[deviation]]
//! plugin = "bridge"              # patterns: `*` stands for any text
//! item = "ADD-03/second-add"     # an item, or one case of it
//! verdict = "fail"               # fail, warn, info or skip
//! message = "*changed*"          # optional: of one of its findings; for a skip, the reason
//! suite = "go*"                  # optional: the label given with --bin
//! why = "reported upstream"
//! ```

use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::run::{PluginReport, Report, Suite};
use crate::verdict::{CaseResult, Verdict};

/// How the reason of a deviation begins that no person has looked at.
pub const NOT_JUDGED: &str = "not judged yet: ";

/// A deviation that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deviation {
    /// The suite's label, by pattern; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// The plugin, by pattern.
    pub plugin: String,
    /// An item, or a case `ITEM/case`, by pattern.
    pub item: String,
    /// What it comes to, exactly.
    pub verdict: Verdict,
    /// One of its findings, by pattern; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why it is accepted, or where it was reported.
    pub why: String,
}

/// A file of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// The deviations; the first that fits counts.
    #[serde(default)]
    pub deviation: Vec<Deviation>,
}

impl Deviation {
    /// Whether it speaks of this case, whatever became of it.
    fn covers(&self, suite: &Suite, plugin: &str, case: &CaseResult) -> bool {
        self.suite.as_ref().is_none_or(|pattern| crate::glob(pattern, &suite.label))
            && crate::glob(&self.plugin, plugin)
            && (crate::glob(&self.item, &case.item) || crate::glob(&self.item, &case.name()))
    }

    fn fits(&self, suite: &Suite, plugin: &str, case: &CaseResult) -> bool {
        let message = |pattern: &String| case.worst().any(|finding| crate::glob(pattern, &finding.message));
        self.verdict == case.verdict
            && self.message.as_ref().is_none_or(message)
            && self.covers(suite, plugin, case)
    }

    fn title(&self) -> String {
        format!("{} {}: {} ({})", self.plugin, self.item, self.verdict.word(), self.why)
    }
}

/// A plugin that was left out as a whole counts as one skipped case of this name.
const WHOLE: &str = "*";

/// [`PluginReport::skipped`] as a case, for deviations of `item = "*"`.
fn left_out(plugin: &PluginReport) -> Option<CaseResult> {
    let message = plugin.skipped.clone()?;
    let finding = crate::verdict::Finding { verdict: Verdict::Skip, message, step: None };
    Some(CaseResult {
        item: WHOLE.to_owned(),
        case: WHOLE.to_owned(),
        verdict: Verdict::Skip,
        findings: vec![finding],
        journal: Vec::new(),
        millis: 0,
        known: None,
    })
}

impl Expectations {
    /// Reads a file.
    ///
    /// # Errors
    /// The file, and what cannot be read or does not parse.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let all: Self = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        for deviation in &all.deviation {
            if matches!(deviation.verdict, Verdict::Pass | Verdict::Broken) {
                return Err(format!(
                    "{}: {}: only fail, warn, info and skip can be expected",
                    path.display(),
                    deviation.title()
                ));
            }
        }
        Ok(all)
    }

    /// Marks what is known in the report, and lists there what is expected and did not occur although its case was run.
    pub fn apply(&self, report: &mut Report) {
        let mut used = vec![false; self.deviation.len()];
        let mut covered = vec![false; self.deviation.len()];
        for suite in &mut report.suites {
            for plugin in &mut suite.plugins {
                let whole = left_out(plugin);
                let name = plugin.plugin.clone();
                if let Some(case) = &whole {
                    self.first(&suite.suite, &name, case).into_iter().for_each(|index| used[index] = true);
                }
                for case in &mut plugin.cases {
                    for (index, deviation) in self.deviation.iter().enumerate() {
                        covered[index] |= deviation.covers(&suite.suite, &name, case);
                    }
                    if let Some(index) = self.first(&suite.suite, &name, case) {
                        used[index] = true;
                        case.known = Some(self.deviation[index].why.clone());
                    }
                }
            }
        }
        let stale = self.deviation.iter().zip(used.iter().zip(&covered));
        report.stale = stale
            .filter(|(_, (used, covered))| !**used && **covered)
            .map(|(deviation, _)| deviation.title())
            .collect();
    }

    fn first(&self, suite: &Suite, plugin: &str, case: &CaseResult) -> Option<usize> {
        self.deviation.iter().position(|deviation| deviation.fits(suite, plugin, case))
    }

    /// Whether a plugin that was left out as a whole is expected to be.
    fn expects_absence(&self, suite: &Suite, plugin: &PluginReport) -> bool {
        left_out(plugin).is_none_or(|case| self.first(suite, &plugin.plugin, &case).is_some())
    }

    /// The file that expects exactly what this report has: deviations of `self` that still occur, with their reasons, and one for each case
    /// that is new, whose reason is left to a person.
    pub fn updated(&self, report: &Report) -> String {
        let mut kept: Vec<Deviation> = Vec::new();
        let mut new: Vec<Deviation> = Vec::new();
        let whole: Vec<(&Suite, &str, CaseResult)> = report
            .plugins()
            .filter_map(|(suite, plugin)| Some((suite, plugin.plugin.as_str(), left_out(plugin)?)))
            .collect();
        let cases = report.cases().map(|(suite, plugin, case)| (suite, plugin.plugin.as_str(), case));
        for (suite, plugin, case) in whole.iter().map(|(s, p, c)| (*s, *p, c)).chain(cases) {
            if matches!(case.verdict, Verdict::Pass | Verdict::Broken) {
                continue;
            }
            match self.first(suite, plugin, case) {
                Some(index) if kept.contains(&self.deviation[index]) => {}
                Some(index) => kept.push(self.deviation[index].clone()),
                None => new.push(Deviation {
                    suite: (report.suites.len() > 1).then(|| suite.label.clone()),
                    plugin: plugin.to_owned(),
                    item: if case.item == WHOLE { WHOLE.to_owned() } else { case.name() },
                    verdict: case.verdict,
                    message: (case.verdict == Verdict::Skip).then(|| case.message().to_owned()),
                    why: format!("{NOT_JUDGED}{}", case.message()),
                }),
            }
        }
        // In the order of the file, so that an update shows only what has changed.
        kept.sort_by_key(|deviation| self.deviation.iter().position(|old| old == deviation));
        let mut out = "# Deviations that are known: `cni-conformance --expect THIS`. Patterns: `*` stands for any text.\n".to_owned();
        for deviation in kept.iter().chain(&new) {
            let _ = write!(out, "\n{}", deviation.to_toml());
        }
        out
    }
}

impl Deviation {
    fn to_toml(&self) -> String {
        let mut out = "[[deviation]]\n".to_owned();
        let verdict = self.verdict.word().to_owned();
        let fields = [
            ("suite", self.suite.as_ref()),
            ("plugin", Some(&self.plugin)),
            ("item", Some(&self.item)),
            ("verdict", Some(&verdict)),
            ("message", self.message.as_ref()),
            ("why", Some(&self.why)),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                let _ = writeln!(out, "{name} = {}", serde_json::Value::String(value.clone()));
            }
        }
        out
    }
}

/// How strictly a report is judged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rule<'a> {
    /// Warnings and information count like failures, and so do expected deviations that did not occur.
    pub strict: bool,
    /// A skip that is not expected is no failure.
    pub allow_skips: bool,
    /// Everything else than a pass must be in here.
    pub expectations: Option<&'a Expectations>,
}

impl Rule<'_> {
    /// Whether this case makes the run fail.
    pub fn condemns(self, case: &CaseResult) -> bool {
        match case.verdict {
            Verdict::Pass => false,
            Verdict::Broken => true,
            _ if case.known.is_some() => false,
            Verdict::Skip if self.allow_skips => false,
            _ if self.expectations.is_some() => true,
            Verdict::Fail => true,
            Verdict::Warn | Verdict::Info => self.strict,
            Verdict::Skip => false,
        }
    }

    /// Whether a plugin that was left out makes the run fail.
    pub fn condemns_absence(self, suite: &Suite, plugin: &PluginReport) -> bool {
        !self.allow_skips && self.expectations.is_some_and(|all| !all.expects_absence(suite, plugin))
    }

    /// The exit status for a report: 0 all is as it should be, 1 something is not, 2 the harness could not do its part.
    pub fn status(self, report: &Report) -> u8 {
        let broken = report.cases().any(|(_, _, case)| case.verdict == Verdict::Broken);
        if broken || report.not_run > 0 {
            return 2;
        }
        let condemned = report.cases().any(|(_, _, case)| self.condemns(case))
            || report.plugins().any(|(suite, plugin)| self.condemns_absence(suite, plugin))
            || self.strict && !report.stale.is_empty();
        u8::from(condemned)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(verdict: &str, message: &str) -> Report {
        serde_json::from_value(json!({
            "schema": 1, "harness": "", "kernel": "", "started": "", "seconds": 0.0, "sections": [],
            "suites": [{ "label": "go", "directory": "/", "plugins": [{ "plugin": "bridge", "about": "", "versions": [], "cases": [
                { "item": "GC-02", "case": "all", "verdict": verdict, "millis": 0, "findings": [{ "verdict": verdict, "message": message }] },
            ]}]}],
        }))
        .unwrap()
    }

    fn status(expected: &str, report: &mut Report, allow_skips: bool) -> u8 {
        let all: Expectations = toml::from_str(expected).unwrap();
        all.apply(report);
        Rule { strict: false, allow_skips, expectations: Some(&all) }.status(report)
    }

    #[test]
    fn a_skip_must_have_the_reason_that_is_expected() {
        let expected = "[[deviation]]\nplugin = '*'\nitem = 'GC-*'\nverdict = 'skip'\nmessage = 'GC came with *'\nwhy = 'old'";
        assert_eq!(status(expected, &mut report("skip", "GC came with 1.1.0"), false), 0);
        assert_eq!(status(expected, &mut report("skip", "no ip here"), false), 1);
        assert_eq!(status(expected, &mut report("skip", "no ip here"), true), 0);
        assert_eq!(status(expected, &mut report("info", "GC came with 1.1.0"), true), 1);
        let mut passed = report("pass", "");
        assert_eq!(status(expected, &mut passed, false), 0);
        assert_eq!(passed.stale, ["* GC-*: skip (old)"]);
    }

    #[test]
    fn an_update_keeps_what_a_person_wrote() {
        let known: Expectations = toml::from_str(
            "[[deviation]]\nplugin = 'b*'\nitem = 'GC-02'\nverdict = 'fail'\nwhy = 'said \"so\"'",
        )
        .unwrap();
        let read = |text: &str| toml::from_str::<Expectations>(text).unwrap().deviation;
        assert_eq!(read(&known.updated(&report("fail", "x"))), known.deviation);
        let changed = read(&known.updated(&report("warn", "it's\n\"odd\"")));
        assert_eq!(changed.len(), 1);
        assert_eq!((changed[0].item.as_str(), changed[0].verdict), ("GC-02/all", Verdict::Warn));
        assert_eq!(changed[0].why, "not judged yet: it's\n\"odd\"");
        assert!(read(&known.updated(&report("pass", ""))).is_empty());
    }
}
