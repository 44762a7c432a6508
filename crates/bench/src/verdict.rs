//! The targets, and whether they were met. Only ratios of one run are judged.

use serde::Serialize;

use crate::explain::of_one;
use crate::report::{Figure, Metric, Report};
use crate::suite::{FLOOR, NETAVARK, OURS, REFERENCE};
use crate::table::short;

/// How far a ratio may be from its target before even a short run on a busy machine fails.
pub const GENEROUS: f64 = 3.0;

/// What is measured, and the bound on it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// In a reader's words.
    pub measure: &'static str,
    ours: Of,
    against: Of,
    /// The bound on the quotient of both.
    pub bound: Bound,
    /// Of both numbers.
    unit: &'static str,
}

/// A measured number: scenario, contender, verbs.
#[derive(Debug, Clone, Copy)]
struct Of(&'static str, &'static str, &'static str, Metric);

/// A bound on a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Bound {
    /// It may not be greater.
    AtMost(f64),
    /// It may not be less.
    AtLeast(f64),
}

/// A target, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// In a reader's words.
    pub measure: &'static str,
    /// Of both numbers.
    pub unit: &'static str,
    /// Our number.
    pub ours: Option<f64>,
    /// The number it is held against.
    pub against: Option<f64>,
    /// Whose that is.
    pub whose: String,
    /// The quotient.
    pub ratio: Option<f64>,
    /// What it should be.
    pub bound: Bound,
    /// What came of it.
    pub verdict: Verdict,
    #[serde(skip)]
    ours_of: Of,
}

impl Row {
    /// Whether the target was measured and not reached.
    pub fn is_missed(&self) -> bool {
        matches!(self.verdict, Verdict::Missed | Verdict::FarOff)
    }

    /// Where it goes: our plugins one by one, and what waited for the kernel.
    pub fn explanation(&self, report: &Report) -> String {
        let Of(scenario, contender, verbs, metric) = self.ours_of;
        if metric == Metric::Figure {
            let of_plugin = |figure: &Figure| {
                let same = figure.scenario == scenario && figure.contender == contender;
                let (_, plugin) = figure.of.split_once(" of ").filter(|_| same)?;
                Some(format!("{plugin} {} {}", short(figure.value), figure.unit))
            };
            let plugins: Vec<String> = report.figures.iter().filter_map(of_plugin).collect();
            return if plugins.is_empty() { String::new() } else { format!(": {}", plugins.join(", ")) };
        }
        let of_verb = |verb: &str| {
            let series = report.series_of(scenario, contender, verb)?;
            let count = report.count_of(series)?;
            Some(format!(": {}", of_one(series, count)))
        };
        verbs.split('+').filter_map(of_verb).collect()
    }
}

/// What came of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// It was reached.
    Met,
    /// It was not.
    Missed,
    /// And by more than a busy machine explains: even the ratio of the quickest attempts is beyond [`GENEROUS`] times the target.
    FarOff,
    /// It could not be measured, and why.
    NotMeasured(String),
    /// Its scenario was not in this run.
    NotAsked,
}

impl Bound {
    /// Of the ratio of medians, and of that of the quickest attempts.
    fn verdict(self, ratio: f64, least: f64) -> Verdict {
        let (met, near) = match self {
            Self::AtMost(bound) => (ratio <= bound, least <= bound * GENEROUS),
            Self::AtLeast(bound) => (ratio >= bound, least >= bound / GENEROUS),
        };
        match (met, near) {
            (true, _) => Verdict::Met,
            (false, true) => Verdict::Missed,
            (false, false) => Verdict::FarOff,
        }
    }
}

const fn wall(
    scenario: &'static str,
    verbs: &'static str,
    whose: &'static str,
    most: f64,
    measure: &'static str,
) -> Target {
    Target {
        measure,
        ours: Of(scenario, OURS, verbs, Metric::Wall),
        against: Of(scenario, whose, verbs, Metric::Wall),
        bound: Bound::AtMost(most),
        unit: "ms",
    }
}

/// Against ourselves in better circumstances.
const fn own(
    scenario: &'static str,
    verbs: &'static str,
    (worse, better): (&'static str, &'static str),
    most: f64,
    measure: &'static str,
) -> Target {
    Target {
        measure,
        ours: Of(scenario, worse, verbs, Metric::Wall),
        against: Of(scenario, better, verbs, Metric::Wall),
        bound: Bound::AtMost(most),
        unit: "ms",
    }
}

/// All targets, in the order of the table.
pub const TARGETS: &[Target] = &[
    wall("chain", "ADD", REFERENCE, 0.10, "chain, IPv4: ADD"),
    wall("chain-dual", "ADD", REFERENCE, 0.08, "chain, dual stack: ADD"),
    wall("chain", "CHECK", REFERENCE, 0.10, "chain, IPv4: CHECK"),
    wall("chain", "DEL", REFERENCE, 0.20, "chain, IPv4: DEL"),
    wall("bridge", "ADD", REFERENCE, 0.40, "bridge and host-local: ADD"),
    wall("bridge", "ADD", FLOOR, 1.5, "bridge and host-local: ADD"),
    wall(
        "dad",
        "ADD",
        REFERENCE,
        0.02,
        "IPv6, where the reference waits for duplicate address detection: ADD",
    ),
    Target {
        measure: "chain, IPv4: processor time of ADD and DEL",
        ours: Of("chain", OURS, "ADD+DEL", Metric::Cpu),
        against: Of("chain", REFERENCE, "ADD+DEL", Metric::Cpu),
        bound: Bound::AtMost(0.12),
        unit: "ms",
    },
    Target {
        measure: "peak memory of any plugin of the chain",
        ours: Of("chain", OURS, "peak memory", Metric::Figure),
        against: Of("chain", REFERENCE, "peak memory", Metric::Figure),
        bound: Bound::AtMost(0.4),
        unit: "KiB",
    },
    Target {
        measure: "installed size, standalone files",
        ours: Of("size", OURS, "standalone files", Metric::Figure),
        against: Of("size", REFERENCE, "standalone files", Metric::Figure),
        bound: Bound::AtMost(0.3),
        unit: "MB",
    },
    Target {
        measure: "installed size, multi-call",
        ours: Of("size", OURS, "multi-call", Metric::Figure),
        against: Of("size", REFERENCE, "standalone files", Metric::Figure),
        bound: Bound::AtMost(0.08),
        unit: "MB",
    },
    own("leases", "ADD", ("ours, full store", "ours, no leases"), 1.5, "host-local, 50,000 leases: ADD"),
    own("leases", "CHECK", ("ours, full store", "ours, no leases"), 1.5, "host-local, 50,000 leases: CHECK"),
    own("leases", "DEL", ("ours, full store", "ours, no leases"), 1.5, "host-local, 50,000 leases: DEL"),
    own("ports", "ADD", ("ours, many ports", "ours, few ports"), 2.0, "portmap, 5,000 published ports: ADD"),
    own("ports", "DEL", ("ours, many ports", "ours, few ports"), 2.0, "portmap, 5,000 published ports: DEL"),
    own(
        "ports",
        "connect",
        ("ours, many ports", "ours, few ports"),
        1.1,
        "a connection through one of 5,000 ports",
    ),
    wall("netavark", "ADD", NETAVARK, 0.35, "bridge, masquerade, two ports: set-up"),
    wall("netavark", "DEL", NETAVARK, 0.50, "bridge, masquerade, two ports: tear-down"),
    Target {
        measure: "200 attachments, 16 at a time: attachments per second",
        ours: Of("storm", OURS, "16 at a time", Metric::Figure),
        against: Of("storm", REFERENCE, "16 at a time", Metric::Figure),
        bound: Bound::AtLeast(5.0),
        unit: "/s",
    },
];

impl Target {
    /// The scenarios it needs.
    pub fn scenarios(&self) -> [&'static str; 2] {
        [self.ours.0, self.against.0]
    }

    /// Holds it against what was measured.
    pub fn judge(&self, report: &Report) -> Row {
        let value = |of: Of| report.value(of.0, of.1, of.2, of.3);
        let least = |of: Of| report.least(of.0, of.1, of.2, of.3);
        let (ours, against) = (value(self.ours), value(self.against));
        let quotient = |(ours, against): (f64, f64)| ours / against;
        let ratio = ours.zip(against).map(quotient);
        let least = least(self.ours).zip(least(self.against)).map(quotient);
        let verdict = match ratio.zip(least) {
            Some((ratio, least)) => self.bound.verdict(ratio, least),
            None => self.unmeasured(report),
        };
        let whose = self.against.1;
        Row {
            measure: self.measure,
            unit: self.unit,
            ours,
            against,
            whose: whose.to_owned(),
            ratio,
            bound: self.bound,
            verdict,
            ours_of: self.ours,
        }
    }

    fn unmeasured(&self, report: &Report) -> Verdict {
        let names = [self.ours.0, self.against.0, self.ours.2, self.against.1];
        let why = names.iter().find_map(|name| report.skipped.get(*name).cloned());
        why.map_or(Verdict::NotAsked, Verdict::NotMeasured)
    }
}

/// Holds all targets against what was measured.
pub fn judge(report: &Report) -> Vec<Row> {
    TARGETS.iter().map(|target| target.judge(report)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Bound, Row, TARGETS, Verdict, judge};
    use crate::report::Report;
    use crate::scenario::SCENARIOS;

    #[test]
    fn a_bound_is_met_missed_or_far_off() {
        let verdicts = [0.1, 0.15, 0.4].map(|ratio| Bound::AtMost(0.1).verdict(ratio, ratio));
        assert_eq!(verdicts, [Verdict::Met, Verdict::Missed, Verdict::FarOff]);
        let verdicts = [5.0, 3.0, 1.0].map(|ratio| Bound::AtLeast(5.0).verdict(ratio, ratio));
        assert_eq!(verdicts, [Verdict::Met, Verdict::Missed, Verdict::FarOff]);
    }

    #[test]
    fn slow_rounds_alone_make_nothing_far_off() {
        assert_eq!(Bound::AtMost(0.1).verdict(0.9, 0.12), Verdict::Missed);
    }

    #[test]
    fn what_was_not_measured_is_not_judged_and_says_why() {
        let mut report = Report::default();
        report.skipped.insert("bridge".into(), "no bridges here".into());
        let rows = judge(&report);
        let bridge = rows.iter().find(|row| row.measure.starts_with("bridge")).unwrap();
        assert_eq!(bridge.verdict, Verdict::NotMeasured("no bridges here".into()));
        let unmeasured = |row: &Row| matches!(row.verdict, Verdict::NotMeasured(_) | Verdict::NotAsked);
        assert!(rows.iter().all(unmeasured));
    }

    #[test]
    fn every_target_names_scenarios_that_exist() {
        for target in TARGETS {
            for name in target.scenarios() {
                assert!(SCENARIOS.iter().any(|scenario| scenario.name == name), "{name}");
            }
        }
    }
}
