//! A network that is kept: after each change of one node the kernel has what it would have, had all been made anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use cni::{Cidr, LinkName, NetworkName};
use ferrule_core::netlink::Tables;
use ferrule_overlay::{
    Actual, Desired, Listed, Live, Mode, NodeId, NodeRecord, Port, Purge, Settings, Underlay, View, Vni,
    device, survey,
};
use testkit::{Host, Uplink, tool};

fn settings(mode: Mode) -> Settings {
    let mut settings = Settings::new(NetworkName::new("blue").unwrap(), Vni::new(100).unwrap()).unwrap();
    settings.mode = mode;
    if mode == Mode::Bridged {
        settings.subnets = ["10.40.0.0/16", "fd00:40::/64"].map(|text| text.parse().unwrap()).into();
    }
    settings
}

/// A node with blocks of both families, by number; `underlay` is the last byte of its address.
fn node(number: u8, underlay: u8, mode: Mode) -> Listed {
    let blocks: [String; 2] = match mode {
        Mode::Routed => [format!("10.40.{number}.0/28"), format!("fd00:40:{number}::/64")],
        Mode::Bridged => [format!("10.40.{number}.0/29"), format!("fd00:40::{number}:0/125")],
    };
    let blocks: Vec<Cidr> = blocks.iter().map(|text| text.parse().unwrap()).collect();
    let address: IpAddr = [192, 0, 2, underlay].into();
    let id = NodeId::new(format!("n{number}")).unwrap();
    let record = NodeRecord::new(id, &[address], Port::VXLAN, &[Vni::new(100).unwrap()], &blocks);
    Listed { path: format!("[{number}]"), record }
}

fn view(settings: &Settings, nodes: &BTreeMap<u8, Listed>) -> View {
    let interface = LinkName::new("uplink0").unwrap();
    let underlay = Underlay { address: Uplink::HOST_IPV4.into(), prefix: 24, interface, mtu: 1500 };
    let own = node(0, 1, settings.mode);
    let all = std::iter::once(own.clone()).chain(nodes.values().cloned()).collect();
    View::new(settings.clone(), underlay, &own.record.node, all).unwrap()
}

/// Joins, a move, a change of blocks, leaves, the last node's too.
const STEPS: [(u8, Option<u8>); 10] = [
    (5, Some(105)),
    (1, Some(101)),
    (9, Some(109)),
    (5, Some(155)),
    (3, Some(103)),
    (1, None),
    (9, None),
    (1, Some(105)),
    (3, None),
    (77, None),
];

fn steps(settings: &Settings) {
    let host = Host::new();
    let _uplink = host.uplink();
    let mut nodes: BTreeMap<u8, Listed> =
        [2, 4].into_iter().map(|number| (number, node(number, 100 + number, settings.mode))).collect();
    let mut live = Live::new(view(settings, &nodes));
    live.program(Purge::Confirmed).unwrap();
    let all_but_one = view(settings, &nodes);
    for (number, underlay) in STEPS {
        let id = NodeId::new(format!("n{number}")).unwrap();
        match underlay {
            Some(underlay) => nodes.insert(number, node(number, underlay, settings.mode)),
            None => nodes.remove(&number),
        };
        let stepped = live.step(&id, nodes.get(&number)).unwrap();
        assert!(stepped.is_some(), "node {number} to {underlay:?}");
        let whole = view(settings, &nodes);
        assert_eq!(*live.view(), whole);
        assert_eq!(survey(&whole).unwrap(), 0, "nothing but what should be: node {number} to {underlay:?}");
    }
    assert_eq!(live.program(Purge::Confirmed).unwrap(), ferrule_overlay::Report::default());
    for number in [1, 5] {
        live.step(&NodeId::new(format!("n{number}")).unwrap(), None).unwrap().unwrap();
    }
    assert_eq!(survey(&all_but_one).unwrap(), 0);
}

#[test]
fn nodes_of_a_routed_network_come_move_and_go_one_by_one() {
    steps(&settings(Mode::Routed));
}

#[test]
fn nodes_of_a_bridged_network_come_move_and_go_one_by_one() {
    steps(&settings(Mode::Bridged));
}

#[test]
fn broadcasts_follow_the_nodes() {
    steps(&Settings { bum: true, ..settings(Mode::Bridged) });
}

#[test]
fn nodes_on_the_same_link_come_and_go_without_a_tunnel() {
    steps(&Settings { direct_routing: true, ..settings(Mode::Routed) });
}

/// What a change of one node costs does not grow with their number: so many entries, and no listing.
#[test]
fn one_node_costs_its_own_entries() {
    let host = Host::new();
    let _uplink = host.uplink();
    let settings = settings(Mode::Routed);
    let mut nodes: BTreeMap<u8, Listed> =
        (1..100).map(|number| (number, node(number, 100 + number, settings.mode))).collect();
    let mut live = Live::new(view(&settings, &nodes));
    live.program(Purge::Confirmed).unwrap();
    nodes.insert(100, node(100, 200, settings.mode));
    let stepped = live.step(&nodes[&100].record.node.clone(), nodes.get(&100)).unwrap().unwrap();
    // Two neighbours, an FDB entry, two nexthops, two routes; one sender more.
    assert_eq!((stepped.changes.len(), stepped.transactions), (7, 1));
}

/// What depends on more than the node itself is left to a composition of all of them.
#[test]
fn what_others_depend_on_is_not_one_nodes_change() {
    let host = Host::new();
    let _uplink = host.uplink();
    let settings = settings(Mode::Routed);
    let nodes: BTreeMap<u8, Listed> =
        [1, 2].into_iter().map(|number| (number, node(number, 100 + number, settings.mode))).collect();
    let mut live = Live::new(view(&settings, &nodes));
    let joining = node(3, 103, settings.mode);
    let name = |listed: &Listed| listed.record.node.clone();
    assert!(live.step(&name(&joining), Some(&joining)).unwrap().is_none(), "nobody has looked yet");
    live.program(Purge::Confirmed).unwrap();
    let same_address = node(3, 102, settings.mode);
    let mut same_block = node(3, 103, settings.mode);
    same_block.record.blocks.clone_from(&nodes[&2].record.blocks);
    let mut of_ipv6 = node(3, 103, settings.mode);
    of_ipv6.record.underlay4 = None;
    of_ipv6.record.underlay6 = "2001:db8::3".parse().ok();
    let own = node(0, 1, settings.mode);
    let mut within_a_block = node(3, 103, settings.mode);
    within_a_block.record.underlay4 = "10.40.2.3".parse().ok();
    let mut over_an_end = node(3, 103, settings.mode);
    over_an_end.record.blocks = vec!["192.0.2.96/28".parse().unwrap()];
    for other in [&same_address, &same_block, &of_ipv6, &own, &within_a_block, &over_an_end] {
        assert!(live.step(&name(other), Some(other)).unwrap().is_none(), "{other:?}");
    }
    assert_eq!(*live.view(), view(&settings, &nodes), "nothing has changed");
    assert!(live.step(&name(&joining), Some(&joining)).unwrap().is_some());
}

/// Who tells an own change from another's by its notification must not take another's for his own.
#[test]
fn what_somebody_else_alters_is_found_by_the_next_look() {
    let host = Host::new();
    let _uplink = host.uplink();
    let settings = settings(Mode::Routed);
    let nodes: BTreeMap<u8, Listed> =
        [1, 2].into_iter().map(|number| (number, node(number, 100 + number, settings.mode))).collect();
    let mut live = Live::new(view(&settings, &nodes));
    live.program(Purge::Confirmed).unwrap();
    tool("ip", &["route", "del", "10.40.1.0/28"]);
    let joining = node(3, 103, settings.mode);
    live.step(&joining.record.node.clone(), Some(&joining)).unwrap().unwrap();
    let found = live.survey().unwrap_err().to_string();
    assert!(found.contains("10.40.1.0/28"), "{found}");
    live.program(Purge::Confirmed).unwrap();
    let desired = Desired::of(live.view());
    let mut netlink = ferrule_core::netlink::Netlink::open().unwrap();
    let links = device::find(&mut netlink, live.view()).unwrap().unwrap();
    let actual = Actual::read(&mut Tables::open().unwrap(), &links).unwrap();
    assert!(ferrule_overlay::diff(&desired, &actual, &links).is_empty());
}
