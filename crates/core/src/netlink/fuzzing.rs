//! Answers of rtnetlink as a fuzz target sees them.

use super::entry::{Change, Entry, Fdb, FdbTarget, Neighbour, Nexthop, PrefixRoute};
use super::message::{LinkHeader, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE};
use super::{Link, address, bridge, route, socket};

/// Reads a datagram as every list does; an entry that is understood means the same when it is sent back.
pub fn rtnetlink(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((heard, next)) = socket::split(rest) {
        assert!(next.len() < rest.len(), "the same message again and again");
        let _ = heard.refusal();
        entries(heard.payload);
        object(heard.kind, heard.payload);
        rest = next;
    }
    // Without the detour over headers, so that the readers behind them are reached soon.
    entries(bytes);
    for kind in [RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE] {
        object(kind, bytes);
    }
}

fn entries(payload: &[u8]) {
    if let Some(neighbour) = Neighbour::decode(payload) {
        assert_eq!(Neighbour::decode(&sent(Entry::Neighbour(neighbour))), Some(neighbour));
    }
    // Of a bridge's entry the kernel tells more than it is asked for.
    if let Some(fdb) = Fdb::decode(payload).filter(|fdb| fdb.target != FdbTarget::Port) {
        assert_eq!(Fdb::decode(&sent(Entry::Fdb(fdb))), Some(fdb));
    }
    if let Some(nexthop) = Nexthop::decode(payload) {
        assert_eq!(Nexthop::decode(&sent(Entry::Nexthop(nexthop.clone()))), Some(nexthop));
    }
    if let Some(route) = PrefixRoute::decode(payload) {
        // What is sent has no host bits, which the kernel would refuse.
        let wanted = PrefixRoute { destination: route.destination.network(), ..route };
        assert_eq!(PrefixRoute::decode(&sent(Entry::Route(route))), Some(wanted));
    }
}

fn sent(entry: Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    Change::Set(entry).encode(&mut bytes);
    bytes
}

fn object(kind: u16, payload: &[u8]) {
    match kind {
        RTM_NEWLINK => link(payload),
        RTM_NEWADDR => {
            if let Some((_, found)) = address::read(payload) {
                assert!(found.cidr.prefix() <= found.cidr.bits());
            }
        }
        RTM_NEWROUTE => {
            for ipv4 in [true, false] {
                if let Some(found) = route::read(payload, 2, ipv4) {
                    assert!(found.dst.prefix() <= found.dst.bits());
                }
            }
        }
        _ => {}
    }
}

fn link(payload: &[u8]) {
    let Some((header, _)) = LinkHeader::split(payload) else { return };
    if let Some(link) = Link::decode(payload) {
        assert_eq!(link.index, header.index);
    }
    let _ = bridge::PortSettings::decode(payload);
    let _ = bridge::vlans(payload, header.index);
}
