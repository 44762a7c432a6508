//! Who has written to a setting, as the kernel tells (`man 7 inotify`): every write to a file goes through one place, that of `/proc/sys`, too.
//!
//! What changes without a write to a file, it does not tell.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// Directories of settings, watched for writes to what is in them.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Inotify,
    /// Of each directory the namespace, and its place among those that were added with it.
    places: HashMap<WatchDescriptor, (u64, usize)>,
}

impl Watch {
    /// `None` where the user has no more of them.
    pub(super) fn new() -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
        Some(Self { inotify, places: HashMap::new() })
    }

    /// From now on tells of writes in these directories of a namespace: whether it can, in all of them.
    pub(super) fn add(&mut self, namespace: u64, directories: &[File]) -> bool {
        directories.iter().enumerate().all(|(index, directory)| {
            // Not by name: what is open is what is watched.
            let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
            let watched = self.inotify.add_watch(&path, AddWatchFlags::IN_MODIFY);
            watched.map(|descriptor| self.places.insert(descriptor, (namespace, index))).is_ok()
        })
    }

    /// Where something was written since the last time: the namespace and the place of the directory; `None` stands for all.
    pub(super) fn written(&mut self) -> Vec<Option<(u64, usize)>> {
        let mut written = Vec::new();
        while let Ok(events) = self.inotify.read_events() {
            // An event of no directory says that some were lost.
            written.extend(events.iter().map(|event| self.places.get(&event.wd).copied()));
        }
        written
    }

    /// Tells no more of a namespace.
    pub(super) fn forget(&mut self, namespace: u64) {
        self.places.retain(|descriptor, (of, _)| {
            if *of == namespace {
                let _ = self.inotify.rm_watch(*descriptor);
            }
            *of != namespace
        });
    }
}
