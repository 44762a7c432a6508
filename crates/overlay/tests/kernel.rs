//! Views made so on a host made of namespaces: what `ip` and `bridge` see of it, and what is found and put right.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::{IpAddr, Ipv4Addr};

use cni::{Cidr, LinkName, NetworkName};
use ferrule_core::netlink::{Netlink, Tables};
use ferrule_overlay::{
    Actual, Desired, Family, Listed, Mode, NodeId, NodeRecord, Port, Purge, Report, Settings, Underlay, View,
    Vni, apply, device, diff, endpoints, program, reconcile, remove, verify,
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
fn a_bridged_network_knows_every_address_of_its_peers() {
    let _host = host();
    let settings =
        Settings { mode: Mode::Bridged, subnets: vec!["10.40.0.0/16".parse().unwrap()], ..settings() };
    let view = view(&settings, 2);
    let addresses: usize = view.peers().iter().map(|peer| endpoints(&peer.blocks).count()).sum();
    assert_eq!(addresses, 2 * 16);
    assert_eq!(program(&view, Purge::Guarded).unwrap().set, 2 * addresses);
    assert_eq!(program(&view, Purge::Guarded).unwrap(), Report::default());
    let port = &ip_json("link show vx-blue")[0]["linkinfo"]["info_slave_data"];
    assert_eq!(
        (&port["learning"], &port["bcast_flood"], &port["neigh_suppress"]),
        (&false.into(), &false.into(), &true.into())
    );
    remove(&settings).unwrap();
    assert!(ip_json("link show").as_array().unwrap().iter().all(|link| link["ifname"] != "vb-blue"));
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
