//! A host for each contender, so that none pays for what another left.

use std::ffi::CStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use testkit::Netns;

use crate::error::{Doing as _, Result};
use crate::floor::message::{add_veth, set_loopback_up};

/// Directories that plugins keep state in: each host has its own, in memory.
const STATE: [&CStr; 2] = [c"/run", c"/var/lib/cni"];

/// A network and a mount namespace, entered for every piece of work.
#[derive(Debug)]
pub struct Host {
    net: File,
    mounts: File,
}

impl Host {
    /// Makes one. The process must be a [`testkit::Host`] already, whose own network this never touches.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(_base: &testkit::Host) -> Result<Self> {
        let work = || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .doing("make namespaces for", "a host")?;
            for directory in STATE {
                let shown = directory.to_string_lossy().into_owned();
                mount(Some(c"tmpfs"), directory, Some(c"tmpfs"), MsFlags::empty(), Some(c"mode=0755"))
                    .doing("mount a tmpfs on", shown)?;
            }
            set_loopback_up().doing("bring up", "lo")?;
            // The kernel's defaults; a new namespace has the machine's.
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").doing("write", "net.ipv4.ip_forward")?;
            Ok(Self { net: own("net")?, mounts: own("mnt")? })
        };
        std::thread::scope(|scope| {
            scope.spawn(work).join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
        })
    }

    /// Runs `work` on a thread of this host. Sockets opened, files made and processes started there are the host's.
    ///
    /// # Errors
    /// Those of `work`, and the kernel's if the host cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            // A thread that shares its root directory with others may not change its mount namespace.
            unshare(CloneFlags::CLONE_FS).doing("part from the other threads for", "a host")?;
            setns(&self.net, CloneFlags::CLONE_NEWNET).doing("enter", "a host's network")?;
            setns(&self.mounts, CloneFlags::CLONE_NEWNS).doing("enter", "a host's mounts")?;
            work()
        };
        std::thread::scope(|scope| {
            scope.spawn(inside).join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
        })
    }

    /// The same in the network of one of its containers.
    ///
    /// # Errors
    /// As [`Host::enter`].
    pub fn enter_container<T: Send>(&self, name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.enter(|| {
            let path = netns_path(name);
            let netns = File::open(&path).doing("open", &path)?;
            setns(netns, CloneFlags::CLONE_NEWNET).doing("enter", &path)?;
            work()
        })
    }

    /// Makes containers' namespaces, without a network.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn create_containers(&self, names: &[String]) -> Result<()> {
        self.enter(|| {
            for name in names {
                Netns::create(name);
            }
            Ok(())
        })
    }

    /// Takes containers' namespaces away.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn delete_containers(&self, names: &[String]) -> Result<()> {
        self.enter(|| {
            for name in names {
                let path = netns_path(name);
                nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).doing("unmount", &path)?;
                fs::remove_file(&path).doing("remove", &path)?;
            }
            Ok(())
        })
    }
}

/// Waits until the kernel has freed all network namespaces that were given up before.
///
/// It does so in order, by a worker that holds the lock of all links (RTNL) meanwhile, also against other namespaces: what runs then is slow. One
/// more namespace is given up here; when its link is gone, so is everything of those before it.
///
/// # Errors
/// What the kernel refused.
pub fn settle(_base: &testkit::Host) -> Result<()> {
    const LINK: &str = "last";
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).doing("make a network namespace for", LINK)?;
        own("net")
    };
    let netns = std::thread::scope(|scope| {
        scope.spawn(make).join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
    })?;
    add_veth(LINK, &netns).doing("make the link", LINK)?;
    drop(netns);
    while if_nametoindex(LINK).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Where a container's namespace is, on its host.
pub fn netns_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn own(kind: &'static str) -> Result<File> {
    let path = format!("/proc/thread-self/ns/{kind}");
    File::open(&path).doing("open", &path)
}
