//! What the coordinator asks of a world, and what it hears: one JSON document a line.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::trace::Call;

/// A verb of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Add, Self::Del, Self::Check, Self::Gc].into_iter().find(|verb| verb.as_str() == name)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is done to a verb of a plugin, and how it is put right afterwards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Sweep {
    /// A name of [`crate::networks::NAMES`], or a path.
    pub network: String,
    /// The plugin's type.
    pub plugin: String,
    /// The verb that is hit.
    pub verb: Verb,
    /// What a runtime does next: DEL or GC.
    pub repair: Verb,
    /// Whether another container is on the network all the time.
    pub company: bool,
}

/// One point of a sweep: a call, and what happens to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// The program that makes it. Programs that run side by side take turns as they like; each by itself makes its calls in the same order.
    pub program: String,
    /// The call's name.
    pub call: String,
    /// The how manieth of that name, of that program.
    pub nth: usize,
    /// The error it ends with, such as `ENOSPC`; without one, the process is killed.
    pub error: Option<String>,
}

impl Sweep {
    /// A point as a word that `--replay` takes.
    pub(crate) fn spell(&self, point: &Point) -> String {
        let company = if self.company { "company" } else { "alone" };
        let at = format!("{}/{}.{}", point.program, point.call, point.nth);
        let what = point.error.as_deref().unwrap_or("kill");
        format!("{what}:{at}:{}:{}:{}:{company}:{}", self.plugin, self.verb, self.repair, self.network)
    }

    /// What [`Sweep::spell`] wrote.
    pub(crate) fn read(text: &str) -> Option<(Self, Point)> {
        // The network comes last, for it may be any path.
        let parts: Vec<&str> = text.splitn(7, ':').collect();
        let [what, at, plugin, verb, repair, company, network] = parts[..] else { return None };
        let (program, at) = at.split_once('/')?;
        let (call, nth) = at.rsplit_once('.')?;
        let sweep = Self {
            network: network.to_owned(),
            plugin: plugin.to_owned(),
            verb: Verb::named(verb)?,
            repair: Verb::named(repair)?,
            company: company == "company",
        };
        let error = (what != "kill").then(|| what.to_owned());
        Some((
            sweep,
            Point { program: program.to_owned(), call: call.to_owned(), nth: nth.parse().ok()?, error },
        ))
    }
}

/// Work for a world.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Job {
    /// List the system calls of a verb.
    Calls(Sweep),
    /// Try points.
    Sweep(Sweep, Vec<Point>),
    /// So many containers at once, and their network.
    Storm(String, String, usize),
    /// Many life cycles.
    Churn(usize),
    /// A damaged host, and its network.
    Damage(String, String),
}

impl Job {
    /// The network its world has.
    pub(crate) fn network(&self) -> &str {
        match self {
            Self::Calls(sweep) | Self::Sweep(sweep, _) => &sweep.network,
            Self::Damage(_, network) | Self::Storm(_, network, _) => network,
            Self::Churn(_) => "chain",
        }
    }

    /// The row of the summary it counts in.
    pub(crate) fn part(&self) -> String {
        match self {
            Self::Calls(sweep) => format!("calls {} {}", sweep.plugin, sweep.verb),
            Self::Sweep(sweep, points) => {
                let what = if points.iter().any(|point| point.error.is_some()) { "error" } else { "kill" };
                format!("{what} {} {} ({})", sweep.plugin, sweep.verb, sweep.network)
            }
            Self::Storm(name, network, _) if network == "chain" => format!("storm: {name}"),
            Self::Storm(name, network, _) => format!("storm: {name} ({network})"),
            Self::Churn(_) => "churn".to_owned(),
            Self::Damage(name, network) if network == "chain" => format!("damage: {name}"),
            Self::Damage(name, network) => format!("damage: {name} ({network})"),
        }
    }
}

/// What went wrong at a point.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// What was expected, and is not so.
    pub problem: String,
    /// The call that was hit: its program, and what it was made on.
    pub call: String,
    /// What differs from before, a line each.
    pub difference: Vec<String>,
}

impl Failure {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), call: String::new(), difference: Vec::new() }
    }

    pub(crate) fn differing(problem: &str, difference: Vec<String>) -> Self {
        Self { difference, ..Self::new(problem) }
    }
}

/// What a world reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The calls of a verb.
    Calls(Vec<Call>),
    /// A point is about to be tried.
    Trying(String),
    /// It was tried.
    Tried {
        /// As [`Event::Trying`] had it.
        point: String,
        /// How many points that is (a storm's or a churn's calls count).
        points: usize,
        /// The call did not come up this time.
        missed: bool,
        /// The error message that came of it.
        message: Option<String>,
        /// What went wrong.
        failure: Option<Failure>,
    },
    /// Something worth knowing.
    Note(String),
    /// The job is over.
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_as_it_was_spelt() {
        let sweep = Sweep {
            network: "a:b/c.conflist".into(),
            plugin: "host-local".into(),
            verb: Verb::Add,
            repair: Verb::Gc,
            company: true,
        };
        for error in [None, Some("ENOSPC".to_owned())] {
            let point = Point { program: "iptables-save".into(), call: "openat".into(), nth: 12, error };
            assert_eq!(Sweep::read(&sweep.spell(&point)), Some((sweep.clone(), point)));
        }
        assert_eq!(Sweep::read("kill:openat:bridge"), None);
    }
}
