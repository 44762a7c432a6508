use cni::SpecVersion;
use serde_json::json;

use super::*;
use crate::config::Sysctl;
use crate::key::SysctlKey;

fn eth0() -> LinkName {
    LinkName::new("eth0").unwrap()
}

fn config(sysctl: bool, properties: Vec<LinkProperty>) -> Config {
    let name = "net.ipv4.conf.IFNAME.arp_filter";
    let sysctls = sysctl.then(|| Sysctl {
        name: name.to_owned(),
        key: SysctlKey::read(name, &eth0()).unwrap(),
        value: "1".to_owned(),
    });
    Config { sysctls: sysctls.into_iter().collect(), properties, data_directory: "/run/cni/tuning".into() }
}

#[test]
fn the_backup_comes_first_so_that_it_goes_last() {
    let plan = plan(&config(true, vec![LinkProperty::Mtu(1400), LinkProperty::Promiscuous(true)]), &eth0());
    assert_eq!(
        serde_json::to_value(plan).unwrap(),
        json!([
            { "resource": "backup", "directory": "/run/cni/tuning", "link": "eth0",
              "properties": [{ "mtu": 1400 }, { "promiscuous": true }] },
            { "resource": "sysctl-setting", "key": "net/ipv4/conf/eth0/arp_filter", "value": "1" },
            { "resource": "setting", "link": "eth0", "wanted": { "mtu": 1400 } },
            { "resource": "setting", "link": "eth0", "wanted": { "promiscuous": true } },
        ])
    );
}

#[test]
fn sysctls_need_no_backup_file() {
    let plan = plan(&config(true, Vec::new()), &eth0());
    assert!(matches!(plan.as_slice(), [Resource::SysctlSetting(_)]));
}

#[test]
fn the_result_says_what_has_changed_about_the_interface() {
    let previous = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            { "name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1500 },
            { "name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1500, "sandbox": "/run/netns/c" },
            { "name": "eth1", "mac": "02:00:00:00:00:03", "mtu": 1500, "sandbox": "/run/netns/c" },
        ],
    });
    let read = |value| AddResult::read(&value, SpecVersion::V1_1_0).unwrap();
    let properties = vec![LinkProperty::Mac("02:00:00:00:00:09".parse().unwrap()), LinkProperty::Mtu(1400)];
    let changed = result(&config(false, properties.clone()), &eth0(), read(previous.clone()));
    let mut wanted = previous.clone();
    wanted["interfaces"][1]["mac"] = "02:00:00:00:00:09".into();
    wanted["interfaces"][1]["mtu"] = 1400.into();
    assert_eq!(changed.write(SpecVersion::V1_1_0).unwrap(), wanted);
    // Nothing asked for, nothing changed.
    let same = result(&config(true, Vec::new()), &eth0(), read(previous.clone()));
    assert_eq!(same.write(SpecVersion::V1_1_0).unwrap(), previous);
    // Where no interface has a sandbox, the name alone tells.
    let bare =
        json!({ "cniVersion": "1.1.0", "interfaces": [{ "name": "eth0", "mac": "02:00:00:00:00:01" }] });
    let changed = result(&config(false, properties), &eth0(), read(bare));
    assert_eq!(changed.interfaces[0].mac, "02:00:00:00:00:09");
}
