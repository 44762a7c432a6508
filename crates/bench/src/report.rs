//! Everything that was measured, by name.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::exec::Cost;
use crate::stats::{Summary, milliseconds};
use crate::trace::{Counts, Traced};

/// Times of one contender doing one thing many times.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// The scenario.
    pub scenario: String,
    /// Who.
    pub contender: String,
    /// What, as a verb.
    pub verb: String,
    /// Wall-clock milliseconds.
    pub wall: Summary,
    /// Milliseconds of processor time.
    pub cpu: Summary,
    /// Wall-clock milliseconds of every round, in order.
    pub rounds: Vec<f64>,
    /// Median milliseconds of each program of it.
    pub plugins: BTreeMap<String, f64>,
}

/// Counts of one contender doing one thing once.
#[derive(Debug, Clone, Serialize)]
pub struct Count {
    /// The scenario.
    pub scenario: String,
    /// Who.
    pub contender: String,
    /// What, as a verb.
    pub verb: String,
    /// How much of it.
    pub counts: Counts,
    /// Call by call; not in the JSON.
    #[serde(skip)]
    pub traced: Vec<Traced>,
}

/// A number that stands alone: a size, a rate.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// The scenario.
    pub scenario: String,
    /// Who.
    pub contender: String,
    /// Of what.
    pub of: String,
    /// In this unit.
    pub unit: &'static str,
    /// How much.
    pub value: f64,
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Times.
    pub series: Vec<Series>,
    /// Counts.
    pub counts: Vec<Count>,
    /// Other numbers.
    pub figures: Vec<Figure>,
    /// Scenarios that could not run here, and why.
    pub skipped: BTreeMap<String, String>,
}

/// What is read off a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The median of the wall clock, in milliseconds.
    Wall,
    /// The median of the processor time, in milliseconds.
    Cpu,
    /// A figure.
    Figure,
}

/// What several programs did for one verb, each with its cost.
pub type Attempt = Vec<(String, Cost)>;

impl Report {
    /// Puts the attempts of a series in.
    pub fn add_series(&mut self, scenario: &str, contender: &str, verb: &str, attempts: &[Attempt]) {
        let total = |attempt: &Attempt| {
            let mut total = Cost::default();
            for (_, cost) in attempt {
                total += *cost;
            }
            total
        };
        let totals: Vec<Cost> = attempts.iter().map(total).collect();
        let walls: Vec<Duration> = totals.iter().map(|cost| cost.wall).collect();
        let cpus: Vec<Duration> = totals.iter().map(|cost| cost.cpu).collect();
        let mut of_plugins: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
        for (plugin, cost) in attempts.iter().flatten() {
            of_plugins.entry(plugin.clone()).or_default().push(cost.wall);
        }
        if let (Some(wall), Some(cpu)) = (Summary::of_times(&walls), Summary::of_times(&cpus)) {
            self.series.push(Series {
                scenario: scenario.to_owned(),
                contender: contender.to_owned(),
                verb: verb.to_owned(),
                wall,
                cpu,
                rounds: walls.iter().map(|wall| milliseconds(*wall)).collect(),
                plugins: of_plugins
                    .into_iter()
                    .filter_map(|(plugin, times)| Some((plugin, Summary::of_times(&times)?.median)))
                    .collect(),
            });
        }
    }

    /// Puts a number in.
    pub fn add_figure(&mut self, scenario: &str, contender: &str, of: &str, unit: &'static str, value: f64) {
        let (scenario, contender, of) = (scenario.to_owned(), contender.to_owned(), of.to_owned());
        self.figures.push(Figure { scenario, contender, of, unit, value });
    }

    /// Says why a scenario did not run.
    pub fn skip(&mut self, scenario: &str, why: &str) {
        self.skipped.insert(scenario.to_owned(), why.to_owned());
    }

    /// Puts counts in.
    pub fn add_count(&mut self, scenario: &str, contender: &str, verb: &str, traced: Vec<Traced>) {
        let counts = Counts::of(traced.iter().flat_map(|program| &program.calls));
        let (scenario, contender, verb) = (scenario.to_owned(), contender.to_owned(), verb.to_owned());
        self.counts.push(Count { scenario, contender, verb, counts, traced });
    }

    /// A number by name; of several verbs, joined by `+`, their sum. `None` if it was not measured.
    pub fn value(&self, scenario: &str, contender: &str, verbs: &str, metric: Metric) -> Option<f64> {
        let median = |summary: &Summary| summary.median;
        verbs.split('+').map(|verb| self.one(scenario, contender, verb, metric, median)).sum()
    }

    /// The same of the least of each: what the work costs when nothing else runs on the machine.
    pub fn least(&self, scenario: &str, contender: &str, verbs: &str, metric: Metric) -> Option<f64> {
        let least = |summary: &Summary| summary.least;
        verbs.split('+').map(|verb| self.one(scenario, contender, verb, metric, least)).sum()
    }

    /// A series by name.
    pub fn series_of(&self, scenario: &str, contender: &str, verb: &str) -> Option<&Series> {
        let same = |s: &&Series| s.scenario == scenario && s.contender == contender && s.verb == verb;
        self.series.iter().find(same)
    }

    /// The counts of what a series is about.
    pub fn count_of(&self, series: &Series) -> Option<&Count> {
        let named = |scenario: &str, contender: &str, verb: &str| {
            scenario == series.scenario && contender == series.contender && verb == series.verb
        };
        self.counts.iter().find(|count| named(&count.scenario, &count.contender, &count.verb))
    }

    fn one(
        &self,
        scenario: &str,
        contender: &str,
        verb: &str,
        metric: Metric,
        pick: fn(&Summary) -> f64,
    ) -> Option<f64> {
        if metric == Metric::Figure {
            let same = |f: &&Figure| f.scenario == scenario && f.contender == contender && f.of == verb;
            return self.figures.iter().find(same).map(|figure| figure.value);
        }
        let series = self.series_of(scenario, contender, verb)?;
        Some(pick(if metric == Metric::Cpu { &series.cpu } else { &series.wall }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Attempt, Metric, Report};
    use crate::exec::Cost;

    fn attempt(bridge: u64, portmap: u64) -> Attempt {
        let cost = |wall| Cost { wall: Duration::from_millis(wall), cpu: Duration::from_millis(wall / 2) };
        vec![("bridge".into(), cost(bridge)), ("portmap".into(), cost(portmap))]
    }

    #[test]
    fn the_time_of_a_chain_is_that_of_its_plugins_together() {
        let mut report = Report::default();
        report.add_series("chain", "ours", "ADD", &[attempt(10, 2), attempt(12, 2), attempt(80, 4)]);
        report.add_series("chain", "ours", "DEL", &[attempt(4, 2)]);
        let value = |verbs, metric| report.value("chain", "ours", verbs, metric);
        assert_eq!(value("ADD", Metric::Wall), Some(14.0));
        assert_eq!(value("ADD+DEL", Metric::Wall), Some(20.0));
        assert_eq!(value("ADD+DEL", Metric::Cpu), Some(10.0));
        assert_eq!(report.least("chain", "ours", "ADD", Metric::Wall), Some(12.0));
        assert_eq!(report.series[0].plugins.get("portmap"), Some(&2.0));
    }

    #[test]
    fn a_sum_with_an_unmeasured_part_is_unmeasured() {
        let mut report = Report::default();
        report.add_series("chain", "ours", "ADD", &[attempt(10, 2)]);
        assert_eq!(report.value("chain", "ours", "ADD+DEL", Metric::Wall), None);
        assert_eq!(report.value("chain", "reference", "ADD", Metric::Wall), None);
    }
}
