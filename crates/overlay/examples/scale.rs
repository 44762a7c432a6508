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
    for (what, dual, mode) in [
        ("routed, IPv4", false, Mode::Routed),
        ("routed, both families", true, Mode::Routed),
        ("bridged, IPv4, four addresses a node", false, Mode::Bridged),
    ] {
        println!("{what}, {nodes} nodes");
        measure(&view(nodes, dual, mode), &view(nodes + 1, dual, mode));
    }
}

/// `lo` as the underlay: packets are not what is measured.
fn host() {
    let mut netlink = Netlink::open().unwrap();
    let lo = netlink.link("lo").unwrap().expect("run it in a network namespace: unshare -rn");
    assert!(!lo.up, "this is for a fresh network namespace: unshare -rn");
    netlink.change_link(lo.index, "lo", &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
}

fn view(nodes: u32, dual: bool, mode: Mode) -> View {
    let vni = Vni::new(100).unwrap();
    let mut settings = Settings::new(NetworkName::new("scale").unwrap(), vni).unwrap();
    settings.mode = mode;
    if mode == Mode::Bridged {
        settings.subnets = vec!["10.0.0.0/8".parse().unwrap()];
    }
    let listed = |number: u32| {
        let underlay = IpAddr::V4(Ipv4Addr::from_bits(0xac10_0001 + number));
        let prefix = if mode == Mode::Bridged { 30 } else { 24 };
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

fn measure(view: &View, one_more: &View) {
    let mut netlink = Netlink::open().unwrap();
    let mut tables = Tables::open().unwrap();
    let (desired, took) = timed(|| Desired::of(view));
    println!("  {:<44}{}", "what should be, computed", shown(took));
    let (links, took) = timed(|| device::ensure(&mut netlink, view, &desired).unwrap());
    println!("  {:<44}{}", "device", shown(took));
    let nothing = Actual::read(&mut tables, &links).unwrap();
    let changes = diff(&desired, &nothing, &links);
    let (report, took) = timed(|| apply(&mut tables, &changes, Purge::Confirmed).unwrap());
    println!("  {:<44}{}", format!("{} entries, programmed", report.set), shown(took));
    let mut best = [Duration::MAX; 2];
    for _ in 0..10 {
        let (actual, read) = timed(|| Actual::read(&mut tables, &links).unwrap());
        let (changes, compared) = timed(|| diff(&desired, &actual, &links));
        assert!(changes.is_empty(), "{changes:?}");
        best = [best[0].min(read), best[1].min(compared)];
    }
    println!("  {:<44}{} + {}", "full check: listed + compared", shown(best[0]), shown(best[1]));
    let actual = Actual::read(&mut tables, &links).unwrap();
    let more = Desired::of(one_more);
    let (report, took) = timed(|| apply(&mut tables, &diff(&more, &actual, &links), Purge::Guarded).unwrap());
    println!("  {:<44}{}", format!("a node joins: compared, {} entries", report.set), shown(took));
    let actual = Actual::read(&mut tables, &links).unwrap();
    let (report, took) =
        timed(|| apply(&mut tables, &diff(&desired, &actual, &links), Purge::Guarded).unwrap());
    println!("  {:<44}{}", format!("a node goes: compared, {} entries", report.removed), shown(took));
    let ((), took) = timed(|| remove(view.settings()).unwrap());
    println!("  {:<44}{}", "all of it removed", shown(took));
    if view.settings().mode == Mode::Routed {
        let links = device::ensure(&mut netlink, view, &desired).unwrap();
        let mut nothing = Actual::read(&mut tables, &links).unwrap();
        nothing.without_objects();
        let changes = diff(&desired, &nothing, &links);
        let (report, took) = timed(|| apply(&mut tables, &changes, Purge::Confirmed).unwrap());
        println!("  {:<44}{}", format!("without nexthop objects: {} entries", report.set), shown(took));
        remove(view.settings()).unwrap();
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
