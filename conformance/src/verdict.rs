//! What a case found out.

use serde::{Deserialize, Serialize};

use crate::catalogue::Level;

/// The outcome of a case, of an item, of a plugin: the worst of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Could not be tried here; the message says why.
    Skip,
    /// Holds.
    Pass,
    /// Beyond the specification, and not so.
    Info,
    /// Breaks a SHOULD, or takes the worse side where the specification contradicts itself.
    Warn,
    /// Breaks a MUST.
    Fail,
    /// The harness itself could not do what the case needs. Never the plugin's fault, never a success.
    Broken,
}

impl Verdict {
    /// What breaking an item of this level is.
    pub fn of_breaking(level: Level) -> Self {
        match level {
            Level::Must => Self::Fail,
            Level::Should => Self::Warn,
            Level::May | Level::Convention | Level::Reference | Level::Quality => Self::Info,
        }
    }

    /// All of them, the best news first.
    pub const ALL: [Self; 6] = [Self::Pass, Self::Skip, Self::Info, Self::Warn, Self::Fail, Self::Broken];

    /// A sign that can be told from the others without colour.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Skip => "–",
            Self::Pass => "✓",
            Self::Info => "i",
            Self::Warn => "!",
            Self::Fail => "✗",
            Self::Broken => "?",
        }
    }

    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Pass => "pass",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Broken => "broken",
        }
    }
}

/// One thing a case has to say: why it failed, was skipped, or what it saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad.
    pub verdict: Verdict,
    /// What was seen, on what, and what was expected.
    pub message: String,
    /// Index of the step of the journal that shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
}

/// Why a case ends before its last line.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Stop {
    /// What it needs is not there: a kernel feature, a version of the plugin, a tool. The plugin is not blamed.
    #[error("{0}")]
    Skip(String),
    /// The plugin broke the item in a way that leaves nothing more to check.
    #[error("{0}")]
    Fail(String),
    /// The harness could not do its part.
    #[error("{0}")]
    Broken(String),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// What a case returns: `Ok` when it came to its end; what it found is in the lab.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Everything about one run of one case against one plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CaseResult {
    /// The item, `ADD-03`.
    pub item: String,
    /// The case below it, `existing-interface`.
    pub case: String,
    /// The worst finding, or pass.
    pub verdict: Verdict,
    /// What it has to say; empty on a plain pass.
    pub findings: Vec<Finding>,
    /// What was done, in order: enough to do it again by hand. Kept only where the verdict is not pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub journal: Vec<crate::lab::Step>,
    /// Wall-clock milliseconds, of the whole case.
    pub millis: u64,
    /// Why this verdict is no surprise, from a file of expectations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
}

impl CaseResult {
    /// `ADD-03/existing-interface`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.item, self.case)
    }

    /// The findings that made the verdict what it is.
    pub fn worst(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.verdict == self.verdict)
    }

    /// The first of [`CaseResult::worst`], or nothing.
    pub fn message(&self) -> &str {
        self.worst().next().map_or("", |finding| finding.message.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts() {
        assert!(
            Verdict::Broken > Verdict::Fail && Verdict::Fail > Verdict::Warn && Verdict::Pass > Verdict::Skip
        );
        assert_eq!(Verdict::of_breaking(Level::Must), Verdict::Fail);
        assert_eq!(Verdict::of_breaking(Level::Quality), Verdict::Info);
    }
}
