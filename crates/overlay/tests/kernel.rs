//! Views made so on a host made of namespaces: what `ip` and `bridge` see of it, and what is found and put right.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::{IpAddr, Ipv4Addr};

use cni::{Cidr, LinkName, NetworkName};
use ferrule_core::netlink::{Netlink, Tables};
use ferrule_overlay::{
    Actual, Desired, Family, Listed, Mode, NodeId, NodeRecord, Port, Purge, Report, Settings, Underlay, View,
    Vni, apply, device, diff, endpoints, identity, program, reconcile, remove, verify,
};
use testkit::{Host, Snapshot, Uplink, ip_json, tool};

fn settings() -> Settings {
    Settings::new(NetworkName::new("blue").unwrap(), Vni::new(100).unwrap()).unwrap()
}

/// A network of this host and so many others, with blocks of both families.
fn view(settings: &Settings, peers: u8) -> View {
    let listed = |number: u8| {
        let underlay: IpAddr = Ipv4Addr::new(192, 0, 2, if number == 0 { 1 } else { 100 + number }).into();
        let blocks: [Cidr; 2] = [format!("10.40.{number}.0/28"), format!("fd00:40:{number}::/124")]
            .map(|text| text.parse().unwrap());
        let blocks = if settings.mode == Mode::Bridged { &blocks[..1] } else { &blocks[..] };
        let node = NodeId::new(format!("n{number}")).unwrap();
        Listed {
            path: format!("[{number}]"),
            record: NodeRecord::new(node, &[underlay], Port::VXLAN, &[settings.vni], blocks),
        }
    };
    let interface = LinkName::new("uplink0").unwrap();
    let underlay = Underlay { address: Uplink::HOST_IPV4.into(), prefix: 24, interface, mtu: 1500 };
    View::new(settings.clone(), underlay, &NodeId::new("n0").unwrap(), (0..=peers).map(listed).collect())
        .unwrap()
}

/// The numbers of a host with an uplink.
fn host() -> (Host, Uplink) {
    let host = Host::new();
    let uplink = host.uplink();
    (host, uplink)
}

#[test]
fn a_view_is_made_so_once() {
    let _host = host();
    let view = view(&settings(), 3);
    // Each peer: two neighbours, one FDB entry, two nexthops, two routes; and two routes of this node's own blocks to nowhere.
    assert_eq!(program(&view, Purge::Guarded).unwrap(), Report { set: 3 * 7 + 2, removed: 0, withheld: 0 });
    assert_eq!(program(&view, Purge::Guarded).unwrap(), Report::default());
    verify(&view).unwrap();
    let routes = ip_json("route show proto 70");
    let way =
        |dst: &str| routes.as_array().unwrap().iter().find(|route| route["dst"] == dst).cloned().unwrap();
    assert_eq!(way("10.40.2.0/28")["gateway"], "10.40.2.0");
    assert_eq!(way("10.40.0.0/28")["type"], "blackhole");
    let fdb = tool("/sbin/bridge", &["fdb", "show", "dev", "vx-blue"]);
    assert!(fdb.contains("dst 192.0.2.102 self permanent"), "{fdb}");
}

#[test]
fn a_list_that_has_become_empty_takes_nothing_away_until_it_is_confirmed() {
    let _host = host();
    program(&view(&settings(), 6), Purge::Guarded).unwrap();
    let alone = view(&settings(), 0);
    let report = program(&alone, Purge::Guarded).unwrap();
    assert_eq!((report.removed, report.withheld), (0, 6 * 7));
    // Nobody is kept out whose entries stay.
    verify(&view(&settings(), 6)).unwrap();
    let report = program(&alone, Purge::Confirmed).unwrap();
    assert_eq!((report.removed, report.withheld), (6 * 7, 0));
    assert_eq!(program(&alone, Purge::Guarded).unwrap(), Report::default());
}

#[test]
fn one_node_of_many_goes_without_question_and_most_of_them_do_not() {
    let _host = host();
    program(&view(&settings(), 8), Purge::Guarded).unwrap();
    assert_eq!(program(&view(&settings(), 7), Purge::Guarded).unwrap().removed, 7);
    assert_eq!(program(&view(&settings(), 2), Purge::Guarded).unwrap().withheld, 5 * 7);
}

#[test]
fn a_network_goes_and_leaves_what_is_not_its_own() {
    let _host = host();
    tool("ip", &["route", "add", "198.51.100.0/24", "via", "192.0.2.2", "proto", "70"]);
    tool("ip", &["nexthop", "add", "id", "7", "via", "192.0.2.2", "dev", "uplink0", "proto", "70"]);
    let before = Snapshot::take();
    program(&view(&settings(), 2), Purge::Guarded).unwrap();
    remove(&settings()).unwrap();
    before.assert_same(&Snapshot::take());
    assert!(tool("ip", &["nexthop"]).contains("id 7 "));
}

#[test]
fn a_kernel_without_nexthop_objects_gets_plain_routes() {
    let _host = host();
    let view = view(&settings(), 2);
    let desired = Desired::of(&view);
    let (mut netlink, mut tables) = (Netlink::open().unwrap(), Tables::open().unwrap());
    let links = device::ensure(&mut netlink, &view, &desired).unwrap();
    let read = |tables: &mut Tables| {
        let mut actual = Actual::read(tables, &links).unwrap();
        actual.without_objects();
        actual
    };
    let changes = diff(&desired, &read(&mut tables), &links);
    apply(&mut tables, &changes, Purge::Guarded).unwrap();
    assert!(diff(&desired, &read(&mut tables), &links).is_empty());
    assert_eq!(tool("ip", &["nexthop"]), "");
    let route = tool("ip", &["-6", "route", "show", "fd00:40:2::/124"]);
    assert!(route.contains("via fd00:40:2:: dev vx-blue proto 70"), "{route}");
    // The same kernel after an update: the routes become those of objects.
    reconcile(&mut tables, &desired, &links, Purge::Guarded).unwrap();
    assert!(tool("ip", &["route", "show", "10.40.2.0/28"]).contains("nhid"));
    verify_entries(&mut tables, &desired, &links);
}

fn verify_entries(tables: &mut Tables, desired: &Desired, links: &ferrule_overlay::Links) {
    let changes = diff(desired, &Actual::read(tables, links).unwrap(), links);
    assert!(changes.is_empty(), "{changes:?}");
}

#[test]
fn a_host_that_is_renumbered_keeps_its_device() {
    let _host = host();
    program(&view(&settings(), 2), Purge::Guarded).unwrap();
    let index = ip_json("link show vx-blue")[0]["ifindex"].clone();
    tool("ip", &["addr", "add", "192.0.2.77/24", "dev", "uplink0"]);
    let old = view(&settings(), 2);
    let underlay = Underlay { address: "192.0.2.77".parse().unwrap(), ..old.underlay().clone() };
    let nodes = std::iter::once(old.node()).chain(old.peers()).enumerate();
    let nodes = nodes.map(|(number, record)| Listed { path: format!("[{number}]"), record: record.clone() });
    let renumbered = View::new(settings(), underlay, &old.node().node, nodes.collect()).unwrap();
    program(&renumbered, Purge::Guarded).unwrap();
    let link = ip_json("link show vx-blue")[0].clone();
    assert_eq!((&link["ifindex"], &link["linkinfo"]["info_data"]["local"]), (&index, &"192.0.2.77".into()));
    verify(&renumbered).unwrap();
}

#[test]
fn the_mtu_is_that_of_the_smallest_way_to_a_node() {
    let _host = host();
    for line in [
        "route add 198.51.100.0/24 via 192.0.2.2 mtu 1400",
        "link add narrow mtu 1300 type bridge",
        "link set narrow up",
        "address add 203.0.113.1/24 dev narrow",
        "route add 198.18.1.0/24 nexthop via 192.0.2.2 nexthop via 203.0.113.2",
        "route add unreachable 198.18.2.0/24",
    ] {
        tool("ip", &line.split(' ').collect::<Vec<_>>());
    }
    let underlay = view(&settings(), 0).underlay().clone();
    let mtu = |addresses: &[&str]| {
        let listed = addresses.iter().enumerate().map(|(number, address)| {
            let node = NodeId::new(format!("n{number}")).unwrap();
            let record = NodeRecord::new(node, &[address.parse().unwrap()], Port::VXLAN, &[], &[]);
            Listed { path: number.to_string(), record }
        });
        identity::path_mtu(&mut Netlink::open().unwrap(), &underlay, &listed.collect::<Vec<_>>()).unwrap()
    };
    assert_eq!(mtu(&["192.0.2.1", "192.0.2.7", "198.51.200.1"]), 1500);
    assert_eq!(mtu(&["192.0.2.1", "198.51.100.1", "192.0.2.7"]), 1400, "what a route says");
    assert_eq!(mtu(&["198.18.2.1", "203.0.113.7"]), 1300, "what a link carries");
    assert_eq!(mtu(&["198.18.1.7"]), 1300, "of several ways, the smallest");
    // More than are asked for at once, the last of them the one that counts.
    let many: Vec<String> = (1..=200).map(|last| format!("192.0.2.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain(["198.51.100.1"]).collect();
    assert_eq!(mtu(&many), 1400);
}

/// A bridged network, and the same with a node that has another underlay address.
fn bridged() -> Settings {
    Settings { mode: Mode::Bridged, subnets: vec!["10.40.0.0/16".parse().unwrap()], ..settings() }
}

fn moved(view: &View, node: &str, underlay: &str) -> View {
    let nodes = std::iter::once(view.node()).chain(view.peers()).cloned().map(|record| {
        let ends = if record.node.as_str() == node {
            vec![underlay.parse().unwrap()]
        } else {
            record.underlays().collect()
        };
        NodeRecord::new(record.node, &ends, record.port, &record.vnis, &record.blocks)
    });
    let nodes = nodes.map(|record| Listed { path: record.node.to_string(), record }).collect();
    View::new(view.settings().clone(), view.underlay().clone(), &view.node().node, nodes).unwrap()
}

/// The FDB entries of the device itself.
fn entries() -> Vec<serde_json::Value> {
    let text = tool("/sbin/bridge", &["-j", "fdb", "show", "dev", "vx-blue"]);
    let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    all.into_iter().filter(|entry| entry["flags"][0] == "self").collect()
}

#[test]
fn a_bridged_network_knows_every_address_of_its_peers() {
    let _host = host();
    let before = Snapshot::take();
    let view = view(&bridged(), 2);
    let addresses: usize = view.peers().iter().map(|peer| endpoints(&peer.blocks).count()).sum();
    assert_eq!(addresses, 2 * 16);
    // A neighbour and a forwarding entry each, and for each peer a nexthop and its group.
    assert_eq!(program(&view, Purge::Guarded).unwrap().set, 2 * addresses + 2 * 2);
    assert_eq!(program(&view, Purge::Guarded).unwrap(), Report::default());
    verify(&view).unwrap();
    let entries = entries();
    assert_eq!(entries.len(), addresses);
    assert!(entries.iter().all(|entry| entry["nhid"].is_u64() && entry["dst"].is_null()), "{entries:?}");
    let port = &ip_json("link show vx-blue")[0]["linkinfo"]["info_slave_data"];
    assert_eq!(
        (&port["learning"], &port["bcast_flood"], &port["neigh_suppress"]),
        (&false.into(), &false.into(), &true.into())
    );
    remove(&bridged()).unwrap();
    before.assert_same(&Snapshot::take());
}

#[test]
fn of_a_node_that_moves_one_nexthop_is_replaced() {
    let _host = host();
    let view = view(&bridged(), 3);
    program(&view, Purge::Guarded).unwrap();
    let before = entries();
    let moved = moved(&view, "n2", "192.0.2.222");
    assert_eq!(program(&moved, Purge::Guarded).unwrap(), Report { set: 1, removed: 0, withheld: 0 });
    assert_eq!(entries(), before);
    let nexthops = tool("ip", &["nexthop"]);
    assert!(nexthops.contains("via 192.0.2.222") && !nexthops.contains("via 192.0.2.102"), "{nexthops}");
    verify(&moved).unwrap();
}

#[test]
fn nodes_that_swap_addresses_or_go_leave_nothing_wrong() {
    let _host = host();
    let (three, two) = (view(&bridged(), 3), view(&bridged(), 2));
    program(&three, Purge::Guarded).unwrap();
    let swapped = moved(&moved(&moved(&three, "n1", "192.0.2.99"), "n2", "192.0.2.101"), "n1", "192.0.2.102");
    program(&swapped, Purge::Guarded).unwrap();
    verify(&swapped).unwrap();
    assert_eq!(program(&swapped, Purge::Guarded).unwrap(), Report::default());
    // Of one that goes: neighbours, entries of device and bridge, nexthop and group.
    program(&three, Purge::Guarded).unwrap();
    assert_eq!(program(&two, Purge::Guarded).unwrap(), Report { set: 0, removed: 3 * 16 + 2, withheld: 0 });
    assert_eq!((entries().len(), ip_json("nexthop").as_array().unwrap().len()), (2 * 16, 4));
}

#[test]
fn damage_to_a_bridged_networks_entries_is_seen_and_put_right() {
    let _host = host();
    let view = view(&bridged(), 2);
    program(&view, Purge::Guarded).unwrap();
    tool("ip", &["nexthop", "replace", "id", "8", "via", "192.0.2.9", "fdb"]);
    tool("ip", &["nexthop", "replace", "id", "9", "group", "8", "fdb"]);
    for (damage, named) in [
        ("/sbin/bridge fdb del MAC dev vx-blue self", "FDB entry"),
        ("/sbin/bridge fdb del MAC dev vx-blue master", "FDB entry"),
        ("/sbin/bridge fdb replace MAC dev vx-blue self nhid 9", "FDB entry"),
        ("ip nexthop replace id MEMBER via 192.0.2.200 fdb proto 70", "nexthop"),
        ("ip nexthop del id GROUP", "nexthop"),
        ("ip nexthop del id MEMBER", "nexthop"),
        ("ip nexthop flush proto 70", "nexthop"),
        ("ip neigh flush dev vb-blue nud permanent", "neighbour"),
        (
            "ip addr del 10.40.0.1/16 dev vb-blue",
            "address 10.40.0.1/16 of vb-blue of network blue is missing",
        ),
        ("ip link set vb-blue down", "the bridge vb-blue of network blue is down"),
        (
            "ip link set vb-blue address 02:00:00:00:00:01",
            "the hardware address of vb-blue of network blue is 02:",
        ),
        ("ip link set vx-blue nomaster", "the VXLAN device vx-blue of network blue is no port of vb-blue"),
        (
            "/sbin/bridge link set dev vx-blue learning on",
            "learning at port vx-blue of network blue is on, not off",
        ),
        (
            "/sbin/bridge link set dev vx-blue bcast_flood on",
            "flooding at port vx-blue of network blue is on, not off",
        ),
        (
            "/sbin/bridge link set dev vx-blue neigh_suppress off",
            "suppression of neighbour requests at port vx-blue of network blue is off, not on",
        ),
        (
            "ip link set vx-blue type vxlan learning",
            "the VXLAN device vx-blue of network blue is one that learns",
        ),
    ] {
        let entry = entries()[0].clone();
        let group = entry["nhid"].to_string();
        let member = ip_json(&format!("nexthop show id {group}"))[0]["group"][0]["id"].to_string();
        let line = damage.replace("MAC", entry["mac"].as_str().unwrap());
        let line = line.replace("MEMBER", &member).replace("GROUP", &group);
        let words: Vec<&str> = line.split(' ').collect();
        tool(words[0], &words[1..]);
        let seen = verify(&view).unwrap_err().to_string();
        assert!(seen.starts_with(named), "after `{damage}`: {seen}");
        program(&view, Purge::Guarded).unwrap();
        verify(&view).unwrap_or_else(|error| panic!("after `{damage}`: {error}"));
    }
    assert!(tool("ip", &["nexthop"]).contains("id 8 via 192.0.2.9"), "what others have made stays");
    assert_eq!(entries().len(), 2 * 16);
}

#[test]
fn a_kernel_without_nexthops_for_fdb_entries_gets_addresses() {
    let _host = host();
    let view = view(&bridged(), 2);
    let desired = Desired::of(&view);
    let (mut netlink, mut tables) = (Netlink::open().unwrap(), Tables::open().unwrap());
    let links = device::ensure(&mut netlink, &view, &desired).unwrap();
    let read = |tables: &mut Tables, old: bool| {
        let mut actual = Actual::read(tables, &links).unwrap();
        if old {
            actual.without_objects();
        }
        actual
    };
    // Before an update of the kernel's, after it, and after a step back.
    for (old, nexthops) in [(true, 0), (false, 4), (true, 0)] {
        let changes = diff(&desired, &read(&mut tables, old), &links);
        apply(&mut tables, &changes, Purge::Confirmed).unwrap();
        assert!(diff(&desired, &read(&mut tables, old), &links).is_empty());
        assert_eq!(ip_json("nexthop").as_array().unwrap().len(), nexthops);
        assert_eq!(entries().len(), 2 * 16);
        assert_eq!(entries().iter().all(|entry| entry["dst"].is_string()), old);
    }
}

#[test]
fn places_in_blocks_of_both_families_go_together() {
    let blocks: Vec<Cidr> = ["10.50.1.0/30", "fd00:50::10/124"].map(|text| text.parse().unwrap()).into();
    let pairs: Vec<(String, String)> = endpoints(&blocks)
        .map(|endpoint| (endpoint.address.to_string(), endpoint.second.unwrap().to_string()))
        .collect();
    assert_eq!(pairs.first().unwrap(), &("10.50.1.0".to_owned(), "fd00:50::10".to_owned()));
    assert_eq!(pairs.last().unwrap(), &("10.50.1.3".to_owned(), "fd00:50::13".to_owned()));
    assert_eq!(Family::Ipv6.overhead(), 70);
}
