//! What goes beyond the Go plugin, verb by verb.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its own functions too"
)]

mod common;

use std::fs;
use std::net::IpAddr;

use common::Lab;
use serde_json::{Value, json};

fn with_previous(config: &Value, addresses: &[&str]) -> Value {
    let mut config = config.clone();
    let ips: Vec<Value> = addresses.iter().map(|address| json!({ "address": address })).collect();
    config["prevResult"] = json!({ "cniVersion": "1.1.0", "ips": ips });
    config
}

#[test]
fn check_wants_a_lease_for_every_address_of_ours() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24", "fd00::/64"]);
    let missing = lab.call("CHECK", "c1", &config).failed(102);
    assert!(missing.starts_with("host-local: Failed to find address added by container c1"), "{missing}");
    assert!(!lab.data().exists(), "CHECK creates nothing");

    lab.add("c1", &config);
    lab.add("c2", &config);
    lab.call("CHECK", "c1", &config).ok();
    lab.call("CHECK", "c1", &with_previous(&config, &["10.0.0.2/24", "fd00::2/64"])).ok();
    // Another IPAM plugin's address, and the gateway of the bridge.
    lab.call("CHECK", "c1", &with_previous(&config, &["10.0.0.2/24", "192.168.7.7/16", "10.0.0.1/24"])).ok();
    let foreign = lab.call("CHECK", "c1", &with_previous(&config, &["10.0.0.3/24"])).failed(102);
    assert!(foreign.starts_with("address 10.0.0.3 of prevResult is not leased to c1/eth0"), "{foreign}");
    let other = lab.call_with(common::OURS, "CHECK", "c1", "eth1", &config).failed(102);
    assert!(other.contains("Failed to find address"), "{other}");

    fs::remove_file(lab.lease("fd00::2")).unwrap();
    lab.call("CHECK", "c1", &with_previous(&config, &["10.0.0.2/24"])).ok();
    lab.call("CHECK", "c1", &with_previous(&config, &["10.0.0.2/24", "fd00::2/64"])).failed(102);
}

#[test]
fn gc_frees_what_is_not_listed_in_this_network_only() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24", "fd00::/64"]);
    let mut other = lab.subnets(&["10.7.0.0/24"]);
    other["name"] = json!("other");
    for container in ["keep", "lost"] {
        lab.add(container, &config);
        lab.add(container, &other);
    }
    lab.call_with(common::OURS, "ADD", "keep", "eth1", &config).ok();
    lab.write_lease("10.0.0.100", "keep");
    lab.write_lease("10.0.0.101", "lost");
    lab.write_lease("10.0.0.102", "keep\neth0\n");
    lab.write_lease("10.0.0.103", "");
    let cursor = fs::read(lab.store().join("last_reserved_ip.0")).unwrap();

    assert_eq!(*lab.gc(&config, &["keep/eth0", "unknown/eth0"]).ok(), Value::Null);
    let left: Vec<String> = lab.leases().into_keys().collect();
    assert_eq!(left, ["10.0.0.100", "10.0.0.102", "10.0.0.2", "fd00::2"]);
    assert_eq!(fs::read_dir(lab.data().join("other")).unwrap().count(), 4, "two leases, cursor, lock");
    assert_eq!(fs::read(lab.store().join("last_reserved_ip.0")).unwrap(), cursor);
    assert!(lab.store().join("lock").exists());
    assert!(lab.index_is_valid());

    lab.call("CHECK", "keep", &config).ok();
    lab.call("CHECK", "lost", &config).failed(102);
    lab.gc(&config, &[]).ok();
    assert!(lab.leases().is_empty());
}

#[test]
fn gc_without_a_store_and_without_a_list() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24"]);
    lab.gc(&config, &[]).ok();
    assert!(!lab.data().exists());
    lab.add("c1", &config);
    lab.call("GC", "", &config).ok();
    assert_eq!(lab.leases().len(), 1, "no list tells nothing");
    let mut null = config.clone();
    null["cni.dev/valid-attachments"] = Value::Null;
    lab.call("GC", "", &null).ok();
    assert!(lab.leases().is_empty(), "libcni writes an empty list as null");
}

#[test]
fn gc_goes_on_past_what_it_can_not_remove() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24"]);
    for address in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
        lab.write_lease(address, "lost\r\neth0");
    }
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    let mut config_gc = config.clone();
    config_gc["cni.dev/valid-attachments"] = json!([]);
    let command = lab.command(common::OURS, "GC", "", "");
    let options = ["-f", "-o", "/dev/null", "-e", "inject=unlink:error=EIO:when=2"].map(str::to_owned);
    let answer = common::Answer::of(&common::run(common::traced(&command, &options), &config_gc));
    let message = answer.failed(5);
    assert!(
        message.contains("can't remove the lease") && message.contains("Input/output error"),
        "{message}"
    );
    assert_eq!(lab.leases().len(), 1, "the others are gone");
}

#[test]
fn del_needs_nothing_but_name_and_directory() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24"]);
    let breakages: [fn(&mut Value); 6] = [
        |config| config["ipam"]["ranges"] = json!(7),
        |config| config["ipam"]["ranges"] = json!([]),
        |config| config["ipam"]["ranges"] = json!([[{ "subnet": "10.9.9.9/8" }]]),
        |config| config["ipam"]["resolvConf"] = json!("/nonexistent"),
        |config| config["runtimeConfig"] = json!({ "ips": ["nonsense"] }),
        |config| config["prevResult"] = json!({ "cniVersion": "9" }),
    ];
    for breakage in breakages {
        lab.add("c1", &config);
        let mut broken = config.clone();
        breakage(&mut broken);
        lab.del("c1", &broken);
        assert!(lab.leases().is_empty(), "{broken}");
        lab.add("c2", &config);
        lab.gc(&broken, &[]).ok();
        assert!(lab.leases().is_empty(), "{broken}");
    }
}

#[test]
fn status_is_about_the_next_add() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/30", "fd00::/64"]);
    lab.call("STATUS", "", &config).ok();
    assert!(!lab.data().exists(), "STATUS creates nothing");
    lab.add("c1", &config);
    let full = lab.call("STATUS", "", &config).failed(50);
    assert!(full.contains("no IP addresses available in range set: 10.0.0.1-10.0.0.2"), "{full}");
    lab.del("c1", &config);
    lab.call("STATUS", "", &config).ok();

    let mut broken = config.clone();
    broken["ipam"]["ranges"] = json!([]);
    assert!(lab.call("STATUS", "", &broken).failed(7).starts_with("no IP ranges specified"));
    let mut no_dns = config.clone();
    no_dns["ipam"]["resolvConf"] = json!("/nonexistent/resolv.conf");
    assert!(lab.call("STATUS", "", &no_dns).failed(50).contains("/nonexistent/resolv.conf"));
}

#[test]
fn a_store_on_a_read_only_file_system() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24"]);
    common::mount_tmpfs(&lab.data(), "size=1m");
    lab.add("c1", &config);
    let status = std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(lab.data()).status();
    assert!(status.unwrap().success());
    for (verb, container, code) in [("ADD", "c2", 5), ("DEL", "c1", 5), ("STATUS", "", 50)] {
        let message = lab.call(verb, container, &config).failed(code);
        assert!(
            message.contains("Read-only file system") && message.contains("networks"),
            "{verb}: {message}"
        );
        assert!(message.contains("hint: the store must be on a writable file system"), "{verb}: {message}");
    }
    lab.del("unknown", &config);
    lab.call("CHECK", "c1", &config).ok();
    lab.call("CHECK", "c2", &config).failed(102);

    // Nor is a lock file there that could be opened.
    let mut never = config.clone();
    never["name"] = json!("never");
    lab.del("c1", &never);
    lab.call("ADD", "c1", &never).failed(5);
}

#[test]
fn a_full_disk_leaves_nothing() {
    for options in ["size=16k", "nr_inodes=8"] {
        let lab = Lab::new();
        let config = lab.subnets(&["10.0.0.0/24", "fd00::/64"]);
        common::mount_tmpfs(&lab.data(), options);
        let mut full = None;
        for number in 0..10 {
            let before = lab.leases();
            let answer = lab.call("ADD", &format!("c{number}"), &config);
            if !answer.success {
                let message = answer.failed(5);
                assert!(message.contains("No space left on device"), "{message}");
                assert!(message.contains("hint: free space (or inodes)"), "{message}");
                assert_eq!(lab.leases(), before, "nothing is left of it");
                full = Some(number);
                break;
            }
        }
        assert!(full.is_some(), "{options} were enough");
        for number in 0..full.unwrap() {
            lab.del(&format!("c{number}"), &config);
        }
        assert!(lab.leases().is_empty());
        lab.assert_tidy();
    }
}

#[test]
fn a_lock_that_is_held_ends_with_try_again() {
    let lab = Lab::new().env("CNI_LOCK_TIMEOUT", "0.05");
    let config = lab.subnets(&["10.0.0.0/24"]);
    lab.add("c1", &config);
    let lock = fs::File::open(lab.store().join("lock")).unwrap();
    lock.lock().unwrap();
    for verb in ["ADD", "DEL", "CHECK", "STATUS"] {
        let message = lab.call(verb, "c2", &config).failed(11);
        assert!(message.contains("net/lock\" has been held by another process for 0.05 s"), "{message}");
    }
    lock.unlock().unwrap();
    lab.add("c2", &config);

    let lab = lab.env("CNI_LOCK_TIMEOUT", "soon");
    assert!(lab.call("ADD", "c3", &config).failed(4).contains("CNI_LOCK_TIMEOUT"));
}

#[test]
fn a_lock_that_is_released_in_time_is_waited_for() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24"]);
    lab.add("c1", &config);
    let lock = fs::File::open(lab.store().join("lock")).unwrap();
    lock.lock().unwrap();
    let waiting = common::start(lab.command(common::OURS, "ADD", "c2", "eth0"), &config);
    // It waits in flock(2): the kernel lists it.
    let pid = waiting.id().to_string();
    while !fs::read_to_string("/proc/locks")
        .unwrap()
        .lines()
        .any(|line| line.contains("->") && line.contains(&pid))
    {
        std::thread::yield_now();
    }
    lock.unlock().unwrap();
    assert_eq!(common::Answer::of(&waiting.wait_with_output().unwrap()).addresses(), ["10.0.0.3"]);
}

#[test]
fn subnets_of_one_and_two() {
    let cases: [(&str, &[&str], Option<&str>); 4] = [
        ("10.0.0.4/31", &["10.0.0.4/31"], Some("10.0.0.5")),
        ("10.0.0.7/32", &["10.0.0.7/32"], None),
        ("fd00::4/127", &["fd00::4/127"], Some("fd00::5")),
        ("fd00::7/128", &["fd00::7/128"], None),
    ];
    for (subnet, expected, gateway) in cases {
        let lab = Lab::new();
        let config = lab.subnets(&[subnet]);
        for (number, address) in expected.iter().enumerate() {
            let answer = lab.call("ADD", &format!("c{number}"), &config);
            let ip = &answer.ok()["ips"][0];
            assert_eq!(ip["address"], *address);
            assert_eq!(ip["gateway"].as_str(), gateway, "{subnet}");
        }
        lab.call("ADD", "more", &config).failed(104);
    }
    let lab = Lab::new();
    let config = lab.config(&json!({ "subnet": "10.0.0.4/31", "gateway": "10.0.0.4" }));
    assert_eq!(lab.add("c1", &config), ["10.0.0.5"]);
}

#[test]
fn excluded_addresses_are_never_given() {
    let lab = Lab::new();
    let config = lab.config(&json!({
        "exclude": ["10.0.0.2", "10.0.0.8/29"],
        "ranges": [[{ "subnet": "10.0.0.0/28", "exclude": ["10.0.0.4/31"] }]]
    }));
    let mut given = Vec::new();
    loop {
        let answer = lab.call("ADD", &format!("c{}", given.len()), &config);
        if !answer.success {
            answer.failed(104);
            break;
        }
        given.extend(answer.addresses());
    }
    assert_eq!(given, ["10.0.0.3", "10.0.0.6", "10.0.0.7"]);
    lab.call("STATUS", "", &config).failed(50);
}

#[test]
fn all_sets_or_none() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24", "10.0.1.0/30", "fd00::/64"]);
    assert_eq!(lab.add("c1", &config), ["10.0.0.2", "10.0.1.2", "fd00::2"]);
    let message = lab.call("ADD", "c2", &config).failed(104);
    assert!(message.starts_with("failed to allocate for range 1: no IP addresses"), "{message}");
    assert_eq!(lab.leases().len(), 3);
    assert_eq!(
        fs::read_to_string(lab.store().join("last_reserved_ip.0")).unwrap(),
        "10.0.0.2",
        "nor did the cursor move"
    );
}

#[test]
fn huge_ranges_are_no_trouble() {
    let lab = Lab::new();
    let config = lab.subnets(&["0.0.0.0/0", "::/0"]);
    assert_eq!(lab.add("c1", &config), ["0.0.0.2", "::2"]);
    lab.call("STATUS", "", &config).ok();
    lab.call("CHECK", "c1", &config).ok();
}

#[test]
fn names_that_would_lead_elsewhere_are_refused() {
    let lab = Lab::new();
    for name in ["..", "../x", "a/b", ".ferrule", ""] {
        let mut config = lab.subnets(&["10.0.0.0/24"]);
        config["name"] = json!(name);
        lab.call("ADD", "c1", &config).failed(7);
        lab.call("DEL", "c1", &config).failed(7);
    }
    assert!(!lab.data().exists());
    let config = lab.subnets(&["10.0.0.0/24"]);
    lab.call("ADD", "../c1", &config).failed(4);
}

#[test]
fn both_text_forms_of_an_address_are_one() {
    let lab = Lab::new();
    let mut config = lab.subnets(&["fd00:0:0:1::/64"]);
    config["runtimeConfig"] = json!({ "ips": ["FD00:0:0:1:0:0:0:ABC"] });
    assert_eq!(lab.add("c1", &config), ["fd00:0:0:1::abc"]);
    assert!("fd00:0:0:1::abc".parse::<IpAddr>().is_ok_and(|ip| lab.lease(&ip.to_string()).exists()));
    lab.call("ADD", "c2", &config).failed(103);
}
