//! IPv6: usable at once, duplicates found on request, no word of a stranger's taken.

use std::net::Ipv6Addr;

use serde_json::{Value, json};
use testkit::{Host, Netns, eventually, ip_json, ping};

use crate::support::*;

/// Addresses that can't be used yet, or never.
fn not_ready(netns: &Netns, name: &str) -> Vec<Value> {
    let links = netns.enter(|| ip_json("-6 addr show"));
    let link = links.as_array().unwrap().iter().find(|link| link["ifname"] == name).cloned().unwrap();
    let pending = |address: &&Value| address.get("tentative").is_some() || address.get("dadfailed").is_some();
    link["addr_info"].as_array().unwrap().iter().filter(pending).cloned().collect()
}

#[test]
fn addresses_can_be_used_as_soon_as_add_returns() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = net(json!({ "isDefaultGateway": true, "ipam": v6() }));
    chain.add(&eth0(&container)).unwrap();
    assert_eq!(not_ready(&container, "eth0"), [Value::Null; 0], "in the container");
    assert_eq!(
        not_ready(host.netns(), "cni0"),
        [Value::Null; 0],
        "on the bridge, the link-local one included"
    );
    let once = ["-6", "-c1", "-W3", "fd00:77::1"];
    assert_eq!(container.run("ping", &once).code, 0, "the first packet arrives");
}

#[test]
fn the_first_packet_from_outside_finds_the_container() {
    let host = Host::new();
    let uplink = host.uplink();
    ip(&uplink, &format!("-6 route add {SUBNET_6} via {}", testkit::Uplink::HOST_IPV6));
    let container = host.container("c1");
    let chain = net(json!({ "isDefaultGateway": true, "ipam": v6() }));
    // Where the host does not ask, nobody gets an answer within a second; on a busy machine it may be late once. Each time the bridge is a new one.
    let answered = (0..3).any(|_| {
        let result = chain.add(&eth0(&container)).unwrap();
        let once = ["-6", "-c1", "-W1", &address_of(&result, false)];
        let answered = uplink.run("ping", &once).code == 0;
        chain.del(&eth0(&container)).unwrap();
        answered
    });
    assert!(answered, "the host forwards, and asks for its neighbour at once");
}

#[test]
fn duplicate_address_detection_is_waited_for_where_it_is_asked_for() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = net(json!({ "isGateway": true, "enabledad": true, "ipam": v6() }));
    chain.add(&eth0(&container)).unwrap();
    assert_eq!(not_ready(&container, "eth0"), [Value::Null; 0], "detection is over");
    assert_eq!(container.enter(|| testkit::sysctl("net/ipv6/conf/eth0/accept_dad")), "1");
    chain.check(&eth0(&container)).unwrap();
}

#[test]
fn a_duplicate_address_is_an_error_where_detection_is_asked_for() {
    let host = Host::new();
    let (one, two) = (host.container("c1"), host.container("c2"));
    let ipam = fixed(json!({ "ips": [{ "address": "fd00:77::5/64" }] }));
    net(json!({ "isGateway": true, "ipam": ipam })).add(&eth0(&one)).unwrap();
    let before = state();
    let failure =
        failure(net(json!({ "isGateway": true, "enabledad": true, "ipam": ipam })).add(&eth0(&two)));
    assert_eq!(failure.code(), 103);
    assert!(
        failure.text().contains("fd00:77::5/64") && failure.text().contains("duplicate"),
        "{}",
        failure.text()
    );
    before.assert_same(&state());
    assert_eq!(links(&two), ["lo"]);
}

#[test]
fn a_namespace_with_ipv6_disabled_gets_its_address_all_the_same() {
    let host = Host::new();
    let container = host.container("c1");
    container.enter(|| {
        testkit::set_sysctl("net.ipv6.conf.all.disable_ipv6", "1");
        testkit::set_sysctl("net.ipv6.conf.default.disable_ipv6", "1");
    });
    let chain = net(json!({ "isDefaultGateway": true, "ipam": dual() }));
    let result = chain.add(&eth0(&container)).unwrap();
    assert!(ping(host.netns(), address_of(&result, false).parse::<Ipv6Addr>().unwrap()));
}

#[test]
fn an_address_survives_its_interface_going_down() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = net(json!({ "isGateway": true, "ipam": v6() }));
    chain.add(&eth0(&container)).unwrap();
    let before = addresses(&container, "eth0", false);
    ip(&container, "link set eth0 down");
    ip(&container, "link set eth0 up");
    assert_eq!(addresses(&container, "eth0", false), before);
}

/// What a namespace has that only a router advertisement gives.
fn advertised(netns: &Netns) -> Vec<String> {
    let mut found: Vec<String> =
        routes(netns, "-6 route show").into_iter().filter(|route| route.contains("proto ra")).collect();
    for link in links(netns) {
        found.extend(
            addresses(netns, &link, false).into_iter().filter(|address| address.starts_with("fd00:bad:")),
        );
    }
    found
}

#[test]
fn a_rogue_router_changes_nothing() {
    let host = Host::new();
    let (rogue, victim, willing) =
        (host.container("rogue"), host.container("victim"), host.container("willing"));
    let keys = |accept: bool| json!({ "isGateway": true, "acceptRA": accept, "ipam": v4() });
    net(keys(false)).add(&eth0(&rogue)).unwrap();
    net(keys(false)).add(&eth0(&victim)).unwrap();
    net(keys(true)).add(&eth0(&willing)).unwrap();
    // Once it has arrived where it is welcome, it has arrived everywhere.
    eventually("the advertisement to arrive", || {
        rogue.enter(|| testkit::advertise_router("eth0", "fd00:bad::".parse().unwrap()));
        (!advertised(&willing).is_empty()).then_some(())
    });
    assert_eq!(advertised(&victim), [""; 0]);
    assert_eq!(advertised(host.netns()), [""; 0], "CVE-2020-10749");
}
