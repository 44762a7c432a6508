//! Files of the store as a fuzz target sees them.

use std::fs::File;
use std::os::unix::fs::FileExt;

use cni::{ContainerId, LinkName};

use super::lease::Owner;
use super::table::{BLOCK, Block, Table};

/// A lease: its owner, written and read again, is the same.
pub fn lease(content: &[u8]) {
    let Some(owner) = Owner::parse(content) else { return };
    assert!(!owner.container().is_empty());
    assert_eq!(Owner::parse(owner.as_bytes()).as_ref(), Some(&owner), "written and read");
    let interface = owner.interface().unwrap_or_default();
    if ContainerId::new(owner.container()).is_ok() && LinkName::new(interface).is_ok() {
        assert_eq!(Owner::named(owner.container(), interface), owner);
    }
}

/// A cursor's text is an address or none.
pub fn cursor(content: &[u8]) {
    let Ok(text) = std::str::from_utf8(content) else { return };
    if let Ok(address) = cni::address::parse_ip(text) {
        assert_eq!(cni::address::parse_ip(&address.to_string()), Ok(address));
    }
}

/// An index whose blocks say anything, with right checksums: the file is what an ill-meaning neighbour would make of it.
/// Two bytes say how many buckets and entries the header claims; then come blocks, short ones filled with zeros.
pub fn index(file: &File, content: &[u8]) {
    let [buckets, entries, blocks @ ..] = content else { return };
    let buckets = 1_u64.checked_shl(u32::from(*buckets)).unwrap_or_default();
    let entries = 1_u64.checked_shl(u32::from(*entries)).unwrap_or_default();
    file.set_len(0).expect("the file can be written");
    for (number, bytes) in (1..).zip(blocks.chunks(BLOCK)) {
        let mut block = Block::empty();
        block.set(0, bytes);
        file.write_all_at(&block.sealed(number), number * BLOCK as u64).expect("the file can be written");
    }
    let file = file.try_clone().expect("a descriptor");
    let Some(mut table) = Table::in_file(file, buckets, entries) else { return };
    let key = blocks.first_chunk().map_or(7, |bytes| u64::from_le_bytes(*bytes));
    for key in [key, 0, u64::MAX] {
        let Ok(before) = table.find(key) else { return };
        for value in before {
            // Of a damaged table nothing more is expected than that it says so, or ends.
            if table.remove(key, value).is_err() {
                return;
            }
        }
        if table.insert(key, 99).is_err() {
            return;
        }
        // The entry may have gone past a bucket that is full and did not say so: what lies behind was not read before.
        let Ok(after) = table.find(key) else { return };
        assert!(after.contains(&99), "what was put in is there");
    }
}
