//! One execution of a program, and what it cost.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::error::{BenchError, Doing as _, Result};

/// What an execution cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// From the start of the process to its end, as a runtime waits for it.
    pub wall: Duration,
    /// Processor time, the user's and the kernel's, of the process and all it started.
    pub cpu: Duration,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

/// Runs a program with these bytes on its standard input, and returns what it printed. The program must succeed.
///
/// Its processor time is what the process's children have used meanwhile: one at a time, or the figures mix.
///
/// # Errors
/// If it can't be started or fails.
pub fn run(command: &mut Command, stdin: &[u8], what: &str) -> Result<(Cost, Vec<u8>)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let before = children_cpu()?;
    let start = Instant::now();
    let mut child = command.spawn().doing("start", command.get_program())?;
    // A configuration fits into the pipe. A program that ends without reading it breaks the pipe, and says why itself.
    let written = child.stdin.take().map(|mut pipe| pipe.write_all(stdin));
    drop(written);
    let mut stdout = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut stdout).doing("read the output of", what)?;
    }
    let status = child.wait().doing("wait for", what)?;
    let wall = start.elapsed();
    let cpu = children_cpu()?.saturating_sub(before);
    if !status.success() {
        let mut said = String::from_utf8_lossy(&stdout).trim_end().to_owned();
        if let Some(mut pipe) = child.stderr.take() {
            let _ = pipe.read_to_string(&mut said);
        }
        return Err(BenchError::Failed { program: what.to_owned(), status: status.to_string(), said });
    }
    Ok((Cost { wall, cpu }, stdout))
}

/// Processor time of all children that have ended, and of theirs.
///
/// # Errors
/// What the kernel said.
pub fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).doing("read the resource usage of", "children")?;
    let duration = |time: nix::sys::time::TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
        Duration::from_secs(seconds) + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::run;

    #[test]
    fn time_asleep_is_waited_for_and_costs_no_processor() {
        let (cost, stdout) = run(Command::new("sh").args(["-c", "cat; sleep 0.1"]), b"hello", "sh").unwrap();
        assert_eq!(stdout, b"hello");
        assert!(cost.wall >= Duration::from_millis(100) && cost.cpu < Duration::from_millis(100), "{cost:?}");
    }

    #[test]
    fn processor_time_of_a_grandchild_counts() {
        let busy = "sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'; true";
        let (cost, _) = run(Command::new("sh").args(["-c", busy]), b"", "sh").unwrap();
        assert!(cost.cpu > Duration::from_millis(5), "{cost:?}");
    }

    #[test]
    fn a_failure_shows_what_the_program_said() {
        let error =
            run(Command::new("sh").args(["-c", "echo no address left; exit 3"]), b"", "host-local ADD");
        assert_eq!(
            error.unwrap_err().to_string(),
            "host-local ADD ended with exit status: 3: no address left"
        );
    }
}
