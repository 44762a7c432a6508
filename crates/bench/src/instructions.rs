//! Instructions of the pure parts, counted by callgrind and compared with a committed list: seconds on a shared machine show no change of a few
//! percent, instructions do.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::error::{BenchError, Doing as _, Result};
use crate::exec;
use crate::table::Table;

/// A change below this is none: hash tables are seeded anew each time, and C libraries differ.
const TOLERANCE: f64 = 0.03;
/// How often a part is done in the two runs, whose difference is counted.
const TIMES: (u64, u64) = (20, 60);

/// Counts by part, and the compiler they are of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    compiler: String,
    parts: BTreeMap<String, u64>,
}

impl Counted {
    /// Counts the parts of a program, which names them when it is started without arguments.
    ///
    /// # Errors
    /// If valgrind is missing, or the program fails.
    pub fn of(program: &Path) -> Result<Self> {
        let valgrind = testkit::have("valgrind").ok_or(BenchError::NoTool { tool: "valgrind" })?;
        let (_, compiler) = exec::run(Command::new("rustc").arg("--version"), b"", "rustc --version")?;
        let (_, names) = exec::run(&mut Command::new(program), b"", "the list of parts")?;
        let mut counted =
            Self { compiler: String::from_utf8_lossy(&compiler).trim().to_owned(), ..Self::default() };
        for name in String::from_utf8_lossy(&names).lines() {
            let count = |times| instructions(&valgrind, program, name, times);
            let difference = count(TIMES.1)?.saturating_sub(count(TIMES.0)?);
            counted.parts.insert(name.to_owned(), difference / (TIMES.1 - TIMES.0));
        }
        Ok(counted)
    }

    /// A committed list: the compiler after `#`, then a line for each part, with its count after a tab.
    pub fn parse(text: &str) -> Self {
        let mut counted = Self::default();
        for line in text.lines() {
            if let Some(compiler) = line.strip_prefix("# ") {
                compiler.clone_into(&mut counted.compiler);
            } else if let Some((name, count)) = line.split_once('\t')
                && let Ok(count) = count.parse()
            {
                counted.parts.insert(name.to_owned(), count);
            }
        }
        counted
    }

    /// The list to commit.
    pub fn list(&self) -> String {
        let mut text = format!("# {}\n", self.compiler);
        for (name, count) in &self.parts {
            let _ = writeln!(text, "{name}\t{count}");
        }
        text
    }

    /// Whether these were counted with the compiler of the others: another one's code is another.
    pub fn is_comparable(&self, others: &Self) -> bool {
        self.compiler == others.compiler
    }

    /// What has changed since, for a person, and whether a part costs more than it did or is not in the list.
    pub fn compare(&self, before: &Self) -> (String, bool) {
        let mut table = Table::new(&["instructions of", "now", "before", "change", ""]);
        let mut worse = false;
        for (name, now) in &self.parts {
            let known = before.parts.get(name);
            let change = known.map(|before| relative(*now, *before));
            let note = match change {
                None => "new: not in the list",
                Some(change) if change > TOLERANCE => "COSTS MORE",
                Some(change) if change < -TOLERANCE => "costs less: write it down",
                Some(_) => "",
            };
            worse |= change.is_none_or(|change| change > TOLERANCE);
            let change = change.map(|change| format!("{:+.1} %", change * 100.0)).unwrap_or_default();
            let known = known.map(ToString::to_string).unwrap_or_default();
            table.push([name.clone(), now.to_string(), known, change, note.to_owned()]);
        }
        for (name, count) in before.parts.iter().filter(|(name, _)| !self.parts.contains_key(*name)) {
            table.push([name.clone(), String::new(), count.to_string(), String::new(), "gone".to_owned()]);
        }
        (table.text(), worse)
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn relative(now: u64, before: u64) -> f64 {
    now as f64 / before.max(1) as f64 - 1.0
}

fn instructions(valgrind: &Path, program: &Path, name: &str, times: u64) -> Result<u64> {
    let out = std::env::temp_dir().join(format!("callgrind-{}", std::process::id()));
    let mut command = Command::new(valgrind);
    command.arg("--tool=callgrind").arg("--quiet").arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(program).arg(name).arg(times.to_string());
    exec::run(&mut command, b"", &format!("{name} under callgrind"))?;
    let text = std::fs::read_to_string(&out).doing("read", &out)?;
    std::fs::remove_file(&out).doing("remove", &out)?;
    Ok(total(&text))
}

/// The total in callgrind's output: `summary: 259736`, or `totals:` in some versions.
fn total(text: &str) -> u64 {
    let number = |line: &str| {
        let rest = line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: "))?;
        rest.trim().parse::<u64>().ok()
    };
    // With threads there is a part for each.
    let sums: Vec<u64> =
        text.lines().filter(|line| line.starts_with("summary: ")).filter_map(number).collect();
    if sums.is_empty() { text.lines().find_map(number).unwrap_or_default() } else { sums.iter().sum() }
}

#[cfg(test)]
mod tests {
    use super::{Counted, total};

    #[test]
    fn more_instructions_fail_and_fewer_are_said() {
        let before = Counted::parse("# rustc 1.95.0\nparse\t1000\nwrite\t1000\nencode\t1000\n");
        let counted = |parse, write| {
            Counted::parse(&format!("# rustc 1.95.0\nparse\t{parse}\nwrite\t{write}\nencode\t1000\n"))
        };
        assert!(!counted(1020, 1000).compare(&before).1);
        let (text, worse) = counted(1100, 900).compare(&before);
        assert!(worse && text.contains("+10.0 %  COSTS MORE") && text.contains("-10.0 %"), "{text}");
        assert!(!counted(900, 900).compare(&before).1);
    }

    #[test]
    fn a_part_that_nobody_wrote_down_fails() {
        let now = Counted::parse("# rustc 1.95.0\nparse\t1000\n");
        let (text, worse) = now.compare(&Counted::parse("# rustc 1.95.0\nother\t7\n"));
        assert!(worse && text.contains("new") && text.contains("gone"), "{text}");
    }

    #[test]
    fn the_list_is_read_as_it_was_written() {
        let counted = Counted::parse("# rustc 1.95.0\nparse, all of it\t1000\n");
        assert_eq!(counted.list(), "# rustc 1.95.0\nparse, all of it\t1000\n");
        assert!(!counted.is_comparable(&Counted::parse("# rustc 1.96.0\n")));
    }

    #[test]
    fn callgrind_says_the_total() {
        assert_eq!(total("events: Ir\nsummary: 259736\n\ntotals: 259736\n"), 259_736);
        assert_eq!(total("totals: 12\n"), 12);
    }
}
