use std::fs;

use proptest::prelude::*;

use super::*;

fn write(table: &Table, header: &Block, path: &std::path::Path) {
    fs::write(path, table.image(header)).unwrap();
}

fn reopen(path: &std::path::Path, table: &Table) -> Table {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    Table::in_file(file, table.buckets(), table.entries()).unwrap()
}

fn scratch(name: &str) -> std::path::PathBuf {
    let directory = std::env::temp_dir().join(format!("host-local-table-{}-{name}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory.join("table")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Few keys, so that buckets overflow; the file is reopened now and then.
    #[test]
    fn a_table_behaves_as_a_list_of_pairs(operations in proptest::collection::vec((0..5_u8, 0..40_u64, 0..6_u128), 0..600)) {
        let path = scratch("model");
        let mut table = Table::in_memory(0);
        let mut model: Vec<(u64, u128)> = Vec::new();
        for (operation, key, value) in operations {
            match operation {
                0..=2 => {
                    table.insert(key, value).unwrap();
                    model.push((key, value));
                }
                3 => {
                    let position = model.iter().position(|pair| *pair == (key, value));
                    prop_assert_eq!(table.remove(key, value).unwrap(), position.is_some());
                    if let Some(position) = position {
                        model.swap_remove(position);
                    }
                }
                _ => {
                    if table.is_in_memory() {
                        write(&table, &Block::empty(), &path);
                    } else {
                        table.write_changes(&Block::empty()).unwrap();
                    }
                    table = reopen(&path, &table);
                }
            }
            prop_assert_eq!(table.entries(), model.len() as u64);
        }
        for key in 0..40 {
            let mut found = table.find(key).unwrap();
            let mut expected: Vec<u128> = model.iter().filter(|(k, _)| *k == key).map(|(_, v)| *v).collect();
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}

#[test]
fn a_lookup_reads_one_bucket_however_full_the_table() {
    let mut table = Table::in_memory(0);
    for number in 0..50_000_u64 {
        table.insert(hash(number.to_le_bytes()), u128::from(number)).unwrap();
    }
    let path = scratch("full");
    write(&table, &Block::empty(), &path);
    let mut most = 0;
    for number in 0..50_000_u64 {
        let mut table = reopen(&path, &table);
        assert_eq!(table.find(hash(number.to_le_bytes())).unwrap(), [u128::from(number)]);
        let Source::File { cache, .. } = &table.source else { panic!("it is in a file") };
        most = most.max(cache.len());
    }
    assert!(most <= 2, "a lookup read {most} buckets");
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn damage_is_noticed() {
    let mut table = Table::in_memory(0);
    table.insert(3, 7).unwrap();
    let path = scratch("damage");
    write(&table, &Block::empty(), &path);
    let whole = fs::read(&path).unwrap();
    let bucket_3 = 4 * BLOCK;
    // A flipped bit anywhere, a bucket of zeros, another bucket's content, a file cut short.
    for byte in [0, 7, 8, 10, 16, 511] {
        let mut image = whole.clone();
        image[bucket_3 + byte] ^= 0x10;
        fs::write(&path, &image).unwrap();
        assert_eq!(reopen(&path, &table).find(3), Err(Damaged), "byte {byte}");
    }
    let mut image = whole.clone();
    image[bucket_3..][..BLOCK].fill(0);
    fs::write(&path, &image).unwrap();
    assert_eq!(reopen(&path, &table).find(3), Err(Damaged), "zeros");
    let mut image = whole.clone();
    image.copy_within(BLOCK..2 * BLOCK, bucket_3);
    fs::write(&path, &image).unwrap();
    assert_eq!(reopen(&path, &table).find(3), Err(Damaged), "another bucket");
    fs::write(&path, &whole[..bucket_3 + 100]).unwrap();
    assert_eq!(reopen(&path, &table).find(3), Err(Damaged), "cut");
    fs::write(&path, &whole).unwrap();
    assert_eq!(reopen(&path, &table).find(3), Ok(vec![7]));
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

/// A file of one bucket that is full, and says that it overflowed.
fn full(name: &str, header: (u64, u64)) -> Table {
    let path = scratch(name);
    let mut bucket = Block::empty();
    for number in 0..CAPACITY as u64 {
        bucket.push((number, 1));
    }
    bucket.set(10, &[1]);
    fs::write(&path, [Block::empty().sealed(0), bucket.sealed(1)].concat()).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    Table::in_file(file, header.0, header.1).unwrap()
}

#[test]
fn what_finds_no_room_is_not_lost_in_silence() {
    assert_eq!(full("room", (1, 1)).insert(99, 7), Err(Damaged));
}

#[test]
fn a_count_below_what_is_there_is_damage() {
    assert_eq!(full("count", (1, 0)).remove(3, 1), Err(Damaged));
}

#[test]
fn a_header_cannot_ask_for_memory() {
    let mut table = full("entries", (1, 1 << 60));
    assert_eq!(table.insert(99, 7), Ok(()), "counted again");
    assert_eq!((table.find(99), table.entries()), (Ok(vec![7]), CAPACITY as u64 + 1));
    assert_eq!(
        full("buckets", (1 << 50, u64::MAX)).insert(99, 7),
        Err(Damaged),
        "most of the buckets are not there"
    );
}
