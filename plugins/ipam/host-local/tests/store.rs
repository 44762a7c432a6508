//! What else may be found in a store, and what may happen to it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its own functions too")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use common::Lab;
use serde_json::json;

#[test]
fn things_that_are_no_leases_are_in_nobodys_way() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24"]);
    let secret = lab.root.join("secret");
    fs::write(&secret, "c1\r\neth0").unwrap();
    fs::create_dir_all(lab.store()).unwrap();
    symlink(&secret, lab.lease("10.0.0.2")).unwrap();
    symlink("/nonexistent/target", lab.lease("10.0.0.3")).unwrap();
    fs::create_dir(lab.lease("10.0.0.4")).unwrap();
    symlink(&secret, lab.store().join("last_reserved_ip.0")).unwrap();
    fs::write(lab.store().join("10.0.0.05"), "c1\r\neth0").unwrap();
    fs::write(lab.store().join("note.txt"), "c1\r\neth0").unwrap();

    lab.call("CHECK", "c1", &config).failed(102);
    lab.del("c1", &config);
    // The cursor can't be written through the link.
    let message = lab.call("ADD", "c1", &config).failed(5);
    assert!(message.contains("last_reserved_ip.0"), "{message}");
    fs::remove_file(lab.store().join("last_reserved_ip.0")).unwrap();
    let taken = lab.call("ADD", "c1", &config).addresses();
    assert_eq!(taken, ["10.0.0.5"], "occupied names are passed over");
    let mut asking = config.clone();
    asking["runtimeConfig"] = json!({ "ips": ["10.0.0.2"] });
    let message = lab.call("ADD", "c2", &asking).failed(103);
    assert!(!message.contains("it belongs to"), "what the link leads to is nobody's business: {message}");
    lab.gc(&config, &[]).ok();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "c1\r\neth0");
    assert!(lab.lease("10.0.0.2").is_symlink() && lab.lease("10.0.0.4").is_dir());
    assert!(!lab.lease("10.0.0.5").exists());
}

#[test]
fn empty_leases_of_dead_processes_are_recovered() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/29"]);
    for last in 2..=6 {
        lab.write_lease(&format!("10.0.0.{last}"), if last == 4 { "living\r\neth0" } else { "" });
    }
    let status = lab.call("STATUS", "", &config);
    status.ok();
    for address in ["10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6"] {
        assert!(
            status.stderr.contains(&format!("network net: recovered {address}: its lease was empty")),
            "{}",
            status.stderr
        );
    }
    let mut given: Vec<String> = (0..4).flat_map(|number| lab.add(&format!("c{number}"), &config)).collect();
    given.sort();
    assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6"]);
    // Also one that appears later, while our index is in use.
    lab.del("c0", &config);
    lab.write_lease("10.0.0.2", "");
    assert_eq!(lab.add("c0", &config), ["10.0.0.2"]);
}

/// Something that happens to the index's file.
type Damage = fn(&std::path::Path);

#[test]
fn an_index_that_is_gone_or_damaged_changes_nothing() {
    let damages: [(&str, Damage); 7] = [
        ("directory gone", |index| fs::remove_dir_all(index.parent().unwrap()).unwrap()),
        ("file gone", |index| fs::remove_file(index).unwrap()),
        ("empty", |index| fs::write(index, "").unwrap()),
        ("cut", |index| {
            let bytes = fs::read(index).unwrap();
            fs::write(index, &bytes[..600]).unwrap();
        }),
        ("buckets zeroed", |index| {
            let mut bytes = fs::read(index).unwrap();
            bytes[512..].fill(0);
            fs::write(index, bytes).unwrap();
        }),
        ("buckets scribbled", |index| {
            let mut bytes = fs::read(index).unwrap();
            for block in bytes[512..].chunks_mut(512) {
                block[20] ^= 1;
            }
            fs::write(index, bytes).unwrap();
        }),
        ("a directory", |index| {
            fs::remove_file(index).unwrap();
            fs::create_dir(index).unwrap();
        }),
    ];
    for (name, damage) in damages {
        let lab = Lab::new();
        let config = lab.subnets(&["10.0.0.0/24", "fd00::/64"]);
        for container in ["c1", "c2", "c3"] {
            lab.add(container, &config);
        }
        let index = lab.index().join("index");
        damage(&index);
        lab.call("CHECK", "c1", &config).ok();
        damage_again(damage, &index);
        lab.call("ADD", "c1", &config).failed(103);
        damage_again(damage, &index);
        assert_eq!(lab.add("c4", &config), ["10.0.0.5", "fd00::5"], "{name}");
        damage_again(damage, &index);
        lab.del("c2", &config);
        damage_again(damage, &index);
        assert_eq!(lab.leases().len(), 6, "{name}");
        lab.gc(&config, &[]).ok();
        assert!(lab.leases().is_empty(), "{name}");
    }
}

fn damage_again(damage: Damage, index: &std::path::Path) {
    if index.is_file() {
        damage(index);
    }
}

#[test]
fn leases_edited_by_hand_are_believed_over_the_index() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24"]);
    lab.add("c1", &config);
    lab.add("c2", &config);
    assert!(lab.index_is_valid());
    // Without a change of the directory: only the content is another's now.
    fs::write(lab.lease("10.0.0.2"), "c3\r\neth0").unwrap();
    lab.del("c1", &config);
    assert_eq!(lab.leases()["10.0.0.2"], "c3\r\neth0");
    lab.call("CHECK", "c3", &config).ok();
    // And with one.
    fs::remove_file(lab.lease("10.0.0.3")).unwrap();
    lab.call("CHECK", "c2", &config).failed(102);
    lab.del("c2", &config);
    lab.del("c3", &config);
    assert!(lab.leases().is_empty());
}

#[test]
fn a_store_removed_with_its_lock_is_begun_anew() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24"]);
    lab.add("c1", &config);
    fs::remove_dir_all(lab.store()).unwrap();
    lab.call("CHECK", "c1", &config).failed(102);
    lab.del("c1", &config);
    assert_eq!(lab.add("c1", &config), ["10.0.0.2"]);
    fs::remove_dir_all(lab.data()).unwrap();
    assert_eq!(lab.add("c1", &config), ["10.0.0.2"]);
}

#[test]
fn stores_without_hard_links_or_index_still_serve() {
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24", "fd00::/64"]);
    let add = |container: &str, injection: &str| {
        let command = lab.command(common::OURS, "ADD", container, "eth0");
        let options = ["-f", "-o", "/dev/null", "-e", injection].map(str::to_owned);
        common::Answer::of(&common::run(common::traced(&command, &options), &config))
    };
    for (number, errno) in ["EPERM", "EXDEV", "EOPNOTSUPP"].iter().enumerate() {
        let expected = [format!("10.0.0.{}", number + 2), format!("fd00::{}", number + 2)];
        assert_eq!(add(&format!("c{number}"), &format!("inject=linkat:error={errno}")).addresses(), expected);
    }
    // The store's directory belongs to somebody else: it can't be stamped, so the index never counts.
    assert_eq!(add("d", "inject=utimensat:error=EPERM").addresses(), ["10.0.0.5", "fd00::5"]);
    lab.call("CHECK", "d", &config).ok();
    lab.gc(&config, &[]).ok();
    assert!(lab.leases().values().all(String::is_empty) && lab.leases().is_empty());
}
