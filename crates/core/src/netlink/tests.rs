//! Requests and answers beside what `rtnetlink`'s own encoders and decoders make of them.

use std::net::IpAddr;
use std::os::fd::AsFd;

use cni::{Cidr, LinkName};
use netlink_packet_core::{Emitable, NetlinkSerializable};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecBridge, AfSpecInet6, AfSpecUnspec, BridgeVlanInfo, BridgeVlanInfoFlags, In6AddrGenMode, InfoBridge,
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, InfoVxlan, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, State,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteMessage, RouteMetric, RouteNextHop, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage as Theirs};

use super::bridge::{self, BridgeSettings, PortSettings, Vlan, VlanRange};
use super::link::{self, Link, LinkChange, VethPairSpec};
use super::message::{
    AF_INET, LinkHeader, Message, RTM_DELADDR, RTM_DELLINK, RTM_DELNEIGH, RTM_DELROUTE, RTM_GETLINK,
    RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE, RTM_SETLINK,
};
use super::vxlan::{self, VxlanSettings};
use super::{AddressState, MacAddress, Netlink, RouteEntry, address, route};

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);

fn encoded(message: &impl NetlinkSerializable) -> (u16, Vec<u8>) {
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    (message.message_type(), bytes)
}

#[track_caller]
fn same(ours: &Message, theirs: &Theirs) {
    assert!(ours.content.is_encodable());
    assert_eq!((ours.kind, ours.content.as_bytes().to_vec()), encoded(theirs), "{theirs:?}");
}

fn bytes(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn name(text: &str) -> LinkName {
    LinkName::new(text).unwrap()
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link_message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

fn info(kind: InfoKind, data: Option<InfoData>) -> LinkAttribute {
    let mut infos = vec![LinkInfo::Kind(kind)];
    infos.extend(data.map(LinkInfo::Data));
    LinkAttribute::LinkInfo(infos)
}

#[test]
fn requests_for_pairs_are_those_of_the_crate() {
    let ours = link::veth(&name("veth0"), Some(MAC), Some(1400), |peer| {
        peer.string(link::IFLA_IFNAME, "eth0");
    });
    let peer = link_message(0, vec![LinkAttribute::IfName("eth0".to_owned())]);
    let theirs = vec![
        LinkAttribute::IfName("veth0".to_owned()),
        LinkAttribute::Mtu(1400),
        LinkAttribute::Address(MAC.0.to_vec()),
        info(InfoKind::Veth, Some(InfoData::Veth(InfoVeth::Peer(peer)))),
    ];
    same(&ours, &Theirs::NewLink(link_message(0, theirs)));
}

#[test]
fn the_far_end_of_a_pair_is_described_as_the_crate_does() {
    let (host, container, file) = (name("veth0"), name("eth0"), std::fs::File::open("/dev/null").unwrap());
    let spec = VethPairSpec {
        host: &host,
        container: &container,
        netns: file.as_fd(),
        mtu: Some(1400),
        mac: Some(MAC),
    };
    let peer = vec![
        LinkAttribute::IfName("eth0".to_owned()),
        LinkAttribute::NetNsFd(std::os::fd::AsRawFd::as_raw_fd(&file)),
        LinkAttribute::Mtu(1400),
        LinkAttribute::Address(MAC.0.to_vec()),
    ];
    let theirs = vec![
        LinkAttribute::IfName("veth0".to_owned()),
        LinkAttribute::Mtu(1400),
        info(InfoKind::Veth, Some(InfoData::Veth(InfoVeth::Peer(link_message(0, peer))))),
    ];
    same(&spec.message(), &Theirs::NewLink(link_message(0, theirs)));
}

#[test]
fn changes_of_links_are_those_of_the_crate() {
    let change = LinkChange {
        up: Some(true),
        promiscuous: Some(false),
        all_multicast: Some(true),
        master: Some(3),
        mtu: Some(9000),
        mac: Some(MAC),
        alias: Some(String::new()),
        tx_queue_len: Some(5),
        arp_notify: None, // the crate reads it, and does not write it
        no_link_local: true,
    };
    let mut theirs = link_message(
        7,
        vec![
            LinkAttribute::Controller(3),
            LinkAttribute::Mtu(9000),
            LinkAttribute::Address(MAC.0.to_vec()),
            LinkAttribute::IfAlias(String::new()),
            LinkAttribute::TxQueueLen(5),
            LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
                In6AddrGenMode::None,
            )])]),
        ],
    );
    theirs.header.change_mask = LinkFlags::Up | LinkFlags::Promisc | LinkFlags::Allmulti;
    theirs.header.flags = LinkFlags::Up | LinkFlags::Allmulti;
    same(&change.message(7), &Theirs::SetLink(theirs));
    let of_index = LinkHeader { index: 7, ..LinkHeader::default() };
    same(&Message::link(RTM_DELLINK, of_index), &Theirs::DelLink(link_message(7, Vec::new())));
    let mut lookup = Message::link(RTM_GETLINK, LinkHeader::default());
    lookup.content.string(link::IFLA_IFNAME, "lo").u32(link::IFLA_EXT_MASK, link::RTEXT_FILTER_SKIP_STATS);
    let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    let theirs = vec![LinkAttribute::IfName("lo".to_owned()), mask.clone()];
    same(&lookup, &Theirs::GetLink(link_message(0, theirs)));
    same(&vxlan::list(), &Theirs::GetLink(link_message(0, vec![mask, info(InfoKind::Vxlan, None)])));
}

#[test]
fn requests_for_bridges_and_their_ports_are_those_of_the_crate() {
    let data = InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)]);
    let settings = BridgeSettings { mtu: Some(1400), mac: Some(MAC), vlan_filtering: Some(true) };
    let mut ours = link::new_link(&name("cni0"), settings.mac, settings.mtu);
    settings.write(&mut ours);
    let theirs = vec![
        LinkAttribute::IfName("cni0".to_owned()),
        LinkAttribute::Mtu(1400),
        LinkAttribute::Address(MAC.0.to_vec()),
        info(InfoKind::Bridge, Some(data)),
    ];
    same(&ours, &Theirs::NewLink(link_message(0, theirs)));

    let settings = PortSettings {
        hairpin: Some(true),
        isolated: Some(false),
        learning: Some(true),
        locked: Some(false),
        flood: Some(true),
        suppress_neighbours: Some(true),
    };
    let data = vec![
        InfoBridgePort::HairpinMode(true),
        InfoBridgePort::Isolated(false),
        InfoBridgePort::Learning(true),
        InfoBridgePort::Locked(false),
        InfoBridgePort::UnicastFlood(true),
        InfoBridgePort::MulticastFlood(true),
        InfoBridgePort::BroadcastFlood(true),
        InfoBridgePort::NeighSupress(true),
    ];
    let theirs = link_message(
        7,
        vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(data)),
        ])],
    );
    assert_eq!(PortSettings::decode(&bytes(&theirs)), Some(settings));
    same(&settings.message(7), &Theirs::NewLink(theirs));
}

#[test]
fn vlans_are_written_and_read_as_by_the_crate() {
    let ranges = [
        VlanRange { first: 5, last: 5, pvid: true, untagged: true },
        VlanRange { first: 100, last: 200, pvid: false, untagged: false },
    ];
    let vlan = |flags, vid| AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid });
    let both = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
    let mut theirs = link_message(
        7,
        vec![LinkAttribute::AfSpecBridge(vec![
            vlan(both, 5),
            vlan(BridgeVlanInfoFlags::RangeBegin, 100),
            vlan(BridgeVlanInfoFlags::RangeEnd, 200),
        ])],
    );
    theirs.header.interface_family = AddressFamily::Bridge;
    let found = bridge::vlans(&bytes(&theirs), 7);
    assert_eq!(found.first(), Some(&Vlan { id: 5, pvid: true, untagged: true }));
    assert_eq!(found.get(2), Some(&Vlan { id: 200, pvid: false, untagged: false }));
    assert!(bridge::vlans(&bytes(&theirs), 8).is_empty());
    same(&bridge::vlan_message(RTM_SETLINK, 7, &ranges), &Theirs::SetLink(theirs.clone()));
    same(&bridge::vlan_message(RTM_DELLINK, 7, &ranges), &Theirs::DelLink(theirs));
}

#[test]
fn vxlan_devices_are_written_and_read_as_by_the_crate() {
    for (local, group) in [("192.0.2.1", "239.0.0.1"), ("2001:db8::1", "ff05::1")] {
        let (local, group) = (ip(local), ip(group));
        let settings = VxlanSettings {
            vni: 42,
            port: 4789,
            local: Some(local),
            group: Some(group),
            link: Some(3),
            learning: true,
            exclusive: false,
        };
        let data = vec![
            InfoVxlan::Id(42),
            InfoVxlan::Port(4789),
            InfoVxlan::Learning(true),
            match local {
                IpAddr::V4(v4) => InfoVxlan::Local(v4),
                IpAddr::V6(v6) => InfoVxlan::Local6(v6),
            },
            match group {
                IpAddr::V4(v4) => InfoVxlan::Group(v4),
                IpAddr::V6(v6) => InfoVxlan::Group6(v6),
            },
            InfoVxlan::Link(3),
        ];
        let theirs = link_message(0, vec![info(InfoKind::Vxlan, Some(InfoData::Vxlan(data)))]);
        assert_eq!(Link::decode(&bytes(&theirs)).unwrap().vxlan.as_ref(), Some(&settings));
        let mut ours = Message::link(RTM_NEWLINK, LinkHeader::default());
        vxlan::write_info(&mut ours, |data| settings.write(data));
        same(&ours, &Theirs::NewLink(theirs));
    }
}

#[test]
fn links_are_read_as_the_crate_writes_them() {
    let mut message = link_message(
        7,
        vec![
            LinkAttribute::IfName("cni0".to_owned()),
            LinkAttribute::TxQueueLen(1000),
            LinkAttribute::OperState(State::Up),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Promiscuity(2),
            LinkAttribute::IfAlias("ferrule (shared)".to_owned()),
            LinkAttribute::Address(MAC.0.to_vec()),
            LinkAttribute::Controller(4),
            LinkAttribute::Link(5),
            info(InfoKind::Bridge, Some(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)]))),
        ],
    );
    message.header.flags = LinkFlags::Up | LinkFlags::Promisc | LinkFlags::Allmulti;
    let expected = Link {
        index: 7,
        name: "cni0".to_owned(),
        kind: "bridge".to_owned(),
        mac: "02:00:00:00:00:07".to_owned(),
        mtu: 1500,
        tx_queue_len: 1000,
        master: Some(4),
        peer: Some(5),
        alias: "ferrule (shared)".to_owned(),
        up: true,
        running: true,
        promiscuous: true,
        promiscuity: 2,
        all_multicast: true,
        vlan_filtering: Some(true),
        vxlan: None,
        accept_ra: None,
    };
    let whole = bytes(&message);
    assert_eq!(Link::decode(&whole), Some(expected));
    for (state, running) in [(State::Unknown, true), (State::Down, false), (State::LowerLayerDown, false)] {
        let message = link_message(7, vec![LinkAttribute::OperState(state)]);
        assert_eq!(Link::decode(&bytes(&message)).map(|link| link.running), Some(running), "{state:?}");
    }
    for cut in 0..whole.len() {
        assert_eq!(Link::decode(&whole[..cut]).is_some(), cut >= 16, "cut at {cut}");
    }
}

#[test]
fn addresses_are_written_and_read_as_by_the_crate() {
    for (text, state, flags) in [
        ("10.1.2.3/24", AddressState::Ready, AddressFlags::Permanent),
        ("fd00::3/64", AddressState::Tentative, AddressFlags::Tentative),
        ("fd00::4/64", AddressState::Duplicate, AddressFlags::Tentative | AddressFlags::Dadfailed),
    ] {
        let cidr = cidr(text);
        let mut theirs = AddressMessage::default();
        theirs.header.index = 7;
        theirs.header.prefix_len = cidr.prefix();
        theirs.header.family = if cidr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        theirs.attributes =
            vec![AddressAttribute::Local(cidr.address()), AddressAttribute::Address(cidr.address())];
        same(&address::message(RTM_NEWADDR, 7, &cidr), &Theirs::NewAddress(theirs.clone()));
        same(&address::message(RTM_DELADDR, 7, &cidr), &Theirs::DelAddress(theirs.clone()));
        theirs.attributes.push(AddressAttribute::Flags(flags));
        let (index, found) = address::read(&bytes(&theirs)).unwrap();
        assert_eq!((index, found.cidr, found.state), (7, cidr, state));
    }
}

#[test]
fn routes_are_written_and_read_as_by_the_crate() {
    for (dst, gateway) in [("10.0.0.0/8", Some("10.1.0.1")), ("fd00::/16", Some("fe80::1")), ("::/0", None)] {
        let mut route = RouteEntry::new(cidr(dst), gateway.map(ip));
        route.mtu = Some(1400);
        route.advmss = Some(1360);
        route.priority = Some(100);
        route.table = Some(1000);
        route.scope = Some(0);
        let mut theirs = RouteMessage::default();
        theirs.header.address_family =
            if route.dst.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        theirs.header.destination_prefix_length = route.dst.prefix();
        theirs.header.protocol = RouteProtocol::Boot;
        theirs.header.kind = RouteType::Unicast;
        theirs.header.scope = RouteScope::Universe;
        if !route.dst.is_default() {
            theirs.attributes.push(RouteAttribute::Destination(route.dst.address().into()));
        }
        theirs.attributes.extend([RouteAttribute::Oif(7), RouteAttribute::Table(1000)]);
        theirs.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        let metrics = vec![RouteMetric::Mtu(1400), RouteMetric::Advmss(1360)];
        theirs.attributes.extend([RouteAttribute::Priority(100), RouteAttribute::Metrics(metrics)]);
        let payload = bytes(&theirs);
        assert_eq!(route::read(&payload, 7, route.dst.is_ipv4()), Some(route.clone()));
        assert_eq!(route::read(&payload, 8, route.dst.is_ipv4()), None, "through another link");
        same(&route::message(RTM_NEWROUTE, 7, &route), &Theirs::NewRoute(theirs.clone()));
        same(&route::message(RTM_DELROUTE, 7, &route), &Theirs::DelRoute(theirs.clone()));
        theirs.header.kind = RouteType::Local;
        assert_eq!(route::read(&bytes(&theirs), 7, route.dst.is_ipv4()), None, "of the machine itself");
    }
}

#[test]
fn a_route_of_several_ways_is_one_through_each_of_their_links() {
    let hop = |index: u32| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = index;
        hop.attributes.push(RouteAttribute::Gateway(ip("10.1.0.1").into()));
        hop
    };
    let mut theirs = RouteMessage::default();
    theirs.header.address_family = AddressFamily::Inet;
    theirs.header.kind = RouteType::Unicast;
    theirs.attributes.push(RouteAttribute::MultiPath(vec![hop(7), hop(8)]));
    let payload = bytes(&theirs);
    let through: Vec<_> = (6..10).filter(|index| route::read(&payload, *index, true).is_some()).collect();
    assert_eq!(through, [7, 8]);
}

#[test]
fn a_question_who_has_an_address_is_that_of_the_crate() {
    let mut theirs = NeighbourMessage::default();
    theirs.header.ifindex = 7;
    theirs.header.family = AddressFamily::Inet;
    theirs.header.state = NeighbourState::None;
    let address = NeighbourAddress::Inet("192.0.2.9".parse().unwrap());
    theirs.attributes.push(NeighbourAttribute::Destination(address));
    let ours = |kind, flags| {
        let mut message = Message::neighbour(kind, AF_INET, 7, flags);
        message.content.ip(1, ip("192.0.2.9"));
        message
    };
    same(&ours(RTM_DELNEIGH, 0), &Theirs::DelNeighbour(theirs.clone()));
    theirs.header.flags = NeighbourFlags::Use;
    same(&ours(RTM_NEWNEIGH, 1), &Theirs::NewNeighbour(theirs));
}

#[test]
fn what_is_no_mac_is_quoted_in_one_short_line() {
    let error = "0:".repeat(5000).parse::<MacAddress>().unwrap_err().to_string();
    assert!(error.ends_with("…` is not a MAC address such as 02:42:ac:11:00:02"), "{error}");
    assert!(error.len() < 300, "{} bytes", error.len());
}

#[test]
fn links_that_go_together_take_no_other_with_them() {
    let mut netlink = Netlink::open().unwrap();
    for bridge in ["one", "two", "three", "stays", "grouped"] {
        netlink.create_bridge(&name(bridge), &BridgeSettings::default()).unwrap();
    }
    testkit::tool("ip", &["link", "set", "grouped", "group", "7"]);
    let index = |netlink: &mut Netlink, name: &str| netlink.link(name).unwrap().unwrap().index;
    let leaving = ["one", "two", "three"].map(|name| (index(&mut netlink, name), name));
    // One that has gone meanwhile changes nothing.
    netlink.delete_link(leaving[1].0, "two").unwrap();
    netlink.delete_links(&leaving).unwrap();
    let left: Vec<String> = netlink.links().unwrap().into_iter().map(|link| link.name).collect();
    assert_eq!(left, ["lo", "stays", "grouped"]);
    netlink.delete_links(&leaving).unwrap();
    netlink.delete_links(&[]).unwrap();
}

#[test]
fn a_link_local_address_follows_from_the_hardware_address() {
    // The example of RFC 4291, appendix A, with an address of its kind.
    let mac: MacAddress = "34:56:78:9a:bc:de".parse().unwrap();
    assert_eq!(mac.link_local(), "fe80::3656:78ff:fe9a:bcde".parse::<std::net::Ipv6Addr>().unwrap());
}

/// The numbers of sysctls are the kernel's own, and the files say the same.
#[test]
fn sysctls_of_a_link_are_those_of_proc() {
    let host = testkit::Host::new();
    let file = |family: &str, name: &str| format!("/proc/sys/net/{family}/conf/lo/{name}");
    let mut netlink = Netlink::open().unwrap();
    for value in ["0", "2"] {
        std::fs::write(file("ipv6", "accept_ra"), value).unwrap();
        assert_eq!(netlink.link("lo").unwrap().unwrap().accept_ra, value.parse().ok());
    }
    let index = netlink.link_index("lo").unwrap().unwrap();
    for value in [1, 0] {
        let change = LinkChange { arp_notify: Some(value), ..LinkChange::default() };
        netlink.change_link(index, "lo", &change).unwrap();
        let found = std::fs::read_to_string(file("ipv4", "arp_notify")).unwrap();
        assert_eq!(found.trim(), value.to_string());
    }
    drop(host);
}

/// So many pairs of links.
pub(super) fn pairs(count: usize) {
    for number in 0..count {
        testkit::tool(
            "ip",
            &["link", "add", &format!("v{number}"), "type", "veth", "peer", "name", &format!("p{number}")],
        );
    }
}

#[test]
fn an_answer_of_any_size_is_read() {
    let host = testkit::Host::new();
    pairs(40);
    let mut netlink = Netlink::open().unwrap();
    netlink.use_little_room();
    assert_eq!(netlink.link("lo").unwrap().unwrap().index, 1);
    assert_eq!(netlink.links().unwrap().len(), 81);
    let lo = netlink.link("lo").unwrap().unwrap().index;
    for number in 1..60_u8 {
        testkit::tool("ip", &["address", "add", &format!("127.1.1.{number}/32"), "dev", "lo"]);
    }
    netlink.use_little_room();
    assert_eq!(netlink.addresses(lo).unwrap().iter().filter(|found| found.cidr.is_ipv4()).count(), 60);
    drop(host);
}
