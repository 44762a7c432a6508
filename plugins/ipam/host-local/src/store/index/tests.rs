use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::table::BLOCK;
use super::*;

struct Scratch {
    root: PathBuf,
}

impl Scratch {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("host-local-index-{}-{name}", std::process::id()));
        fs::create_dir_all(root.join("store")).unwrap();
        Self { root }
    }

    fn store(&self) -> File {
        File::open(self.root.join("store")).unwrap()
    }

    fn open(&self) -> Option<Index> {
        Index::open(&self.root.join("index"), &self.store().metadata().unwrap())
    }

    fn build(&self, leases: &[(&Owner, &str)]) -> Index {
        let listed: Vec<Listed> = leases
            .iter()
            .map(|(owner, address)| Listed {
                address: address.parse().unwrap(),
                owner: Ok(Some((*owner).clone())),
            })
            .collect();
        Index::build(&self.root.join("index"), &self.store().metadata().unwrap(), &listed).unwrap()
    }

    /// An index on disk with one lease.
    fn saved(&self) -> Owner {
        let owner = Owner::named("c1", "eth0");
        self.build(&[(&owner, "10.0.0.2")]).save(&self.store(), false).unwrap();
        owner
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn what_was_saved_is_found_again() {
    let scratch = Scratch::new("again");
    let owner = scratch.saved();
    let mut index = scratch.open().unwrap();
    assert_eq!(index.leases(&owner).unwrap(), [ip("10.0.0.2")]);
    assert_eq!(index.leases(&Owner::named("c1", "eth1")).unwrap(), [] as [IpAddr; 0]);
    index.add(&owner, ip("fd00::2")).unwrap();
    index.remove(&owner, ip("10.0.0.2")).unwrap();
    index.save(&scratch.store(), true).unwrap();
    assert_eq!(scratch.open().unwrap().leases(&owner).unwrap(), [ip("fd00::2")]);
}

/// Something somebody does to the store.
type Change = fn(&Path);

#[test]
fn any_change_of_the_store_by_others_ends_its_validity() {
    let scratch = Scratch::new("others");
    let changes: [(&str, Change); 4] = [
        ("create", |store| fs::write(store.join("10.0.0.9"), "x").unwrap()),
        ("link", |store| fs::hard_link(store.join("10.0.0.9"), store.join("10.0.0.8")).unwrap()),
        ("rename", |store| fs::rename(store.join("10.0.0.8"), store.join("10.0.0.7")).unwrap()),
        ("remove", |store| fs::remove_file(store.join("10.0.0.7")).unwrap()),
    ];
    for (name, change) in changes {
        scratch.saved();
        assert!(scratch.open().is_some(), "before {name}");
        // At once, within one tick of the clock that stamps files.
        change(&scratch.root.join("store"));
        assert!(scratch.open().is_none(), "after {name}");
    }
}

#[test]
fn a_process_that_dies_between_change_and_stamp_ends_its_validity() {
    let scratch = Scratch::new("dies");
    let owner = scratch.saved();
    let mut index = scratch.open().unwrap();
    fs::write(scratch.root.join("store/10.0.0.3"), "x").unwrap();
    index.add(&owner, ip("10.0.0.3")).unwrap();
    // `save` without its last step.
    let header = index.header(Stamp::new(), index.boot.unwrap());
    index.table.write_changes(&header).unwrap();
    assert!(scratch.open().is_none());
}

#[test]
fn another_boot_another_directory_and_garbage_are_not_believed() {
    let scratch = Scratch::new("garbage");
    scratch.saved();
    let path = scratch.root.join("index/index");
    let whole = fs::read(&path).unwrap();

    let mut other_boot = Block::empty();
    other_boot.set(0, &whole[..BLOCK]);
    other_boot.set(32, b"another-");
    let mut image = whole.clone();
    image[..BLOCK].copy_from_slice(&other_boot.sealed(0));
    for image in [image, Vec::new(), vec![0; 4096], whole[..300].to_vec(), b"hello".repeat(999)] {
        fs::write(&path, &image).unwrap();
        assert!(scratch.open().is_none());
    }
    fs::write(&path, &whole).unwrap();
    assert!(scratch.open().is_some());

    let stamp = scratch.store().metadata().unwrap().modified().unwrap();
    fs::rename(scratch.root.join("store"), scratch.root.join("old")).unwrap();
    fs::create_dir(scratch.root.join("store")).unwrap();
    scratch.store().set_times(FileTimes::new().set_modified(stamp)).unwrap();
    assert!(scratch.open().is_none(), "the store was made anew");
}

#[test]
fn the_stamp_is_in_the_past_and_survives_whole_seconds() {
    let stamp = Stamp::new();
    let now = SystemTime::now();
    assert!(stamp.time() < now - Duration::from_secs(1));
    let scratch = Scratch::new("stamp");
    let seconds = Duration::from_secs(stamp.seconds.unsigned_abs());
    scratch.store().set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + seconds)).unwrap();
    assert!(stamp.is_on(&scratch.store().metadata().unwrap()));
}

#[test]
fn a_stamp_is_followed_by_another_in_the_past() {
    let stamp = Stamp { seconds: 5, nanoseconds: 999_999_000 };
    assert_eq!(stamp.next(), Stamp { seconds: 6, nanoseconds: 0 });
    assert_eq!(stamp.next().next(), Stamp { seconds: 6, nanoseconds: 1000 });
    let scratch = Scratch::new("next");
    let owner = scratch.saved();
    let before = scratch.store().metadata().unwrap().modified().unwrap();
    let mut index = scratch.open().unwrap();
    index.add(&owner, ip("10.0.0.9")).unwrap();
    index.save(&scratch.store(), true).unwrap();
    assert_eq!(scratch.store().metadata().unwrap().modified().unwrap(), before + Duration::from_micros(1));
    assert!(scratch.open().is_some());
}

/// Somebody else's change on a file system of whole seconds, while the clock is set back: to the second that the stamp was made from, and to
/// those around it.
#[test]
fn a_clock_that_is_set_back_does_not_make_the_index_count_again() {
    let scratch = Scratch::new("clock");
    for back in [0, 1, 2, 3, 3600, 86_400, 31_536_000] {
        scratch.saved();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        for second in [now - back - 1, now - back, now - back + 1] {
            let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            scratch.store().set_times(FileTimes::new().set_modified(changed)).unwrap();
            assert!(scratch.open().is_none(), "set back by {back} s");
        }
    }
}

#[test]
fn a_machine_that_does_not_know_the_year_has_an_index() {
    let scratch = Scratch::new("1970");
    // Of a clock that began at 1970, a minute ago.
    let stamp = Stamp { seconds: 60 - PAST, nanoseconds: 250_000 };
    scratch.store().set_times(FileTimes::new().set_modified(stamp.time())).unwrap();
    assert!(stamp.is_on(&scratch.store().metadata().unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_first_free_address_is_that_of_a_plain_search(
        taken in proptest::collection::btree_set(0..600_u128, 0..500),
        first in 0..600_u128,
        length in 0..400_u128,
        base in prop_oneof![Just(0xffff_0a00_0000_u128), Just(0xfd00_u128 << 112), Just(u128::MAX - 1023)],
    ) {
        let scratch = Scratch::new("free");
        let owner = Owner::named("c", "e");
        let texts: Vec<String> = taken.iter().map(|n| address(base + n).to_string()).collect();
        let leases: Vec<(&Owner, &str)> = texts.iter().map(|text| (&owner, text.as_str())).collect();
        let mut index = scratch.build(&leases);
        let span = Span { first: base + first, last: base + first + length };
        let plain = (first..=first + length).find(|n| !taken.contains(n)).map(|n| base + n);
        prop_assert_eq!(index.first_free(span).unwrap(), plain);
        // And after every lease is given back, everything is free and nothing is kept.
        for n in &taken {
            index.remove(&owner, address(base + n)).unwrap();
        }
        prop_assert_eq!(index.first_free(span).unwrap(), Some(span.first));
        prop_assert_eq!(index.table.entries(), 0);
        let left: BTreeSet<IpAddr> = index.leases(&owner).unwrap().into_iter().collect();
        prop_assert!(left.is_empty());
    }
}
