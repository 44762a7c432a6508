//! The plots: latency by number of attachments, throughput by parallelism.

use std::fs;
use std::path::Path;

use crate::error::{Doing as _, Result};
use crate::report::Report;
use crate::stats::Summary;
use crate::suite::{FLOOR, OURS, REFERENCE};
use crate::svg::{Line, Plot};

/// Attempts that one corner of the line is the median of.
const WINDOW: usize = 10;
const CONTENDERS: [&str; 3] = [OURS, REFERENCE, FLOOR];

/// File names, and what is in them.
pub fn all(report: &Report) -> Vec<(&'static str, String)> {
    let plots = [("latency.svg", latency(report)), ("throughput.svg", throughput(report))];
    plots.into_iter().filter_map(|(name, plot)| Some((name, plot.svg()?))).collect()
}

/// Writes them into a directory; returns their names.
///
/// # Errors
/// If it can't be written to.
pub fn save(report: &Report, directory: &Path) -> Result<Vec<&'static str>> {
    let plots = all(report);
    fs::create_dir_all(directory).doing("make", directory)?;
    for (name, svg) in &plots {
        let path = directory.join(name);
        fs::write(&path, svg).doing("write", &path)?;
    }
    Ok(plots.into_iter().map(|(name, _)| name).collect())
}

fn latency(report: &Report) -> Plot {
    let line = |contender: &&str| {
        let series = report.series_of("growth", contender, "ADD")?;
        let dots: Vec<(f64, f64)> =
            series.rounds.iter().enumerate().map(|(index, time)| (position(index), *time)).collect();
        let corner = |window: &[(f64, f64)]| {
            let times: Vec<f64> = window.iter().map(|(_, time)| *time).collect();
            Some((window.get(window.len() / 2)?.0, Summary::of(&times)?.median))
        };
        let path = dots.chunks(WINDOW).filter_map(corner).collect();
        Some(Line { name: (*contender).to_owned(), dots, path })
    };
    Plot {
        title: "ADD of the chain, IPv4".into(),
        x: "attachments there already".into(),
        y: "milliseconds".into(),
        lines: CONTENDERS.iter().filter_map(line).collect(),
    }
}

fn throughput(report: &Report) -> Plot {
    let line = |contender: &&str| {
        let point = |figure: &crate::report::Figure| {
            let parallel = figure.of.strip_suffix(" at a time")?.parse().ok()?;
            let same = figure.scenario == "storm" && figure.contender == **contender;
            same.then_some((parallel, figure.value))
        };
        let path: Vec<(f64, f64)> = report.figures.iter().filter_map(point).collect();
        let line = Line { name: (*contender).to_owned(), dots: path.clone(), path };
        (!line.path.is_empty()).then_some(line)
    };
    Plot {
        title: "Chain, IPv4: attachments per second, ADD then DEL".into(),
        x: "at a time".into(),
        y: "attachments per second".into(),
        lines: CONTENDERS.iter().filter_map(line).collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a position in a short list")]
fn position(index: usize) -> f64 {
    index as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::all;
    use crate::exec::Cost;
    use crate::report::Report;

    #[test]
    fn a_plot_is_drawn_of_what_was_measured_and_no_other() {
        let mut report = Report::default();
        assert_eq!(all(&report), []);
        report.add_figure("storm", "ours", "1 at a time", "attachments/s", 10.0);
        report.add_figure("storm", "ours", "16 at a time", "attachments/s", 40.0);
        let names: Vec<&str> = all(&report).iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["throughput.svg"]);
        let attempts: Vec<_> = (1..40)
            .map(|time| {
                vec![("bridge".into(), Cost { wall: Duration::from_millis(time), cpu: Duration::ZERO })]
            })
            .collect();
        report.add_series("growth", "ours", "ADD", &attempts);
        let latency = all(&report).remove(0).1;
        assert_eq!(latency.matches("<circle").count(), 39);
    }
}
