//! Nodes from a file that an operator, or a tool of theirs, writes.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrule_overlay::{NodeId, Port, Vni, source::peers_file};
use futures::FutureExt;
use futures::future::BoxFuture;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tracing::warn;

use super::{Event, Presence, QUEUE, Source};
use crate::descriptor::register;
use crate::error::{Error, chain};

/// A file of peers, read again whenever it changes.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    vni: Vni,
    port: Port,
    relist: Arc<Notify>,
}

impl FileSource {
    /// Nodes from this file; those without a port of their own have `port`.
    pub fn new(path: PathBuf, vni: Vni, port: Port) -> Self {
        Self { path, vni, port, relist: Arc::new(Notify::new()) }
    }
}

impl Source for FileSource {
    fn describe(&self) -> String {
        format!("file {}", self.path.display())
    }

    fn watch(&mut self, _known: usize) -> Receiver<Event> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let follower = Follower { path: self.path.clone(), vni: self.vni, port: self.port, sender };
        tokio::spawn(follower.run(Arc::clone(&self.relist)));
        receiver
    }

    fn publish(&self, _presence: Presence) {}

    fn relist(&self) {
        self.relist.notify_one();
    }

    fn withdraw(&self, _node: NodeId) -> BoxFuture<'_, Result<(), Error>> {
        async { Ok(()) }.boxed()
    }

    fn is_written_by_hand(&self) -> bool {
        true
    }
}

struct Follower {
    path: PathBuf,
    vni: Vni,
    port: Port,
    sender: Sender<Event>,
}

impl Follower {
    async fn run(self, relist: Arc<Notify>) {
        // Watched before it is read, so that no change falls in between.
        let mut changes = Changes::of(&self.path);
        if let Err(error) = &changes {
            let path = self.path.display();
            warn!(%path, %error, "can't watch the directory of the peers file; reading it every second instead");
        }
        while self.sender.send(self.read()).await.is_ok() {
            tokio::select! {
                () = relist.notified() => {}
                () = next(&mut changes, &self.path) => {}
                () = self.sender.closed() => return,
            }
        }
    }

    fn read(&self) -> Event {
        match peers_file(&self.path, self.vni, self.port) {
            Ok(nodes) => Event::Snapshot(nodes),
            Err(error) => Event::Stale { reason: chain(&error) },
        }
    }
}

async fn next(changes: &mut Result<Changes, Errno>, path: &Path) {
    if let Ok(watched) = changes
        && watched.next().await.is_ok()
    {
        return;
    }
    // The directory is gone, or there never was one.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    *changes = Changes::of(path);
}

/// Changes of a directory that concern one name in it. The directory is watched, not the file: a file that is replaced in one step is
/// another file.
struct Changes {
    inotify: AsyncFd<Descriptor>,
    name: Box<OsStr>,
}

struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Changes {
    fn of(path: &Path) -> Result<Self, Errno> {
        let name = path.file_name().ok_or(Errno::EISDIR)?.into();
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // Not of writes: a file that grows is read when its writer closes it.
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        inotify.add_watch(directory.unwrap_or(Path::new(".")), flags)?;
        let inotify = register(Descriptor(inotify)).map_err(|_closed| Errno::EBADF)?;
        Ok(Self { inotify, name })
    }

    /// Waits until the file has changed. `Err` when the directory itself has gone.
    async fn next(&mut self) -> Result<(), Errno> {
        loop {
            let mut ready = self.inotify.readable().await.map_err(|_closed| Errno::EBADF)?;
            let events = match ready.get_inner().0.read_events() {
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                other => other?,
            };
            let own = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
            if events.iter().any(|event| event.mask.intersects(own)) {
                return Err(Errno::ENOENT);
            }
            let about =
                |name: Option<&OsStr>| name.is_none_or(|name| *name == *self.name || is_kubernetes(name));
            let overflown = |mask: AddWatchFlags| mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
            if events.iter().any(|event| about(event.name.as_deref()) || overflown(event.mask)) {
                return Ok(());
            }
        }
    }
}

/// A mounted `ConfigMap` is a link to `..data/NAME`, and `..data` is what is replaced.
fn is_kubernetes(name: &OsStr) -> bool {
    name == "..data"
}
