//! Each setting, from each source: set on ADD, found on CHECK, as before after DEL.

use serde_json::{Value, json};
use testkit::Snapshot;

use crate::lab::{Lab, MAC, config, previous, properties};

/// ADD with these keys changes exactly `changed`; DEL changes it back.
fn sets(keys: &Value, args: &str, changed: &Value) {
    let lab = Lab::new();
    let host = Snapshot::take();
    let inside = lab.container.enter(Snapshot::take);
    let before = properties(&lab.link());
    let config = config(keys);
    let result = lab.call_with("ADD", args, &config).success();

    let mut wanted = before.clone();
    wanted.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
    assert_eq!(properties(&lab.link()), wanted, "{keys}");
    let mut wanted = previous();
    for key in ["mac", "mtu"] {
        if let Some(value) = changed.get(key) {
            wanted["interfaces"][1][key] = value.clone();
        }
    }
    assert_eq!(result, wanted, "the result tells what has changed");
    lab.call_with("CHECK", args, &config).success();

    assert!(lab.call_with("DEL", args, &config).document().is_none());
    assert_eq!(properties(&lab.link()), before, "restored");
    inside.assert_same(&lab.container.enter(Snapshot::take));
    host.assert_same(&Snapshot::take());
}

#[test]
fn mtu() {
    sets(&json!({ "mtu": 1454 }), "", &json!({ "mtu": 1454 }));
}

#[test]
fn mtu_from_args() {
    sets(&json!({ "mtu": 1454, "args": { "cni": { "mtu": 1400 } } }), "", &json!({ "mtu": 1400 }));
}

#[test]
fn promiscuous_mode() {
    sets(&json!({ "promisc": true }), "", &json!({ "promisc": true }));
}

#[test]
fn promiscuous_mode_from_args() {
    sets(&json!({ "args": { "cni": { "promisc": true } } }), "", &json!({ "promisc": true }));
}

#[test]
fn all_multicast() {
    sets(&json!({ "allmulti": true }), "", &json!({ "allmulti": true }));
}

#[test]
fn all_multicast_from_args() {
    sets(
        &json!({ "allmulti": false, "args": { "cni": { "allmulti": true } } }),
        "",
        &json!({ "allmulti": true }),
    );
}

#[test]
fn transmit_queue_length() {
    sets(&json!({ "txQLen": 20000 }), "", &json!({ "txQLen": 20000 }));
}

#[test]
fn transmit_queue_length_from_args() {
    sets(&json!({ "args": { "cni": { "txQLen": 20000 } } }), "", &json!({ "txQLen": 20000 }));
}

#[test]
fn mac() {
    sets(&json!({ "mac": "C2-11-22-33-44-55" }), "", &json!({ "mac": "c2:11:22:33:44:55" }));
}

#[test]
fn mac_from_cni_args() {
    let args = "IgnoreUnknown=true;MAC=c2:11:22:33:44:56;K8S_POD_NAME=pod";
    sets(&json!({ "mac": "c2:11:22:33:44:55" }), args, &json!({ "mac": "c2:11:22:33:44:56" }));
}

#[test]
fn mac_from_runtime_config() {
    let keys = json!({ "mac": "c2:11:22:33:44:55", "runtimeConfig": { "mac": "c2:11:22:33:44:57" } });
    sets(&keys, "MAC=c2:11:22:33:44:56", &json!({ "mac": "c2:11:22:33:44:57" }));
}

#[test]
fn mac_from_args() {
    let keys = json!({
        "runtimeConfig": { "mac": "c2:11:22:33:44:57" }, "args": { "cni": { "mac": "c2:11:22:33:44:58" } }
    });
    sets(&keys, "", &json!({ "mac": "c2:11:22:33:44:58" }));
}

#[test]
fn everything_at_once_with_a_directory_of_its_own() {
    let keys = json!({
        "mac": "c2:11:22:33:44:55", "promisc": true, "mtu": 1454, "allmulti": true, "txQLen": 20000,
        "sysctl": { "net.ipv4.conf.IFNAME.log_martians": "1" }, "dataDir": "/run/tuning-test"
    });
    let changed = json!({
        "mac": "c2:11:22:33:44:55", "promisc": true, "mtu": 1454, "allmulti": true, "txQLen": 20000
    });
    sets(&keys, "", &changed);
}

/// `false` asks for nothing: an interface that is promiscuous stays so, and CHECK does not mind.
#[test]
fn promisc_false_is_no_wish() {
    let lab = Lab::new();
    lab.container.run("ip", &["link", "set", "eth0", "promisc", "on"]);
    let config = config(&json!({ "promisc": false }));
    lab.call("ADD", &config).success();
    lab.call("CHECK", &config).success();
    lab.call("DEL", &config).success();
    assert_eq!(properties(&lab.link())["promisc"], true);
    assert_eq!(properties(&lab.link())["mac"], MAC);
}

/// In order, lists of values, and back again.
#[test]
fn sysctls() {
    let lab = Lab::new();
    let keys = ["net/ipv4/conf/eth0/arp_filter", "net/core/somaxconn", "net/ipv4/ip_local_port_range"];
    let before = keys.map(|key| lab.sysctl(key));
    let config = config(&json!({ "sysctl": {
        "net.ipv4.conf.IFNAME.arp_filter": "1",
        "net/core/somaxconn": "500",
        "net.ipv4.ip_local_port_range": "20000 30000"
    } }));
    assert_eq!(lab.call("ADD", &config).success(), previous());
    assert_eq!(keys.map(|key| lab.sysctl(key)), ["1", "500", "20000\t30000"]);
    assert_ne!(testkit::sysctl("net/core/somaxconn"), "500", "the host's own is another");
    lab.call("CHECK", &config).success();
    lab.call("DEL", &config).success();
    assert_eq!(keys.map(|key| lab.sysctl(key)), before);
}

/// An interface with a dot in its name, as VLANs have.
#[test]
fn a_sysctl_of_an_interface_with_a_dot_in_its_name() {
    let lab = Lab::new();
    lab.container.run("ip", &["link", "set", "eth0", "down"]);
    lab.container.run("ip", &["link", "set", "eth0", "name", "eth0.100"]);
    let call = |verb: &str, key: &str| {
        let config = config(&json!({ "sysctl": { key: "1" } }));
        testkit::Plugin::new("tuning")
            .verb(verb)
            .attachment("c1", lab.container.path(), "eth0.100")
            .config(&config)
            .run()
            .success()
    };
    for key in [
        "net.ipv4.conf.IFNAME.arp_filter",
        "net.ipv4.conf.eth0.100.arp_filter",
        "net/ipv4/conf/eth0.100/arp_filter",
        "net.ipv4.conf.eth0/100.arp_filter",
    ] {
        call("ADD", key);
        assert_eq!(lab.sysctl("net/ipv4/conf/eth0.100/arp_filter"), "1", "{key}");
        call("CHECK", key);
        call("DEL", key);
        assert_eq!(lab.sysctl("net/ipv4/conf/eth0.100/arp_filter"), "0", "{key}");
    }
}

/// Some have no value until they get one: that is nothing to restore, and no error.
#[test]
fn a_sysctl_that_can_not_be_read_yet() {
    let lab = Lab::new();
    let config = config(&json!({ "sysctl": { "net.ipv6.conf.IFNAME.stable_secret": "2001:db8::1" } }));
    lab.call("ADD", &config).success();
    assert_eq!(lab.sysctl("net/ipv6/conf/eth0/stable_secret"), "2001:0db8:0000:0000:0000:0000:0000:0001");
    lab.call("DEL", &config).success();
}

/// A namespace has a sysctl once, however many networks of its container ask for it.
const SHARED_KEY: &str = "net.core.somaxconn";

fn shared(name: &str, value: &str) -> Value {
    config(&json!({ "name": name, "sysctl": { SHARED_KEY: value } }))
}

fn two_networks_share_a_sysctl(leaves_first: &Value, leaves_last: &Value) {
    let lab = Lab::new();
    let before = lab.sysctl(SHARED_KEY);
    assert_ne!(before, "500");
    lab.call("ADD", &shared("first", "500")).success();
    lab.call("ADD", &shared("second", "500")).success();
    lab.call("DEL", leaves_first).success();
    assert_eq!(lab.sysctl(SHARED_KEY), "500", "the other network still asks for it");
    lab.call("CHECK", leaves_last).success();
    lab.call("DEL", leaves_last).success();
    assert_eq!(lab.sysctl(SHARED_KEY), before);
}

#[test]
fn a_sysctl_stays_when_the_network_that_set_it_first_is_gone() {
    two_networks_share_a_sysctl(&shared("first", "500"), &shared("second", "500"));
}

#[test]
fn a_sysctl_stays_when_the_network_that_set_it_last_is_gone() {
    two_networks_share_a_sysctl(&shared("second", "500"), &shared("first", "500"));
}

#[test]
fn a_sysctl_goes_back_to_what_another_network_asks_for() {
    let lab = Lab::new();
    lab.call("ADD", &shared("first", "500")).success();
    lab.call("ADD", &shared("third", "600")).success();
    lab.call("DEL", &shared("third", "600")).success();
    assert_eq!(lab.sysctl(SHARED_KEY), "500");
}
