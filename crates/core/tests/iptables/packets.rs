//! What the rules do to packets: on a host that drops what it is not told to forward, and on one that forwards everything.

use std::net::Ipv4Addr;

use ferrule_core::firewall::{Entry, Firewall, IsolationPolicy};
use testkit::{
    Container, Netns, Uplink, ping, set_sysctl, tcp_echo_server, tcp_roundtrip, udp_echo_server,
    udp_roundtrip,
};

use crate::in_both_variants;
use crate::support::{Tables, Variant, forward, isolate, masquerade, owner, publish};

const C1: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 5);
const C1_IPV6: &str = "fd00::5";
const OTHER_BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 5);

/// A host with two bridges, containers on them, and an uplink.
struct Lab {
    uplink: Uplink,
    first: Container,
    neighbour: Container,
    other: Container,
}

fn ip(netns: &Netns, arguments: &str) {
    let words: Vec<&str> = arguments.split(' ').collect();
    let ran = netns.run("ip", &words);
    assert!(ran.code == 0, "ip {arguments}: {}", ran.stderr);
}

fn bridge(host: &Netns, name: &str, v4: &str, v6: &str) {
    ip(host, &format!("link add {name} type bridge"));
    ip(host, &format!("addr add {v4} dev {name}"));
    ip(host, &format!("addr add {v6} dev {name} nodad"));
    ip(host, &format!("link set {name} up"));
}

fn connect(tables: &Tables, name: &str, bridge: &str, v4: &str, v6: &str) -> Container {
    let container = tables.host.container(name);
    let host = tables.host.netns();
    ip(host, &format!("link add veth-{name} type veth peer name eth0 netns {name}"));
    ip(host, &format!("link set veth-{name} master {bridge} up"));
    // Where bridged frames pass iptables (br_netfilter), a container reaches its own published port only so.
    ip(host, &format!("link set veth-{name} type bridge_slave hairpin on"));
    ip(&container, "link set lo up");
    ip(&container, "link set eth0 up");
    let net = |address: &str| address.rsplit_once(['.', ':']).map(|(net, _)| net.to_owned()).unwrap();
    ip(&container, &format!("addr add {v4} dev eth0"));
    ip(&container, &format!("addr add {v6} dev eth0 nodad"));
    ip(&container, &format!("route add default via {}.1", net(v4)));
    ip(&container, &format!("route add default via {}:1", net(v6)));
    container
}

impl Lab {
    fn new(tables: &Tables) -> Self {
        let host = tables.host.netns();
        set_sysctl("net/ipv4/ip_forward", "1");
        set_sysctl("net/ipv6/conf/all/forwarding", "1");
        // A router asks for neighbours from its link-local address, which must not be tentative.
        set_sysctl("net/ipv6/conf/default/accept_dad", "0");
        bridge(host, "cni1", "10.1.0.1/16", "fd00::1/64");
        bridge(host, "cni2", "10.2.0.1/16", "fd01::1/64");
        Self {
            uplink: tables.host.uplink(),
            first: connect(tables, "c1", "cni1", "10.1.0.5/16", "fd00::5/64"),
            neighbour: connect(tables, "c2", "cni1", "10.1.0.6/16", "fd00::6/64"),
            other: connect(tables, "d1", "cni2", "10.2.0.5/16", "fd01::5/64"),
        }
    }
}

in_both_variants! {
    fn a_host_that_drops_forwards_what_it_is_told_to(tables: &Tables) {
        let lab = Lab::new(tables);
        tables.iptables("-P FORWARD DROP");
        let mut backend = tables.backend();
        let owner = owner("blue/c1/eth0");
        let _server = tcp_echo_server(&lab.uplink, Uplink::OUTSIDE_IPV4, 7);
        let masquerade = [masquerade("10.1.0.5/16", &[])];
        let forward = [forward("10.1.0.5")];
        backend.ensure(&owner, &masquerade).unwrap();
        assert!(tcp_roundtrip(&lab.first, Uplink::OUTSIDE_IPV4, 7).is_err());
        backend.ensure(&owner, &forward).unwrap();
        let reply = tcp_roundtrip(&lab.first, Uplink::OUTSIDE_IPV4, 7).unwrap();
        assert_eq!(reply.seen_from.ip(), Uplink::HOST_IPV4);
        // Nobody else's.
        assert!(tcp_roundtrip(&lab.neighbour, Uplink::OUTSIDE_IPV4, 7).is_err());
        tables.iptables("-I CNI-ADMIN -p tcp --dport 7 -j DROP");
        assert!(tcp_roundtrip(&lab.first, Uplink::OUTSIDE_IPV4, 7).is_err());
        tables.iptables("-F CNI-ADMIN");
        backend.remove(&owner, &forward).unwrap();
        assert!(tcp_roundtrip(&lab.first, Uplink::OUTSIDE_IPV4, 7).is_err());
    }

    fn what_is_excluded_is_not_masqueraded(tables: &Tables) {
        let lab = Lab::new(tables);
        ip(&lab.uplink, &format!("route add 10.1.0.0/16 via {}", Uplink::HOST_IPV4));
        let _server = udp_echo_server(&lab.uplink, Uplink::OUTSIDE_IPV4, 7);
        let _other = tcp_echo_server(&lab.other, OTHER_BRIDGE, 7);
        let seen = |reply: std::io::Result<testkit::Reply>| reply.unwrap().seen_from.ip();
        let mut backend = tables.backend();
        backend.ensure(&owner("blue/c1/eth0"), &[masquerade("10.1.0.5/16", &["192.0.2.0/24"])]).unwrap();
        assert_eq!(seen(udp_roundtrip(&lab.first, Uplink::OUTSIDE_IPV4, 7)), C1);
        assert_eq!(seen(tcp_roundtrip(&lab.first, OTHER_BRIDGE, 7)), Ipv4Addr::new(10, 2, 0, 1));
    }

    fn a_published_port_is_reached_from_everywhere(tables: &Tables) {
        let lab = Lab::new(tables);
        set_sysctl("net/ipv4/conf/cni1/route_localnet", "1");
        let entries = [
            Entry::Publish(publish("10.1.0.5/16", &["tcp 8080:80", "udp 5353:53"])),
            Entry::Publish(publish("fd00::5/64", &["tcp 8080:80"])),
        ];
        let owner = owner("blue/c1/eth0");
        tables.backend().ensure(&owner, &entries).unwrap();
        let _tcp = tcp_echo_server(&lab.first, C1, 80);
        let _udp = udp_echo_server(&lab.first, C1, 53);
        let _tcp6 = tcp_echo_server(&lab.first, C1_IPV6.parse::<std::net::Ipv6Addr>().unwrap(), 80);
        let host = tables.host.netns();
        for (from, to) in [
            (&*lab.uplink, Uplink::HOST_IPV4),
            (host, Uplink::HOST_IPV4),
            (host, Ipv4Addr::LOCALHOST),
            (&*lab.neighbour, Uplink::HOST_IPV4),
            (&*lab.first, Uplink::HOST_IPV4),
            (&*lab.other, Uplink::HOST_IPV4),
        ] {
            let tcp = tcp_roundtrip(from, to, 8080).unwrap_or_else(|e| panic!("{} to {to}: {e}", from.name()));
            let udp = udp_roundtrip(from, to, 5353).unwrap_or_else(|e| panic!("{} to {to}: {e}", from.name()));
            assert_eq!((tcp.server.as_str(), udp.server.as_str()), ("c1", "c1"), "{} to {to}", from.name());
        }
        for from in [&*lab.uplink, host, &*lab.neighbour, &*lab.first] {
            let reply = tcp_roundtrip(from, Uplink::HOST_IPV6, 8080);
            assert_eq!(reply.unwrap_or_else(|e| panic!("{}: {e}", from.name())).server, "c1");
        }
        // From outside, the container sees who it is; only what would not come back is masqueraded.
        let from = tcp_roundtrip(&lab.uplink, Uplink::HOST_IPV4, 8080).unwrap().seen_from.ip();
        assert_eq!(from, Uplink::OUTSIDE_IPV4);
        tables.backend().remove(&owner, &entries).unwrap();
        assert!(tcp_roundtrip(&lab.uplink, Uplink::HOST_IPV4, 8080).is_err());
    }

    /// CVE-2025-67499: a port of the host is not a port of the world.
    fn a_published_port_takes_no_traffic_for_others(tables: &Tables) {
        let lab = Lab::new(tables);
        ip(&lab.uplink, &format!("route add 10.1.0.0/16 via {}", Uplink::HOST_IPV4));
        let entries = [Entry::Publish(publish("10.1.0.5/16", &["tcp 8080:80"]))];
        tables.backend().ensure(&owner("blue/c1/eth0"), &entries).unwrap();
        let _here = tcp_echo_server(&lab.first, C1, 80);
        let _there = tcp_echo_server(&lab.uplink, Uplink::OUTSIDE_IPV4, 8080);
        for from in [&*lab.neighbour, tables.host.netns()] {
            assert_eq!(tcp_roundtrip(from, Uplink::OUTSIDE_IPV4, 8080).unwrap().server, "outside");
        }
    }

    fn isolated_bridges_do_not_reach_each_other(tables: &Tables) {
        let lab = Lab::new(tables);
        let mut backend = tables.backend();
        assert!(ping(&lab.first, OTHER_BRIDGE));
        for (name, address, bridge) in [("blue/c1/eth0", "10.1.0.5", "cni1"), ("red/d1/eth0", "10.2.0.5", "cni2")] {
            let entries = [forward(address), isolate(bridge, IsolationPolicy::SameBridge)];
            backend.ensure(&owner(name), &entries).unwrap();
        }
        assert!(!ping(&lab.first, OTHER_BRIDGE));
        assert!(!ping(&lab.other, C1));
        assert!(ping(&lab.neighbour, C1));
        assert!(ping(tables.host.netns(), C1));
        ip(&lab.uplink, &format!("route add 10.1.0.0/16 via {}", Uplink::HOST_IPV4));
        assert!(ping(&lab.first, Uplink::OUTSIDE_IPV4));
    }
}
