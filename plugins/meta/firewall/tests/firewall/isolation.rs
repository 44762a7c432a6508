//! `ingressPolicy`: who reaches whom.

use std::path::Path;

use serde_json::json;
use testkit::{Snapshot, Uplink, ping, set_sysctl, tcp_echo_server, tcp_roundtrip};

use crate::lab::{Lab, network, network_on, pings};

fn same_bridge(backend: &str) {
    let lab = Lab::new();
    let keys = json!({ "backend": backend, "ingressPolicy": "same-bridge" });
    let (red, blue) = (network(1, &keys), network(2, &keys));
    let open = lab.start(&network(3, &json!({ "backend": backend })), "open");
    let (red1, red2) = (lab.start(&red, "red1"), lab.start(&red, "red2"));
    let blue1 = lab.start(&blue, "blue1");
    assert!(pings(&red1.container, &red2), "inside a bridge");
    assert!(!pings(&red1.container, &blue1), "between bridges");
    assert!(!pings(&blue1.container, &red1), "between bridges");
    assert!(ping(&red1.container, Uplink::OUTSIDE_IPV4), "to the world");
    assert!(pings(&red1.container, &open), "a bridge that is not isolated");
    assert!(pings(lab.host.netns(), &red1), "from the host");
    for (net, running) in [(&red, &red1), (&blue, &blue1)] {
        net.check(&running.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    }
    blue.del(&blue1.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    red.check(&red1.attachment).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn same_bridge_with_nftables() {
    same_bridge("nftables");
}

#[test]
fn same_bridge_with_iptables() {
    same_bridge("iptables");
}

/// Whether frames between the ports of a bridge pass the hooks of IP (`br_netfilter`).
fn hand_frames_to_ip(on: bool) {
    let keys = ["iptables", "ip6tables"];
    // A kernel without br_netfilter never does.
    for key in keys.iter().filter(|_| on || has_bridge_netfilter()) {
        set_sysctl(&format!("net/bridge/bridge-nf-call-{key}"), if on { "1" } else { "0" });
    }
}

fn has_bridge_netfilter() -> bool {
    Path::new("/proc/sys/net/bridge").exists()
}

fn isolated(backend: &str) {
    let lab = Lab::new();
    // iptables does not see what stays on a bridge without this; nftables needs no such thing.
    hand_frames_to_ip(backend == "iptables");
    let keys = json!({ "backend": backend, "ingressPolicy": "isolated" });
    let (red, blue) = (network(1, &keys), network(2, &keys));
    let (red1, red2, blue1) = (lab.start(&red, "red1"), lab.start(&red, "red2"), lab.start(&blue, "blue1"));
    assert!(!pings(&red1.container, &red2), "inside a bridge");
    assert!(!pings(&red1.container, &blue1), "between bridges");
    assert!(ping(&red1.container, Uplink::OUTSIDE_IPV4), "to the world");
    assert!(ping(&red1.container, Uplink::OUTSIDE_IPV6), "to the world");
    assert!(pings(lab.host.netns(), &red1), "from the host");
    let _server = tcp_echo_server(lab.host.netns(), [10, 1, 0, 1], 8080);
    assert!(tcp_roundtrip(&red1.container, [10, 1, 0, 1], 8080).is_ok(), "to the host");
    red.check(&red1.attachment).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn isolated_with_nftables() {
    isolated("nftables");
}

#[test]
fn isolated_with_iptables() {
    if !has_bridge_netfilter() {
        testkit::skip!("this kernel has no br_netfilter, without which iptables does not see bridged frames");
    }
    isolated("iptables");
}

/// Two networks on one bridge, of which one is isolated: its containers are, the others are not.
#[test]
fn isolation_is_a_matter_of_the_port() {
    let lab = Lab::new();
    hand_frames_to_ip(false);
    let isolated = network_on("br1", true, 1, &json!({ "backend": "nftables", "ingressPolicy": "isolated" }));
    let open = network_on("br1", false, 2, &json!({ "backend": "nftables" }));
    let alone = lab.start(&isolated, "alone");
    let (one, two) = (lab.start(&open, "one"), lab.start(&open, "two"));
    assert!(testkit::ping(&one.container, two.address(true)), "bridged");
    // As if they were on one subnet, so that frames go from port to port.
    alone.container.enter(|| testkit::tool("ip", &["address", "add", "10.2.0.77/24", "dev", "eth0"]));
    assert!(!testkit::ping(&one.container, [10, 2, 0, 77]));
    isolated.del(&alone.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(testkit::ping(&one.container, two.address(true)), "and still bridged");
}

fn nothing_is_left_of_isolation(backend: &str) {
    let lab = Lab::new();
    let before = Snapshot::take();
    let keys = json!({ "backend": backend, "ingressPolicy": "isolated" });
    let net = network(1, &keys);
    let (one, two) = (lab.start(&net, "one"), lab.start(&net, "two"));
    net.del(&one.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    net.check(&two.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    net.del(&two.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    let ours = ["/var/lib/cni"];
    before.without(&ours).assert_same(&Snapshot::take().without(&ours));
}

#[test]
fn nothing_is_left_of_isolation_with_nftables() {
    nothing_is_left_of_isolation("nftables");
}

#[test]
fn nothing_is_left_of_isolation_with_iptables() {
    nothing_is_left_of_isolation("iptables");
}

#[test]
fn without_a_bridge_there_is_nothing_to_isolate() {
    let lab = Lab::new();
    let container = lab.host.container("c");
    let before = Snapshot::take();
    for interfaces in [
        json!([]),
        json!([{ "name": "eth0", "sandbox": container.path() }]),
        json!([{ "name": "uplink0" }]),
        json!([{ "name": "no-such-link" }]),
    ] {
        let config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "firewall", "ingressPolicy": "isolated",
            "prevResult": { "cniVersion": "1.1.0", "interfaces": interfaces, "ips": [{ "address": "10.1.0.2/24" }] }
        });
        let error = testkit::Plugin::new("firewall")
            .verb("ADD")
            .attachment("c", container.path(), "eth0")
            .path(&[testkit::plugin_dir()])
            .config(&config)
            .run()
            .error();
        assert_eq!(error["code"], 7, "{error}");
        let message = error["msg"].as_str().unwrap();
        assert!(
            message.contains(r#"interface needs to be set for ingress policy "isolated", make sure to chain "firewall" plugin with "bridge""#),
            "{message}"
        );
    }
    before.assert_same(&Snapshot::take());
}
