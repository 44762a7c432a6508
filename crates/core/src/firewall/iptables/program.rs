//! Running `iptables-save` and `iptables-restore`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::firewall::FirewallError;

/// How long `iptables-restore -w` waits for the lock of xtables.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(30);

/// When a program is given up. Longer than its own wait for the lock, so that it can report that itself.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where iptables is on hosts whose runtime was started with a short PATH.
const MORE_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// `RESOURCE_PROBLEM` of xtables: the lock could not be had in time.
const EXIT_LOCKED: i32 = 4;

/// The program's file: the first of that name in a PATH and the usual directories.
pub(super) fn find(name: &str, path: &OsStr) -> Result<PathBuf, FirewallError> {
    let is_program = |file: &PathBuf| {
        file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .chain(MORE_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(is_program)
        .ok_or_else(|| FirewallError::ProgramMissing { program: name.to_owned() })
}

/// Runs a program with a text on its standard input and returns its standard output.
pub(super) fn run(program: &Path, arguments: &[&str], input: &str) -> Result<String, FirewallError> {
    let name = program.display().to_string();
    let failed = |source| FirewallError::Run { program: name.clone(), source };
    // Files in memory instead of pipes: whatever the sizes, nobody waits for anybody but for the end of the output.
    let mut errors = memory_file("").map_err(failed)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::from(memory_file(input).map_err(failed)?))
        .stdout(Stdio::piped())
        .stderr(Stdio::from(errors.try_clone().map_err(failed)?))
        .spawn()
        .map_err(failed)?;
    let output = match child.stdout.take() {
        Some(stdout) => read_until(stdout, Instant::now() + DEADLINE),
        None => Ok(Vec::new()),
    };
    if output.is_err() {
        // Already gone is fine; wait() below reaps it either way.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Err(FirewallError::TimedOut { what: name, seconds: DEADLINE.as_secs() });
        }
        other => other.map_err(failed)?,
    };
    if !status.success() {
        let mut stderr = String::new();
        let read = errors.rewind().and_then(|()| errors.read_to_string(&mut stderr));
        read.map_err(failed)?;
        return Err(refused(name, status, stderr, input));
    }
    String::from_utf8(output)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error.utf8_error())))
}

fn refused(program: String, status: ExitStatus, stderr: String, input: &str) -> FirewallError {
    // Exit status 4 is also that of a refused change in some versions; the text tells.
    if status.code() == Some(EXIT_LOCKED) && stderr.contains("xtables lock") {
        return FirewallError::Busy {
            what: format!("the xtables lock ({program})"),
            seconds: LOCK_WAIT.as_secs(),
        };
    }
    FirewallError::Program { program, status: status.to_string(), stderr, input: input.to_owned() }
}

fn memory_file(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"iptables", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// Reads to the end, or to a point in time (`TimedOut`).
fn read_until(mut stream: impl Read + AsFd, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => match stream.read(&mut buffer) {
                Ok(0) => return Ok(bytes),
                Ok(length) => bytes.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            },
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;

    use super::*;

    /// A pipe of which every other read is interrupted by a signal.
    struct Interrupted {
        pipe: io::PipeReader,
        now: bool,
    }

    impl AsFd for Interrupted {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.pipe.as_fd()
        }
    }

    impl Read for Interrupted {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.now = !self.now;
            if self.now { Err(io::ErrorKind::Interrupted.into()) } else { self.pipe.read(buffer) }
        }
    }

    #[test]
    fn a_signal_does_not_end_the_output_of_a_program() {
        let (pipe, mut program) = io::pipe().unwrap();
        io::Write::write_all(&mut program, b"-A INPUT").unwrap();
        drop(program);
        let output = read_until(Interrupted { pipe, now: false }, Instant::now() + DEADLINE);
        assert_eq!(output.unwrap(), b"-A INPUT");
    }
}
