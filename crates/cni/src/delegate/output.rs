//! What a delegate prints: read when somebody waits for it, without a thread.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What happens to output beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// The pipe is closed, which ends most writers.
    Close,
    /// It is read and forgotten, so that the writer can go on.
    Discard,
}

/// The reading end of a pipe, with what has come out of it.
#[derive(Debug)]
pub(super) struct Output {
    /// `None` after its end.
    pipe: Option<File>,
    bytes: Vec<u8>,
    overflow: bool,
    /// How many bytes are kept.
    limit: usize,
    excess: Excess,
}

impl Output {
    /// Of this pipe, at most `limit` bytes. From now on its reader does not wait; the writer has an open file of its own.
    pub(super) fn of(pipe: Option<impl Into<OwnedFd>>, limit: usize, excess: Excess) -> Self {
        let pipe = pipe.map(|pipe| File::from(pipe.into()));
        let pipe = pipe.filter(|pipe| fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok());
        Self { pipe, bytes: Vec::new(), overflow: false, limit, excess }
    }

    /// Whether more may come.
    pub(super) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Takes what is there, and waits for nothing. A pipe that can't be read has ended: what a delegate is worth, its status tells too.
    pub(super) fn read(&mut self) {
        /// A writer that never stops must not keep anybody here.
        const AT_ONCE: usize = 4 << 20;
        let Some(pipe) = &mut self.pipe else { return };
        let mut buffer = [0; 16 << 10];
        let mut taken = 0;
        while taken < AT_ONCE {
            let read = match pipe.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) | Ok(0) => {
                    self.pipe = None;
                    return;
                }
                Ok(read) => read,
            };
            taken += read;
            let room = self.limit.saturating_sub(self.bytes.len()).min(read);
            self.bytes.extend_from_slice(buffer.get(..room).unwrap_or_default());
            self.overflow |= room < read;
            if self.overflow && self.excess == Excess::Close {
                self.pipe = None;
                return;
            }
        }
    }

    /// What has come, and whether it was more than the limit.
    pub(super) fn taken(&mut self) -> (Vec<u8>, bool) {
        (std::mem::take(&mut self.bytes), self.overflow)
    }
}

/// Waits until one of these has something to read or has ended, at most so long.
pub(super) fn wait(outputs: [&Output; 2], patience: Duration) {
    let pipes = outputs.into_iter().filter_map(|output| output.pipe.as_ref());
    let mut watched: Vec<_> = pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
    match poll(&mut watched, PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => {}
        // A host without memory for that has some for sleeping.
        Err(_) => std::thread::sleep(patience),
    }
}
