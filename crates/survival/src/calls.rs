//! System calls by name, and the errors that the kernel can give for them.

use nix::errno::Errno;

/// What a system call's first arguments are, for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Argument number so-and-so is a path.
    Path(usize),
    /// The first argument is a descriptor.
    Descriptor,
    /// The second argument is where a message begins, the first a descriptor.
    Message,
    /// Nothing that says much.
    Nothing,
}

/// What the arguments of a call are.
pub(crate) fn arguments(call: &str) -> Names {
    match call {
        "open" | "mkdir" | "rename" | "unlink" | "rmdir" | "link" | "symlink" | "readlink" | "execve"
        | "stat" | "lstat" | "access" | "chmod" => Names::Path(0),
        "openat" | "mkdirat" | "renameat" | "renameat2" | "unlinkat" | "linkat" | "statx" | "newfstatat"
        | "readlinkat" | "faccessat" | "faccessat2" | "utimensat" | "mount" | "statfs" => Names::Path(1),
        "sendto" => Names::Message,
        "read" | "write" | "pread64" | "pwrite64" | "flock" | "fsync" | "fdatasync" | "ftruncate"
        | "getdents64" | "close" | "setns" | "sendmsg" | "recvfrom" | "recvmsg" | "fchmod" | "fstat"
        | "lseek" | "bind" | "connect" => Names::Descriptor,
        _ => Names::Nothing,
    }
}

/// Whether a plugin has to do its job in spite of an error: a call that was interrupted or has nothing yet is to be made again.
pub(crate) fn is_passing(error: Errno) -> bool {
    matches!(error, Errno::EINTR | Errno::EAGAIN)
}

/// The errors a call may end with: on netlink, files and namespaces. None for what only computes, or whose failure no program can mend.
pub(crate) fn errors(call: &str) -> &'static [Errno] {
    use Errno::{EAGAIN, EBUSY, EINTR, EIO, EMFILE, ENOBUFS, ENOMEM, ENOSPC, EPERM};
    match call {
        "open" | "openat" => &[ENOSPC, EIO, EPERM, ENOMEM, EINTR],
        "mkdir" | "mkdirat" | "link" | "linkat" | "symlink" | "rename" | "renameat" | "renameat2" => {
            &[ENOSPC, EIO, EPERM, ENOMEM]
        }
        "unlink" | "unlinkat" | "rmdir" => &[EIO, EPERM, EBUSY, ENOMEM],
        "write" | "pwrite64" | "writev" => &[ENOSPC, EIO, EINTR],
        "read" | "pread64" => &[EIO, EINTR],
        "fsync" | "fdatasync" | "ftruncate" => &[ENOSPC, EIO],
        "getdents64" | "statx" | "newfstatat" | "fstat" | "readlink" | "readlinkat" | "utimensat"
        | "fchmod" | "statfs" => &[EIO, ENOMEM],
        // A lock that somebody else holds is EAGAIN only where it was asked for without waiting, which is what the suite does.
        "flock" => &[EIO, ENOMEM, EINTR, EAGAIN],
        "unshare" => &[EPERM, ENOSPC, ENOMEM],
        "mount" => &[EPERM, EBUSY, ENOMEM],
        "socket" | "pipe2" => &[EMFILE, ENOMEM],
        "setns" | "bind" | "connect" | "setsockopt" => &[EPERM, ENOMEM],
        "sendto" | "sendmsg" => &[ENOMEM, EPERM, EBUSY, EINTR, EAGAIN],
        "recvfrom" | "recvmsg" => &[ENOMEM, ENOBUFS, EINTR, EAGAIN],
        "poll" | "ppoll" => &[ENOMEM, EINTR],
        "clone" | "clone3" | "fork" | "vfork" => &[EAGAIN, ENOMEM],
        "execve" => &[EIO, EPERM, ENOMEM],
        "wait4" | "waitid" => &[EINTR],
        _ => &[],
    }
}

/// Whether an error is one of those that have to be survived for this call. (`clone` says EAGAIN where there are too many processes.)
pub(crate) fn survives(call: &str, error: Errno) -> bool {
    is_passing(error) && !matches!(call, "clone" | "clone3" | "fork" | "vfork")
}

/// An error by its name, such as `ENOSPC`.
pub(crate) fn error_named(name: &str) -> Option<Errno> {
    (1..200).map(Errno::from_raw).find(|error| format!("{error:?}") == name)
}

/// A system call's name, or its number.
pub(crate) fn name(number: i64) -> String {
    match known().iter().find(|(known, _)| *known == number) {
        Some((_, constant)) => constant.trim_start_matches("SYS_").to_owned(),
        None => format!("call{number}"),
    }
}

macro_rules! table {
    ($($constant:ident)*) => { &[$((nix::libc::$constant, stringify!($constant))),*] };
}

#[cfg(target_arch = "x86_64")]
fn known() -> &'static [(i64, &'static str)] {
    table![
        SYS_read SYS_write SYS_open SYS_close SYS_stat SYS_fstat SYS_lstat SYS_poll SYS_lseek SYS_mmap SYS_mprotect SYS_munmap SYS_brk
        SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_ioctl SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_access SYS_pipe
        SYS_select SYS_sched_yield SYS_mremap SYS_madvise SYS_dup SYS_dup2 SYS_nanosleep SYS_getpid SYS_socket SYS_connect SYS_accept
        SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_shutdown SYS_bind SYS_listen SYS_getsockname SYS_getpeername SYS_socketpair
        SYS_setsockopt SYS_getsockopt SYS_clone SYS_fork SYS_vfork SYS_execve SYS_exit SYS_wait4 SYS_kill SYS_uname SYS_fcntl SYS_flock
        SYS_fsync SYS_fdatasync SYS_truncate SYS_ftruncate SYS_getdents SYS_getcwd SYS_chdir SYS_rename SYS_mkdir SYS_rmdir SYS_creat
        SYS_link SYS_unlink SYS_symlink SYS_readlink SYS_chmod SYS_fchmod SYS_chown SYS_umask SYS_getuid SYS_getgid SYS_geteuid
        SYS_getegid SYS_setpgid SYS_getppid SYS_setsid SYS_sigaltstack SYS_statfs SYS_fstatfs SYS_prctl SYS_arch_prctl SYS_mount
        SYS_umount2 SYS_gettid SYS_fadvise64 SYS_futex SYS_sched_getaffinity SYS_getdents64 SYS_set_tid_address SYS_clock_gettime SYS_clock_nanosleep
        SYS_exit_group SYS_epoll_wait SYS_epoll_ctl SYS_tgkill SYS_waitid SYS_openat SYS_mkdirat SYS_newfstatat SYS_unlinkat SYS_renameat
        SYS_linkat SYS_symlinkat SYS_readlinkat SYS_fchmodat SYS_faccessat SYS_ppoll SYS_unshare SYS_set_robust_list SYS_utimensat
        SYS_eventfd2 SYS_epoll_create1 SYS_dup3 SYS_pipe2 SYS_prlimit64 SYS_setns SYS_getcpu SYS_renameat2 SYS_getrandom SYS_execveat
        SYS_statx SYS_rseq SYS_pidfd_open SYS_clone3 SYS_close_range SYS_faccessat2 SYS_pidfd_getfd SYS_capget SYS_capset
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn known() -> &'static [(i64, &'static str)] {
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_errors_have_names() {
        assert_eq!(error_named("ENOSPC"), Some(Errno::ENOSPC));
        assert_eq!(error_named("EWHATEVER"), None);
        assert_eq!(name(9999), "call9999");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(name(nix::libc::SYS_openat), "openat");
    }

    #[test]
    fn what_passes_has_to_be_survived_but_for_processes() {
        assert!(survives("recvmsg", Errno::EINTR));
        assert!(!survives("clone3", Errno::EAGAIN));
        assert!(!survives("openat", Errno::ENOSPC));
    }
}
