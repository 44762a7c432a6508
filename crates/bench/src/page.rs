//! `docs/benchmarks.md`: what was measured, when and on what.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::error::{Doing as _, Result};
use crate::explain::where_time_goes;
use crate::plots;
use crate::report::Report;
use crate::table::{self, Table, short};
use crate::verdict::Row;

/// What stands below this line is written by people, and kept.
const BY_HAND: &str =
    "<!-- Below this line the page is written by hand; above it `make bench OPTIONS=--write` does. -->";

/// Writes the page and the plots below a directory of documentation.
///
/// # Errors
/// If it can't be written to.
pub fn save(docs: &Path, machine: &[String], report: &Report, rows: &[Row]) -> Result<()> {
    let plots = plots::save(report, &docs.join("benchmarks"))?;
    let path = docs.join("benchmarks.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let by_hand = before.split_once(BY_HAND).map_or("\n", |(_, rest)| rest);
    let text = format!("{}{BY_HAND}{by_hand}", page(machine, report, rows, &plots));
    fs::write(&path, text).doing("write", &path)
}

fn page(machine: &[String], report: &Report, rows: &[Row], plots: &[&str]) -> String {
    let mut text = String::from(HEAD);
    let _ = writeln!(text, "```\n{}\n```\n", machine.join("\n"));
    let _ = writeln!(text, "## Targets\n\n{TARGETS}\n\n{}", table::of_rows(rows).markdown());
    let _ = writeln!(text, "## Times and counts\n\n{TIMES}\n\n{}", table::of_series(report).markdown());
    let figures = of_figures(report);
    if !figures.is_empty() {
        let _ = writeln!(text, "## Memory, size, throughput\n\n{}", figures.markdown());
    }
    let _ = writeln!(text, "## Where the time goes\n\n{GOES}\n\n```\n{}```\n", where_time_goes(report));
    for plot in plots {
        let _ = writeln!(text, "![{}](benchmarks/{plot})\n", plot.trim_end_matches(".svg"));
    }
    text
}

fn of_figures(report: &Report) -> Table {
    let mut table = Table::new(&["scenario", "what", "who", "value"]);
    for figure in &report.figures {
        table.push([
            figure.scenario.clone(),
            figure.of.clone(),
            figure.contender.clone(),
            format!("{} {}", short(figure.value), figure.unit),
        ]);
    }
    table
}

const HEAD: &str = "\
# Benchmarks

    make bench                    # some minutes; an idle machine gives better numbers
    make bench SHORT=1            # a minute, as CI has it
    make bench ONLY=bridge OPTIONS=--explain
    make bench OPTIONS=--write    # writes this page and its plots

Ours, the Go reference suite and *the floor* do the same, in turns, in one run. The floor is one process, written for this, that makes the same kernel
changes with as few netlink messages as they take, and nothing else: no configuration, no allocation of addresses, no record, no reading back.

Each contender has a host of its own: a network namespace, and `/run` and `/var/lib/cni` in memory. Plugins run as a runtime runs them, one process
each, with their own defaults (the Go suite with iptables, ours with nftables over netlink). A time is that of the processes from start to end; what
happens between them is not counted. System calls and memory are looked at in further runs, which are not timed. Only ratios of one run are judged,
because seconds are the machine's.

";
const TARGETS: &str = "The ratio is ours to the other's; `against` names whom.";
const TIMES: &str = "\
Milliseconds are medians. *programs* are those executed, *calls* system calls, *netlink* requests sent to the kernel and answered, *waits* calls in which
the kernel let a grace period go by (3 ms or more), and *waited* their time together. The counts are of one execution under strace.";
const GOES: &str = "\
Each plugin's median, then the calls in which the kernel made it wait. What the floor waits for as well, nobody avoids who makes these changes.";

#[cfg(test)]
mod tests {
    use super::{BY_HAND, save};
    use crate::report::Report;
    use crate::verdict::judge;

    #[test]
    fn what_people_wrote_stays() {
        let docs = std::env::temp_dir().join(format!("bench-page-{}", std::process::id()));
        let report = Report::default();
        save(&docs, &["kernel Linux 6.18".into()], &report, &judge(&report)).unwrap();
        let path = docs.join("benchmarks.md");
        let first = std::fs::read_to_string(&path).unwrap();
        assert!(first.contains("kernel Linux 6.18") && first.contains("| chain, IPv4: ADD |"), "{first}");
        std::fs::write(&path, format!("old{BY_HAND}\n## Notes\n")).unwrap();
        save(&docs, &[], &report, &judge(&report)).unwrap();
        let second = std::fs::read_to_string(&path).unwrap();
        assert!(second.starts_with("# Benchmarks") && second.ends_with("-->\n## Notes\n"), "{second}");
        std::fs::remove_dir_all(&docs).unwrap();
    }
}
