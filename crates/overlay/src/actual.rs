//! What the kernel has for a network, and what has to change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use cni::Cidr;
use ferrule_core::marks::{PROTOCOL, nexthop_window};
use ferrule_core::netlink::{
    Change, Entry, Fdb, FdbTarget, MacAddress, Neighbour, NetlinkError, Nexthop, NexthopKind, PrefixRoute,
    Tables, Way,
};

use crate::desired::{Desired, Hop};

/// Hardware address of the entries for frames that no other entry is for.
const UNKNOWN: MacAddress = MacAddress([0; 6]);

/// The numbers of this host that the objects of a network refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// Index of the VXLAN device.
    pub device: u32,
    /// Index of the bridge, in bridged mode.
    pub bridge: Option<u32>,
    /// Index of the underlay's link.
    pub underlay: u32,
    /// [`crate::Settings::mark`].
    pub mark: u32,
}

/// The objects of a network that the kernel has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    neighbours: HashMap<IpAddr, MacAddress>,
    /// Permanent neighbours that somebody else has made: put right where they are in the way, and never taken away.
    foreign: HashSet<IpAddr>,
    endpoints: HashMap<IpAddr, MacAddress>,
    fdb: HashMap<MacAddress, FdbTarget>,
    /// The addresses that the bridge has an entry for, towards the device.
    switched: HashSet<MacAddress>,
    flood: BTreeSet<IpAddr>,
    /// Our nexthop objects by where they lead.
    nexthops: HashMap<(u32, IpAddr), u32>,
    /// Nexthop objects of ours that lead where none of ours should.
    strays: Vec<Nexthop>,
    /// Every identifier in our range that is taken, by whomever.
    taken: HashSet<u32>,
    routes: BTreeMap<(Cidr, u32), Way>,
    /// Whether the kernel has nexthop objects.
    objects: bool,
}

impl Actual {
    /// Lists what is there: a handful of requests, whatever the number of peers.
    pub fn read(tables: &mut Tables, links: &Links) -> Result<Self, NetlinkError> {
        let mut actual = Self::default();
        for ipv4 in [true, false] {
            for neighbour in tables.neighbours(links.device, ipv4)? {
                actual.neighbours.insert(neighbour.address, neighbour.mac);
                if neighbour.protocol != PROTOCOL {
                    actual.foreign.insert(neighbour.address);
                }
            }
            if let Some(bridge) = links.bridge {
                let own = tables.neighbours(bridge, ipv4)?.into_iter().filter(|n| n.protocol == PROTOCOL);
                actual.endpoints.extend(own.map(|neighbour| (neighbour.address, neighbour.mac)));
            }
            for route in tables.routes(ipv4, PROTOCOL)? {
                if is_of(links, &route) {
                    actual.routes.insert((route.destination, route.metric), route.way);
                }
            }
        }
        for fdb in tables.fdb(links.device)? {
            match fdb.target {
                FdbTarget::Port => {
                    actual.switched.insert(fdb.mac);
                }
                FdbTarget::Vtep(vtep) if fdb.mac == UNKNOWN => {
                    actual.flood.insert(vtep);
                }
                target => {
                    actual.fdb.insert(fdb.mac, target);
                }
            }
        }
        let window = nexthop_window(links.mark);
        if let Some(nexthops) = tables.nexthops()? {
            actual.objects = true;
            for nexthop in nexthops.into_iter().filter(|nexthop| window.contains(&nexthop.id)) {
                actual.taken.insert(nexthop.id);
                match nexthop.kind {
                    NexthopKind::Gateway { link, gateway } if nexthop.protocol == PROTOCOL => {
                        actual.nexthops.insert((link, gateway), nexthop.id);
                    }
                    _ if nexthop.protocol == PROTOCOL => actual.strays.push(nexthop),
                    _ => {}
                }
            }
        }
        Ok(actual)
    }

    /// Treats the kernel as one without nexthop objects (before 5.3).
    pub fn without_objects(&mut self) {
        self.objects = false;
    }

    /// How many entries there are that only peers can be the reason of.
    fn peers(&self) -> usize {
        self.fdb.len() + self.routes.values().filter(|way| **way != Way::Blackhole).count()
    }

    /// Whether a route of ours is this network's, and where it leads.
    fn direct(&self, links: &Links, gateway: IpAddr) -> Option<u32> {
        self.nexthops.get(&(links.underlay, gateway)).copied()
    }
}

/// Whether a route with our protocol number is this network's rather than that of another overlay on this host.
fn is_of(links: &Links, route: &PrefixRoute) -> bool {
    match route.way {
        Way::Nexthop(id) => nexthop_window(links.mark).contains(&id),
        Way::Gateway { link, .. } => link == links.device || route.metric == links.mark,
        Way::Blackhole => route.metric == links.mark,
        Way::Other => false,
    }
}

/// What has to change, in the order in which it may be done: an entry is there before what refers to it, and goes after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// What is made or put right.
    pub set: Vec<Change>,
    /// What is taken away.
    pub remove: Vec<Change>,
    /// How many of the entries that are for peers go, and how many there were.
    lost: usize,
    of: usize,
    none_left: bool,
}

impl Changes {
    /// Whether everything is as it should be.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// Whether so much would go that a mistake is likelier than the truth: all peers, or more than half of at least eight entries. An empty
    /// list is what a source gives that has lost its data.
    pub fn is_drastic(&self) -> bool {
        self.lost > 0 && (self.none_left || (self.of >= 8 && self.lost * 2 > self.of))
    }
}

/// The difference between what should be and what is.
pub fn diff(desired: &Desired, actual: &Actual, links: &Links) -> Changes {
    let mut changes = Changes { of: actual.peers(), none_left: desired.peers == 0, ..Changes::default() };
    let set = &mut changes.set;
    neighbours(desired, actual, links, set);
    fdb(desired, actual, links, set);
    let ways = nexthops(desired, actual, links, set);
    for (destination, hop) in &desired.routes {
        let route = route(*destination, *hop, links, &ways);
        if actual.routes.get(&(route.destination, route.metric)) != Some(&route.way) {
            set.push(Change::Set(Entry::Route(route)));
        }
    }
    removals(desired, actual, links, &ways, &mut changes);
    changes
}

fn neighbours(desired: &Desired, actual: &Actual, links: &Links, set: &mut Vec<Change>) {
    for (table, present, link) in [
        (&desired.neighbours, &actual.neighbours, Some(links.device)),
        (&desired.endpoints, &actual.endpoints, links.bridge),
    ] {
        let Some(link) = link else { continue };
        let missing = table.iter().filter(|(address, mac)| present.get(address) != Some(mac));
        set.extend(
            missing.map(|(address, mac)| Change::Set(Entry::Neighbour(neighbour(link, *address, *mac)))),
        );
    }
}

fn fdb(desired: &Desired, actual: &Actual, links: &Links, set: &mut Vec<Change>) {
    let bridge = links.bridge.is_some();
    for (mac, vtep) in &desired.fdb {
        let target = FdbTarget::Vtep(*vtep);
        let there = actual.fdb.get(mac) == Some(&target);
        if !there || (bridge && !actual.switched.contains(mac)) {
            set.push(Change::Set(Entry::Fdb(Fdb { link: links.device, mac: *mac, target, bridge })));
        }
    }
    for vtep in desired.flood.difference(&actual.flood) {
        set.push(Change::Set(Entry::Fdb(flood(links, *vtep))));
    }
}

/// The nexthop objects of all hops, those that are missing made. Empty where the kernel has none.
fn nexthops(desired: &Desired, actual: &Actual, links: &Links, set: &mut Vec<Change>) -> BTreeMap<Hop, u32> {
    let mut ways = BTreeMap::new();
    if !actual.objects {
        return ways;
    }
    // From the end of what is taken: a number that has just been freed may still be in somebody's log.
    let window = nexthop_window(links.mark);
    let mut free = window.filter(|id| !actual.taken.contains(id));
    let hops: BTreeSet<Hop> = desired.routes.values().copied().filter(|hop| *hop != Hop::Nowhere).collect();
    for hop in hops {
        let Some((link, gateway)) = end_of(hop, links) else { continue };
        let present = match hop {
            Hop::Direct(gateway) => actual.direct(links, gateway),
            _ => actual.nexthops.get(&(link, gateway)).copied(),
        };
        if let Some(id) = present {
            ways.insert(hop, id);
        } else if let Some(id) = free.next() {
            let kind = NexthopKind::Gateway { link, gateway };
            set.push(Change::Set(Entry::Nexthop(Nexthop { id, kind, protocol: PROTOCOL })));
            ways.insert(hop, id);
        }
    }
    ways
}

fn end_of(hop: Hop, links: &Links) -> Option<(u32, IpAddr)> {
    match hop {
        Hop::Tunnel(gateway) => Some((links.device, gateway)),
        Hop::Direct(gateway) => Some((links.underlay, gateway)),
        Hop::Nowhere => None,
    }
}

fn route(destination: Cidr, hop: Hop, links: &Links, ways: &BTreeMap<Hop, u32>) -> PrefixRoute {
    let usual = PrefixRoute::usual_metric(destination.is_ipv4());
    let (way, metric) = match (ways.get(&hop), end_of(hop, links)) {
        (Some(id), _) => (Way::Nexthop(*id), usual),
        // Without objects, the metric is what says whose a route is that does not go through the device.
        (None, Some((link, gateway))) => {
            (Way::Gateway { link, gateway }, if link == links.device { usual } else { links.mark })
        }
        // Behind the route of the bridge that the containers are on, and before any default route.
        (None, None) => (Way::Blackhole, links.mark),
    };
    PrefixRoute { destination, way, metric, protocol: PROTOCOL }
}

fn neighbour(link: u32, address: IpAddr, mac: MacAddress) -> Neighbour {
    Neighbour { link, address, mac, protocol: PROTOCOL }
}

fn flood(links: &Links, vtep: IpAddr) -> Fdb {
    Fdb { link: links.device, mac: UNKNOWN, target: FdbTarget::Vtep(vtep), bridge: false }
}

fn removals(
    desired: &Desired,
    actual: &Actual,
    links: &Links,
    ways: &BTreeMap<Hop, u32>,
    changes: &mut Changes,
) {
    let wanted: HashSet<(Cidr, u32)> = desired
        .routes
        .iter()
        .map(|(destination, hop)| route(*destination, *hop, links, ways))
        .map(|route| (route.destination, route.metric))
        .collect();
    let remove = &mut changes.remove;
    for ((destination, metric), way) in &actual.routes {
        if !wanted.contains(&(*destination, *metric)) {
            let (destination, way, metric) = (*destination, *way, *metric);
            changes.lost += usize::from(way != Way::Blackhole);
            remove.push(Change::Remove(Entry::Route(PrefixRoute {
                destination,
                way,
                metric,
                protocol: PROTOCOL,
            })));
        }
    }
    let used: HashSet<u32> = ways.values().copied().collect();
    for ((link, gateway), id) in actual.nexthops.iter().filter(|(_, id)| !used.contains(id)) {
        let kind = NexthopKind::Gateway { link: *link, gateway: *gateway };
        remove.push(Change::Remove(Entry::Nexthop(Nexthop { id: *id, kind, protocol: PROTOCOL })));
    }
    let strays = actual.strays.iter().cloned();
    remove.extend(strays.map(|nexthop| Change::Remove(Entry::Nexthop(nexthop))));
    for (table, present, link) in [
        (&desired.neighbours, &actual.neighbours, Some(links.device)),
        (&desired.endpoints, &actual.endpoints, links.bridge),
    ] {
        let Some(link) = link else { continue };
        let stale = present.iter().filter(|(address, _)| !table.contains_key(address));
        let own = stale.filter(|(address, _)| link != links.device || !actual.foreign.contains(address));
        remove.extend(
            own.map(|(address, mac)| Change::Remove(Entry::Neighbour(neighbour(link, *address, *mac)))),
        );
    }
    for (mac, target) in actual.fdb.iter().filter(|(mac, _)| !desired.fdb.contains_key(mac)) {
        changes.lost += 1;
        let fdb = Fdb { link: links.device, mac: *mac, target: *target, bridge: false };
        remove.push(Change::Remove(Entry::Fdb(fdb)));
    }
    for mac in actual.switched.iter().filter(|mac| !desired.fdb.contains_key(mac)) {
        let fdb = Fdb { link: links.device, mac: *mac, target: FdbTarget::Port, bridge: true };
        remove.push(Change::Remove(Entry::Fdb(fdb)));
    }
    for vtep in actual.flood.difference(&desired.flood) {
        remove.push(Change::Remove(Entry::Fdb(flood(links, *vtep))));
    }
}
