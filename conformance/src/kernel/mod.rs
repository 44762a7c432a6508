//! What the kernel has: an independent reading of one network namespace, over netlink, `/proc/sys` and the tools of the firewall.
//!
//! Nothing here changes anything. The plugins' results are compared with what is read here, so it must not share their code.

mod devconf;
mod netlink;
mod snapshot;
mod sysctl;

pub use netlink::{Address, Link, Neighbour, Route, Rule, View, format_mac};
pub use snapshot::{Difference, Snapshot};

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// Runs `work` on a thread inside the network namespace at `path`. The thread ends there, so none is ever left in the wrong one.
///
/// # Errors
/// What opening or entering the namespace said; a panic of `work` is resumed.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    std::thread::scope(|scope| {
        scope
            .spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
                Ok(work())
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
