//! The host's gateway in a VLAN: an interface of its own, `BRIDGE.VLAN`.

use std::net::IpAddr;

use serde_json::{Value, json};
use testkit::{Host, ping, skip};

use crate::support::*;
use crate::{NO_FILTERING, host_with_filtering, vlans};

const NATIVE_100: &str = "100 PVID Egress Untagged";

fn keys(subnets: &[&str]) -> Value {
    json!({ "vlan": 100, "isDefaultGateway": true, "ipam": host_local(subnets) })
}

/// The port behind `cni0.100`.
fn gateway_port(host: &Host) -> String {
    let index = link(host.netns(), "cni0.100")["link"].as_str().unwrap().to_owned();
    index.split('@').next().unwrap().to_owned()
}

#[test]
fn a_gateway_in_a_vlan_for_every_family_and_version() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    let before = state();
    for version in VERSIONS.into_iter().filter(|version| at_least(version, "0.3.0")) {
        for subnets in
            [&[SUBNET_4][..], &[SUBNET_6], &[SUBNET_4, SUBNET_6], &[SUBNET_4, SUBNET_6, "fd00:78::/64"]]
        {
            let container = host.container("c1");
            let chain = net_of(version, "net", keys(subnets));
            let result = chain.add(&eth0(&container)).unwrap();
            let interfaces = result["interfaces"].as_array().unwrap();
            let names: Vec<&str> =
                interfaces.iter().map(|interface| interface["name"].as_str().unwrap()).collect();
            let port = host_end_name(host.netns(), &container, "eth0");
            assert_eq!(names, ["cni0", &port, "eth0", "cni0.100"]);
            assert_eq!(interfaces[3]["mac"], link(host.netns(), "cni0.100")["address"]);
            assert_eq!(links(host.netns()).len(), 5, "lo, the bridge, two ports, the gateway's interface");
            assert_eq!(link(host.netns(), "cni0.100")["linkinfo"]["info_kind"], "veth");
            assert_eq!(addresses(host.netns(), "cni0.100", false).len(), subnets.len());
            assert_eq!(addresses(host.netns(), "cni0", false), [""; 0]);
            for port in [port, gateway_port(&host)] {
                assert_eq!(vlans(host.netns(), &port), [NATIVE_100], "{port}");
            }
            for ip in result["ips"].as_array().unwrap() {
                let gateway: IpAddr = ip["gateway"].as_str().unwrap().parse().unwrap();
                assert!(ping(&container, gateway), "{gateway} answers");
            }
            if at_least(version, "0.4.0") {
                chain.check(&eth0(&container)).unwrap();
            }
            chain.del(&eth0(&container)).unwrap();
            drop(container);
            before.assert_same(&state());
        }
    }
}

#[test]
fn the_default_vlan_stays_on_both_ports_where_it_is_to_be_preserved() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    let container = host.container("c1");
    let mut keys = keys(&[SUBNET_4]);
    keys["preserveDefaultVlan"] = json!(true);
    net(keys).add(&eth0(&container)).unwrap();
    for port in [host_end_name(host.netns(), &container, "eth0"), gateway_port(&host)] {
        assert_eq!(vlans(host.netns(), &port), ["1 Egress Untagged", NATIVE_100], "{port}");
    }
}

#[test]
fn containers_of_a_vlan_share_its_gateway_and_vlans_have_their_own() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    let before = state();
    let containers = [host.container("c1"), host.container("c2"), host.container("c3")];
    let in_100 = net(keys(&[SUBNET_4]));
    let in_200 = net_of(
        "1.1.0",
        "other",
        json!({ "vlan": 200, "isDefaultGateway": true, "ipam": host_local(&["10.78.0.0/24"]) }),
    );
    in_100.add(&eth0(&containers[0])).unwrap();
    in_100.add(&eth0(&containers[1])).unwrap();
    in_200.add(&eth0(&containers[2])).unwrap();
    assert_eq!(addresses(host.netns(), "cni0.100", false), ["10.77.0.1/24"]);
    assert_eq!(addresses(host.netns(), "cni0.200", false), ["10.78.0.1/24"]);
    assert!(ping(&containers[0], [10, 78, 0, 2]), "by way of the host, which routes");
    in_100.del(&eth0(&containers[0])).unwrap();
    in_100.check(&eth0(&containers[1])).unwrap();
    assert!(ping(&containers[1], [10, 77, 0, 1]));
    in_100.del(&eth0(&containers[1])).unwrap();
    assert!(link(host.netns(), "cni0.100").is_null());
    in_200.check(&eth0(&containers[2])).unwrap();
    in_200.del(&eth0(&containers[2])).unwrap();
    drop(containers);
    before.assert_same(&state());
}

#[test]
fn a_name_that_another_kind_of_link_has_is_not_taken() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    ip(host.netns(), "link add cni0.100 type bridge");
    let container = host.container("c1");
    let before = state();
    let (code, message) = refusal(net(keys(&[SUBNET_4])).add(&eth0(&container)));
    assert_eq!((code, message.as_str()), (103, "link cni0.100 exists but is a bridge, not a veth"));
    before.assert_same(&state());
    assert_eq!(links(&container), ["lo"]);
}

#[test]
fn an_interface_that_was_there_is_used_and_left() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    ip(host.netns(), "link add cni0 address 02:00:00:00:00:99 type bridge vlan_filtering 1");
    ip(host.netns(), "link set cni0 up");
    ip(host.netns(), "link add cni0.100 type veth peer name uplink100");
    for link in ["cni0.100", "uplink100"] {
        ip(host.netns(), &format!("link set {link} up"));
    }
    ip(host.netns(), "link set uplink100 master cni0");
    assert_eq!(
        host.netns()
            .run("bridge", &["vlan", "add", "dev", "uplink100", "vid", "100", "pvid", "untagged"])
            .code,
        0
    );
    let before = state();
    let container = host.container("c1");
    let chain = net(keys(&[SUBNET_4]));
    chain.add(&eth0(&container)).unwrap();
    assert!(ping(&container, [10, 77, 0, 1]));
    chain.del(&eth0(&container)).unwrap();
    drop(container);
    before.assert_same(&state());
}

#[test]
fn what_is_left_of_it_is_found_without_a_record() {
    let Some(host) = host_with_filtering() else { skip!("{NO_FILTERING}") };
    let before = state();
    let container = host.container("c1");
    let chain = net(keys(&[SUBNET_4]));
    chain.add(&eth0(&container)).unwrap();
    std::fs::remove_dir_all("/run/ferrule/attachments").unwrap();
    chain.check(&eth0(&container)).unwrap();
    chain.del(&eth0(&container)).unwrap();
    drop(container);
    before.assert_same(&state());
}
