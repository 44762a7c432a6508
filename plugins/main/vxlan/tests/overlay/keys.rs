//! Each key does what it says.

use std::net::IpAddr;

use serde_json::{Value, json};
use testkit::{Attachment, Container, Fabric, FabricHost, tcp_echo_server, tcp_roundtrip};

use crate::lab::{
    Connected, Inside, all_reach_all, connect, connect_all, link, list, named, peers, peers_with, refusal,
    run, state,
};

#[test]
fn links_have_the_names_and_the_port_that_the_keys_say() {
    for (mode, stretched) in [("routed", false), ("bridged", true)] {
        let fabric = Fabric::switched(2);
        let before = state(&fabric.hosts()[0]);
        let blocks = |number| if stretched { Inside::V4.slices(number) } else { Inside::V4.blocks(number) };
        let mut keys = json!({ "vni": 100, "mode": mode, "port": 8472, "device": "tunnel", "bridge": "pods",
            "peers": peers_with(&fabric, true, blocks) });
        if stretched {
            keys["subnet"] = json!("10.50.0.0/16");
        }
        let connected = connect_all(&fabric, &list(&keys));
        all_reach_all(&connected);
        let host = connected[0].host;
        let tunnel = &link(host, "tunnel")["linkinfo"]["info_data"];
        assert_eq!((&tunnel["id"], &tunnel["port"]), (&json!(100), &json!(8472)), "{mode}");
        let ports = run(host, "ip -br link show master pods");
        assert_eq!(ports.lines().count(), if stretched { 2 } else { 1 }, "{mode}: {ports}");
        assert!(link(host, "vx-blue").is_null() && link(host, "vb-blue").is_null(), "{mode}");
        for one in &connected {
            one.check().unwrap();
            one.del();
        }
        before.assert_same(&state(host));
    }
}

/// No link can be called as such a network; two whose names begin alike are still two.
#[test]
fn long_names_that_begin_alike_are_two_networks() {
    let fabric = Fabric::switched(2);
    let before = state(&fabric.hosts()[0]);
    let network = |name: &str, vni: u32, second: u8| {
        let peers = peers_with(&fabric, true, |number| vec![format!("10.{second}.{number}.0/24")]);
        named(name, &json!({ "vni": vni, "peers": peers }))
    };
    let red = network("a-network-with-a-long-name-red", 100, 40);
    let blue = network("a-network-with-a-long-name-blue", 101, 41);
    let red = [connect(&fabric, 1, &red, "r1"), connect(&fabric, 2, &red, "r2")];
    let blue = [connect(&fabric, 1, &blue, "b1"), connect(&fabric, 2, &blue, "b2")];
    all_reach_all(&red);
    all_reach_all(&blue);
    assert_eq!(run(red[0].host, "ip -br link show type vxlan").lines().count(), 2);
    for one in red.iter().chain(&blue) {
        one.check().unwrap();
        one.del();
    }
    before.assert_same(&state(&fabric.hosts()[0]));
}

#[test]
fn two_networks_can_not_have_one_vni_and_port() {
    let fabric = Fabric::switched(2);
    let blue = connect_all(&fabric, &list(&json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true) })));
    let peers = peers_with(&fabric, true, |number| vec![format!("10.41.{number}.0/24")]);
    let red = named("red", &json!({ "vni": 100, "peers": peers }));
    let container = fabric.container("r1");
    let before = state(&fabric.hosts()[0]);
    let chain = fabric.hosts()[0].runtime().chain(&red);
    let (code, text) = refusal(chain.add(&Attachment::new("r1", &container, "eth0")));
    assert_eq!(
        (code, text.as_str()),
        (103, "VNI 100 on UDP port 4789 is held by the link vx-blue, which does not belong to network red")
    );
    assert_eq!(refusal(chain.status()).0, 50);
    before.assert_same(&state(&fabric.hosts()[0]));
    all_reach_all(&blue);
}

/// Where the third host, which is none of the nodes, sees a container of the first come from.
fn seen_by_a_third(keys: Value) -> IpAddr {
    let fabric = Fabric::switched(3);
    let nodes: Value = peers(&fabric, Inside::V4, true).as_array().unwrap()[..2].into();
    let mut all = json!({ "vni": 100, "ipMasq": true, "peers": nodes });
    all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let third = &fabric.hosts()[2];
    run(third, "ip route add 10.40.1.0/24 via 192.0.2.1");
    let one = connect(&fabric, 1, &list(&all), "c1");
    let server = tcp_echo_server(third, third.ipv4(), 0);
    let reply = tcp_roundtrip(&one.container, third.ipv4(), server.address().port()).unwrap();
    one.check().unwrap();
    reply.seen_from.ip()
}

#[test]
fn what_is_excluded_from_masquerading_sees_the_containers_own_address() {
    let (host, own): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [10, 40, 1, 2].into());
    assert_eq!(seen_by_a_third(json!({})), host);
    assert_eq!(seen_by_a_third(json!({ "ipMasqExclude": ["192.0.2.3/32"] })), own);
    assert_eq!(seen_by_a_third(json!({ "ipMasqExclude": ["192.0.2.4/32"] })), host);
    assert_eq!(seen_by_a_third(json!({ "cluster": ["10.40.0.0/16", "192.0.2.0/24"] })), own);
    assert_eq!(seen_by_a_third(json!({ "cluster": "10.40.0.0/16" })), host);
}

#[test]
fn a_host_that_is_two_nodes_is_the_one_that_underlay_says() {
    let fabric = Fabric::switched(2);
    let host = &fabric.hosts()[0];
    run(host, "ip addr add 192.0.2.51/24 dev eth0");
    let mut nodes = peers(&fabric, Inside::V4, true);
    nodes
        .as_array_mut()
        .unwrap()
        .push(json!({ "node": "h1b", "underlay": "192.0.2.51", "blocks": ["10.40.51.0/24"] }));
    let keys = json!({ "vni": 100, "peers": nodes });
    let container = fabric.container("c");
    let chain = host.runtime().chain(&list(&keys));
    let (code, text) = refusal(chain.add(&Attachment::new("c", &container, "eth0")));
    assert!(code == 7 && text.contains("`underlay.address` says which it is"), "{code} {text}");

    let mut hinted = keys.clone();
    hinted["underlay"] = json!({ "address": "192.0.2.51" });
    let one = connect(&fabric, 1, &list(&hinted), "c1");
    let far = connect(&fabric, 2, &list(&keys), "c2");
    assert_eq!(one.addresses()[0].to_string(), "10.40.51.2");
    assert_eq!(link(host, "vx-blue")["linkinfo"]["info_data"]["local"], "192.0.2.51");
    all_reach_all(&[one, far]);
}

#[test]
fn an_ipam_of_ones_own_gives_the_addresses() {
    let fabric = Fabric::switched(2);
    let mut keys = json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true) });
    let far = connect(&fabric, 2, &list(&keys), "c2");
    keys["ipam"] = json!({ "type": "host-local", "ranges": [[{ "subnet": "10.40.1.0/24", "rangeStart": "10.40.1.77" }]] });
    let one = connect(&fabric, 1, &list(&keys), "c1");
    assert_eq!(one.addresses()[0].to_string(), "10.40.1.77");
    all_reach_all(&[one, far]);
}

/// A container on a host with the list of network `blue`.
fn refused_beside<'f>(
    fabric: &'f Fabric,
    list: &Value,
    name: &str,
) -> (Container, &'f FabricHost, (u64, String), (u64, String)) {
    let (container, host) = (fabric.container(name), &fabric.hosts()[0]);
    let chain = host.runtime().chain(list);
    let added = refusal(chain.add(&Attachment::new(name, &container, "eth0")));
    let status = refusal(chain.status());
    (container, host, added, status)
}

/// STATUS tells a runtime before it tries that ADD would fail, and containers that are there are none the worse for it.
#[test]
fn a_node_whose_block_is_full_says_so() {
    let fabric = Fabric::switched(2);
    // Room for the gateway and one container.
    let peers = peers_with(&fabric, true, |number| vec![format!("10.40.{number}.0/30")]);
    let list = list(&json!({ "vni": 100, "peers": peers }));
    let connected: Vec<Connected<'_>> = connect_all(&fabric, &list);
    let before = state(&fabric.hosts()[0]);
    let (container, host, (_, text), (code, status)) = refused_beside(&fabric, &list, "second");
    let full = "no IP addresses available in range set: 10.40.1.1-10.40.1.2";
    assert!(text.contains(full), "{text}");
    assert!(code == 50 && status.contains(full), "{code} {status}");
    drop(container);
    before.assert_same(&state(host));
    all_reach_all(&connected);
    connected[0].del();
    connected[0].chain.status().unwrap();
}
