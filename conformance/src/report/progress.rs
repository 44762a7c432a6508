//! How far the run is, on standard error.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::run::Progress;
use crate::verdict::Verdict;

/// A line that is rewritten on a terminal; elsewhere, in the log of a CI system, a line now and then.
#[derive(Debug)]
pub struct Line {
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    started: Instant,
    written: Instant,
    planned: usize,
    done: usize,
    verdicts: BTreeMap<Verdict, usize>,
}

/// Between two lines in a log.
const PAUSE: Duration = Duration::from_secs(10);

impl Line {
    /// Begins now.
    pub fn new() -> Self {
        let now = Instant::now();
        let state = State { started: now, written: now, planned: 0, done: 0, verdicts: BTreeMap::new() };
        Self { terminal: io::stderr().is_terminal(), state: Mutex::new(state) }
    }

    /// Takes in what a worker tells.
    pub fn event(&self, event: &Progress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Progress::Planned(number) => {
                state.planned = *number;
                state.started = Instant::now();
            }
            Progress::Done { suite, plugin, result } => {
                state.done += 1;
                *state.verdicts.entry(result.verdict).or_insert(0) += 1;
                let what = format!("{suite} {plugin} {}", result.name());
                let text = state.text(state.started.elapsed());
                if self.terminal {
                    let _ = write!(
                        io::stderr(),
                        "\r\x1b[K{}",
                        cut(&format!("{text}  {what}"), super::terminal::width())
                    );
                } else if state.written.elapsed() >= PAUSE {
                    state.written = Instant::now();
                    let _ = writeln!(io::stderr(), "{text}");
                }
            }
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn text(&self, elapsed: Duration) -> String {
        let mut text = format!("{}/{}", self.done, self.planned);
        for verdict in Verdict::ALL {
            if let Some(number) = self.verdicts.get(&verdict) {
                let _ = write!(text, "  {} {number}", verdict.symbol());
            }
        }
        let (done, planned) = (u32::try_from(self.done), u32::try_from(self.planned));
        if let (Ok(done), Ok(planned)) = (done, planned)
            && done > 0
        {
            let left = elapsed / done * planned.saturating_sub(done);
            let _ = write!(text, "  {} s to go", left.as_secs());
        }
        text
    }
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_time_left() {
        let now = Instant::now();
        let verdicts = BTreeMap::from([(Verdict::Pass, 3), (Verdict::Fail, 1)]);
        let state = State { started: now, written: now, planned: 12, done: 4, verdicts };
        assert_eq!(state.text(Duration::from_secs(10)), "4/12  ✓ 3  ✗ 1  20 s to go");
    }
}
