//! Who reaches a published port, and as whom it is seen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::json;
use testkit::{Uplink, tcp_echo_server, tcp_roundtrip, udp_echo_server, udp_roundtrip};

use crate::lab::{Lab, network, port, port_at};

const ANY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// From outside, from the host by its address and by 127.0.0.1, from the container itself, from a neighbour on the bridge and from a
/// container on another bridge; TCP and UDP, IPv4 and IPv6.
fn everybody_reaches_a_published_port(backend: &str) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend }));
    let ports = json!([port("tcp", 8080, 80), port("udp", 5353, 53)]);
    let web = net.start(&lab, "web", &ports);
    let neighbour = net.start(&lab, "neighbour", &json!([]));
    let other = network(2, &json!({ "backend": backend })).start(&lab, "other", &json!([]));
    let _servers = (
        tcp_echo_server(&web.container, ANY4, 80),
        tcp_echo_server(&web.container, ANY6, 80),
        udp_echo_server(&web.container, ANY4, 53),
        udp_echo_server(&web.container, ANY6, 53),
    );
    let v4 = IpAddr::from(Uplink::HOST_IPV4);
    let v6 = IpAddr::from(Uplink::HOST_IPV6);
    let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
    for (who, netns, target) in [
        ("outside", &*lab.outside, v4),
        ("outside", &*lab.outside, v6),
        ("the host", lab.host.netns(), v4),
        ("the host", lab.host.netns(), v6),
        ("the host", lab.host.netns(), localhost),
        ("the host", lab.host.netns(), IpAddr::from([127, 9, 9, 9])),
        ("the container itself", &*web.container, v4),
        ("the container itself", &*web.container, v6),
        ("a neighbour", &*neighbour.container, v4),
        ("a neighbour", &*neighbour.container, v6),
        ("another network", &*other.container, v4),
        ("another network", &*other.container, v6),
    ] {
        let tcp = tcp_roundtrip(netns, target, 8080);
        assert_eq!(
            tcp.as_ref().map(|reply| reply.server.as_str()).ok(),
            Some("web"),
            "tcp from {who} to {target}: {tcp:?}"
        );
        let udp = udp_roundtrip(netns, target, 5353);
        assert_eq!(
            udp.as_ref().map(|reply| reply.server.as_str()).ok(),
            Some("web"),
            "udp from {who} to {target}: {udp:?}"
        );
    }

    // Who comes from elsewhere is seen as who it is; who is on the container's own subnet, or is 127.0.0.1, could not be answered so.
    let seen = |netns, target| tcp_roundtrip(netns, target, 8080).unwrap().seen_from.ip();
    assert_eq!(seen(&lab.outside, v4), IpAddr::from(Uplink::OUTSIDE_IPV4));
    assert_eq!(seen(&lab.outside, v6), IpAddr::from(Uplink::OUTSIDE_IPV6));
    assert_eq!(seen(&other.container, v4), other.address(true));
    for (netns, target) in [(lab.host.netns(), localhost), (&*web.container, v4), (&*neighbour.container, v4)]
    {
        assert_eq!(seen(netns, target), IpAddr::from([10, 1, 0, 1]), "the bridge's address, to {target}");
    }
}

#[test]
fn everybody_reaches_a_published_port_with_nftables() {
    everybody_reaches_a_published_port("nftables");
}

#[test]
fn everybody_reaches_a_published_port_with_iptables() {
    everybody_reaches_a_published_port("iptables");
}

fn a_host_address_is_the_only_one(backend: &str) {
    let lab = Lab::new();
    testkit::tool("ip", &["address", "add", "192.0.2.10/24", "dev", "uplink0"]);
    testkit::tool("ip", &["address", "add", "2001:db8::10/64", "dev", "uplink0", "nodad"]);
    let net = network(1, &json!({ "backend": backend }));
    let web = net.start(
        &lab,
        "web",
        &json!([
            port_at("192.0.2.10", "tcp", 8080, 80),
            port_at("2001:db8::10", "tcp", 8080, 80),
            port_at("0.0.0.0", "tcp", 8081, 80),
            port_at("::", "tcp", 8082, 80),
            port_at("127.0.0.1", "tcp", 8083, 80),
        ]),
    );
    let _servers = (tcp_echo_server(&web.container, ANY4, 80), tcp_echo_server(&web.container, ANY6, 80));
    let reached = |netns, target: &str, port| {
        let target: IpAddr = target.parse().unwrap();
        tcp_roundtrip(netns, target, port).is_ok_and(|reply| reply.server == "web")
    };
    let (outside, host) = (&*lab.outside, lab.host.netns());
    for (target, port, wanted) in [
        ("192.0.2.10", 8080, true),
        ("192.0.2.1", 8080, false),
        ("2001:db8::10", 8080, true),
        ("2001:db8::1", 8080, false),
        ("192.0.2.1", 8081, true),
        ("2001:db8::1", 8081, false),
        ("192.0.2.1", 8082, false),
        ("2001:db8::1", 8082, true),
        ("192.0.2.1", 8083, false),
    ] {
        assert_eq!(reached(outside, target, port), wanted, "from outside, {target} port {port}");
        assert_eq!(reached(host, target, port), wanted, "from the host, {target} port {port}");
    }
    assert!(reached(host, "127.0.0.1", 8083));
    assert!(!reached(host, "127.0.0.1", 8080));
}

#[test]
fn a_host_address_is_the_only_one_with_nftables() {
    a_host_address_is_the_only_one("nftables");
}

#[test]
fn a_host_address_is_the_only_one_with_iptables() {
    a_host_address_is_the_only_one("iptables");
}

#[test]
fn a_more_specific_address_has_precedence() {
    let lab = Lab::new();
    let net = network(1, &json!({}));
    let everywhere = net.start(&lab, "everywhere", &json!([port("tcp", 8080, 80)]));
    let here = net.start(&lab, "here", &json!([port_at("192.0.2.1", "tcp", 8080, 80)]));
    let _servers =
        (tcp_echo_server(&everywhere.container, ANY4, 80), tcp_echo_server(&here.container, ANY4, 80));
    assert_eq!(tcp_roundtrip(&lab.outside, Uplink::HOST_IPV4, 8080).unwrap().server, "here");
    assert_eq!(tcp_roundtrip(lab.host.netns(), [127, 0, 0, 1], 8080).unwrap().server, "everywhere");
}

/// Without source NAT the container sees everybody as they are, and localhost is not led to it.
fn without_source_nat_nobody_is_masqueraded(backend: &str) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend, "snat": false }));
    let web = net.start(&lab, "web", &json!([port("tcp", 8080, 80)]));
    let _server = tcp_echo_server(&web.container, ANY4, 80);
    let reply = tcp_roundtrip(&lab.outside, Uplink::HOST_IPV4, 8080).unwrap();
    assert_eq!(reply.seen_from.ip(), IpAddr::from(Uplink::OUTSIDE_IPV4));
    assert_eq!(testkit::sysctl("net/ipv4/conf/br1/route_localnet"), "0");
}

#[test]
fn without_source_nat_nobody_is_masqueraded_with_nftables() {
    without_source_nat_nobody_is_masqueraded("nftables");
}

#[test]
fn without_source_nat_nobody_is_masqueraded_with_iptables() {
    without_source_nat_nobody_is_masqueraded("iptables");
}

/// With `masqAll` the container sees the host only.
fn masq_all_masquerades_everybody(backend: &str) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend, "masqAll": true }));
    let web = net.start(&lab, "web", &json!([port("tcp", 8080, 80)]));
    let _servers = (tcp_echo_server(&web.container, ANY4, 80), tcp_echo_server(&web.container, ANY6, 80));
    let seen = |target: IpAddr| tcp_roundtrip(&lab.outside, target, 8080).unwrap().seen_from.ip();
    assert_eq!(seen(Uplink::HOST_IPV4.into()), IpAddr::from([10, 1, 0, 1]));
    assert_eq!(seen(Uplink::HOST_IPV6.into()), "fd00:1::1".parse::<IpAddr>().unwrap());
    // Who does not come through a published port is seen as who it is.
    let other = network(2, &json!({ "backend": backend })).start(&lab, "other", &json!([]));
    let direct = tcp_roundtrip(&other.container, web.address(true), 80).unwrap();
    assert_eq!(direct.seen_from.ip(), other.address(true));
}

#[test]
fn masq_all_masquerades_everybody_with_nftables() {
    masq_all_masquerades_everybody("nftables");
}

#[test]
fn masq_all_masquerades_everybody_with_iptables() {
    masq_all_masquerades_everybody("iptables");
}
