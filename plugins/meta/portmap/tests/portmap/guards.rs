//! What publishing a port must not open or take away.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::json;
use testkit::{Uplink, nft_text, set_sysctl, sysctl, tcp_echo_server, tcp_roundtrip, tool};

use crate::lab::{Lab, network, port, port_at};

const ANY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// CVE-2025-67499: traffic through the host, or from it, to somebody else's port of the same number.
fn transit_is_not_hijacked(backend: &str) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend }));
    // The second and third claim addresses that are not the host's.
    let thief = net.start(
        &lab,
        "thief",
        &json!([
            port("tcp", 8080, 80),
            port_at("192.0.2.2", "tcp", 8081, 80),
            port_at("2001:db8::2", "tcp", 8081, 80),
        ]),
    );
    let victim = net.start(&lab, "victim", &json!([]));
    let other = network(2, &json!({ "backend": backend })).start(&lab, "other", &json!([]));
    lab.outside.enter(|| {
        for route in ["-4 route add 10.0.0.0/8 via 192.0.2.1", "-6 route add fd00::/16 via 2001:db8::1"] {
            tool("ip", &route.split(' ').collect::<Vec<_>>());
        }
    });
    let _servers = (
        tcp_echo_server(&thief.container, ANY4, 80),
        tcp_echo_server(&thief.container, ANY6, 80),
        [8080, 8081].map(|port| {
            (tcp_echo_server(&lab.outside, ANY4, port), tcp_echo_server(&lab.outside, ANY6, port))
        }),
        (tcp_echo_server(&victim.container, ANY4, 8080), tcp_echo_server(&victim.container, ANY6, 8080)),
    );
    for target in [IpAddr::from(Uplink::OUTSIDE_IPV4), IpAddr::from(Uplink::OUTSIDE_IPV6)] {
        for port in [8080, 8081] {
            for netns in [lab.host.netns(), &*other.container, &*victim.container] {
                let reply = tcp_roundtrip(netns, target, port);
                let server = reply.as_ref().map(|reply| reply.server.as_str()).ok();
                assert_eq!(
                    server,
                    Some("outside"),
                    "from {} to {target} port {port}: {reply:?}",
                    netns.name()
                );
            }
        }
    }
    for ipv4 in [true, false] {
        for netns in [lab.host.netns(), &*lab.outside, &*other.container] {
            let reply = tcp_roundtrip(netns, victim.address(ipv4), 8080);
            let server = reply.as_ref().map(|reply| reply.server.as_str()).ok();
            assert_eq!(server, Some("victim"), "from {} to the victim: {reply:?}", netns.name());
        }
    }
}

#[test]
fn transit_is_not_hijacked_with_nftables() {
    transit_is_not_hijacked("nftables");
}

#[test]
fn transit_is_not_hijacked_with_iptables() {
    transit_is_not_hijacked("iptables");
}

/// CVE-2019-9946: a published port of the same number must not take the connections to a service from its proxy.
fn a_service_proxy_goes_first(backend: &str, proxy_first: bool, proxy: fn(&str)) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend }));
    let pod = net.start(&lab, "pod", &json!([]));
    let target = format!("{}:80", pod.address(true));
    if proxy_first {
        proxy(&target);
    }
    let thief = net.start(&lab, "thief", &json!([port("tcp", 8080, 80)]));
    let _servers = [&pod, &thief].map(|running| tcp_echo_server(&running.container, ANY4, 80));
    let answers = |netns| tcp_roundtrip(netns, Uplink::HOST_IPV4, 8080).map(|reply| reply.server);
    if !proxy_first {
        assert_eq!(answers(&lab.outside).unwrap(), "thief", "nobody else has the port");
        proxy(&target);
    }
    assert_eq!(answers(&lab.outside).unwrap(), "pod", "from outside");
    assert_eq!(answers(lab.host.netns()).unwrap(), "pod", "from the host");
}

fn proxy_with_iptables(target: &str) {
    let mut commands = vec!["-N KUBE-SERVICES".to_owned()];
    commands.extend(["PREROUTING", "OUTPUT"].map(|chain| format!("-A {chain} -j KUBE-SERVICES")));
    let service = format!("-d {}/32 -p tcp --dport 8080", Uplink::HOST_IPV4);
    commands.push(format!("-A KUBE-SERVICES {service} -j DNAT --to-destination {target}"));
    for command in commands {
        tool("iptables", &[&["-w", "-t", "nat"], &*command.split(' ').collect::<Vec<_>>()].concat());
    }
}

fn proxy_with_nftables(target: &str) {
    let rule = format!("ip daddr {} tcp dport 8080 dnat to {target}", Uplink::HOST_IPV4);
    let chain = |hook: &str| format!("chain {hook} {{ type nat hook {hook} priority -100; {rule}; }}\n");
    tool("nft", &[format!("table ip kube-proxy {{\n{}{}}}", chain("prerouting"), chain("output"))]);
}

#[test]
fn a_service_proxy_goes_first_with_iptables() {
    a_service_proxy_goes_first("iptables", true, proxy_with_iptables);
}

#[test]
fn a_service_proxy_that_was_there_goes_first_with_nftables() {
    a_service_proxy_goes_first("nftables", true, proxy_with_nftables);
}

#[test]
fn a_service_proxy_that_comes_later_goes_first_with_nftables() {
    a_service_proxy_goes_first("nftables", false, proxy_with_nftables);
}

/// CVE-2020-8558: with `route_localnet`, who is on the container's link could reach what listens on 127.0.0.1 of the host.
fn services_on_localhost_stay_there(backend: &str) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend }));
    let attacker = net.start(&lab, "attacker", &json!([port("tcp", 8080, 80)]));
    assert_eq!(sysctl("net/ipv4/conf/br1/route_localnet"), "1", "the precondition");
    let _secret = tcp_echo_server(lab.host.netns(), Ipv4Addr::LOCALHOST, 9999);
    let attack = || {
        attacker.container.enter(|| {
            set_sysctl("net/ipv4/conf/eth0/route_localnet", "1");
            let _ = std::process::Command::new("ip")
                .args(["route", "del", "local", "127.0.0.0/8", "table", "local"])
                .output();
            let _ = std::process::Command::new("ip")
                .args(["route", "del", "local", "127.0.0.1", "table", "local"])
                .output();
            tool("ip", &["route", "replace", "127.0.0.0/8", "via", "10.1.0.1", "src", "10.1.0.2"]);
        });
        tcp_roundtrip(&attacker.container, Ipv4Addr::LOCALHOST, 9999).map(|reply| reply.server)
    };
    assert!(attack().is_err(), "the guard holds");
    // The attack is a real one: without the guard it succeeds.
    tool("nft", &["flush", "chain", "inet", "ferrule_ports", "guard"]);
    assert_eq!(attack().unwrap(), "host");
}

#[test]
fn services_on_localhost_stay_there_with_nftables() {
    services_on_localhost_stay_there("nftables");
}

#[test]
fn services_on_localhost_stay_there_with_iptables() {
    services_on_localhost_stay_there("iptables");
}

#[test]
fn local_routing_is_on_while_somebody_needs_it() {
    let lab = Lab::new();
    let net = network(1, &json!({}));
    let routed = || sysctl("net/ipv4/conf/br1/route_localnet");
    let elsewhere = net.start(&lab, "elsewhere", &json!([port_at("192.0.2.1", "tcp", 8080, 80)]));
    assert_eq!(routed(), "0", "nobody can reach that by 127.0.0.1");
    let one = net.start(&lab, "one", &json!([port("tcp", 8081, 80)]));
    let two = net.start(&lab, "two", &json!([port_at("127.0.0.1", "tcp", 8082, 80)]));
    assert_eq!(routed(), "1");
    assert_eq!(sysctl("net/ipv4/conf/uplink0/route_localnet"), "0", "and on no other interface");
    net.stop(&one);
    assert_eq!(routed(), "1");
    net.stop(&two);
    assert_eq!(routed(), "0");
    assert!(!nft_text().contains("\"br1\""), "nor is there a guard any more");
    net.stop(&elsewhere);
}

/// What one network asks for binds nobody else.
fn conditions_bind_one_network_only(backend: &str, condition: &serde_json::Value) {
    let lab = Lab::new();
    let plain = network(1, &json!({ "backend": backend }));
    let picky = network(2, &json!({ "backend": backend, "conditionsV4": condition }));
    let (early, late) = (json!([port("tcp", 8081, 80)]), json!([port("tcp", 8083, 80)]));
    let before = plain.start(&lab, "before", &early);
    let limited = picky.start(&lab, "limited", &json!([port("tcp", 8082, 80)]));
    let after = plain.start(&lab, "after", &late);
    let _servers = [&before, &limited, &after].map(|running| tcp_echo_server(&running.container, ANY4, 80));
    let reached = |netns, port| tcp_roundtrip(netns, Uplink::HOST_IPV4, port).ok().map(|reply| reply.server);
    for (port, name) in [(8081, "before"), (8083, "after")] {
        assert_eq!(reached(&lab.outside, port).as_deref(), Some(name), "no condition binds {name}");
        assert_eq!(reached(lab.host.netns(), port).as_deref(), Some(name), "no condition binds {name}");
    }
    assert_eq!(reached(&lab.outside, 8082).as_deref(), Some("limited"), "192.0.2.2 is let through");
    assert_eq!(reached(&before.container, 8082), None, "10.1.0.2 is not");
    picky.stop(&limited);
    assert_eq!(reached(&lab.outside, 8082), None);
    assert_eq!(reached(&lab.outside, 8081).as_deref(), Some("before"));
}

#[test]
fn conditions_bind_one_network_only_with_nftables() {
    conditions_bind_one_network_only("nftables", &json!(["ip", "saddr", "192.0.2.0/28"]));
}

#[test]
fn conditions_bind_one_network_only_with_iptables() {
    conditions_bind_one_network_only("iptables", &json!(["-s", "192.0.2.0/28"]));
}

#[test]
fn a_condition_that_nobody_understands_changes_nothing() {
    let lab = Lab::new();
    let net = network(1, &json!({ "conditionsV4": ["tcp", "flags", "syn"] }));
    let before = nft_text();
    let failure = net.try_start(&lab, "c", &json!([port("tcp", 8080, 80)])).err().expect("a refusal");
    assert_eq!((failure.plugin.as_str(), failure.code()), ("portmap", 7));
    assert!(failure.text().contains("tcp flags syn"), "{}", failure.text());
    assert_eq!(nft_text(), before);
}
