//! The work of a call does not grow with the number of leases: counted in system calls, not in time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its own functions too"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Answer, Lab, OURS};
use serde_json::{Value, json};

const MANY: u32 = 50_000;

/// Consecutive leases in the way of the next free address.
const RUN: u32 = 20_000;

fn ip(index: u32) -> String {
    std::net::Ipv4Addr::from(0x0a00_0002 + index).to_string()
}

/// A store with so many leases, written as the Go plugin writes them, the cursor at the last.
fn filled(leases: u32) -> (Lab, Value) {
    let lab = Lab::new();
    // 50,000 files are made in a moment in memory.
    common::mount_tmpfs(&lab.data(), "mode=755");
    fs::create_dir_all(lab.store()).unwrap();
    for index in 0..leases {
        fs::write(lab.lease(&ip(index)), format!("pod{index}\r\neth0")).unwrap();
    }
    if leases > 0 {
        fs::write(lab.store().join("last_reserved_ip.0"), ip(leases - 1)).unwrap();
    }
    let config = lab.subnets(&["10.0.0.0/16"]);
    // The first call reads the store and writes the index; an empty store has its first files made.
    lab.add("first", &config);
    lab.add("second", &config);
    assert!(lab.index_is_valid());
    (lab, config)
}

/// The system calls of a verb, by name.
fn calls(lab: &Lab, verb: &str, container: &str, config: &Value, success: bool) -> BTreeMap<String, usize> {
    let log = lab.root.join("trace");
    let options = ["-f", "-o", log.to_str().unwrap()].map(str::to_owned);
    let command = lab.command(OURS, verb, container, "eth0");
    let answer = Answer::of(&common::run(common::traced(&command, &options), config));
    assert_eq!(answer.success, success, "{verb} {container}: {}", answer.document);
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        if let Some((name, _)) = line.split_once('(') {
            *counts.entry(name.split_whitespace().last().unwrap().to_owned()).or_default() += 1;
        }
    }
    counts
}

fn total(counts: &BTreeMap<String, usize>) -> usize {
    counts.values().sum()
}

/// Verbs with containers that have a lease or none, and whether they succeed.
const CASES: [(&str, &str, bool); 8] = [
    ("ADD", "new", true),
    ("ADD", "new", false),
    ("CHECK", "new", true),
    ("CHECK", "unknown", false),
    ("STATUS", "", true),
    ("DEL", "new", true),
    ("DEL", "unknown", true),
    ("ADD", "newer", true),
];

#[test]
fn fifty_thousand_leases_cost_what_none_cost() {
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    let (empty, config_empty) = filled(0);
    let (full, config_full) = filled(MANY);
    for (verb, container, success) in CASES {
        let none = calls(&empty, verb, container, &config_empty, success);
        let many = calls(&full, verb, container, &config_full, success);
        // A bucket may have overflowed into its neighbour, an address text be longer; reading the store would be 150,000 calls.
        let difference = total(&many).abs_diff(total(&none));
        assert!(difference <= 3, "{verb} {container}: {none:?} became {many:?}");
    }
}

#[test]
fn a_long_run_of_taken_addresses_is_stepped_over() {
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    let (lab, config) = filled(RUN);
    let usual = calls(&lab, "ADD", "usual", &config, true);
    // Back to the start: every one of the first 20,000 is taken. Probing would be 20,000 calls; 128 addresses share an entry.
    fs::write(lab.store().join("last_reserved_ip.0"), ip(0)).unwrap();
    let behind = calls(&lab, "ADD", "behind", &config, true);
    assert!(total(&behind) <= total(&usual) + RUN as usize / 128 + 8, "{behind:?}");
    assert!(lab.lease(&ip(RUN + 3)).exists());
}

#[test]
fn a_full_range_is_known_without_trying() {
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    let (lab, _) = filled(4000);
    let mut config = lab.config(&json!({ "subnet": "10.0.0.0/16", "rangeEnd": ip(4001) }));
    for (verb, container) in [("ADD", "one-too-many"), ("STATUS", "")] {
        let counts = calls(&lab, verb, container, &config, false);
        assert!(total(&counts) < 200, "{verb}: {counts:?}");
    }
    config["ipam"]["rangeEnd"] = json!(ip(4002));
    assert_eq!(lab.add("fits", &config), [ip(4002)]);
}

#[test]
fn a_store_touched_by_others_is_read_once() {
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    let (lab, config) = filled(2000);
    lab.write_lease("10.0.200.1", "theirs\r\neth0");
    let first = calls(&lab, "CHECK", "theirs", &config, true);
    let second = calls(&lab, "CHECK", "theirs", &config, true);
    assert!(total(&first) > 2000, "it must have read the store: {first:?}");
    assert!(total(&second) < 200, "and not again: {second:?}");
}
