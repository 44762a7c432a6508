//! The store: a directory a network, a file a lease, as the Go plugin lays it out; and an index beside it.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni::NetworkName;

use crate::error::{Error, Result};
use crate::range::Span;

mod claim;
mod cursor;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod index;
mod lease;
mod lock;
mod table;

pub(crate) use cursor::Cursor;
pub(crate) use lease::Owner;

use index::Index;
use lease::{Content, Listed};
use table::Damaged;

/// Why an operation on the store stopped.
#[derive(Debug)]
pub(crate) enum Interrupt {
    /// What the index said is not so: to be tried again with what the files say. Nothing was changed.
    Stale,
    /// It failed.
    Failed(Error),
}

impl From<Error> for Interrupt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Damaged> for Interrupt {
    fn from(Damaged: Damaged) -> Self {
        Self::Stale
    }
}

/// The result of an operation that may have to be tried again.
pub(crate) type Attempt<T> = std::result::Result<T, Interrupt>;

/// Where a network's leases are.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    leases: PathBuf,
    index: PathBuf,
}

impl Location {
    /// `<data_dir>/<network>` and, for the index, `<data_dir>/.ferrule/<network>`: no network's name starts with a dot, and a directory
    /// beside the store is not read by the Go plugin, whose every call reads every file below the store.
    pub(crate) fn new(data_dir: &Path, network: &NetworkName) -> Self {
        Self {
            leases: data_dir.join(network.as_str()),
            index: data_dir.join(".ferrule").join(network.as_str()),
        }
    }

    /// The directory of the leases.
    pub(crate) fn leases(&self) -> &Path {
        &self.leases
    }
}

/// A network's store, locked until it is dropped.
#[derive(Debug)]
pub(crate) struct Store {
    location: Location,
    /// Held for its lock; `None` where the file system is read-only, so that nobody can change what is read.
    lock: Option<File>,
    directory: File,
    index: Option<Index>,
    /// The index on disk is not to be believed.
    distrusted: bool,
    /// A lease could not be read: whose it is, an index made now would not know.
    unreadable: bool,
    /// The directory was changed.
    touched: bool,
    /// What was put right, for people.
    notes: Vec<String>,
}

impl Store {
    /// Opens a store to take leases from, creating its directory.
    pub(crate) fn create(location: &Location, patience: Duration) -> Result<Self> {
        loop {
            match Self::locked(location, patience) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    DirBuilder::new()
                        .recursive(true)
                        .mode(0o755)
                        .create(&location.leases)
                        .map_err(Error::io("create", &location.leases))?;
                }
                other => return other,
            }
        }
    }

    /// Opens a store that may not exist: then nothing is leased, and nothing is created.
    pub(crate) fn existing(location: &Location, patience: Duration) -> Result<Option<Self>> {
        match Self::locked(location, patience) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(Error::Io { source, .. })
                if matches!(
                    source.kind(),
                    // A full one has no room for the lock where nothing was ever leased, nor for anybody else's lease.
                    io::ErrorKind::ReadOnlyFilesystem
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::StorageFull
                ) =>
            {
                Self::opened(location, None).map(Some)
            }
            other => other.map(Some),
        }
    }

    fn locked(location: &Location, patience: Duration) -> Result<Self> {
        refuse_planted(&location.leases)?;
        let lock = lock::acquire(&location.leases.join("lock"), patience)?;
        Self::opened(location, Some(lock))
    }

    fn opened(location: &Location, lock: Option<File>) -> Result<Self> {
        let directory = File::open(&location.leases).map_err(Error::io("open", &location.leases))?;
        let location = location.clone();
        Ok(Self {
            location,
            lock,
            directory,
            index: None,
            distrusted: false,
            unreadable: false,
            touched: false,
            notes: Vec::new(),
        })
    }

    /// Runs an operation; if the index turns out to be wrong, once more on what the files say.
    pub(crate) fn settled<T>(&mut self, mut operation: impl FnMut(&mut Self) -> Attempt<T>) -> Result<T> {
        for _ in 0..3 {
            match operation(self) {
                Ok(value) => return Ok(value),
                Err(Interrupt::Failed(error)) => return Err(error),
                Err(Interrupt::Stale) => {
                    self.index = None;
                    self.distrusted = true;
                }
            }
        }
        Err(Error::Unsettled { path: self.location.leases.clone() })
    }

    /// The index of the store as it is, from disk or by reading all leases.
    fn index(&mut self) -> Attempt<&mut Index> {
        if self.index.is_none() {
            self.index = Some(self.read_index()?);
        }
        self.index.as_mut().ok_or(Interrupt::Stale)
    }

    fn read_index(&mut self) -> Attempt<Index> {
        let store = self.metadata()?;
        if self.lock.is_some()
            && !self.distrusted
            && let Some(index) = Index::open(&self.location.index, &store)
        {
            return Ok(index);
        }
        let leases = self.walk()?;
        Ok(Index::build(&self.location.index, &store, &leases)?)
    }

    fn metadata(&self) -> Result<Metadata> {
        self.directory.metadata().map_err(Error::io("look at", &self.location.leases))
    }

    /// Reads all leases, after undoing what dead processes left.
    fn walk(&mut self) -> Result<Vec<Listed>> {
        let repair = self.lock.is_some();
        if repair {
            self.touched = true;
            let leases = claim::recover(&self.location.index, &self.location.leases)
                .map_err(Error::io("undo the unfinished claim in", &self.location.index))?;
            if leases > 0 {
                self.notes.push(format!(
                    "took back {leases} lease(s) of an ADD that was killed before it answered"
                ));
            }
        }
        let mut recovered = Vec::new();
        let leases = lease::walk(&self.location.leases, repair, &mut recovered);
        self.unreadable |= leases.iter().flatten().any(|lease| lease.owner.is_err());
        let recovered = recovered.into_iter();
        self.notes.extend(
            recovered
                .map(|ip| format!("recovered {ip}: its lease was empty, left by a process that was killed")),
        );
        leases
    }

    /// What was put right since the last time this was asked.
    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Writes the index, as far as that is possible: without it the next call reads the store.
    pub(crate) fn save(&mut self) {
        if self.lock.is_some()
            && !self.unreadable
            && let Some(index) = &mut self.index
        {
            let _ = index.save(&self.directory, self.touched);
            self.touched = false;
        }
    }

    fn path(&self, address: IpAddr) -> PathBuf {
        self.location.leases.join(address.to_string())
    }

    /// The addresses an owner has, each verified in its file.
    pub(crate) fn leases(&mut self, owner: &Owner) -> Attempt<Vec<IpAddr>> {
        let addresses = self.index()?.leases(owner)?;
        for address in &addresses {
            let path = self.path(*address);
            match lease::read(&path).map_err(Error::io("read", path))? {
                Some(Content::Owner(found)) if found == *owner => {}
                _ => return Err(Interrupt::Stale),
            }
        }
        Ok(addresses)
    }

    /// Who has an address, for people; empty if that can't be told.
    pub(crate) fn holder(&self, address: IpAddr) -> String {
        match lease::read(&self.path(address)) {
            Ok(Some(Content::Owner(owner))) => owner.describe(),
            _ => String::new(),
        }
    }

    /// The first address of a span that nobody has.
    pub(crate) fn first_free(&mut self, span: Span) -> Attempt<Option<IpAddr>> {
        Ok(self.index()?.first_free(span)?.map(crate::range::address))
    }

    /// The cursor of the set with this index.
    pub(crate) fn cursor(&self, set: usize) -> Cursor {
        Cursor::read(&self.location.leases, set)
    }

    /// Leases addresses to an owner, all or none, and moves their cursors there.
    pub(crate) fn claim(&mut self, owner: &Owner, wanted: &mut [(IpAddr, Cursor)]) -> Attempt<()> {
        // Read now: reading it after the store has changed would count our own change as somebody else's.
        self.index()?;
        let draft = claim::Draft::write(&self.location.index, owner)
            .map_err(Error::io("write the lease's draft in", &self.location.index))?;
        self.touched = true;
        let mut made = Vec::new();
        let placed = self.place(&draft, wanted, &mut made);
        let committed = placed.and_then(|()| {
            draft
                .commit()
                .map_err(|source| Error::io("commit the leases in", &self.location.index)(source).into())
        });
        if let Err(interrupt) = committed {
            let undone = self.take_back(&made);
            // An address that was taken although the index had it free: that index is not worth saving.
            if !undone || matches!(interrupt, Interrupt::Stale) {
                self.index = None;
            }
            return Err(interrupt);
        }
        let noted = self
            .index()
            .and_then(|index| wanted.iter().try_for_each(|(address, _)| Ok(index.add(owner, *address)?)));
        if noted.is_err() {
            // The leases are made; without a believable index the next call reads them.
            self.index = None;
        }
        Ok(())
    }

    fn place(
        &self,
        draft: &claim::Draft<'_>,
        wanted: &mut [(IpAddr, Cursor)],
        made: &mut Vec<PathBuf>,
    ) -> Attempt<()> {
        for (address, _) in wanted.iter() {
            let path = self.path(*address);
            match draft.place(&path) {
                Ok(()) => made.push(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Interrupt::Stale),
                Err(error) => return Err(Error::io("create the lease", path)(error).into()),
            }
        }
        for (address, cursor) in wanted {
            cursor.write(*address).map_err(|error| Error::io("write", cursor.path())(error))?;
        }
        Ok(())
    }

    /// Undoes an unfinished claim: leases first, the draft last, as `recover` would do it.
    fn take_back(&self, made: &[PathBuf]) -> bool {
        made.iter().all(|path| fs::remove_file(path).is_ok())
            && claim::recover(&self.location.index, &self.location.leases).is_ok()
    }

    /// Frees an owner's addresses; false if it has none.
    pub(crate) fn release(&mut self, owner: &Owner) -> Attempt<bool> {
        let addresses = self.leases(owner)?;
        if addresses.is_empty() {
            return Ok(false);
        }
        let mut failed = None;
        for address in addresses {
            let path = self.path(address);
            match fs::remove_file(&path) {
                Ok(()) => {
                    self.touched = true;
                    if self.index()?.remove(owner, address).is_err() {
                        self.index = None;
                    }
                }
                Err(error) => failed = failed.or(Some(Error::io("remove the lease", path)(error))),
            }
        }
        failed.map_or(Ok(true), |error| Err(error.into()))
    }

    /// Frees every lease whose owner is not wanted any more, past errors, which are returned.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&Owner) -> bool) -> Result<Vec<Error>> {
        let mut errors = Vec::new();
        let mut left = Vec::new();
        for mut lease in self.walk()? {
            let path = self.path(lease.address);
            match std::mem::replace(&mut lease.owner, Ok(None)) {
                Ok(Some(owner)) if !wanted(&owner) => match fs::remove_file(&path) {
                    Ok(()) => continue,
                    Err(error) => {
                        errors.push(Error::io("remove the lease", path)(error));
                        lease.owner = Ok(Some(owner));
                    }
                },
                Err(error) => errors.push(Error::io("read the lease", path)(error)),
                kept => lease.owner = kept,
            }
            left.push(lease);
        }
        self.index = Index::build(&self.location.index, &self.metadata()?, &left).ok();
        Ok(errors)
    }
}

/// A link in a directory that others can write may be theirs, and lead what root writes anywhere. (Where only root can write, somebody may
/// have put a store on another disk so.)
fn refuse_planted(leases: &Path) -> Result<()> {
    let planted = fs::symlink_metadata(leases).is_ok_and(|found| found.is_symlink())
        && leases
            .parent()
            .is_some_and(|parent| fs::metadata(parent).is_ok_and(|directory| directory.mode() & 0o022 != 0));
    if planted { Err(Error::Planted { path: leases.to_owned() }) } else { Ok(()) }
}
