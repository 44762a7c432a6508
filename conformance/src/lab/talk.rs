//! What goes into a program and comes out of it, while somebody else waits for its end.

use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::exec::{Call, Stdin, kill_tree};

/// No program has more to say than this, in bytes.
const LIMIT: usize = 64 << 20;

/// The pipes of a program that runs.
pub(super) struct Talk<'c> {
    pid: u32,
    /// When it is killed.
    limit: Instant,
    stdin: Option<ChildStdin>,
    /// What has not been written yet.
    input: &'c [u8],
    keep_open: bool,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    said: Said,
}

/// What has come of it.
#[derive(Default)]
pub(super) struct Said {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    /// It did not read all of its input.
    pub(super) broken_pipe: bool,
    /// It was killed because its time was over.
    pub(super) late: bool,
}

impl<'c> Talk<'c> {
    pub(super) fn new(call: &'c Call, child: &mut Child, started: Instant) -> io::Result<Self> {
        let (input, keep_open) = match &call.stdin {
            Stdin::Bytes(bytes) => (bytes.as_slice(), false),
            Stdin::Open(bytes) => (bytes.as_slice(), true),
            _ => (&[][..], false),
        };
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().filter(|_| !call.close_stdout);
        let stderr = child.stderr.take();
        let pipes = [
            stdin.as_ref().map(AsFd::as_fd),
            stdout.as_ref().map(AsFd::as_fd),
            stderr.as_ref().map(AsFd::as_fd),
        ];
        for pipe in pipes.into_iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let limit = started + call.kill_after.unwrap_or(call.timeout);
        let said = Said::default();
        Ok(Self { pid: child.id(), limit, stdin, input, keep_open, stdout, stderr, said })
    }

    /// Writes and reads until `end` is closed, which says that the program has ended, and nobody holds its output open any more.
    pub(super) fn hold(mut self, end: &PipeReader) -> io::Result<Said> {
        let mut running = true;
        loop {
            self.write();
            read(&mut self.stdout, &mut self.said.stdout);
            read(&mut self.stderr, &mut self.said.stderr);
            if !running && self.stdout.is_none() && self.stderr.is_none() {
                self.said.broken_pipe |= !self.input.is_empty();
                return Ok(self.said);
            }
            running = self.wait(end, running)?;
        }
    }

    /// Waits until there is something to do. Returns whether the program still runs.
    fn wait(&mut self, end: &PipeReader, running: bool) -> io::Result<bool> {
        let left = self.limit.saturating_duration_since(Instant::now());
        if running && !self.said.late && left.is_zero() {
            kill_tree(self.pid);
            self.said.late = true;
        }
        let timeout = if running && !self.said.late {
            // Rounded up: a poll that returns too early would be done again and again.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        } else {
            PollTimeout::NONE
        };
        let mut watched = Vec::new();
        if running {
            watched.push(PollFd::new(end.as_fd(), PollFlags::POLLIN));
        }
        if !self.input.is_empty() {
            watched.extend(self.stdin.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
        }
        watched.extend(self.stdout.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        watched.extend(self.stderr.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        match poll(&mut watched, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = running && watched.first().is_some_and(|end| end.any() == Some(true));
        Ok(running && !ended)
    }

    fn write(&mut self) {
        let Some(pipe) = &mut self.stdin else { return };
        while !self.input.is_empty() {
            match pipe.write(self.input) {
                Ok(written) => self.input = &self.input[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.said.broken_pipe = true;
                    self.input = &[];
                }
            }
        }
        if !self.keep_open || self.said.broken_pipe {
            self.stdin = None;
        }
    }
}

/// Reads what is there; takes the pipe away at its end.
fn read<P: Read>(pipe: &mut Option<P>, into: &mut Vec<u8>) {
    let mut bytes = [0; 8192];
    while let Some(open) = pipe {
        match open.read(&mut bytes) {
            Ok(length) if length > 0 && into.len() < LIMIT => into.extend(&bytes[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            _ => *pipe = None,
        }
    }
}
