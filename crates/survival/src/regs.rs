//! The registers of a thread that is stopped at a system call. The kernel's convention differs between processors; this knows x86-64, where
//! the sweeps run. Elsewhere calls have one name, so kills go by number, and errors can't be injected.

use nix::errno::Errno;
use nix::unistd::Pid;

#[cfg(target_arch = "x86_64")]
mod processor {
    use nix::errno::Errno;
    use nix::sys::ptrace::{getregs, setregs};
    use nix::unistd::Pid;

    /// Number and first arguments of the call that is about to be made.
    pub(crate) fn call(thread: Pid) -> nix::Result<(i64, [u64; 4])> {
        let regs = getregs(thread)?;
        Ok((regs.orig_rax.cast_signed(), [regs.rdi, regs.rsi, regs.rdx, regs.r10]))
    }

    /// Makes the kernel skip the call.
    pub(crate) fn skip(thread: Pid) -> nix::Result<()> {
        let mut regs = getregs(thread)?;
        regs.orig_rax = u64::MAX;
        setregs(thread, regs)
    }

    /// Gives the answer of a call that was skipped.
    pub(crate) fn answer(thread: Pid, error: Errno) -> nix::Result<()> {
        let mut regs = getregs(thread)?;
        regs.rax = i64::from(-(error as i32)).cast_unsigned();
        setregs(thread, regs)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod processor {
    use nix::errno::Errno;
    use nix::unistd::Pid;

    pub(crate) fn call(_: Pid) -> nix::Result<(i64, [u64; 4])> {
        Ok((0, [0; 4]))
    }

    pub(crate) fn skip(_: Pid) -> nix::Result<()> {
        Err(Errno::ENOSYS)
    }

    pub(crate) fn answer(_: Pid, _: Errno) -> nix::Result<()> {
        Err(Errno::ENOSYS)
    }
}

/// Number and first arguments of the call that is about to be made.
pub(crate) fn call(thread: Pid) -> nix::Result<(i64, [u64; 4])> {
    processor::call(thread)
}

/// Makes the kernel skip the call.
pub(crate) fn skip(thread: Pid) -> nix::Result<()> {
    processor::skip(thread)
}

/// Gives the answer of a call that was skipped.
pub(crate) fn answer(thread: Pid, error: Errno) -> nix::Result<()> {
    processor::answer(thread, error)
}

/// Whether errors can be injected on this processor.
pub(crate) const CAN_FAIL: bool = cfg!(target_arch = "x86_64");
