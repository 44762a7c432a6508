//! The verbs in states that are not as they should be.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testkit::{Plugin, Snapshot, plugin_dir};

use crate::lab::{Lab, MAC, config, properties};

fn tuned() -> Value {
    config(
        &json!({ "mac": "c2:11:22:33:44:55", "mtu": 1400, "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1" } }),
    )
}

const BACKUP: &str = "/run/cni/tuning/c1_eth0.json";

#[test]
fn check_sees_what_has_changed() {
    let lab = Lab::new();
    lab.call("ADD", &tuned()).success();
    for (change, back, words) in [
        ("mtu 1401", "mtu 1400", "expected mtu 1400, found mtu 1401"),
        ("address c2:11:22:33:44:66", "address c2:11:22:33:44:55", "found address c2:11:22:33:44:66"),
    ] {
        let set = |change: &str| {
            let words = format!("link set eth0 {change}");
            lab.container.run("ip", &words.split(' ').collect::<Vec<_>>())
        };
        set(change);
        let error = lab.call("CHECK", &tuned()).error();
        assert_eq!(error["code"], 102, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(words), "{error}");
        set(back);
        lab.call("CHECK", &tuned()).success();
    }
    lab.container.enter(|| testkit::set_sysctl("net/ipv4/conf/eth0/arp_filter", "0"));
    let error = lab.call("CHECK", &tuned()).error();
    assert_eq!(error["code"], 102, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("net/ipv4/conf/eth0/arp_filter"), "{error}");
}

/// Without a record CHECK goes by the configuration, as the Go suite does.
#[test]
fn check_without_a_record() {
    let lab = Lab::new();
    assert_eq!(lab.call("CHECK", &tuned()).error()["code"], 102);
    lab.call("ADD", &tuned()).success();
    fs::remove_dir_all("/run/ferrule").unwrap();
    lab.call("CHECK", &tuned()).success();
}

#[test]
fn del_restores_by_the_backup_file_where_the_record_is_lost() {
    let lab = Lab::new();
    let before = properties(&lab.link());
    lab.call("ADD", &tuned()).success();
    fs::remove_dir_all("/run/ferrule").unwrap();
    lab.call("DEL", &config(&json!({ "mtu": "broken", "sysctl": 1 }))).success();
    assert_eq!(properties(&lab.link()), before);
    assert!(!Path::new(BACKUP).exists());
}

#[test]
fn del_succeeds_in_every_state() {
    let lab = Lab::new();
    let del = |netns: &str| {
        Plugin::new("tuning")
            .verb("DEL")
            .attachment("c1", netns, "eth0")
            .path(&[plugin_dir()])
            .config(&tuned())
            .run()
    };
    // Never added.
    del("").success();
    lab.call("DEL", &tuned()).success();
    // The interface is gone.
    lab.call("ADD", &tuned()).success();
    lab.container.run("ip", &["link", "del", "eth0"]);
    lab.call("DEL", &tuned()).success();
    assert_eq!(Snapshot::take().section("files"), Vec::<String>::new());
    // A damaged backup file, and no record.
    fs::write(BACKUP, "{ not json").unwrap();
    lab.call("DEL", &tuned()).success();
    assert!(!Path::new(BACKUP).exists());
}

fn del_without_the_namespace_leaves_no_file(netns: &str) {
    let lab = Lab::new();
    lab.call("ADD", &tuned()).success();
    assert!(Path::new(BACKUP).exists());
    lab.container.destroy();
    let del = Plugin::new("tuning").verb("DEL").attachment("c1", netns, "eth0").path(&[plugin_dir()]);
    del.config(&tuned()).run().success();
    assert_eq!(Snapshot::take().section("files"), Vec::<String>::new());
}

#[test]
fn del_without_a_namespace_leaves_no_file() {
    del_without_the_namespace_leaves_no_file("");
}

#[test]
fn del_with_a_namespace_that_is_gone_leaves_no_file() {
    del_without_the_namespace_leaves_no_file("/run/netns/c1");
}

/// A second ADD, after one whose DEL never came, remembers what was before the first.
#[test]
fn a_second_add_restores_to_what_was_before_the_first() {
    let lab = Lab::new();
    lab.call("ADD", &tuned()).success();
    let again = config(&json!({ "mtu": 1300 }));
    lab.call("ADD", &again).success();
    let now = properties(&lab.link());
    assert_eq!((now["mac"].as_str(), now["mtu"].as_u64()), (Some(MAC), Some(1300)));
    assert!(fs::read_to_string(BACKUP).unwrap().contains("1500"));
    lab.call("DEL", &again).success();
    assert_eq!(properties(&lab.link())["mtu"], 1500);
}

#[test]
fn gc_forgets_what_is_not_listed() {
    let lab = Lab::new();
    lab.call("ADD", &tuned()).success();
    let gc = |valid: Value| {
        let mut config = tuned();
        config.as_object_mut().unwrap().remove("prevResult");
        config["cni.dev/valid-attachments"] = valid;
        Plugin::new("tuning").verb("GC").path(&[plugin_dir()]).config(&config).run().success()
    };
    gc(json!([{ "containerID": "c1", "ifname": "eth0" }]));
    assert!(Path::new(BACKUP).exists());
    gc(json!([{ "containerID": "c1", "ifname": "eth1" }]));
    assert_eq!(Snapshot::take().section("files"), Vec::<String>::new());
}

#[test]
fn status_says_what_add_would_refuse() {
    let _lab = Lab::new();
    let status = |keys: Value| {
        let mut config = config(&keys);
        config.as_object_mut().unwrap().remove("prevResult");
        Plugin::new("tuning").verb("STATUS").path(&[plugin_dir()]).config(&config).run()
    };
    status(json!({ "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1" } })).success();
    assert_eq!(status(json!({ "sysctl": { "kernel.hostname": "x" } })).error()["code"], 7);
    fs::create_dir_all("/etc/cni/tuning").unwrap();
    fs::write("/etc/cni/tuning/allowlist.conf", "arp_filter\n").unwrap();
    status(json!({ "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1" } })).success();
    assert_eq!(status(json!({ "sysctl": { "net.core.somaxconn": "1" } })).error()["code"], 7);
}

#[test]
fn the_result_has_the_version_of_the_request() {
    let lab = Lab::new();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let mut previous = json!({
            "cniVersion": version,
            "interfaces": [{ "name": "eth0", "mac": MAC, "sandbox": "/run/netns/c1" }],
            "ips": [{ "address": "10.1.0.2/24", "interface": 0 }]
        });
        if version < "1.0.0" {
            previous["ips"][0]["version"] = "4".into();
            previous["dns"] = json!({});
        }
        let mut config = config(&json!({ "mac": "c2:11:22:33:44:55", "mtu": 1400, "prevResult": previous }));
        config["cniVersion"] = version.into();
        let result = lab.call("ADD", &config).success();
        previous["interfaces"][0]["mac"] = "c2:11:22:33:44:55".into();
        assert_eq!(result, previous, "{version} has no place for an MTU");
        lab.call("DEL", &config).success();
    }
}
