//! What a tunnel costs: one TCP stream through a routed network, through plain routes between the same two hosts, and through a tunnel with flannel's
//! settings, in turns: `FERRULE_NAMESPACES=1 tools/unshare-runner target/release/examples/throughput [ROUNDS]`.
//!
//! Two hosts on a switch, a container on each. The containers have an address for each way, and the hosts route it that way, so the ways differ in
//! nothing else. The figures of a way are compared with plain routing in the same round. The host firewall of the second half tracks connections, and
//! drops what belongs to none.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for a person")]

use std::net::{IpAddr, Ipv4Addr};

use cni::{Cidr, LinkName, NetworkName};
use ferrule_overlay::{
    Listed, NodeId, NodeRecord, Port, Purge, Settings, Underlay, View, Vni, guard, program,
};
use testkit::{Container, Fabric, Netns};

/// The ways, and the second byte of their containers' addresses.
const WAYS: [(&str, u8); 3] =
    [("plain routes", 41), ("ferrule, routed", 40), ("vxlan as flannel makes it", 42)];
const SECONDS: &str = "2";

fn main() {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5);
    let fabric = Fabric::switched(2);
    let containers = [1, 2].map(|number| connect(&fabric, number));
    println!("{:<44}{:>10} of plain routes", "one TCP stream", "Gbit/s");
    for (what, rules) in [
        ("no host firewall", ""),
        ("a host firewall that tracks connections", TRACKING),
        ("the same, tunnels not tracked", UNTRACKED),
    ] {
        for host in fabric.hosts() {
            run(host, "nft add table inet bench");
            run(host, "nft delete table inet bench");
            for rule in rules.lines() {
                run(host, rule);
            }
        }
        measure(what, &containers, rounds);
    }
}

const TRACKING: &str = "\
nft add table inet bench
nft add chain inet bench input { type filter hook input priority 0 ; }
nft add chain inet bench forward { type filter hook forward priority 0 ; }
nft add rule inet bench input ct state invalid drop
nft add rule inet bench forward ct state invalid drop";

const UNTRACKED: &str = "\
nft add table inet bench
nft add chain inet bench input { type filter hook input priority 0 ; }
nft add chain inet bench forward { type filter hook forward priority 0 ; }
nft add rule inet bench input ct state invalid drop
nft add rule inet bench forward ct state invalid drop
nft add chain inet bench raw-in { type filter hook prerouting priority -300 ; }
nft add chain inet bench raw-out { type filter hook output priority -300 ; }
nft add rule inet bench raw-in udp dport { 4789, 8472 } notrack
nft add rule inet bench raw-out udp dport { 4789, 8472 } notrack";

/// Runs every way in each round, and prints the mean of each and of its ratios.
fn measure(what: &str, containers: &[Container; 2], rounds: u32) {
    let mut sums = [(0.0, 0.0, f64::MAX, 0.0_f64); WAYS.len()];
    for _ in 0..rounds {
        let rates = WAYS.map(|(_, second)| stream(containers, Ipv4Addr::new(10, second, 2, 2)));
        for (sum, rate) in sums.iter_mut().zip(rates) {
            let ratio = rate / rates[0];
            *sum = (sum.0 + rate, sum.1 + ratio, sum.2.min(ratio), sum.3.max(ratio));
        }
    }
    println!("{what}");
    for ((way, _), (rate, ratio, least, most)) in WAYS.iter().zip(sums) {
        let rounds = f64::from(rounds);
        println!("  {way:<42}{:>10.2}{:>8.2} ({least:.2} to {most:.2})", rate / rounds, ratio / rounds);
    }
}

/// Gbit/s from the first container to an address of the second.
fn stream(containers: &[Container; 2], address: Ipv4Addr) -> f64 {
    let address = address.to_string();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| run(&containers[1], &format!("iperf3 -s -1 -B {address}")));
        loop {
            let answer = containers[0].run("iperf3", &["-c", &address, "-t", SECONDS, "-J"]);
            let report: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
            if let Some(rate) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
                server.join().unwrap();
                return rate / 1e9;
            }
            // The server is not up yet.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    })
}

/// A container on a host, and the three ways to the other host's.
fn connect(fabric: &Fabric, number: u8) -> Container {
    let host = &fabric.hosts()[usize::from(number) - 1];
    let other = 3 - number;
    let container = fabric.container(&format!("c{number}"));
    run(host, &format!("ip link add port type veth peer name eth0 netns c{number}"));
    run(host, "sysctl -qw net.ipv4.ip_forward=1");
    run(host, "ip link set port up");
    run(&container, "ip link set eth0 up");
    for (way, second) in WAYS {
        run(host, &format!("ip address add 10.{second}.{number}.1/24 dev port"));
        run(&container, &format!("ip address add 10.{second}.{number}.2/24 dev eth0"));
        let mtu = if way == "plain routes" { 1500 } else { 1450 };
        run(
            &container,
            &format!("ip route add 10.{second}.{other}.0/24 via 10.{second}.{number}.1 mtu {mtu}"),
        );
    }
    run(host, &format!("ip route add 10.41.{other}.0/24 via 192.0.2.{other}"));
    tunnel_as_flannel(host, number, other);
    host.enter(|| {
        let view = view(number);
        program(&view, Purge::Confirmed).unwrap();
        guard(&view).unwrap();
    });
    container
}

/// What flannel's backend makes on a host: a bound device without learning, its workaround for checksums, a neighbour, a forwarding entry, a route.
fn tunnel_as_flannel(host: &Netns, number: u8, other: u8) {
    let mac = |number: u8| format!("02:00:00:00:42:{number:02x}");
    let (own, peer) = (mac(number), mac(other));
    for line in [
        format!(
            "ip link add flannel.1 address {own} type vxlan id 1 dev eth0 local 192.0.2.{number} dstport 8472 nolearning"
        ),
        "ethtool -K flannel.1 tx-checksum-ip-generic off".to_owned(),
        "ip link set flannel.1 mtu 1450 up".to_owned(),
        format!("ip address add 10.42.{number}.0/32 dev flannel.1"),
        format!("ip neighbour add 10.42.{other}.0 lladdr {peer} dev flannel.1 nud permanent"),
        format!("/sbin/bridge fdb add {peer} dev flannel.1 dst 192.0.2.{other} self permanent"),
        format!("ip route add 10.42.{other}.0/24 via 10.42.{other}.0 dev flannel.1 onlink"),
    ] {
        run(host, &line);
    }
}

fn view(number: u8) -> View {
    let vni = Vni::new(100).unwrap();
    let settings = Settings::new(NetworkName::new("blue").unwrap(), vni).unwrap();
    let address = |number: u8| IpAddr::from(Ipv4Addr::new(192, 0, 2, number));
    let listed = [1, 2].map(|number| {
        let block: Cidr = format!("10.40.{number}.0/24").parse().unwrap();
        let node = NodeId::new(format!("n{number}")).unwrap();
        let record = NodeRecord::new(node, &[address(number)], Port::VXLAN, &[vni], &[block]);
        Listed { path: number.to_string(), record }
    });
    let interface = LinkName::new("eth0").unwrap();
    let underlay = Underlay { address: address(number), prefix: 24, interface, mtu: 1500 };
    View::new(settings, underlay, &NodeId::new(format!("n{number}")).unwrap(), listed.to_vec()).unwrap()
}

/// Runs a line, which must succeed, in a namespace.
fn run(netns: &Netns, line: &str) {
    let mut words = line.split(' ');
    let ran = netns.run(words.next().unwrap(), &words.collect::<Vec<_>>());
    assert!(ran.code == 0, "{line}: {}", ran.stderr);
}
