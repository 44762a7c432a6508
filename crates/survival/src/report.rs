//! What is said of a run: lines while it goes on, a table, JSON, a page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use serde_json::{Value, json};

use crate::job::{Event, Failure, Job};
use crate::pool::Report;

/// Progress is said every so many points.
const LINE_EVERY: usize = 250;

#[derive(Debug, Default)]
struct Row {
    points: usize,
    missed: usize,
    failures: usize,
    seconds: f64,
}

/// Everything that was tried.
#[derive(Debug)]
pub(crate) struct Tally {
    bin: PathBuf,
    short: bool,
    offset: Option<usize>,
    started: Instant,
    rows: BTreeMap<String, Row>,
    failures: Vec<(String, String, Failure)>,
    messages: BTreeMap<String, usize>,
    notes: Vec<String>,
    expected: usize,
    tried: usize,
    verbose: bool,
}

#[expect(clippy::print_stdout, reason = "what a command line tool is for")]
fn say(text: &str) {
    println!("{text}");
}

impl Tally {
    pub(crate) fn new(bin: &Path, short: bool) -> Self {
        Self {
            bin: bin.to_owned(),
            short,
            offset: None,
            started: Instant::now(),
            rows: BTreeMap::new(),
            failures: Vec::new(),
            messages: BTreeMap::new(),
            notes: Vec::new(),
            expected: 0,
            tried: 0,
            verbose: false,
        }
    }

    /// Says what came of every point.
    pub(crate) fn verbose(&mut self) {
        self.verbose = true;
    }

    /// These jobs will come.
    pub(crate) fn expect(&mut self, jobs: &[Job], offset: Option<usize>) {
        let points = |job: &Job| if let Job::Sweep(_, points) = job { points.len() } else { 0 };
        self.expected = jobs.iter().map(points).sum();
        self.offset = offset;
        let from = offset.map(|offset| format!(", chosen with --offset {offset}")).unwrap_or_default();
        say(&format!("{} points{from}", self.expected));
    }

    /// Takes in an event.
    pub(crate) fn hear(&mut self, report: &Report) {
        let part = report.job.part();
        if !matches!(report.job, Job::Calls(_)) {
            self.rows.entry(part.clone()).or_default().seconds += report.took;
        }
        match &report.event {
            Event::Tried { point, points, missed, message, failure } => {
                let row = self.rows.entry(part.clone()).or_default();
                row.points += points;
                row.missed += usize::from(*missed);
                self.count(*points);
                if let Some(message) = message {
                    *self.messages.entry(message.clone()).or_default() += 1;
                }
                if self.verbose {
                    say(&format!(
                        "{point}: {}{}",
                        if *missed { "the call did not come up. " } else { "" },
                        message.as_deref().unwrap_or("no error document")
                    ));
                }
                if let Some(failure) = failure {
                    self.rows.entry(part.clone()).or_default().failures += 1;
                    self.fail(&part, point, failure);
                }
            }
            Event::Note(text) => self.note(&format!("{part}: {text}")),
            Event::Calls(_) | Event::Trying(_) | Event::Done => {}
        }
    }

    /// Says, and keeps, something worth knowing.
    pub(crate) fn note(&mut self, text: &str) {
        say(text);
        self.notes.push(text.to_owned());
    }

    fn count(&mut self, points: usize) {
        let before = self.tried / LINE_EVERY;
        self.tried += points;
        if self.tried / LINE_EVERY != before {
            say(&format!(
                "{} of {} points, {} failures, {:.0} s",
                self.tried,
                self.expected.max(self.tried),
                self.failures.len(),
                self.started.elapsed().as_secs_f64()
            ));
        }
    }

    fn fail(&mut self, part: &str, point: &str, failure: &Failure) {
        say(&format!("FAILED {part}\n  point:  {point}\n  call:   {}\n  {}", failure.call, failure.problem));
        for line in &failure.difference {
            say(&format!("    {line}"));
        }
        if let Some(replay) = self.replay(point) {
            say(&format!("  replay: {replay}"));
        }
        self.failures.push((part.to_owned(), point.to_owned(), failure.clone()));
    }

    fn replay(&self, point: &str) -> Option<String> {
        let (..) = crate::job::Sweep::read(point)?;
        Some(format!("survival --bin {} --replay '{point}'", self.bin.display()))
    }

    /// Says the table, writes the files; the exit code.
    pub(crate) fn finish(&self, json: Option<&Path>, page: Option<&Path>) -> ExitCode {
        say(&self.table());
        for (path, text) in [(json, format!("{:#}\n", self.json())), (page, self.page())]
            .into_iter()
            .filter_map(|(p, t)| Some((p?, t)))
        {
            if let Err(error) = fs::write(path, text) {
                say(&format!("survival: can't write {}: {error}", path.display()));
                return ExitCode::from(2);
            }
        }
        if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn table(&self) -> String {
        let width = self.rows.keys().map(String::len).max().unwrap_or(0).max(4);
        let mut text = format!("\n{:width$}  points  not reached  failures  seconds\n", "part");
        let mut sum = Row::default();
        for (part, row) in &self.rows {
            let Row { points, missed, failures, seconds } = row;
            let _ = writeln!(text, "{part:width$}  {points:6}  {missed:11}  {failures:8}  {seconds:7.1}");
            sum.points += points;
            sum.missed += missed;
            sum.failures += failures;
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let Row { points, missed, failures, .. } = sum;
        let _ =
            write!(text, "{:width$}  {points:6}  {missed:11}  {failures:8}  {seconds:7.1} (elapsed)", "all");
        text
    }

    fn json(&self) -> Value {
        let rows: Value = self
            .rows
            .iter()
            .map(|(part, row)| json!({ "part": part, "points": row.points, "notReached": row.missed, "failures": row.failures, "seconds": row.seconds }))
            .collect();
        let failures: Value = self
            .failures
            .iter()
            .map(|(part, point, failure)| json!({ "part": part, "point": point, "call": failure.call, "problem": failure.problem, "difference": failure.difference, "replay": self.replay(point) }))
            .collect();
        json!({
            "short": self.short, "offset": self.offset, "kernel": kernel(), "parts": rows, "failures": failures, "notes": self.notes,
            "errorMessages": self.messages, "seconds": self.started.elapsed().as_secs_f64()
        })
    }

    fn page(&self) -> String {
        let command = if self.short { "make survival SHORT=1 WRITE=1" } else { "make survival WRITE=1" };
        let mut text = format!(
            "# Survival\n\nWritten by `{command}` on {} (UTC). {} What is tried, and why it is believed:\n[below](#what-is-tried).\n\n\
             Kernel {}, {}, {} processors; {} points in {:.1} minutes.\n\n",
            date(),
            if self.short { "The short form: not every point." } else { "The full form: every point." },
            kernel(),
            version(&self.bin.join("bridge")).lines().next().unwrap_or("plugins of unknown version"),
            std::thread::available_parallelism().map_or(1, usize::from),
            self.rows.values().map(|row| row.points).sum::<usize>(),
            self.started.elapsed().as_secs_f64() / 60.0,
        );
        text.push_str("| part | points | not reached | failures | seconds |\n|---|---:|---:|---:|---:|\n");
        for (part, Row { points, missed, failures, seconds }) in &self.rows {
            let _ = writeln!(text, "| {part} | {points} | {missed} | {failures} | {seconds:.0} |");
        }
        text.push_str("\n## Failures\n\n");
        if self.failures.is_empty() {
            text.push_str("None.\n");
        }
        for (part, point, failure) in &self.failures {
            let problem = failure.problem.lines().next().unwrap_or_default();
            let _ = writeln!(text, "* {part}: `{point}` ({}): {problem}", failure.call.trim());
        }
        text.push('\n');
        text.push_str(include_str!("explanation.txt"));
        text
    }
}

/// Today, in UTC.
fn date() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// What a program says of its version, in a line.
fn version(program: &Path) -> String {
    let output = Command::new(program).env_clear().arg("--version").output();
    // Plugins say it on standard error, which is for people.
    let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&said).trim().to_owned()
}
