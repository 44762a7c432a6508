//! The index beside the leases: who has which address, and which addresses are taken, without reading the store.
//!
//! It is never the truth. A lease found through it is verified by reading the lease's file, and the index as a whole counts only as long
//! as the modification time of the store's directory is the one this plugin put there when it last wrote the index: a time ten years
//! in the past, that no clock will give again. Whatever else creates or removes a lease (the Go plugin, a person with `rm`, a process of ours that died
//! half-way) makes the kernel write the present time there. `docs/adr/0006-host-local-index.md` argues this at length.

use std::fs::{self, File, FileTimes, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lease::{Listed, Owner};
use super::table::{Block, Damaged, Table, hash};
use crate::range::{Span, address, number};

const MAGIC: [u8; 16] = *b"ferrule leases 2";

/// The index of one store.
#[derive(Debug)]
pub(super) struct Index {
    directory: PathBuf,
    /// The boot this is valid in: after a crash of the machine, files may hold any mixture of old and new blocks. `None` where the
    /// kernel does not say; then nothing is written.
    boot: Option<[u8; 36]>,
    /// Device and inode of the store's directory.
    store: (u64, u64),
    /// The stamp it was found with; `None` if it was built.
    stamp: Option<Stamp>,
    table: Table,
}

/// A modification time that is not the present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    seconds: i64,
    nanoseconds: i64,
}

/// How far in the past a stamp is: far enough that a clock that is set back does not come there again, on a file system that keeps whole
/// seconds either.
const PAST: i64 = 10 * 365 * 24 * 3600;

impl Stamp {
    /// A time in the past; whole microseconds, because some file systems keep no more.
    fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Where a machine has no time yet and thinks it is 1970, this is before that, which file systems can say, too.
        Self {
            seconds: i64::try_from(now.as_secs()).unwrap_or_default() - PAST,
            nanoseconds: i64::from(now.subsec_micros()) * 1000,
        }
    }

    /// The one after it. A clock is not asked: only that a stamp is another one counts, and to ask for the first time costs a process more than the
    /// rest of this.
    fn next(self) -> Self {
        const SECOND: i64 = 1_000_000_000;
        let nanoseconds = self.nanoseconds + 1000;
        Self { seconds: self.seconds + nanoseconds / SECOND, nanoseconds: nanoseconds % SECOND }
    }

    /// Whether a directory bears it. File systems with whole seconds cut it.
    fn is_on(self, directory: &Metadata) -> bool {
        let nanoseconds = directory.mtime_nsec();
        directory.mtime() == self.seconds && (nanoseconds == self.nanoseconds || nanoseconds == 0)
    }

    fn time(self) -> SystemTime {
        let seconds = Duration::from_secs(self.seconds.unsigned_abs());
        let nanoseconds = Duration::from_nanos(u64::try_from(self.nanoseconds).unwrap_or_default());
        let whole = if self.seconds < 0 {
            SystemTime::UNIX_EPOCH - seconds
        } else {
            SystemTime::UNIX_EPOCH + seconds
        };
        whole + nanoseconds
    }
}

/// The addresses of a block share all but their last seven bits; a bit each fits into one value of the table.
const BLOCK_BITS: u32 = 7;

/// Tells keys of blocks from keys of owners. The highest bit: the lowest ones choose the bucket.
const BLOCK_KEY: u64 = 1 << 63;

fn owner_key(owner: &Owner) -> u64 {
    hash(owner.as_bytes().iter().copied()) & !BLOCK_KEY
}

fn block_key(block: u128) -> u64 {
    hash(block.to_le_bytes()) | BLOCK_KEY
}

impl Index {
    /// The index in a directory, if it is there, whole, of this boot and of the store as it is now.
    pub(super) fn open(directory: &Path, store: &Metadata) -> Option<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(directory.join("index"))
            .ok()?;
        let header = Block::read(&file, 0).ok()?;
        let stamp = Stamp {
            seconds: i64::from_le_bytes(header.get(80)),
            nanoseconds: i64::from_le_bytes(header.get(88)),
        };
        let same = header.get(16) == MAGIC
            && (header.u64(96), header.u64(104)) == (store.dev(), store.ino())
            && stamp.is_on(store);
        if !same {
            return None;
        }
        let boot = boot_id()?;
        if header.get(32) != boot {
            return None;
        }
        let table = Table::in_file(file, header.u64(112), header.u64(120))?;
        Some(Self {
            directory: directory.to_owned(),
            boot: Some(boot),
            store: (store.dev(), store.ino()),
            stamp: Some(stamp),
            table,
        })
    }

    /// An index of what was found by reading the store.
    pub(super) fn build(directory: &Path, store: &Metadata, leases: &[Listed]) -> Result<Self, Damaged> {
        let entries = leases.len() as u64;
        let table = Table::in_memory(entries + entries / 2);
        let mut index = Self {
            directory: directory.to_owned(),
            boot: boot_id(),
            store: (store.dev(), store.ino()),
            stamp: None,
            table,
        };
        for lease in leases {
            match &lease.owner {
                Ok(Some(owner)) => index.add(owner, lease.address)?,
                Ok(None) | Err(_) => index.occupy(number(lease.address))?,
            }
        }
        Ok(index)
    }

    fn header(&self, stamp: Stamp, boot: [u8; 36]) -> Block {
        let mut header = Block::empty();
        header.set(16, &MAGIC);
        header.set(32, &boot);
        header.set(80, &stamp.seconds.to_le_bytes());
        header.set(88, &stamp.nanoseconds.to_le_bytes());
        header.set(96, &self.store.0.to_le_bytes());
        header.set(104, &self.store.1.to_le_bytes());
        header.set(112, &self.table.buckets().to_le_bytes());
        header.set(120, &self.table.entries().to_le_bytes());
        header
    }

    /// Makes the index valid for the store as it is now. `touched` says that the store was changed. The stamp is put on the directory last:
    /// a process that dies before leaves a directory that bears the time of its change, and the next one reads the store.
    pub(super) fn save(&mut self, store: &File, touched: bool) -> io::Result<()> {
        let Some(boot) = self.boot else { return Ok(()) };
        if !touched && !self.table.is_changed() {
            return Ok(());
        }
        let stamp = self.stamp.map_or_else(Stamp::new, Stamp::next);
        self.stamp = Some(stamp);
        let header = self.header(stamp, boot);
        if self.table.is_in_memory() {
            self.write_whole(&header)?;
        } else {
            self.table.write_changes(&header)?;
        }
        store.set_times(FileTimes::new().set_modified(stamp.time()))
    }

    fn write_whole(&self, header: &Block) -> io::Result<()> {
        create_directory(&self.directory)?;
        let draft = self.directory.join("index.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&draft)?;
        let written = file
            .write_all(&self.table.image(header))
            .and_then(|()| fs::rename(&draft, self.directory.join("index")));
        if written.is_err() {
            // On a full disk, do not hold what space there is.
            let _ = fs::remove_file(&draft);
        }
        written
    }

    /// The addresses an owner has.
    pub(super) fn leases(&mut self, owner: &Owner) -> Result<Vec<IpAddr>, Damaged> {
        Ok(self.table.find(owner_key(owner))?.into_iter().map(address).collect())
    }

    /// Notes a lease.
    pub(super) fn add(&mut self, owner: &Owner, address: IpAddr) -> Result<(), Damaged> {
        self.table.insert(owner_key(owner), number(address))?;
        self.occupy(number(address))
    }

    /// Forgets a lease.
    pub(super) fn remove(&mut self, owner: &Owner, address: IpAddr) -> Result<(), Damaged> {
        self.table.remove(owner_key(owner), number(address))?;
        let (block, bit) = place(number(address));
        let taken = self.taken(block)?;
        self.replace(block, taken, taken & !bit)
    }

    fn occupy(&mut self, number: u128) -> Result<(), Damaged> {
        let (block, bit) = place(number);
        let taken = self.taken(block)?;
        self.replace(block, taken, taken | bit)
    }

    fn taken(&mut self, block: u128) -> Result<u128, Damaged> {
        Ok(self.table.find(block_key(block))?.first().copied().unwrap_or_default())
    }

    fn replace(&mut self, block: u128, old: u128, new: u128) -> Result<(), Damaged> {
        if old == new {
            return Ok(());
        }
        if old != 0 {
            self.table.remove(block_key(block), old)?;
        }
        if new != 0 {
            self.table.insert(block_key(block), new)?;
        }
        Ok(())
    }

    /// The first address of a span that nobody has.
    pub(super) fn first_free(&mut self, span: Span) -> Result<Option<u128>, Damaged> {
        let mut at = span.first;
        while at <= span.last {
            let (block, bit) = place(at);
            // The addresses of the block from this one on: `!(bit - 1)`.
            let free = !self.taken(block)? & !(bit - 1);
            if free != 0 {
                let found = (block << BLOCK_BITS) | u128::from(free.trailing_zeros());
                return Ok((found <= span.last).then_some(found));
            }
            match (block + 1).checked_mul(1 << BLOCK_BITS) {
                Some(next) => at = next,
                None => break,
            }
        }
        Ok(None)
    }
}

fn place(number: u128) -> (u128, u128) {
    (number >> BLOCK_BITS, 1 << (number & ((1 << BLOCK_BITS) - 1)))
}

/// Creates the directory of index and draft, for its owner only: its leases tell who runs what.
pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The kernel's random identity of this boot.
fn boot_id() -> Option<[u8; 36]> {
    let mut id = [0; 36];
    File::open("/proc/sys/kernel/random/boot_id").and_then(|mut file| file.read_exact(&mut id)).ok()?;
    Some(id)
}

#[cfg(test)]
mod tests;
