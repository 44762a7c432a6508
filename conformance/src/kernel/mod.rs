//! What the kernel has: an independent reading of one network namespace, over netlink, `/proc/sys` and the tools of the firewall.
//!
//! Nothing here changes anything. The plugins' results are compared with what is read here, so it must not share their code.

mod devconf;
mod netlink;
mod snapshot;
mod sysctl;
mod watch;

pub use netlink::{Address, Link, Neighbour, Route, Rule, View, format_mac};
pub use snapshot::{Difference, Snapshot};
pub(crate) use sysctl::untold;

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// Runs `work` in the network namespace at `path`, and comes back: only the calling thread goes there. A thread that cannot come back ends the
/// process, for nothing that it would do next would be true.
///
/// # Errors
/// What opening or entering the namespace said; a panic of `work` is resumed.
pub fn inside<T>(path: &Path, work: impl FnOnce() -> T) -> io::Result<T> {
    let home = File::open("/proc/thread-self/ns/net")?;
    setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
    let done = catch_unwind(AssertUnwindSafe(work));
    if let Err(error) = setns(home, CloneFlags::CLONE_NEWNET) {
        use std::io::Write;
        let _ = writeln!(io::stderr(), "cannot leave the network namespace {}: {error}", path.display());
        std::process::abort();
    }
    done.or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_goes_into_a_namespace_comes_back() {
        let here = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let home = here();
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let there = std::thread::spawn(move || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid())).unwrap();
            let _ = ended.recv();
        });
        let path = told.recv().unwrap();
        let path = Path::new(&path);
        let inner = inside(path, here).unwrap();
        assert_eq!(inner, std::fs::read_link(path).unwrap());
        assert_ne!(inner, home);
        let panicked = catch_unwind(|| inside(path, || panic!("inside")));
        assert!(panicked.is_err());
        assert_eq!(here(), home);
        drop(end);
        there.join().unwrap();
    }
}
