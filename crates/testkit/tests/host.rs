//! The kit's hosts, traffic and snapshots, judged by `ip` and by each other.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use testkit::{
    Host, Snapshot, Uplink, eventually, ip_json, ping, sysctl, tcp_echo_server, tcp_roundtrip, tool,
    udp_echo_server, udp_roundtrip,
};

/// Connects a container the way a bridge plugin would, with `ip` alone.
fn connect_by_hand(container: &testkit::Netns, host_address: &str, address: &str) {
    let ip = |line: &str| tool("ip", &line.split(' ').collect::<Vec<_>>());
    ip(&format!("link add veth-host type veth peer name eth0 netns {}", container.name()));
    ip(&format!("addr add {host_address} dev veth-host"));
    ip("link set veth-host up");
    container.enter(|| {
        ip(&format!("addr add {address} dev eth0"));
        ip("link set eth0 up");
    });
}

#[test]
fn a_host_has_empty_state_directories_and_a_loopback() {
    let _host = Host::new();
    for directory in ["/run", "/var/lib/cni", "/etc/cni"] {
        assert_eq!(fs::read_dir(directory).unwrap().count(), 0, "{directory} is not empty");
    }
    assert!(Path::new("/etc/passwd").exists(), "only /etc/cni may be replaced");
    let lo = ip_json("addr show lo");
    assert_eq!(lo[0]["addr_info"][0]["local"], "127.0.0.1");
    assert_eq!(sysctl("net.ipv4.ip_forward"), "0");
}

#[test]
fn a_container_is_known_to_ip_and_goes_with_its_handle() {
    let host = Host::new();
    let container = host.container("c1");
    assert!(tool("ip", &["netns", "list"]).contains("c1"));
    assert_eq!(container.run("ip", &["-j", "link", "show", "lo"]).code, 0);
    let inside = container.enter(|| ip_json("link show"));
    assert_eq!(inside[0]["ifname"], "lo");
    assert!(!inside[0]["flags"].as_array().unwrap().contains(&"UP".into()), "a runtime leaves lo down");
    drop(container);
    assert!(!Path::new("/run/netns/c1").exists());
    assert_eq!(tool("ip", &["netns", "list"]), "");
}

#[test]
fn a_destroyed_container_takes_its_links_along() {
    let host = Host::new();
    let container = host.container("c1");
    connect_by_hand(&container, "10.1.0.1/24", "10.1.0.2/24");
    container.destroy();
    let gone = || ip_json("link show").as_array().unwrap().iter().all(|link| link["ifname"] != "veth-host");
    eventually("the host's end of the veth pair to go", || gone().then_some(()));
}

#[test]
fn packets_from_a_container_arrive_and_strangers_do_not_answer() {
    let host = Host::new();
    let container = host.container("c1");
    connect_by_hand(&container, "10.1.0.1/24", "10.1.0.2/24");
    let address = Ipv4Addr::new(10, 1, 0, 2);
    assert!(ping(host.netns(), address));
    assert!(!ping(host.netns(), Ipv4Addr::new(10, 1, 0, 3)));

    let server = tcp_echo_server(&container, address, 0);
    let reply = tcp_roundtrip(host.netns(), address, server.address().port()).unwrap();
    assert_eq!(reply.server, "c1");
    assert_eq!(reply.seen_from.ip(), Ipv4Addr::new(10, 1, 0, 1));
    let refused = tcp_roundtrip(host.netns(), address, 1).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    // A socket for both families must not hide that an IPv4 sender is one.
    let server = udp_echo_server(&container, Ipv6Addr::UNSPECIFIED, 0);
    let reply = udp_roundtrip(host.netns(), address, server.address().port()).unwrap();
    assert_eq!(reply.seen_from.ip(), Ipv4Addr::new(10, 1, 0, 1));
}

#[test]
fn outside_is_reached_in_both_families_and_knows_no_container() {
    let host = Host::new();
    let uplink = host.uplink();
    let container = host.container("c1");
    connect_by_hand(&container, "10.1.0.1/24", "10.1.0.2/24");
    assert!(ping(host.netns(), Uplink::OUTSIDE_IPV4));
    assert!(ping(host.netns(), Uplink::OUTSIDE_IPV6));
    assert_eq!(ip_json("-4 route show default")[0]["gateway"], "192.0.2.2");
    assert_eq!(ip_json("-6 route show default")[0]["gateway"], "2001:db8::2");

    let server = tcp_echo_server(&uplink, Uplink::OUTSIDE_IPV6, 8080);
    let reply = tcp_roundtrip(host.netns(), Uplink::OUTSIDE_IPV6, 8080).unwrap();
    assert_eq!((reply.server.as_str(), reply.seen_from.ip()), ("outside", Uplink::HOST_IPV6.into()));
    drop(server);

    // Forwarded but not masqueraded, a container's packets get no answer.
    testkit::set_sysctl("net.ipv4.ip_forward", "1");
    container.enter(|| tool("ip", &["route", "add", "default", "via", "10.1.0.1"]));
    assert!(!ping(&container, Uplink::OUTSIDE_IPV4));
}

#[test]
fn a_snapshot_sees_each_kind_of_change() {
    let _host = Host::new();
    let before = Snapshot::take();
    before.assert_same(&Snapshot::take());

    let changes: [(&str, &str, &str); 11] = [
        ("links", "ip link add br7 type bridge", "br7"),
        ("addresses", "ip addr add 10.9.9.9/32 dev lo", "10.9.9.9"),
        ("routes", "ip route add blackhole 10.8.0.0/16 table 77", "10.8.0.0/16"),
        ("nexthops", "ip nexthop add id 70 blackhole", "70"),
        ("links", "ip link add vx7 type vxlan id 7 dstport 4789", "vx7"),
        (
            "forwarding entries",
            "/sbin/bridge fdb add 02:00:00:00:00:07 dev vx7 dst 192.0.2.1",
            "02:00:00:00:00:07",
        ),
        ("rules", "ip rule add from 10.7.0.0/16 table 77", "10.7.0.0"),
        ("nftables", "nft add table inet left", "left"),
        ("iptables", "iptables-nft -t nat -N CNI-left", "CNI-left"),
        ("qdiscs", "tc qdisc add dev lo root tbf rate 1mbit burst 10k latency 1s", "tbf"),
        ("sysctls", "ip link add br8 type bridge", "conf/br8/forwarding"),
    ];
    for (section, command, trace) in changes {
        let words: Vec<&str> = command.split(' ').collect();
        tool(words[0], &words[1..]);
        let difference = before.difference(&Snapshot::take());
        let named = |line: &str| line.starts_with(&format!("+ {section}: ")) && line.contains(trace);
        assert!(difference.lines().any(named), "`{command}` is not seen under {section}:\n{difference}");
    }
    fs::create_dir_all("/run/ferrule/x").unwrap();
    fs::write("/run/ferrule/x/record", "{}").unwrap();
    let difference = before.difference(&Snapshot::take());
    assert!(difference.contains("+ files: /run/ferrule/x/record 0644 \"{}\""), "{difference}");
}

#[test]
fn a_lease_is_left_over_and_the_bookkeeping_beside_it_is_not() {
    let _host = Host::new();
    let before = Snapshot::take();
    let store = Path::new("/var/lib/cni/networks/net");
    fs::create_dir_all(store).unwrap();
    for name in ["lock", "last_reserved_ip.0"] {
        fs::write(store.join(name), "10.1.0.2").unwrap();
    }
    before.assert_same(&Snapshot::take().without_lease_bookkeeping());
    fs::write(store.join("10.1.0.2"), "c1\r\neth0").unwrap();
    let difference = before.difference(&Snapshot::take().without_lease_bookkeeping());
    assert_eq!(difference, "+ files: /var/lib/cni/networks/net/10.1.0.2 0644 \"c1\\r\\neth0\"\n");
}

#[test]
fn a_snapshot_without_tools_sees_most_changes() {
    let _host = Host::new();
    let before = Snapshot::take_from_kernel();
    before.assert_same(&Snapshot::take_from_kernel());

    let changes: [(&str, &str, &str); 6] = [
        ("links", "ip link add br7 type bridge", "br7"),
        ("addresses", "ip addr add 2001:db8:9::9/128 dev lo", "20010db8000900000000000000000009"),
        ("routes", "ip addr add 10.9.9.9/32 dev lo", "10.9.9.9"),
        ("routes", "ip route add 10.8.0.0/16 dev lo", "10.8.0.0"),
        ("nftables", "nft add table inet left", "table left"),
        (
            "nftables",
            "nft add chain inet left over { type filter hook forward priority 0; }",
            "chain left over",
        ),
    ];
    for (section, command, trace) in changes {
        let words: Vec<&str> = command.split(' ').collect();
        tool(words[0], &words[1..]);
        let difference = before.difference(&Snapshot::take_from_kernel());
        let named = |line: &str| line.starts_with(&format!("+ {section}: ")) && line.contains(trace);
        assert!(difference.lines().any(named), "`{command}` is not seen under {section}:\n{difference}");
    }
}

#[test]
fn a_snapshot_forgives_what_iptables_and_the_kernel_leave() {
    let host = Host::new();
    let before = Snapshot::take();
    let container = host.container("c1");
    connect_by_hand(&container, "10.1.0.1/24", "10.1.0.2/24");
    tool("iptables-nft", &["-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE"]);
    assert!(!before.difference(&Snapshot::take()).is_empty());
    tool("iptables-nft", &["-t", "nat", "-F", "POSTROUTING"]);
    tool("ip", &["link", "del", "veth-host"]);
    before.assert_same(&Snapshot::take());
}

#[test]
#[should_panic(expected = "the host is not as it was before")]
fn a_leftover_link_fails_the_comparison() {
    let _host = Host::new();
    let before = Snapshot::take();
    tool("ip", &["link", "add", "br9", "type", "bridge"]);
    before.assert_same(&Snapshot::take());
}
