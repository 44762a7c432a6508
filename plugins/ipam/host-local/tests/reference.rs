//! What the Go plugin's own tests ask for, of ours.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its own functions too"
)]

mod common;

use std::fs;

use common::Lab;
use serde_json::{Value, json};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn versioned(mut config: Value, version: &str) -> Value {
    config["cniVersion"] = json!(version);
    config
}

/// Two sets, the first of two ranges: the smaller one is handed out first.
fn two_sets(lab: &Lab) -> Value {
    let resolv = lab.root.join("resolv.conf");
    fs::write(&resolv, "nameserver 192.0.2.3\n").unwrap();
    lab.config(&json!({
        "resolvConf": resolv,
        "ranges": [
            [{ "subnet": "10.1.2.0/24" }, { "subnet": "10.2.2.0/24" }],
            [{ "subnet": "2001:db8:1::0/64" }]
        ],
        "routes": [
            { "dst": "0.0.0.0/0" }, { "dst": "::/0" },
            { "dst": "192.168.0.0/16", "gw": "1.1.1.1" }, { "dst": "2001:db8:2::/64", "gw": "2001:db8:3::1" }
        ]
    }))
}

fn read(lab: &Lab, name: &str) -> String {
    fs::read_to_string(lab.store().join(name)).unwrap()
}

#[test]
fn add_and_del_allocate_and_release() {
    for version in VERSIONS {
        let lab = Lab::new();
        let config = versioned(two_sets(&lab), version);
        let answer = lab.call("ADD", "dummy", &config);
        assert_eq!(answer.addresses(), ["10.1.2.2", "2001:db8:1::2"], "{version}");
        let result = answer.ok();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["dns"]["nameservers"], json!(["192.0.2.3"]));
        assert!(result.get("interfaces").is_none());
        if version >= "0.3.0" {
            let mut ips = json!([
                { "version": "4", "address": "10.1.2.2/24", "gateway": "10.1.2.1" },
                { "version": "6", "address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1" }
            ]);
            if version >= "1.0.0" {
                for ip in ips.as_array_mut().unwrap() {
                    ip.as_object_mut().unwrap().remove("version");
                }
            }
            assert_eq!(result["ips"], ips, "{version}");
            assert_eq!(result["routes"], config["ipam"]["routes"], "{version}");
        }

        for address in ["10.1.2.2", "2001:db8:1::2"] {
            assert_eq!(read(&lab, address), "dummy\r\neth0");
            assert_eq!(common::mode(&lab.lease(address)), 0o600);
        }
        assert_eq!(read(&lab, "last_reserved_ip.0"), "10.1.2.2");
        assert_eq!(read(&lab, "last_reserved_ip.1"), "2001:db8:1::2");
        assert_eq!(common::mode(&lab.store()), 0o755);
        assert_eq!(common::mode(&lab.store().join("lock")), 0o750);
        assert_eq!(common::mode(&lab.store().join("last_reserved_ip.0")), 0o600);

        if version >= "0.4.0" {
            lab.call("CHECK", "dummy", &config).ok();
        }
        lab.del("dummy", &config);
        assert!(lab.leases().is_empty());
        assert_eq!(read(&lab, "last_reserved_ip.0"), "10.1.2.2", "the cursor stays");
    }
}

#[test]
fn an_interface_of_one_network_or_name_leaves_the_others() {
    for version in VERSIONS {
        let lab = Lab::new();
        let here = versioned(lab.subnets(&["10.1.2.0/24"]), version);
        let mut there = versioned(lab.subnets(&["10.2.2.0/24"]), version);
        there["name"] = json!("other");
        let add = |ifname: &str, config: &Value| {
            lab.call_with(common::OURS, "ADD", "dummy", ifname, config).addresses()
        };
        assert_eq!(add("eth0", &here), ["10.1.2.2"]);
        assert_eq!(add("eth1", &there), ["10.2.2.2"]);
        assert_eq!(add("eth1", &here), ["10.1.2.3"]);
        lab.call_with(common::OURS, "DEL", "dummy", "eth0", &here).ok();
        assert_eq!(lab.leases().keys().collect::<Vec<_>>(), ["10.1.2.3"]);
        assert_eq!(fs::read_to_string(lab.data().join("other/10.2.2.2")).unwrap(), "dummy\r\neth1");
    }
}

#[test]
fn a_second_add_of_the_same_interface_fails_and_others_go_on() {
    for version in VERSIONS {
        let lab = Lab::new();
        let config = versioned(lab.subnets(&["10.1.2.0/24"]), version);
        assert_eq!(lab.add("dummy", &config), ["10.1.2.2"]);
        let message = lab.call("ADD", "dummy", &config).failed(103);
        let expected = "failed to allocate for range 0: 10.1.2.2 has been allocated to dummy, duplicate allocation is not allowed";
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(lab.leases().len(), 1);
        assert_eq!(lab.add("dummy1", &config), ["10.1.2.3"]);
    }
}

#[test]
fn a_lease_of_old_holds_the_container_only() {
    for version in VERSIONS {
        let lab = Lab::new();
        let config = versioned(lab.subnets(&["10.1.2.0/24"]), version);
        lab.write_lease("10.1.2.9", "dummy");
        lab.write_lease("10.1.2.10", "dummy1");
        if version >= "0.4.0" {
            lab.call("CHECK", "dummy", &config).ok();
        }
        assert!(
            lab.call("ADD", "dummy", &config).failed(103).contains("10.1.2.9 has been allocated to dummy")
        );
        lab.del("dummy", &config);
        assert_eq!(lab.leases().keys().collect::<Vec<_>>(), ["10.1.2.10"]);
    }
}

#[test]
fn a_lease_of_old_outlives_the_del_of_another_interface() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.1.2.0/24"]);
    lab.write_lease("10.1.2.9", "dummy");
    lab.write_lease("10.1.2.10", "dummy\r\neth0");
    lab.del("dummy", &config);
    assert_eq!(lab.leases().keys().collect::<Vec<_>>(), ["10.1.2.9"]);
    lab.del("dummy", &config);
    assert!(lab.leases().is_empty());
}

#[test]
fn del_of_an_unknown_container_is_no_error_and_creates_nothing() {
    for version in VERSIONS {
        let lab = Lab::new();
        let config = versioned(lab.subnets(&["10.1.2.0/24"]), version);
        lab.del("dummy", &config);
        assert!(!lab.data().exists());
        lab.add("other", &config);
        lab.del("dummy", &config);
        assert_eq!(lab.leases().len(), 1);
    }
}

#[test]
fn white_space_in_leases_does_not_count() {
    for version in VERSIONS {
        let lab = Lab::new();
        let config = versioned(lab.subnets(&["10.1.2.0/24"]), version);
        assert_eq!(lab.add("dummy", &config), ["10.1.2.2"]);
        lab.write_lease("10.1.2.2", "   dummy\r\neth0\n  \n");
        lab.del("dummy", &config);
        assert!(lab.leases().is_empty());
    }
}

#[test]
fn the_first_use_of_a_subnet_says_nothing_on_standard_error() {
    for version in VERSIONS {
        let lab = Lab::new();
        let answer = lab.call("ADD", "dummy", &versioned(lab.subnets(&["10.1.2.0/24"]), version));
        assert_eq!(answer.stderr, "");
    }
}

#[test]
fn addresses_asked_for() {
    for version in VERSIONS {
        let lab = Lab::new();
        let mut config = versioned(lab.subnets(&["10.1.2.0/24"]), version);
        config["args"] = json!({ "cni": { "ips": ["10.1.2.88"] } });
        assert_eq!(lab.add("dummy", &config), ["10.1.2.88"]);
        assert_eq!(read(&lab, "last_reserved_ip.0"), "10.1.2.88", "the cursor moves there");

        let mut config = versioned(lab.subnets(&["10.1.2.0/24", "2001:db8:1::/24"]), version);
        config["ipam"]["ranges"][1][0]["subnet"] = json!("2001:db8::/32");
        config["args"] = json!({ "cni": { "ips": ["2001:db8:1::999", "10.1.2.89"] } });
        assert_eq!(lab.add("dummy2", &config), ["10.1.2.89", "2001:db8:1::999"]);
    }
}

#[test]
fn addresses_asked_for_in_two_sets_of_a_family() {
    for version in VERSIONS {
        let lab = Lab::new();
        let mut config = versioned(lab.subnets(&["10.1.2.0/24", "10.1.3.0/24"]), version);
        config["args"] = json!({ "cni": { "ips": ["10.1.2.88", "10.1.3.77"] } });
        let answer = lab.call("ADD", "dummy", &config);
        if version < "0.3.0" {
            let message = answer.failed(7);
            let expected = format!("CNI version {version} does not support more than 1 address per family");
            assert!(message.starts_with(&expected), "{message}");
        } else {
            assert_eq!(answer.addresses(), ["10.1.2.88", "10.1.3.77"]);
        }
    }
}

#[test]
fn addresses_asked_for_that_no_set_takes() {
    for version in VERSIONS {
        let lab = Lab::new();
        let mut config = versioned(lab.subnets(&["10.1.2.0/24", "2001:db8::/64"]), version);
        config["args"] = json!({ "cni": { "ips": ["10.1.2.88", "10.1.2.77"] } });
        let message = lab.call("ADD", "dummy", &config).failed(7);
        assert!(message.starts_with("failed to allocate all requested IPs: 10.1.2.77"), "{message}");
        assert!(lab.leases().is_empty());
    }
}

#[test]
fn an_address_asked_for_must_be_free_in_the_range_and_no_gateway() {
    let lab = Lab::new();
    let mut config = lab.config(&json!({
        "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": "10.0.0.20", "gateway": "10.0.0.15", "exclude": ["10.0.0.16"]
    }));
    let mut ask = |container: &str, address: &str| {
        config["runtimeConfig"] = json!({ "ips": [address] });
        lab.call("ADD", container, &config)
    };
    assert_eq!(ask("c1", "10.0.0.12/24").addresses(), ["10.0.0.12"]);
    let taken = ask("c2", "10.0.0.12").failed(103);
    let expected = "failed to allocate for range 0: requested IP address 10.0.0.12 is not available in range set 10.0.0.10-10.0.0.20";
    assert!(taken.starts_with(expected), "{taken}");
    assert!(taken.contains("it belongs to c1/eth0"), "{taken}");
    let gateway = ask("c2", "10.0.0.15").failed(7);
    assert!(gateway.contains("requested ip 10.0.0.15 is subnet's gateway"), "{gateway}");
    assert!(ask("c2", "10.0.0.16").failed(7).contains("10.0.0.16 is excluded"));
    for outside in ["10.0.0.9", "10.0.0.21", "fd00::1"] {
        let message = ask("c2", outside).failed(7);
        assert!(
            message.starts_with(&format!("failed to allocate all requested IPs: {outside}")),
            "{message}"
        );
    }
    // The Go plugin overlooks a duplicate where an address is asked for.
    assert!(ask("c1", "10.0.0.13").failed(103).contains("10.0.0.12 has been allocated to c1"));
    assert_eq!(lab.leases().len(), 1);
}

#[test]
fn round_robin_past_freed_addresses() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/29"]);
    for expected in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
        assert_eq!(lab.add("c", &config), [expected]);
        lab.del("c", &config);
    }
    assert_eq!(lab.add("a", &config), ["10.0.0.5"]);
    assert_eq!(lab.add("b", &config), ["10.0.0.6"]);
    assert_eq!(lab.add("c", &config), ["10.0.0.2"], "the broadcast address is left out");
}

#[test]
fn the_cursor_decides_where_to_go_on() {
    // Subnets of the only set, addresses taken, content of the cursor, expected.
    let table: [(&[&str], &[&str], &str, &str); 10] = [
        (&["10.0.0.0/29"], &[], "", "10.0.0.2"),
        (&["2001:db8:1::0/64"], &[], "", "2001:db8:1::2"),
        (&["10.0.0.0/30"], &[], "", "10.0.0.2"),
        (&["10.0.0.0/29"], &["10.0.0.2"], "", "10.0.0.3"),
        (&["10.0.0.0/29"], &[], "10.0.0.3", "10.0.0.4"),
        (&["10.0.0.0/29"], &["10.0.0.4"], "10.0.0.3", "10.0.0.5"),
        (&["10.0.0.0/29"], &["10.0.0.4", "10.0.0.5", "10.0.0.6"], "10.0.0.3", "10.0.0.2"),
        (&["10.0.0.0/29"], &[], "10.0.0.128", "10.0.0.2"),
        (&["10.0.0.0/29"], &["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"], "10.0.0.3", "10.0.0.3"),
        (&["10.0.0.0/30", "10.0.1.0/30"], &[], "10.0.0.2", "10.0.1.2"),
    ];
    for (subnets, taken, cursor, expected) in table {
        let lab = Lab::new();
        let ranges: Vec<Value> = subnets.iter().map(|subnet| json!({ "subnet": subnet })).collect();
        let config = lab.config(&json!({ "ranges": [ranges] }));
        fs::create_dir_all(lab.store()).unwrap();
        for address in taken {
            lab.write_lease(address, "somebody\r\neth0");
        }
        fs::write(lab.store().join("last_reserved_ip.0"), cursor).unwrap();
        assert_eq!(lab.add("dummy", &config), [expected], "{subnets:?} {taken:?} {cursor}");
        assert_eq!(read(&lab, "last_reserved_ip.0"), expected);
    }
}

#[test]
fn a_full_range_says_so() {
    let lab = Lab::new();
    let config =
        lab.config(&json!({ "ranges": [[{ "subnet": "10.0.0.0/30" }, { "subnet": "10.0.1.0/30" }]] }));
    assert_eq!(lab.add("a", &config), ["10.0.0.2"]);
    assert_eq!(lab.add("b", &config), ["10.0.1.2"]);
    let message = lab.call("ADD", "c", &config).failed(104);
    let expected = "failed to allocate for range 0: no IP addresses available in range set: 10.0.0.1-10.0.0.2,10.0.1.1-10.0.1.2";
    assert!(message.starts_with(expected), "{message}");
    lab.del("a", &config);
    assert_eq!(lab.add("c", &config), ["10.0.0.2"]);
}

#[test]
fn a_path_that_is_in_the_way_of_the_store() {
    let lab = Lab::new();
    fs::write(lab.data(), "a file").unwrap();
    let message = lab.call("ADD", "c", &lab.subnets(&["10.0.0.0/24"])).failed(5);
    assert!(message.contains("ipam.dataDir must be a directory"), "{message}");
}
