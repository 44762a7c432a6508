//! Routed mode: a block for each node.

use serde_json::json;
use testkit::Fabric;

use crate::lab::{Inside, all_reach_all, connect_all, list, mtu, peers, state};

fn life(fabric: &Fabric, inside: Inside, ipv4_underneath: bool, expected_mtu: u64) {
    let before: Vec<_> = fabric.hosts().iter().map(|host| state(host)).collect();
    let list = list(&json!({ "vni": 100, "peers": peers(fabric, inside, ipv4_underneath) }));
    let connected = connect_all(fabric, &list);
    assert_eq!(mtu(&connected[0].container), expected_mtu);
    all_reach_all(&connected);
    for one in &connected {
        one.check().unwrap();
        one.chain.status().unwrap();
    }
    for one in &connected {
        one.del();
        one.del();
    }
    for (host, before) in fabric.hosts().iter().zip(before) {
        before.assert_same(&state(host));
    }
}

#[test]
fn two_hosts_and_one_file() {
    life(&Fabric::switched(2), Inside::V4, true, 1450);
}

#[test]
fn three_hosts_behind_a_router() {
    life(&Fabric::routed(3), Inside::V4, true, 1450);
}

#[test]
fn ipv6_inside() {
    life(&Fabric::switched(2), Inside::V6, true, 1450);
}

#[test]
fn both_families_inside() {
    life(&Fabric::switched(3), Inside::Dual, true, 1450);
}

#[test]
fn ipv6_underneath() {
    life(&Fabric::routed(2), Inside::Dual, false, 1430);
}
