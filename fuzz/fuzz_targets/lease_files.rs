//! What `host-local` finds in its store: leases, cursors, the index, and a `resolv.conf`. The first byte says which.
#![no_main]

use std::cell::RefCell;
use std::fs::{File, OpenOptions};

use ferrule_host_local::fuzzing;
use libfuzzer_sys::{Corpus, fuzz_target};

thread_local! {
    static FILE: RefCell<File> = RefCell::new(unnamed());
}

/// A file that nobody else sees and that ends with this process.
fn unnamed() -> File {
    let path = std::env::temp_dir().join(format!("ferrule-fuzz-{}", std::process::id()));
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).open(&path).expect("a temporary file");
    std::fs::remove_file(path).expect("it is ours");
    file
}

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((selector, content)) = input.split_first() else { return Corpus::Reject };
    match selector % 4 {
        0 => fuzzing::lease(content),
        1 => fuzzing::cursor(content),
        2 => FILE.with_borrow(|file| fuzzing::index(file, content)),
        _ => fuzzing::resolv_conf(content),
    }
    Corpus::Keep
});
