//! The VLANs of the container's port.

use serde_json::{Value, json};
use testkit::{Container, Host, Netns, ping, skip};

use crate::support::*;
use crate::{NO_FILTERING, host_with_filtering, vlans};

const NATIVE_100: &str = "100 PVID Egress Untagged";
const NATIVE_1: &str = "1 PVID Egress Untagged";

/// The VLANs that the port of a container gets.
fn port_of(host: &Host, keys: Value) -> Vec<String> {
    let before = state();
    let container = host.container("c1");
    let chain = net(keys);
    chain.add(&eth0(&container)).unwrap();
    chain.check(&eth0(&container)).unwrap();
    assert_eq!(link(host.netns(), "cni0")["linkinfo"]["info_data"]["vlan_filtering"], 1);
    let found = vlans(host.netns(), &host_end_name(host.netns(), &container, "eth0"));
    chain.del(&eth0(&container)).unwrap();
    drop(container);
    before.assert_same(&state());
    found
}

#[test]
fn a_vlan_is_the_ports_only_one() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    assert_eq!(port_of(&host, json!({ "vlan": 100 })), [NATIVE_100]);
}

#[test]
fn the_default_vlan_stays_where_it_is_to_be_preserved() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    let keys = json!({ "vlan": 100, "preserveDefaultVlan": true });
    assert_eq!(port_of(&host, keys), ["1 Egress Untagged", NATIVE_100]);
}

#[test]
fn a_trunk_has_the_default_vlan_for_untagged_frames() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    let trunk = json!([{ "id": 101 }, { "minID": 200, "maxID": 210 }]);
    for preserve in [false, true] {
        let keys = json!({ "vlanTrunk": trunk, "preserveDefaultVlan": preserve });
        let mut expected = vec![NATIVE_1.to_owned(), "101".to_owned()];
        expected.extend((200..=210).map(|id| id.to_string()));
        assert_eq!(expand(&port_of(&host, keys)), expected);
    }
}

/// Ranges as single VLANs: which of the two `bridge` prints depends on its version.
fn expand(vlans: &[String]) -> Vec<String> {
    let single = |text: &String| match text.split_once('-') {
        Some((first, last)) => {
            (first.parse::<u16>().unwrap()..=last.parse().unwrap()).map(|id| id.to_string()).collect()
        }
        None => vec![text.clone()],
    };
    vlans.iter().flat_map(single).collect()
}

#[test]
fn a_trunk_with_a_native_vlan_of_its_own() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    let keys = json!({ "vlan": 100, "vlanTrunk": [{ "id": 101 }, { "minID": 99, "maxID": 101 }] });
    assert_eq!(expand(&port_of(&host, keys)), ["99", NATIVE_100, "101"]);
}

#[test]
fn a_trunk_of_everything_is_set_at_once() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    let found = expand(&port_of(&host, json!({ "vlanTrunk": [{ "minID": 1, "maxID": 4094 }] })));
    assert_eq!(found.len(), 4094);
    assert_eq!((found[0].as_str(), found[4093].as_str()), (NATIVE_1, "4094"));
}

#[test]
fn an_empty_trunk_turns_filtering_on() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    assert_eq!(port_of(&host, json!({ "vlanTrunk": [] })), [NATIVE_1]);
}

#[test]
fn a_bridge_that_was_there_filters_while_it_is_asked_to() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    ip(host.netns(), "link add cni0 address 02:00:00:00:00:99 type bridge");
    ip(host.netns(), "link set cni0 up");
    assert_eq!(port_of(&host, json!({ "vlan": 100 })), [NATIVE_100]);
    assert_eq!(link(host.netns(), "cni0")["linkinfo"]["info_data"]["vlan_filtering"], 0);
}

fn connect(host: &Host, name: &str, keys: Value, address: &str) -> Container {
    let container = host.container(name);
    net_of("1.1.0", name, keys).add(&eth0(&container)).unwrap();
    ip(&container, &format!("addr add {address}/24 dev eth0"));
    container
}

/// Makes an interface for tagged frames in a container.
fn tagged(container: &Netns, vlan: u16, address: &str) {
    ip(container, &format!("link add link eth0 name eth0.{vlan} type vlan id {vlan}"));
    ip(container, &format!("link set eth0.{vlan} up"));
    ip(container, &format!("addr add {address}/24 dev eth0.{vlan}"));
}

#[test]
fn containers_of_different_vlans_do_not_meet() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    let one = connect(&host, "c1", json!({ "vlan": 100 }), "10.5.0.1");
    let _two = connect(&host, "c2", json!({ "vlan": 100 }), "10.5.0.2");
    let _three = connect(&host, "c3", json!({ "vlan": 200 }), "10.5.0.3");
    assert!(ping(&one, [10, 5, 0, 2]));
    assert!(!ping(&one, [10, 5, 0, 3]));
}

#[test]
fn a_trunk_reaches_each_of_its_vlans_by_tag_and_no_other() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    let router =
        connect(&host, "router", json!({ "vlanTrunk": [{ "minID": 100, "maxID": 101 }] }), "10.9.0.1");
    let _in_100 = connect(&host, "c100", json!({ "vlan": 100 }), "10.100.0.2");
    let _in_101 = connect(&host, "c101", json!({ "vlan": 101 }), "10.101.0.2");
    let _in_102 = connect(&host, "c102", json!({ "vlan": 102 }), "10.102.0.2");
    for vlan in [100, 101, 102] {
        tagged(&router, vlan, &format!("10.{vlan}.0.1"));
    }
    assert!(ping(&router, [10, 100, 0, 2]));
    assert!(ping(&router, [10, 101, 0, 2]));
    assert!(!ping(&router, [10, 102, 0, 2]), "not in the trunk");
}

#[test]
fn check_finds_a_vlan_that_is_missing() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    let container = host.container("c1");
    let chain = net(json!({ "vlan": 100, "vlanTrunk": [{ "id": 101 }] }));
    chain.add(&eth0(&container)).unwrap();
    let port = host_end_name(host.netns(), &container, "eth0");
    let bridge = |words: &[&str]| assert_eq!(host.netns().run("bridge", words).code, 0);
    bridge(&["vlan", "del", "dev", &port, "vid", "101"]);
    let (code, message) = refusal(chain.check(&eth0(&container)));
    assert_eq!(code, 102);
    assert!(message.contains(&format!("VLAN 101 of port {port}")), "{message}");
    bridge(&["vlan", "add", "dev", &port, "vid", "101"]);
    chain.check(&eth0(&container)).unwrap();
    ip(host.netns(), "link set cni0 type bridge vlan_filtering 0");
    assert!(refusal(chain.check(&eth0(&container))).1.contains("VLAN filtering of bridge cni0"));
}
