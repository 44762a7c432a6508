//! The command line.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde_json::json;

use crate::error::{BenchError, Doing as _, Result};
use crate::explain::explain;
use crate::instructions::Counted;
use crate::report::Report;
use crate::scenario::{Bench, SCENARIOS, Scale, Scenario};
use crate::suite::{Contender, NO_REFERENCE, REFERENCE, Suite};
use crate::verdict::{Row, Verdict, judge};
use crate::{machine, page, plots, table};

/// Measures CNI plugins against another suite and against the kernel's own part, in turns in one run.
#[derive(Debug, Parser)]
#[command(name = "bench")]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub struct Arguments {
    /// The directory of our plugins, release.
    #[arg(long, value_name = "DIR", default_value = "bin")]
    bin: PathBuf,
    /// The directory of the suite to compare with; by default the Go suite from ~/.cache/ferrule, else Debian's.
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// One program of the plugins that both suites have, for the size of such an install.
    #[arg(long, value_name = "FILE")]
    multi_call: Option<PathBuf>,
    /// How many times each thing is done.
    #[arg(long, value_name = "N")]
    rounds: Option<u16>,
    /// About a minute: few rounds, small scenarios.
    #[arg(long)]
    short: bool,
    /// These scenarios alone.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Where bench.json and the plots go.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    into: PathBuf,
    /// Shows where the time of one ADD, CHECK and DEL goes: system calls that took long, and what waited for the kernel.
    #[arg(long)]
    explain: bool,
    /// Writes docs/benchmarks.md and its plots.
    #[arg(long)]
    write: bool,
    /// Fails if a target is missed. Without it only a ratio beyond three times its target fails, and only with --short.
    #[arg(long)]
    gate: bool,
    /// Counts the instructions of a program's parts under callgrind instead, and compares with crates/bench/instructions.tsv
    /// (or, with --write, writes it).
    #[arg(long, value_name = "PROGRAM")]
    instructions: Option<PathBuf>,
    /// Lists the scenarios.
    #[arg(long)]
    list: bool,
}

/// The whole program.
pub fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            let _ = writeln!(std::io::stderr(), "bench: {text}");
            ExitCode::from(2)
        }
    }
}

/// Measures, prints and judges; false if a judgement fails the run.
fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for scenario in SCENARIOS {
            say(&format!("{:<12} {}", scenario.name, scenario.about))?;
        }
        return Ok(true);
    }
    if let Some(program) = &arguments.instructions {
        return count(program, arguments.write);
    }
    let scenarios = chosen(&arguments.only)?;
    let contenders = contenders(arguments)?;
    let mut scale = if arguments.short { Scale::SHORT } else { Scale::FULL };
    scale.rounds = arguments.rounds.unwrap_or(scale.rounds);
    let mut machine = machine::describe(&contenders);
    let rounds =
        format!("rounds     {} of each, {} of what takes seconds; in turns", scale.rounds, scale.slow_rounds);
    machine.push(rounds);
    say(&machine.join("\n"))?;

    let absolute = |path: &Path| std::path::absolute(path).doing("find", path);
    let (into, docs) = (absolute(&arguments.into)?, absolute(Path::new("docs"))?);
    std::fs::create_dir_all(&into).doing("make", &into)?;
    let mut report = Report::default();
    if !contenders.iter().any(|contender| contender.name() == REFERENCE) {
        report.skip(REFERENCE, NO_REFERENCE);
    }
    let mut bench = Bench {
        base: testkit::Host::new(),
        contenders,
        scale,
        report,
        multi_call: arguments.multi_call.clone(),
    };
    measure(&scenarios, &mut bench)?;

    let rows = judge(&bench.report);
    save(&into, &machine, &bench, &rows)?;
    if arguments.write {
        page::save(&docs, &machine, &bench.report, &rows)?;
    }
    say(&format!("\n{}\n{}", table::of_series(&bench.report).text(), table::of_rows(&rows).text()))?;
    for row in rows.iter().filter(|row| row.is_missed()) {
        say(&format!("missed: {}{}", row.measure, row.explanation(&bench.report)))?;
    }
    if arguments.explain {
        say(&explain(&bench.report))?;
    }
    Ok(passes(arguments, &rows))
}

/// Where the counts of instructions are committed.
const INSTRUCTIONS: &str = "crates/bench/instructions.tsv";

/// Counts instructions; false if a part costs more than is written down.
fn count(program: &Path, write: bool) -> Result<bool> {
    let counted = Counted::of(program)?;
    if write {
        std::fs::write(INSTRUCTIONS, counted.list()).doing("write", INSTRUCTIONS)?;
    }
    let before = Counted::parse(&std::fs::read_to_string(INSTRUCTIONS).doing("read", INSTRUCTIONS)?);
    let (text, worse) = counted.compare(&before);
    say(&text)?;
    if !counted.is_comparable(&before) {
        say("Not judged: what is written down was counted with another compiler.")?;
        return Ok(true);
    }
    if worse {
        say("More is done than before. If that is meant: make bench-instructions OPTIONS=--write")?;
    }
    Ok(!worse)
}

fn measure(scenarios: &[&Scenario], bench: &mut Bench) -> Result<()> {
    for scenario in scenarios {
        let start = Instant::now();
        scenario.run(bench)?;
        let skipped = bench.report.skipped.get(scenario.name);
        let note = skipped.map(|why| format!("  not run: {why}")).unwrap_or_default();
        say(&format!("  {:<12} {:>4.0} s{note}", scenario.name, start.elapsed().as_secs_f64()))?;
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).doing("write to", "standard output")
}

fn chosen(only: &[String]) -> Result<Vec<&'static Scenario>> {
    if only.is_empty() {
        return Ok(SCENARIOS.iter().collect());
    }
    let find = |name: &String| {
        let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
        found.ok_or_else(|| BenchError::NoScenario { name: name.clone() })
    };
    only.iter().map(find).collect()
}

fn contenders(arguments: &Arguments) -> Result<Vec<Contender>> {
    let mut contenders = vec![Contender::Suite(Suite::ours(&arguments.bin)?)];
    contenders.extend(Suite::reference(arguments.reference.as_deref()).map(Contender::Suite));
    let own = std::env::current_exe().doing("find", "this program")?;
    let program = own.parent().unwrap_or(Path::new(".")).join("bench-floor");
    contenders.push(Contender::Floor { program });
    Ok(contenders)
}

fn save(into: &Path, machine: &[String], bench: &Bench, rows: &[Row]) -> Result<()> {
    let path = into.join("bench.json");
    let document = json!({"machine": machine, "scale": bench.scale, "report": bench.report, "targets": rows});
    std::fs::write(&path, format!("{document:#}\n")).doing("write", &path)?;
    plots::save(&bench.report, into).map(drop)
}

fn passes(arguments: &Arguments, rows: &[Row]) -> bool {
    let fails = |row: &Row| match row.verdict {
        Verdict::Missed => arguments.gate,
        // Against another suite only: how near the floor something is depends on what else the machine does.
        Verdict::FarOff => arguments.gate || (arguments.short && row.whose == REFERENCE),
        Verdict::Met | Verdict::NotMeasured(_) | Verdict::NotAsked => false,
    };
    !rows.iter().any(fails)
}
