//! Routed mode: a block for each node.

use serde_json::json;
use testkit::{Fabric, tcp_echo_server, tcp_roundtrip};

use crate::lab::{
    Inside, all_reach_all, check_and_leave, connect, connect_all, large_ping, list, mtu, peers, refusal, run,
    state,
};

fn life(fabric: &Fabric, inside: Inside, ipv4_underneath: bool, expected_mtu: u64) {
    let before: Vec<_> = fabric.hosts().iter().map(|host| state(host)).collect();
    let list = list(&json!({ "vni": 100, "peers": peers(fabric, inside, ipv4_underneath) }));
    let connected = connect_all(fabric, &list);
    assert_eq!(mtu(&connected[0].container), expected_mtu);
    all_reach_all(&connected);
    check_and_leave(fabric, &connected, before);
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

/// Two hosts behind a router, the second of which is on a link with a smaller MTU.
fn narrowed() -> Fabric {
    let fabric = Fabric::routed(2);
    run(fabric.middle(), "ip link set h2 mtu 1400");
    run(&fabric.hosts()[1], "ip link set eth0 mtu 1400");
    fabric
}

#[test]
fn the_mtu_is_that_of_the_ways_to_peers() {
    for (ipv4_underneath, fits) in [(true, 1350), (false, 1330)] {
        let fabric = narrowed();
        let host = &fabric.hosts()[0];
        let (family, gateway) = if ipv4_underneath { ("-4", "198.51.1.1") } else { ("-6", "2001:db8:1::1") };
        // What an administrator of such a network says once, by hand or by a routing daemon.
        run(host, &format!("ip {family} route replace default via {gateway} mtu 1400"));
        let list = list(&json!({ "vni": 100, "peers": peers(&fabric, Inside::Dual, ipv4_underneath) }));
        let connected = connect_all(&fabric, &list);
        assert_eq!(connected.iter().map(|one| mtu(&one.container)).collect::<Vec<_>>(), [fits, fits]);
        all_reach_all(&connected);
        connected[0].check().unwrap();
        // The way becomes smaller: CHECK says so, and the next ADD puts it right.
        run(host, &format!("ip {family} route replace default via {gateway} mtu 1380"));
        let (code, text) = refusal(connected[0].check());
        assert!(code == 102 && text.contains("the MTU of vx-blue"), "{code} {text}");
        assert_eq!(mtu(&connect(&fabric, 1, &list, "later").container), fits - 20);
        connected[0].check().unwrap();
    }
}

/// Nobody has said what the way carries: over IPv4 routers cut the tunnel's packets, and containers never notice.
#[test]
fn a_small_link_on_the_way_that_nobody_knows_of() {
    let fabric = narrowed();
    let list = list(&json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true), "mtu": 1350 }));
    let wide = json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true) });
    let first = connect(&fabric, 1, &crate::lab::list(&wide), "c1");
    let second = connect(&fabric, 2, &list, "c2");
    assert_eq!((mtu(&first.container), mtu(&second.container)), (1450, 1350));
    let address = second.addresses()[0];
    assert_eq!(large_ping(&first.container, address, 1350), 0);
    // What is larger than the other container takes is refused with a word of how much is possible, and from then on fits.
    assert_ne!(large_ping(&first.container, address, 1450), 0);
    let told = run(&first.container, &format!("ip route get {address}"));
    assert!(told.contains("mtu 1350"), "{told}");
    let server = tcp_echo_server(&second.container, address, 0);
    assert_eq!(tcp_roundtrip(&first.container, address, server.address().port()).unwrap().server, "c2");
}
