//! How long the kernel takes for a network of many nodes: `unshare -rn target/release/examples/scale [NODES]`.
//!
//! Programs a network of that many synthetic peers (5,000 unless told otherwise) on a fresh host, then measures what a periodic check costs, a node
//! that joins, one that goes, and what the same costs without nexthop objects.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a program for a person")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use cni::{Cidr, LinkName, NetworkName};
use ferrule_core::netlink::{LinkChange, Netlink, Tables};
use ferrule_overlay::{
    Actual, Desired, Listed, Mode, NodeId, NodeRecord, Port, Purge, Settings, Underlay, View, Vni, apply,
    device, diff, remove,
};

fn main() {
    let nodes: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5000);
    host();
    let cases = [
        ("routed, IPv4", Case { dual: false, prefix: 24, mode: Mode::Routed }),
        ("routed, both families", Case { dual: true, prefix: 24, mode: Mode::Routed }),
        ("bridged, IPv4, four addresses a node", Case { dual: false, prefix: 30, mode: Mode::Bridged }),
        ("bridged, IPv4, sixteen addresses a node", Case { dual: false, prefix: 28, mode: Mode::Bridged }),
    ];
    for (what, case) in cases {
        // A hundred thousand addresses, where it is five thousand nodes otherwise.
        let nodes = if case.prefix == 28 { nodes * 5 / 4 } else { nodes };
        println!("{what}, {nodes} nodes");
        measure(case, nodes);
    }
}

/// `lo` as the underlay: packets are not what is measured.
fn host() {
    let mut netlink = Netlink::open().unwrap();
    let lo = netlink.link("lo").unwrap().expect("run it in a network namespace: unshare -rn");
    assert!(!lo.up, "this is for a fresh network namespace: unshare -rn");
    netlink.change_link(lo.index, "lo", &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
}

/// How many full checks are averaged: the kernel's account of a running thread grows in steps of 1 to 10 ms.
const ROUNDS: u32 = 20;

/// What a network is like.
#[derive(Debug, Clone, Copy)]
struct Case {
    dual: bool,
    /// Of a node's IPv4 block.
    prefix: u8,
    mode: Mode,
}

/// A network of so many nodes; `moved` is one that has another underlay address than usual.
fn view(Case { dual, prefix, mode }: Case, nodes: u32, moved: Option<u32>) -> View {
    let vni = Vni::new(100).unwrap();
    let mut settings = Settings::new(NetworkName::new("scale").unwrap(), vni).unwrap();
    settings.mode = mode;
    if mode == Mode::Bridged {
        settings.subnets = vec!["10.0.0.0/8".parse().unwrap()];
    }
    let listed = |number: u32| {
        let first = if moved == Some(number) { 0xac1f_0001 } else { 0xac10_0001 };
        let underlay = IpAddr::V4(Ipv4Addr::from_bits(first + number));
        let block = Ipv4Addr::from_bits(0x0a00_0000 + ((number + 1) << (32 - u32::from(prefix))));
        let mut blocks = vec![Cidr::new(block.into(), prefix).unwrap()];
        if dual {
            let [.., high, low] = number.to_be_bytes();
            let block = Ipv6Addr::new(0xfd00, 0, 0, u16::from_be_bytes([high, low]), 0, 0, 0, 0);
            blocks.push(Cidr::new(block.into(), 64).unwrap());
        }
        let node = NodeId::new(format!("node{number}")).unwrap();
        Listed {
            path: number.to_string(),
            record: NodeRecord::new(node, &[underlay], Port::VXLAN, &[vni], &blocks),
        }
    };
    let underlay = Underlay {
        address: Ipv4Addr::from_bits(0xac10_0001).into(),
        prefix: 32,
        interface: LinkName::new("lo").unwrap(),
        mtu: 1500,
    };
    View::new(settings, underlay, &NodeId::new("node0").unwrap(), (0..nodes).map(listed).collect()).unwrap()
}

fn measure(case: Case, nodes: u32) {
    let usual = view(case, nodes, None);
    let view = |nodes, moved| view(case, nodes, moved);
    let mut netlink = Netlink::open().unwrap();
    let mut tables = Tables::open().unwrap();
    let (desired, took) = timed(|| Desired::of(&usual));
    println!("  {:<44}{}", "what should be, computed", shown(took));
    let (links, took) = timed(|| device::ensure(&mut netlink, &usual, &desired).unwrap());
    println!("  {:<44}{}", "device", shown(took));
    let nothing = Actual::read(&mut tables, &links).unwrap();
    let changes = diff(&desired, &nothing, &links);
    let (report, took) = timed(|| apply(&mut tables, &changes, Purge::Confirmed).unwrap());
    println!("  {:<44}{}", format!("{} entries, programmed", report.set), shown(took));
    let mut total = [Duration::ZERO; 2];
    for _ in 0..ROUNDS {
        let (actual, read) = timed(|| Actual::read(&mut tables, &links).unwrap());
        let (changes, compared) = timed(|| diff(&desired, &actual, &links));
        assert!(changes.is_empty(), "{changes:?}");
        total = [total[0] + read, total[1] + compared];
    }
    let mean = total.map(|total| total / ROUNDS);
    println!("  {:<44}{} + {}", "full check: listed + compared", shown(mean[0]), shown(mean[1]));
    let actual = Actual::read(&mut tables, &links).unwrap();
    let more = Desired::of(&view(nodes + 1, None));
    let (report, took) = timed(|| apply(&mut tables, &diff(&more, &actual, &links), Purge::Guarded).unwrap());
    println!("  {:<44}{}", format!("a node joins: compared, {} entries", report.set), shown(took));
    let actual = Actual::read(&mut tables, &links).unwrap();
    let (report, took) =
        timed(|| apply(&mut tables, &diff(&desired, &actual, &links), Purge::Guarded).unwrap());
    println!("  {:<44}{}", format!("a node goes: compared, {} entries", report.removed), shown(took));
    let actual = Actual::read(&mut tables, &links).unwrap();
    let moved = Desired::of(&view(nodes, Some(nodes / 2)));
    let (report, took) =
        timed(|| apply(&mut tables, &diff(&moved, &actual, &links), Purge::Guarded).unwrap());
    println!("  {:<44}{}", format!("a node moves: compared, {} entries", report.set), shown(took));
    let ((), took) = timed(|| remove(usual.settings()).unwrap());
    println!("  {:<44}{}", "all of it removed", shown(took));
    {
        let links = device::ensure(&mut netlink, &usual, &desired).unwrap();
        let mut nothing = Actual::read(&mut tables, &links).unwrap();
        nothing.without_objects();
        let changes = diff(&desired, &nothing, &links);
        let (report, took) = timed(|| apply(&mut tables, &changes, Purge::Confirmed).unwrap());
        println!("  {:<44}{}", format!("without nexthop objects: {} entries", report.set), shown(took));
        remove(usual.settings()).unwrap();
    }
}

/// What the processor worked, the kernel's part included: netlink requests are carried out before they return, so that is all there is, and it does not
/// depend on what else the machine does. `FERRULE_WALL=1` measures the time that passed instead.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let clock = || {
        let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        schedule
            .split(' ')
            .next()
            .and_then(|text| text.parse().ok())
            .map(Duration::from_nanos)
            .unwrap_or_default()
    };
    let wall = std::env::var_os("FERRULE_WALL").is_some();
    let (start, began) = (Instant::now(), clock());
    let result = work();
    (result, if wall { start.elapsed() } else { clock().saturating_sub(began) })
}

fn shown(duration: Duration) -> String {
    format!("{:>8.2} ms", duration.as_secs_f64() * 1000.0)
}
