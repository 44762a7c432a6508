//! A network in use: damage that is seen and put right, networks side by side, what leaves the cluster, who may send in.

use std::fs;
use std::net::{IpAddr, UdpSocket};

use serde_json::{Value, json};
use testkit::{Fabric, ping, tcp_echo_server, tcp_roundtrip};

use crate::lab::{
    Inside, all_reach_all, connect, connect_all, explain, list, named, peers, peers_with, refusal, run, state,
};

fn blue(fabric: &Fabric, keys: Value) -> Value {
    let mut all = json!({ "vni": 100, "peers": peers(fabric, Inside::Dual, true) });
    all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    list(&all)
}

#[test]
fn damage_is_seen_by_check_and_status_and_put_right_by_the_next_add() {
    let fabric = Fabric::switched(2);
    let list = blue(&fabric, json!({}));
    let connected = connect_all(&fabric, &list);
    let host = connected[0].host;
    for (number, (damage, message)) in [
        ("ip route del 10.40.2.0/24", "route 10.40.2.0/24 by nexthop"),
        ("ip -6 route del fd00:40:2::/64", "route fd00:40:2::/64 by nexthop"),
        ("ip neigh del 10.40.2.0 dev vx-blue", "neighbour 10.40.2.0 at"),
        ("ip neigh replace 10.40.2.0 lladdr 02:00:00:00:00:01 dev vx-blue", "neighbour 10.40.2.0 at"),
        ("ip nexthop flush protocol 70", "nexthop"),
        ("ip link set vx-blue down", "vx-blue"),
        ("ip link set vx-blue address 02:00:00:00:00:01", "the hardware address of vx-blue"),
        (
            "ip addr del 10.40.1.0/32 dev vx-blue",
            "address 10.40.1.0/32 of vx-blue of network blue is missing",
        ),
        ("ip link del vx-blue", "vx-blue"),
        ("nft delete table inet ferrule_vxlan", "ferrule_vxlan"),
    ]
    .into_iter()
    .enumerate()
    {
        run(host, damage);
        let (code, text) = refusal(connected[0].check());
        assert!(code == 102 && text.contains(message), "{damage}: {code} {text}");
        let (code, text) = refusal(connected[0].chain.status());
        assert!(code == 51 && text.contains(message), "{damage}: {code} {text}");
        let another = connect(&fabric, 1, &list, &format!("d{number}"));
        connected[0].check().unwrap_or_else(|failure| panic!("{damage}: {failure}\n{}", explain(host)));
        connected[0].chain.status().unwrap();
        another.del();
        for address in connected[1].addresses() {
            assert!(ping(&connected[0].container, address), "{damage}: {address}\n{}", explain(host));
        }
    }
}

#[test]
fn two_networks_side_by_side() {
    let fabric = Fabric::switched(2);
    let before = state(&fabric.hosts()[0]);
    let blue = connect_all(&fabric, &blue(&fabric, json!({})));
    let peers = peers_with(&fabric, true, |number| vec![format!("10.41.{number}.0/24")]);
    let red = named("red", &json!({ "vni": 101, "peers": peers, "mode": "routed" }));
    let red = [connect(&fabric, 1, &red, "r1"), connect(&fabric, 2, &red, "r2")];
    all_reach_all(&blue);
    all_reach_all(&red);
    for one in &blue {
        one.del();
    }
    all_reach_all(&red);
    for one in &red {
        one.check().unwrap();
        one.del();
    }
    before.assert_same(&state(&fabric.hosts()[0]));
}

#[test]
fn what_leaves_the_cluster_is_masqueraded_and_what_stays_is_not() {
    let fabric = Fabric::switched(2);
    let connected = connect_all(&fabric, &blue(&fabric, json!({ "ipMasq": true })));
    all_reach_all(&connected);
    // The other host itself is outside the cluster's blocks.
    let other = &fabric.hosts()[1];
    let outside: IpAddr = other.ipv4().into();
    let server = tcp_echo_server(other, outside, 0);
    let reply = tcp_roundtrip(&connected[0].container, outside, server.address().port()).unwrap();
    assert_eq!(reply.seen_from.ip(), IpAddr::from(fabric.hosts()[0].ipv4()));
}

/// VXLAN packets for the network from an address that is no node's are dropped; so many bytes of one that would be accepted otherwise.
#[test]
fn only_nodes_may_send_into_the_network() {
    let fabric = Fabric::switched(3);
    let all = peers(&fabric, Inside::V4, true);
    let two: Value = all.as_array().unwrap()[..2].into();
    let list = list(&json!({ "vni": 100, "peers": two }));
    let connected = [connect(&fabric, 1, &list, "c1"), connect(&fabric, 2, &list, "c2")];
    all_reach_all(&connected);
    let stranger = &fabric.hosts()[2];
    let target = (fabric.hosts()[0].ipv4(), 4789);
    let frame = |vni: u8| [[8, 0, 0, 0, 0, 0, vni, 0].as_slice(), &[0; 60]].concat();
    stranger.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(&frame(100), target).unwrap();
        socket.send_to(&frame(7), target).unwrap();
    });
    let counted = || {
        let rules = run(&fabric.hosts()[0], "nft list table inet ferrule_vxlan");
        rules.contains("counter packets 1 ").then_some(()).ok_or(rules)
    };
    testkit::eventually("the stranger's packet of this network, and no other, to be counted", || {
        counted().ok()
    });
}

#[test]
fn a_peer_that_moves_or_goes_takes_its_entries_with_it() {
    let fabric = Fabric::switched(3);
    let file = "/run/fabric/peers.json";
    fs::write(file, peers(&fabric, Inside::Dual, true).to_string()).unwrap();
    let list = list(&json!({ "vni": 100, "peersFile": file }));
    let connected = connect_all(&fabric, &list);
    all_reach_all(&connected);
    let host = &fabric.hosts()[0];
    let mut fewer = peers(&fabric, Inside::Dual, true);
    fewer.as_array_mut().unwrap().pop();
    fs::write(file, fewer.to_string()).unwrap();
    let another = connect(&fabric, 1, &list, "another");
    let listings = ["ip route", "ip -6 route", "ip nexthop", "ip neigh show dev vx-blue", "nft list ruleset"];
    let left: String = listings.iter().map(|line| run(host, line)).collect();
    assert!(
        !left.contains("10.40.3.0") && !left.contains("fd00:40:3::") && !left.contains("192.0.2.3"),
        "{left}"
    );
    all_reach_all(&[another, connect(&fabric, 2, &list, "yet-another")]);
}

#[test]
fn peers_on_the_same_link_need_no_tunnel() {
    let fabric = Fabric::switched(2);
    let before = state(&fabric.hosts()[0]);
    let underlay = |index: usize| {
        let host = &fabric.hosts()[index];
        json!({ "node": host.name(), "underlay": [host.ipv4(), host.ipv6()], "blocks": Inside::V4.blocks(index + 1) })
    };
    let peers: Vec<Value> = (0..2).map(underlay).collect();
    let connected =
        connect_all(&fabric, &list(&json!({ "vni": 100, "directRouting": true, "peers": peers })));
    let route = run(connected[0].host, "ip route get 10.40.2.2");
    assert!(route.contains("via 192.0.2.2 dev eth0"), "{route}");
    assert!(ping(&connected[0].container, connected[1].addresses()[0]));
    assert!(ping(&connected[1].container, connected[0].addresses()[0]));
    for one in &connected {
        one.check().unwrap();
        one.del();
    }
    before.assert_same(&state(&fabric.hosts()[0]));
}

/// A node that is not on the link is reached through the tunnel, and both kinds reach each other. Of both families inside, it is the one that carries
/// the tunnels which needs none.
#[test]
fn peers_on_the_same_link_need_no_tunnel_by_ipv6() {
    for inside in [Inside::V6, Inside::Dual] {
        let fabric = Fabric::switched(3);
        let before: Vec<_> = fabric.hosts().iter().map(|host| state(host)).collect();
        let hosts = fabric.hosts();
        // The third is known by addresses of its own, behind its address on the link.
        let added = [("203.0.113.3/32", "192.0.2"), ("2001:db8:f::3/128", "2001:db8:")];
        for (address, on_link) in added {
            let colon = if on_link.ends_with(':') { ":" } else { "." };
            run(&hosts[2], &format!("ip addr add {address} dev lo"));
            for host in &hosts[..2] {
                run(host, &format!("ip route add {address} via {on_link}{colon}3"));
            }
        }
        let underlay = |index: usize| match (inside, index) {
            (Inside::Dual, 2) => json!(["203.0.113.3", "2001:db8:f::3"]),
            (_, 2) => json!("2001:db8:f::3"),
            (Inside::Dual, _) => json!([hosts[index].ipv4(), hosts[index].ipv6()]),
            _ => json!(hosts[index].ipv6()),
        };
        let node = |index: usize| json!({ "node": hosts[index].name(), "underlay": underlay(index), "blocks": inside.blocks(index + 1) });
        let peers: Vec<Value> = (0..3).map(node).collect();
        let list = list(&json!({ "vni": 100, "directRouting": true, "peers": peers }));
        let connected = connect_all(&fabric, &list);
        let route = |number: usize| run(&hosts[0], &format!("ip -6 route get fd00:40:{number}::2"));
        if inside == Inside::V6 {
            assert!(route(2).contains("via 2001:db8::2 dev eth0"), "{}", route(2));
        } else {
            assert!(route(2).contains("via fd00:40:2:: dev vx-blue"), "{}", route(2));
            let four = run(&hosts[0], "ip route get 10.40.2.2");
            assert!(four.contains("via 192.0.2.2 dev eth0"), "{four}");
        }
        assert!(route(3).contains("via fd00:40:3:: dev vx-blue"), "{}", route(3));
        all_reach_all(&connected[..2]);
        all_reach_all(&connected);
        for one in &connected {
            one.check().unwrap();
        }
        run(&hosts[0], "ip -6 route del fd00:40:2::/64");
        let (code, text) = refusal(connected[0].check());
        assert!(code == 102 && text.contains("route fd00:40:2::/64"), "{code} {text}");
        connect(&fabric, 1, &list, "again").del();
        connected[0].check().unwrap();
        all_reach_all(&connected[..2]);
        for one in &connected {
            one.del();
        }
        for (address, _) in added {
            run(&hosts[2], &format!("ip addr del {address} dev lo"));
            for host in &hosts[..2] {
                run(host, &format!("ip route del {address}"));
            }
        }
        for (host, before) in hosts.iter().zip(before) {
            before.assert_same(&state(host));
        }
    }
}

#[test]
fn gc_removes_what_the_runtime_does_not_list() {
    let fabric = Fabric::switched(2);
    let listings = ["ip -br link", "ip route", "ip nexthop", "nft list ruleset"];
    let untouched = listings.map(|line| run(&fabric.hosts()[0], line));
    let list = blue(&fabric, json!({ "ipMasq": true }));
    let one = connect(&fabric, 1, &list, "c1");
    let two = connect(&fabric, 1, &list, "c2");
    let far = connect(&fabric, 2, &list, "far");
    // The runtime has forgotten one of them, and its namespace is gone.
    one.container.destroy();
    two.chain.gc(&[("c2", "eth0")]).unwrap();
    two.check().unwrap();
    assert!(ping(&two.container, far.addresses()[0]));
    fs::remove_dir_all("/run/fabric/h1/ferrule").unwrap();
    fs::create_dir("/run/fabric/h1/ferrule").unwrap();
    let two = two.container;
    two.destroy();
    fabric.hosts()[0].runtime().chain(&list).gc(&[]).unwrap();
    // What was there before is known no more (whether it forwarded packets, for one); what was made is gone.
    assert_eq!(listings.map(|line| run(&fabric.hosts()[0], line)), untouched);
}
