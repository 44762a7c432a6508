//! A hash table of fixed-size blocks, in a file or in memory: what makes the index's cost independent of the number of leases.
//!
//! Block 0 is the header of the file and belongs to the index; blocks 1 and up are buckets. A bucket that is full sends its next entry
//! to the following one and says so; a search goes on as long as buckets say so. Every block carries a checksum over its content and its
//! number, so a hole, a torn write or a scribble is found and never believed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Size of a block in bytes.
pub(super) const BLOCK: usize = 512;

/// Entries of a bucket: a key and a value each, after checksum, count and flag.
const CAPACITY: usize = 20;
const ENTRY: usize = 24;
const ENTRIES_AT: usize = 16;

/// Above this mean filling the table is doubled, so that full buckets stay rare.
const MEAN: u64 = 10;

/// A block failed its checksum, or could not be read: the table is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// A block with its checksum in the first eight bytes.
#[derive(Clone)]
pub(super) struct Block([u8; BLOCK]);

impl Block {
    pub(super) fn empty() -> Self {
        Self([0; BLOCK])
    }

    /// Reads a block and verifies it.
    pub(super) fn read(file: &File, number: u64) -> Result<Self, Damaged> {
        let mut block = Self::empty();
        let place = number.checked_mul(BLOCK as u64).ok_or(Damaged)?;
        let read = file.read_exact_at(&mut block.0, place);
        if read.is_ok() && block.u64(0) == block.checksum(number) { Ok(block) } else { Err(Damaged) }
    }

    /// The block's bytes, sealed with the checksum of its number.
    pub(super) fn sealed(&self, number: u64) -> [u8; BLOCK] {
        let mut block = self.clone();
        block.set(0, &self.checksum(number).to_le_bytes());
        block.0
    }

    /// [`mixed`] a word at a time, because an ADD reads and writes seven blocks.
    fn checksum(&self, number: u64) -> u64 {
        let (words, _) = self.0.as_chunks::<8>();
        let words = words.iter().skip(1).map(|word| u64::from_le_bytes(*word));
        // A multiplication carries upwards only: what is high in one word is low by the next.
        mixed(
            words
                .chain([number])
                .fold(BASIS, |state, word| (state ^ word).wrapping_mul(PRIME).rotate_left(29)),
        )
    }

    pub(super) fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        for (byte, from) in bytes.iter_mut().zip(self.0.iter().skip(at)) {
            *byte = *from;
        }
        bytes
    }

    pub(super) fn set(&mut self, at: usize, bytes: &[u8]) {
        for (to, byte) in self.0.iter_mut().skip(at).zip(bytes) {
            *to = *byte;
        }
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.get(at))
    }

    fn len(&self) -> usize {
        usize::from(u16::from_le_bytes(self.get(8))).min(CAPACITY)
    }

    fn set_len(&mut self, len: usize) {
        self.set(8, &u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
    }

    fn overflowed(&self) -> bool {
        self.get::<1>(10) != [0]
    }

    fn entry(&self, index: usize) -> (u64, u128) {
        let at = ENTRIES_AT + index * ENTRY;
        (self.u64(at), u128::from_le_bytes(self.get(at + 8)))
    }

    fn set_entry(&mut self, index: usize, (key, value): (u64, u128)) {
        let at = ENTRIES_AT + index * ENTRY;
        self.set(at, &key.to_le_bytes());
        self.set(at + 8, &value.to_le_bytes());
    }

    fn entries(&self) -> impl Iterator<Item = (u64, u128)> {
        (0..self.len()).map(|index| self.entry(index))
    }

    fn push(&mut self, entry: (u64, u128)) {
        let len = self.len();
        self.set_entry(len, entry);
        self.set_len(len + 1);
    }

    fn take(&mut self, entry: (u64, u128)) -> bool {
        let Some(index) = self.entries().position(|found| found == entry) else { return false };
        let last = self.len() - 1;
        self.set_entry(index, self.entry(last));
        self.set_len(last);
        true
    }
}

/// Of FNV-1a.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// FNV-1a, [`mixed`].
pub(super) fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    mixed(bytes.into_iter().fold(BASIS, |state, byte| (state ^ u64::from(byte)).wrapping_mul(PRIME)))
}

/// The mixer of splitmix64, so that the low bits, which choose the bucket, depend on all of the input.
fn mixed(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// Where the buckets are.
enum Source {
    /// In a file: read when needed, kept when changed.
    File { file: File, cache: BTreeMap<u64, (Block, bool)> },
    /// In memory, to be written whole.
    Memory(Vec<Block>),
}

/// The table. Several values may have one key.
pub(super) struct Table {
    source: Source,
    buckets: u64,
    entries: u64,
}

impl Table {
    /// A table in a file, as its header describes it.
    pub(super) fn in_file(file: File, buckets: u64, entries: u64) -> Option<Self> {
        let source = Source::File { file, cache: BTreeMap::new() };
        buckets.is_power_of_two().then_some(Self { source, buckets, entries })
    }

    /// An empty table in memory with room for so many entries.
    pub(super) fn in_memory(entries: u64) -> Self {
        let buckets = (entries / MEAN + 1).next_power_of_two().max(8);
        let blocks = vec![Block::empty(); usize::try_from(buckets).unwrap_or(usize::MAX)];
        Self { source: Source::Memory(blocks), buckets, entries: 0 }
    }

    pub(super) fn buckets(&self) -> u64 {
        self.buckets
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    fn bucket(&mut self, index: u64) -> Result<&mut Block, Damaged> {
        match &mut self.source {
            Source::Memory(blocks) => {
                usize::try_from(index).ok().and_then(|index| blocks.get_mut(index)).ok_or(Damaged)
            }
            Source::File { file, cache } => {
                if let std::collections::btree_map::Entry::Vacant(vacant) = cache.entry(index) {
                    vacant.insert((Block::read(file, index + 1)?, false));
                }
                cache.get_mut(&index).map(|(block, _)| block).ok_or(Damaged)
            }
        }
    }

    fn changed(&mut self, index: u64) {
        if let Source::File { cache, .. } = &mut self.source
            && let Some((_, dirty)) = cache.get_mut(&index)
        {
            *dirty = true;
        }
    }

    /// The buckets that may hold a key, first to last, until `visit` says stop or one has not overflowed.
    fn probe(
        &mut self,
        key: u64,
        mut visit: impl FnMut(&mut Self, u64) -> Result<bool, Damaged>,
    ) -> Result<(), Damaged> {
        for step in 0..self.buckets {
            let index = key.wrapping_add(step) & (self.buckets - 1);
            if visit(self, index)? || !self.bucket(index)?.overflowed() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The values of a key.
    pub(super) fn find(&mut self, key: u64) -> Result<Vec<u128>, Damaged> {
        let mut values = Vec::new();
        self.probe(key, |table, index| {
            let found = table.bucket(index)?.entries().filter(|(found, _)| *found == key);
            values.extend(found.map(|(_, value)| value));
            Ok(false)
        })?;
        Ok(values)
    }

    /// Adds an entry. [`Damaged`] where every bucket is full, although the header says that there is room.
    pub(super) fn insert(&mut self, key: u64, value: u128) -> Result<(), Damaged> {
        if self.entries >= self.buckets.saturating_mul(MEAN) {
            self.grow()?;
        }
        self.entries += 1;
        let mut placed = false;
        self.probe(key, |table, index| {
            table.bucket(index)?;
            table.changed(index);
            let bucket = table.bucket(index)?;
            placed = bucket.len() < CAPACITY;
            if placed {
                bucket.push((key, value));
            } else {
                bucket.set(10, &[1]);
            }
            Ok(placed)
        })?;
        if placed { Ok(()) } else { Err(Damaged) }
    }

    /// Removes an entry; false if there was none.
    pub(super) fn remove(&mut self, key: u64, value: u128) -> Result<bool, Damaged> {
        let mut removed = false;
        self.probe(key, |table, index| {
            removed = table.bucket(index)?.take((key, value));
            if removed {
                table.changed(index);
            }
            Ok(removed)
        })?;
        self.entries = self.entries.checked_sub(u64::from(removed)).ok_or(Damaged)?;
        Ok(removed)
    }

    fn grow(&mut self) -> Result<(), Damaged> {
        // Counted, because the number of a header could ask for any amount of memory.
        let mut entries = Vec::new();
        for index in 0..self.buckets {
            entries.extend(self.bucket(index)?.entries());
        }
        let mut larger = Self::in_memory(entries.len() as u64 * 2);
        for (key, value) in entries {
            larger.insert(key, value)?;
        }
        *self = larger;
        Ok(())
    }

    /// Whether the table is to be written whole.
    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self.source, Source::Memory(_))
    }

    /// Whether something changed since it was read.
    pub(super) fn is_changed(&self) -> bool {
        match &self.source {
            Source::File { cache, .. } => cache.values().any(|(_, dirty)| *dirty),
            Source::Memory(_) => true,
        }
    }

    /// Writes changed buckets, then the header, into the file the table is in.
    pub(super) fn write_changes(&mut self, header: &Block) -> io::Result<()> {
        if let Source::File { file, cache } = &mut self.source {
            for (index, (block, dirty)) in cache {
                if std::mem::take(dirty) {
                    file.write_all_at(&block.sealed(*index + 1), (*index + 1) * BLOCK as u64)?;
                }
            }
            file.write_all_at(&header.sealed(0), 0)?;
        }
        Ok(())
    }

    /// The whole file's content; empty for a table in a file.
    pub(super) fn image(&self, header: &Block) -> Vec<u8> {
        let Source::Memory(blocks) = &self.source else { return Vec::new() };
        let sealed =
            std::iter::once(header).chain(blocks).zip(0..).map(|(block, number)| block.sealed(number));
        sealed.flatten().collect()
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("buckets", &self.buckets)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
