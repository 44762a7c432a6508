//! Masquerade and spoof check, seen from outside.

use std::net::IpAddr;

use serde_json::{Value, json};
use testkit::{Container, EchoServer, Host, Netns, Uplink, nft_text, ping, tcp_echo_server, tcp_roundtrip};

use crate::support::*;

/// Whose address a server sees a container's connection come from.
fn seen_from(container: &Netns, server: &EchoServer) -> String {
    let address = server.address();
    tcp_roundtrip(container, address.ip(), address.port()).unwrap().seen_from.ip().to_string()
}

fn servers(uplink: &Netns) -> [EchoServer; 2] {
    [tcp_echo_server(uplink, Uplink::OUTSIDE_IPV4, 0), tcp_echo_server(uplink, Uplink::OUTSIDE_IPV6, 0)]
}

#[test]
fn the_world_sees_the_hosts_address() {
    let host = Host::new();
    let uplink = host.uplink();
    let container = host.container("c1");
    let before = state();
    let chain =
        net(json!({ "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "ipam": dual() }));
    chain.add(&eth0(&container)).unwrap();
    let [v4, v6] = servers(&uplink);
    assert_eq!(seen_from(&container, &v4), Uplink::HOST_IPV4.to_string());
    assert_eq!(seen_from(&container, &v6), Uplink::HOST_IPV6.to_string());
    drop((v4, v6));
    chain.check(&eth0(&container)).unwrap();
    chain.del(&eth0(&container)).unwrap();
    before.assert_same(&state());
}

/// A container with masquerade, and ways back to it, so that it can be seen by its own address too.
fn masqueraded(host: &Host, uplink: &Netns, keys: Value) -> (Container, String, String) {
    let container = host.container("c1");
    let mut all =
        json!({ "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "ipam": dual() });
    all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let result = net(all).add(&eth0(&container)).unwrap();
    ip(uplink, &format!("route add {SUBNET_4} via {}", Uplink::HOST_IPV4));
    ip(uplink, &format!("-6 route add {SUBNET_6} via {}", Uplink::HOST_IPV6));
    (container, address_of(&result, true), address_of(&result, false))
}

#[test]
fn excluded_destinations_see_the_containers_own() {
    let host = Host::new();
    let uplink = host.uplink();
    ip(&uplink, "addr add 203.0.113.9/32 dev eth0");
    ip(host.netns(), &format!("route add 203.0.113.0/24 via {}", Uplink::OUTSIDE_IPV4));
    let exclude = json!({ "ipMasqExclude": ["192.0.2.0/24", "2001:db8::/64", "198.51.100.0/24"] });
    let (container, own_v4, own_v6) = masqueraded(&host, &uplink, exclude);
    let [v4, v6] = servers(&uplink);
    assert_eq!(seen_from(&container, &v4), own_v4);
    assert_eq!(seen_from(&container, &v6), own_v6);
    let elsewhere = tcp_echo_server(&uplink, [203, 0, 113, 9], 0);
    assert_eq!(seen_from(&container, &elsewhere), Uplink::HOST_IPV4.to_string(), "not excluded");
}

#[test]
fn only_containers_of_the_network_are_masqueraded() {
    let host = Host::new();
    let uplink = host.uplink();
    let (_container, ..) = masqueraded(&host, &uplink, json!({}));
    let other = host.container("other");
    let result = net(json!({ "isDefaultGateway": true, "ipam": dual() })).add(&eth0(&other)).unwrap();
    let [v4, v6] = servers(&uplink);
    assert_eq!(seen_from(&other, &v4), address_of(&result, true));
    assert_eq!(seen_from(&other, &v6), address_of(&result, false));
}

#[test]
fn masquerade_of_an_address_that_went_to_another_container_is_that_containers() {
    let host = Host::new();
    let (one, two) = (host.container("c1"), host.container("c2"));
    let ipam = fixed(json!({ "ips": [{ "address": "10.77.0.5/24" }] }));
    let chain = net(json!({ "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "ipam": ipam }));
    chain.add(&eth0(&one)).unwrap();
    chain.add(&eth0(&two)).unwrap();
    // The late DEL of the first must not take it away from the second.
    chain.del(&eth0(&one)).unwrap();
    chain.check(&eth0(&two)).unwrap();
    assert!(nft_text().contains("10.77.0.5"));
}

#[test]
fn frames_with_a_forged_address_are_dropped() {
    let host = Host::new();
    let (honest, forger) = (host.container("c1"), host.container("c2"));
    let before = state();
    let chain = net(json!({ "isGateway": true, "macspoofchk": true, "ipam": dual() }));
    chain.add(&eth0(&honest)).unwrap();
    chain.add(&eth0(&forger)).unwrap();
    let gateways: [IpAddr; 2] = ["10.77.0.1".parse().unwrap(), "fd00:77::1".parse().unwrap()];
    for gateway in gateways {
        assert!(ping(&forger, gateway), "its own address passes");
    }
    let own = link(&forger, "eth0")["address"].as_str().unwrap().to_owned();
    ip(&forger, "link set eth0 address 02:66:66:66:66:66");
    for gateway in gateways {
        assert!(!ping(&forger, gateway), "a forged one does not");
        assert!(ping(&honest, gateway), "nobody else is affected");
    }
    ip(&forger, &format!("link set eth0 address {own}"));
    assert!(ping(&forger, gateways[0]));
    for container in [&honest, &forger] {
        chain.del(&eth0(container)).unwrap();
    }
    drop((honest, forger));
    before.assert_same(&state());
}

#[test]
fn the_address_of_a_neighbour_is_forged_just_as_little() {
    let host = Host::new();
    let (victim, forger) = (host.container("c1"), host.container("c2"));
    let chain = net(json!({ "isGateway": true, "macspoofchk": true, "ipam": v4() }));
    chain.add(&eth0(&victim)).unwrap();
    chain.add(&eth0(&forger)).unwrap();
    let stolen = link(&victim, "eth0")["address"].as_str().unwrap().to_owned();
    ip(&forger, &format!("link set eth0 address {stolen}"));
    assert!(!ping(&forger, [10, 77, 0, 1]));
    assert!(ping(&victim, [10, 77, 0, 1]));
}
