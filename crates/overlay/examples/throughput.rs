//! What a tunnel costs: one TCP stream through a routed network, through plain routes between the same two hosts, and through a tunnel with flannel's
//! settings, in turns: `FERRULE_NAMESPACES=1 tools/unshare-runner target/release/examples/throughput [ROUNDS]`.
//!
//! Two hosts on a switch, a container on each. The containers have an address for each way, and the hosts route it that way, so the ways differ in
//! nothing else. The figures of a way are compared with plain routing in the same round, whose turns go forth and back so that none is always first.
//! The host firewall of the second part tracks connections, and drops what belongs to none.
//!
//! A stream between two processors that wake each other has luck: one round differs from the next by a third. So both ends stay on a processor of their
//! own, there are many short rounds, and what is printed is the median of their ratios, with the quartiles. Beside it the work: processor time of the
//! whole machine for each gigabyte, of plain routes to that of the way, which has less luck in it.
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
const SECONDS: &str = "1";

fn main() {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(15);
    let fabric = Fabric::switched(2);
    let containers = [1, 2].map(|number| connect(&fabric, number));
    println!(
        "{:<44}{:>10}{:>26}{:>26}",
        "one TCP stream", "Gbit/s", "rate to plain routes", "work to plain routes"
    );
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

/// Runs every way in each round, and prints the median of each and of its ratios.
fn measure(what: &str, containers: &[Container; 2], rounds: usize) {
    let mut streams = WAYS.map(|_| Vec::new());
    for round in 0..rounds {
        let mut turns: Vec<usize> = (0..WAYS.len()).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for way in turns {
            streams[way].push(stream(containers, Ipv4Addr::new(10, WAYS[way].1, 2, 2)));
        }
    }
    println!("{what}");
    for ((way, _), of_way) in WAYS.iter().zip(&streams) {
        let pairs = || of_way.iter().zip(&streams[0]);
        let rate = Quartiles::of(of_way.iter().map(|stream| stream.rate));
        let rates = Quartiles::of(pairs().map(|(stream, plain)| stream.rate / plain.rate));
        let works = Quartiles::of(pairs().map(|(stream, plain)| plain.work / stream.work));
        println!("  {way:<42}{:>10.2}{rates:>26}{works:>26}", rate.median);
    }
}

struct Quartiles {
    lower: f64,
    median: f64,
    upper: f64,
}

impl Quartiles {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: usize| sorted[(sorted.len() - 1) * quarter / 4];
        Self { lower: at(1), median: at(2), upper: at(3) }
    }
}

impl std::fmt::Display for Quartiles {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(&format!("{:.2} ({:.2} to {:.2})", self.median, self.lower, self.upper))
    }
}

struct Stream {
    /// Gbit/s.
    rate: f64,
    /// Processor time of the machine for each gigabyte, in seconds.
    work: f64,
}

/// A stream from the first container to an address of the second, each end on a processor of its own.
fn stream(containers: &[Container; 2], address: Ipv4Addr) -> Stream {
    let address = address.to_string();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| run(&containers[1], &format!("iperf3 -s -1 -B {address}")));
        loop {
            let before = busy();
            let answer = containers[0].run("iperf3", &["-c", &address, "-t", SECONDS, "-J", "-A", "0,1"]);
            let seconds = busy() - before;
            let report: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
            let received = &report["end"]["sum_received"];
            if let (Some(rate), Some(bytes)) =
                (received["bits_per_second"].as_f64(), received["bytes"].as_f64())
            {
                server.join().unwrap();
                return Stream { rate: rate / 1e9, work: seconds / (bytes / 1e9) };
            }
            // The server is not up yet.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    })
}

/// Seconds that the processors of the machine have worked since it started: all that `/proc/stat` counts but idling, waiting for a disk, and what a
/// hypervisor took.
fn busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let ticks = |field: usize| stat.split_whitespace().nth(field).unwrap().parse::<f64>().unwrap();
    [1, 2, 3, 6, 7].map(ticks).iter().sum::<f64>() / 100.0
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
