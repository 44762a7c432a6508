//! The bridge itself: made, taken over, given back; and the gateway's addresses on it.

use serde_json::json;
use testkit::{Host, Netns, eventually, ping, set_sysctl, sysctl};

use crate::support::*;

#[test]
fn a_bridge_is_made_for_the_first_and_deleted_after_the_last() {
    let host = Host::new();
    let before = state();
    let chain = net(json!({ "isGateway": true, "ipam": v4() }));
    let (one, two) = (host.container("c1"), host.container("c2"));
    chain.add(&eth0(&one)).unwrap();
    let made = link(host.netns(), "cni0");
    chain.add(&eth0(&two)).unwrap();
    chain.del(&eth0(&one)).unwrap();
    let kept = link(host.netns(), "cni0");
    assert_eq!((&made["ifindex"], &made["address"]), (&kept["ifindex"], &kept["address"]));
    chain.del(&eth0(&two)).unwrap();
    drop((one, two));
    before.assert_same(&state());
}

#[test]
fn the_address_of_a_bridge_does_not_follow_its_ports() {
    let host = Host::new();
    for (network, keys) in [("net", json!({ "isGateway": true, "ipam": dual() })), ("plain", json!({}))] {
        let chain = net_of("1.1.0", network, keys);
        let keeper = host.container("keeper");
        chain.add(&eth0(&keeper)).unwrap();
        let mac = link(host.netns(), "cni0")["address"].clone();
        // The lowest there is: a bridge left to itself would take it.
        let low = host.container("low");
        let attachment = eth0(&low);
        chain.add(&attachment).unwrap();
        let port = host_end_name(host.netns(), &low, "eth0");
        ip(host.netns(), &format!("link set {port} address 02:00:00:00:00:01"));
        assert_eq!(link(host.netns(), "cni0")["address"], mac);
        chain.del(&attachment).unwrap();
        assert_eq!(link(host.netns(), "cni0")["address"], mac);
        chain.del(&eth0(&keeper)).unwrap();
    }
}

#[test]
fn a_bridge_that_was_there_is_used_and_left_as_it_was() {
    let host = Host::new();
    ip(host.netns(), "link add cni0 address 02:00:00:00:00:99 type bridge");
    ip(host.netns(), "link set cni0 up");
    ip(host.netns(), "addr add 192.168.9.1/24 dev cni0");
    let before = state();
    let index = link(host.netns(), "cni0")["ifindex"].clone();
    let chain = net(json!({ "ipam": v4() }));
    let container = host.container("c1");
    chain.add(&eth0(&container)).unwrap();
    let now = link(host.netns(), "cni0");
    assert_eq!((&now["ifindex"], &now["address"]), (&index, &json!("02:00:00:00:00:99")));
    assert_eq!(addresses(host.netns(), "cni0", false), ["192.168.9.1/24"]);
    assert_eq!(now.get("ifalias"), None, "nothing was asked of it, so nothing was changed");
    assert_eq!(sysctl("net/ipv6/conf/cni0/accept_ra"), "1");
    chain.del(&eth0(&container)).unwrap();
    drop(container);
    before.assert_same(&state());
}

#[test]
fn what_is_asked_of_a_bridge_that_was_there_is_undone_after_the_last() {
    let host = Host::new();
    ip(host.netns(), "link add cni0 address 02:00:00:00:00:99 type bridge");
    // Having been up once leaves its traces.
    ip(host.netns(), "link set cni0 up");
    ip(host.netns(), "link set cni0 down");
    let before = state();
    let chain = net(json!({ "mtu": 1400, "promiscMode": true, "isGateway": true, "ipam": dual() }));
    let (one, two) = (host.container("c1"), host.container("c2"));
    for container in [&one, &two] {
        chain.add(&eth0(container)).unwrap();
        let bridge = link(host.netns(), "cni0");
        assert!(is_up(&bridge));
        assert_eq!((&bridge["mtu"], &bridge["promiscuity"]), (&json!(1400), &json!(1)));
        // The host is the router here, so it takes no router's word (CVE-2020-10749).
        assert_eq!(sysctl("net/ipv6/conf/cni0/accept_ra"), "0");
    }
    chain.del(&eth0(&one)).unwrap();
    assert_eq!(link(host.netns(), "cni0")["mtu"], 1400);
    chain.del(&eth0(&two)).unwrap();
    drop((one, two));
    before.assert_same(&state());
}

#[test]
fn a_bridge_of_ours_that_somebody_else_uses_by_now_stays() {
    let host = Host::new();
    let chain = net(json!({ "isGateway": true, "ipam": v4() }));
    let container = host.container("c1");
    chain.add(&eth0(&container)).unwrap();
    ip(host.netns(), "link add tap9 type veth peer name tap8");
    ip(host.netns(), "link set tap9 master cni0");
    chain.del(&eth0(&container)).unwrap();
    assert_eq!(link(host.netns(), "cni0")["linkinfo"]["info_kind"], "bridge");
    assert_eq!(link(host.netns(), "tap9")["master"], "cni0");
    assert_eq!(addresses(host.netns(), "cni0", false), [""; 0], "the gateway is not needed any more");
    // The next who comes and goes leaves an empty bridge, and takes it along.
    ip(host.netns(), "link del tap9");
    let next = host.container("c2");
    chain.add(&eth0(&next)).unwrap();
    chain.del(&eth0(&next)).unwrap();
    assert_eq!(links(host.netns()), ["lo"]);
}

#[test]
fn a_bridge_deleted_by_hand_is_made_again() {
    let host = Host::new();
    let chain = net(json!({ "isGateway": true, "ipam": v4() }));
    let (one, two) = (host.container("c1"), host.container("c2"));
    chain.add(&eth0(&one)).unwrap();
    ip(host.netns(), "link del cni0");
    let result = chain.add(&eth0(&two)).unwrap();
    assert_eq!(addresses(host.netns(), "cni0", false), ["10.77.0.1/24"]);
    assert!(ping(host.netns(), address_of(&result, true).parse::<std::net::Ipv4Addr>().unwrap()));
    chain.del(&eth0(&one)).unwrap();
    chain.del(&eth0(&two)).unwrap();
    assert_eq!(links(host.netns()), ["lo"]);
}

#[test]
fn networks_can_share_a_bridge() {
    let host = Host::new();
    let before = state();
    let network = |name: &str, subnet: &str| {
        net_of(
            "1.1.0",
            name,
            json!({ "bridge": "shared0", "isGateway": true, "ipam": host_local(&[subnet]) }),
        )
    };
    let (red, blue) = (network("red", "fd00:1::/64"), network("blue", "fd00:2::/64"));
    let (one, two) = (host.container("c1"), host.container("c2"));
    red.add(&eth0(&one)).unwrap();
    blue.add(&eth0(&two)).unwrap();
    assert_eq!(addresses(host.netns(), "shared0", false), ["fd00:1::1/64", "fd00:2::1/64"]);
    red.del(&eth0(&one)).unwrap();
    assert_eq!(addresses(host.netns(), "shared0", false), ["fd00:2::1/64"]);
    blue.check(&eth0(&two)).unwrap();
    blue.del(&eth0(&two)).unwrap();
    drop((one, two));
    before.assert_same(&state());
}

/// ADD on a bridge with these addresses, for a container whose gateway is the given one; what is on the bridge then, or the refusal.
fn gateway_beside(
    host: &Host,
    present: &[&str],
    gateway: &str,
    force: bool,
) -> Result<Vec<String>, (u64, String)> {
    let container = host.container("c1");
    for address in present {
        let (own, _) = address.split_once('/').unwrap();
        let words = if own.contains(':') { "nodad" } else { "brd +" };
        ip(host.netns(), &format!("addr add {address} dev br9 {words}"));
        // The kernel finishes with an IPv6 address after it has answered.
        eventually("the address to be in use", || {
            let table = host.netns().run("ip", &["-6", "route", "show", "table", "local"]);
            (!own.contains(':') || table.stdout.contains(&format!("local {own} "))).then_some(())
        });
    }
    let before = state();
    let (address, prefix) = gateway.split_once('/').unwrap();
    let own = if address.contains(':') { "fd00:aaaa::1:2" } else { "10.1.2.200" };
    let ipam = fixed(json!({ "ips": [{ "address": format!("{own}/{prefix}"), "gateway": address }] }));
    let chain = net(json!({ "bridge": "br9", "isGateway": true, "forceAddress": force, "ipam": ipam }));
    let outcome = match chain.add(&eth0(&container)) {
        Ok(_) => Ok(addresses(host.netns(), "br9", false)),
        Err(failure) => Err((failure.code(), failure.text())),
    };
    if outcome.is_err() {
        before.assert_same(&state());
    }
    chain.del(&eth0(&container)).unwrap();
    before.assert_same(&state());
    for address in present {
        ip(host.netns(), &format!("addr del {address} dev br9"));
    }
    outcome
}

fn with_bridge(host: &Host) -> &Netns {
    ip(host.netns(), "link add br9 address 02:00:00:00:00:99 type bridge");
    ip(host.netns(), "link set br9 up");
    host.netns()
}

#[test]
fn another_address_of_the_bridge_is_in_the_way_unless_forced() {
    let host = Host::new();
    with_bridge(&host);
    for (present, gateway) in [
        (vec!["10.0.0.1/8"], "10.1.2.3/16"),
        (vec!["192.168.0.1/24"], "10.1.2.3/16"),
        (vec!["fd00:aaaa::1/48"], "fd00:aaaa::5/64"),
        (vec!["fd00:aaaa::5/48"], "fd00:aaaa::5/64"),
    ] {
        let (code, text) = gateway_beside(&host, &present, gateway, false).unwrap_err();
        assert_eq!(code, 103, "{text}");
        assert!(
            text.starts_with(&format!("br9 already has an IP address different from {gateway} ")),
            "{text}"
        );
        assert!(text.contains(&format!("it has {}", present[0])) && text.contains("forceAddress"), "{text}");
        assert_eq!(gateway_beside(&host, &present, gateway, true), Ok(vec![gateway.to_owned()]));
    }
}

#[test]
fn other_addresses_are_left_where_they_are_no_hindrance() {
    let host = Host::new();
    with_bridge(&host);
    for (present, gateway, force) in [
        (vec!["fd00:bbbb::1/64"], "fd00:aaaa::5/64", false),
        (vec!["fd00:bbbb::1/64"], "fd00:aaaa::5/64", true),
        (vec!["10.1.2.3/16"], "fd00:aaaa::5/64", false),
        (vec!["10.1.2.3/16"], "10.1.2.3/16", false),
        (vec!["10.1.2.3/16"], "10.1.2.3/16", true),
    ] {
        let mut expected = vec![gateway.to_owned()];
        expected.extend(present.iter().map(|address| (*address).to_owned()));
        expected.sort();
        expected.dedup();
        assert_eq!(gateway_beside(&host, &present, gateway, force), Ok(expected));
    }
}

#[test]
fn a_gateway_that_was_replaced_comes_back_for_those_who_need_it() {
    let host = Host::new();
    let before = state();
    let network = |name: &str, subnet: &str, force: bool| {
        let ipam = host_local(&[subnet]);
        net_of("1.1.0", name, json!({ "isGateway": true, "forceAddress": force, "ipam": ipam }))
    };
    let (red, blue) = (network("red", "10.1.0.0/24", false), network("blue", "10.2.0.0/24", true));
    let (one, two) = (host.container("c1"), host.container("c2"));
    red.add(&eth0(&one)).unwrap();
    blue.add(&eth0(&two)).unwrap();
    assert_eq!(addresses(host.netns(), "cni0", false), ["10.2.0.1/24"]);
    blue.del(&eth0(&two)).unwrap();
    assert_eq!(addresses(host.netns(), "cni0", false), ["10.1.0.1/24"]);
    red.check(&eth0(&one)).unwrap();

    blue.add(&eth0(&two)).unwrap();
    red.del(&eth0(&one)).unwrap();
    assert_eq!(addresses(host.netns(), "cni0", false), ["10.2.0.1/24"]);
    blue.del(&eth0(&two)).unwrap();
    drop((one, two));
    before.assert_same(&state());
}

#[test]
fn a_bridge_made_here_takes_no_routers_word() {
    let host = Host::new();
    set_sysctl("net.ipv6.conf.default.accept_ra", "2");
    let container = host.container("c1");
    let chain = net(json!({ "ipam": v4() }));
    chain.add(&eth0(&container)).unwrap();
    let port = host_end_name(host.netns(), &container, "eth0");
    assert_eq!(sysctl("net/ipv6/conf/cni0/accept_ra"), "0");
    assert_eq!(sysctl(&format!("net/ipv6/conf/{port}/accept_ra")), "0");
    assert_eq!(container.enter(|| sysctl("net/ipv6/conf/eth0/accept_ra")), "0");
}

/// The bridge has one, and the container; what is between them needs none.
#[test]
fn a_port_has_no_address_of_its_own() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = net(json!({ "isGateway": true, "ipam": dual() }));
    let count = |netns, link: &str| addresses(netns, link, true).len();
    chain.add(&eth0(&container)).unwrap();
    let port = host_end_name(host.netns(), &container, "eth0");
    // The gateway's two and a link-local one, which comes when the bridge has a port that works.
    eventually("the bridge's addresses", || (count(host.netns(), "cni0") == 3).then_some(()));
    assert_eq!(count(&container, "eth0"), 3);
    assert_eq!(count(host.netns(), &port), 0);
    chain.check(&eth0(&container)).unwrap();
    chain.del(&eth0(&container)).unwrap();
}

/// 1280 bytes are the least that IPv6 works with (RFC 8200, section 5), so the kernel has none there.
#[test]
fn a_link_too_narrow_for_ipv6_is_no_obstacle() {
    let host = Host::new();
    let before = state();
    let container = host.container("c1");
    let chain = net(json!({ "mtu": 1200, "ipam": v4() }));
    chain.add(&eth0(&container)).unwrap();
    chain.check(&eth0(&container)).unwrap();
    chain.del(&eth0(&container)).unwrap();
    drop(container);
    before.assert_same(&state());
}
