//! What has to change, from what should be and what is.

use std::collections::HashSet;
use std::net::IpAddr;

use cni::Cidr;
use ferrule_core::marks::{PROTOCOL, nexthop_window};
use ferrule_core::netlink::{
    Change, Entry, Fdb, FdbTarget, MacAddress, Neighbour, Nexthop, NexthopKind, PrefixRoute, Way,
};

use crate::actual::{Actual, Group, Links, UNKNOWN};
use crate::desired::{Desired, Hop};
use crate::table::Table;

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

    fn set(&mut self, entry: Entry) {
        self.set.push(Change::Set(entry));
    }

    fn remove(&mut self, entry: Entry) {
        self.remove.push(Change::Remove(entry));
    }
}

/// The difference between what should be and what is.
pub fn diff(desired: &Desired, actual: &Actual, links: &Links) -> Changes {
    let mut changes = Changes { of: actual.peers(), none_left: desired.peers == 0, ..Changes::default() };
    let mut numbers = Numbers::new(actual, links);
    neighbours(desired, actual, links, &mut changes);
    let groups = groups(desired, actual, &mut numbers, &mut changes);
    fdb(desired, actual, links, &groups, &mut changes);
    routes(desired, actual, links, &mut numbers, &mut changes);
    numbers.used.sort_unstable();
    for nexthop in &actual.own {
        if numbers.used.binary_search(&nexthop.id).is_err() {
            changes.remove(Entry::Nexthop(nexthop.clone()));
        }
    }
    // What refers to something goes before it.
    changes.remove.sort_by_key(|change| match change {
        Change::Set(Entry::Route(_)) | Change::Remove(Entry::Route(_)) => 0,
        Change::Set(Entry::Fdb(_)) | Change::Remove(Entry::Fdb(_)) => 1,
        Change::Set(Entry::Nexthop(_)) | Change::Remove(Entry::Nexthop(_)) => 2,
        Change::Set(Entry::Neighbour(_)) | Change::Remove(Entry::Neighbour(_)) => 3,
    });
    changes
}

/// The identifiers of nexthop objects: which are free, and which go on being used.
struct Numbers<F> {
    free: F,
    used: Vec<u32>,
}

impl<'a> Numbers<Box<dyn Iterator<Item = u32> + 'a>> {
    fn new(actual: &'a Actual, links: &Links) -> Self {
        let free = nexthop_window(links.mark).filter(|id| actual.taken.binary_search(id).is_err());
        Self { free: Box::new(free), used: Vec::new() }
    }
}

fn neighbours(desired: &Desired, actual: &Actual, links: &Links, changes: &mut Changes) {
    let entry = |link, address: &IpAddr, mac: MacAddress| {
        Entry::Neighbour(Neighbour { link, address: *address, mac, protocol: PROTOCOL })
    };
    desired.neighbours.compare(&actual.neighbours, |address, wanted, found| match (wanted, found) {
        (Some(mac), found) if found.map(|found| found.mac) != Some(*mac) => {
            changes.set(entry(links.device, address, *mac));
        }
        (None, Some(found)) if !found.foreign => changes.remove(entry(links.device, address, found.mac)),
        _ => {}
    });
    let Some(bridge) = links.bridge else { return };
    desired.endpoints.compare(&actual.endpoints, |address, wanted, found| match (wanted, found) {
        (Some(mac), found) if found != Some(mac) => changes.set(entry(bridge, address, *mac)),
        (None, Some(mac)) => changes.remove(entry(bridge, address, *mac)),
        _ => {}
    });
}

/// The group of each tunnel end, made where there is none; empty where the kernel knows no groups for FDB entries.
///
/// A node that has moved has its group still, by the hardware addresses which lead to it: then one nexthop is replaced, and all of them lead to
/// the new place at once.
fn groups<F: Iterator<Item = u32>>(
    desired: &Desired,
    actual: &Actual,
    numbers: &mut Numbers<F>,
    changes: &mut Changes,
) -> Vec<Option<u32>> {
    if !actual.fdb_objects {
        return Vec::new();
    }
    let mut groups: Vec<Option<Group>> =
        desired.vteps.iter().map(|vtep| actual.groups.get(vtep).copied()).collect();
    if groups.iter().any(Option::is_none) {
        let mut claimed: HashSet<u32> = groups.iter().flatten().map(|group| group.id).collect();
        let known: Table<u32, Group> = actual.groups.iter().map(|(_, group)| (group.id, *group)).collect();
        desired.fdb.compare(&actual.fdb, |_, place, found| {
            let (Some(place), Some(FdbTarget::Nexthops(id))) = (place, found) else { return };
            let (Some(group @ None), Some(vtep)) = (groups.get_mut(*place), desired.vteps.get(*place)) else {
                return;
            };
            if let Some(moved) = known.get(id).filter(|_| claimed.insert(*id)) {
                *group = Some(*moved);
                changes.set(tunnel_end(moved.member, *vtep));
            }
        });
    }
    for (group, vtep) in groups.iter_mut().zip(&desired.vteps) {
        if group.is_none()
            && let (Some(member), Some(id)) = (numbers.free.next(), numbers.free.next())
        {
            changes.set(tunnel_end(member, *vtep));
            let kind = NexthopKind::VtepGroup(vec![member]);
            changes.set(Entry::Nexthop(Nexthop { id, kind, protocol: PROTOCOL }));
            *group = Some(Group { id, member });
        }
    }
    numbers.used.extend(groups.iter().flatten().flat_map(|group| [group.id, group.member]));
    groups.into_iter().map(|group| group.map(|group| group.id)).collect()
}

fn tunnel_end(id: u32, vtep: IpAddr) -> Entry {
    Entry::Nexthop(Nexthop { id, kind: NexthopKind::Vtep(vtep), protocol: PROTOCOL })
}

fn fdb(desired: &Desired, actual: &Actual, links: &Links, groups: &[Option<u32>], changes: &mut Changes) {
    let link = links.device;
    let targets: Vec<FdbTarget> = desired
        .vteps
        .iter()
        .enumerate()
        .map(|(place, vtep)| match groups.get(place).copied().flatten() {
            Some(group) => FdbTarget::Nexthops(group),
            None => FdbTarget::Vtep(*vtep),
        })
        .collect();
    desired.fdb.compare(&actual.fdb, |mac, place, found| {
        let wanted = place.and_then(|place| targets.get(*place)).copied();
        let is_group = |target: &FdbTarget| matches!(target, FdbTarget::Nexthops(_));
        match (wanted, found) {
            (Some(target), found) => {
                if found == Some(&target) && (links.bridge.is_none() || actual.switched.contains(mac)) {
                    return;
                }
                // An entry that leads to a group can't be made one that leads to an address, nor the other way round.
                if let Some(other) = found.filter(|other| is_group(other) != is_group(&target)) {
                    let old = Fdb { link, mac: *mac, target: *other, bridge: false };
                    changes.set.push(Change::Remove(Entry::Fdb(old)));
                }
                changes.set(Entry::Fdb(Fdb { link, mac: *mac, target, bridge: links.bridge.is_some() }));
            }
            (None, Some(target)) => {
                changes.lost += 1;
                changes.remove(Entry::Fdb(Fdb { link, mac: *mac, target: *target, bridge: false }));
            }
            (None, None) => {}
        }
    });
    desired.fdb.compare(&actual.switched, |mac, wanted, _| {
        if wanted.is_none() {
            changes.remove(Entry::Fdb(Fdb { link, mac: *mac, target: FdbTarget::Port, bridge: true }));
        }
    });
    for vtep in desired.flood.difference(&actual.flood) {
        changes.set(Entry::Fdb(flood(links, *vtep)));
    }
    for vtep in actual.flood.difference(&desired.flood) {
        changes.remove(Entry::Fdb(flood(links, *vtep)));
    }
}

fn flood(links: &Links, vtep: IpAddr) -> Fdb {
    Fdb { link: links.device, mac: UNKNOWN, target: FdbTarget::Vtep(vtep), bridge: false }
}

fn routes<F: Iterator<Item = u32>>(
    desired: &Desired,
    actual: &Actual,
    links: &Links,
    numbers: &mut Numbers<F>,
    changes: &mut Changes,
) {
    let ways = nexthops(desired, actual, links, numbers, changes);
    let wanted: Table<(Cidr, u32), Way> = desired
        .routes
        .iter()
        .map(|(destination, hop)| {
            let (way, metric) = way(*destination, *hop, links, &ways);
            ((*destination, metric), way)
        })
        .collect();
    wanted.compare(&actual.routes, |(destination, metric), wanted, found| {
        let entry = |way| {
            let (destination, metric) = (*destination, *metric);
            Entry::Route(PrefixRoute { destination, way, metric, protocol: PROTOCOL })
        };
        match (wanted, found) {
            (Some(way), found) if found != Some(way) => changes.set(entry(*way)),
            (None, Some(way)) => {
                changes.lost += usize::from(*way != Way::Blackhole);
                changes.remove(entry(*way));
            }
            _ => {}
        }
    });
}

/// The nexthop objects of all hops, those that are missing made. Empty where the kernel has none.
fn nexthops<F: Iterator<Item = u32>>(
    desired: &Desired,
    actual: &Actual,
    links: &Links,
    numbers: &mut Numbers<F>,
    changes: &mut Changes,
) -> Table<Hop, u32> {
    if !actual.objects {
        return Table::default();
    }
    let mut hops: Vec<Hop> =
        desired.routes.iter().map(|(_, hop)| *hop).filter(|hop| *hop != Hop::Nowhere).collect();
    hops.sort();
    hops.dedup();
    let ways = hops.into_iter().filter_map(|hop| {
        let (link, gateway) = end_of(hop, links)?;
        let id = if let Some(id) = actual.gateways.get(&(link, gateway)) {
            *id
        } else {
            let id = numbers.free.next()?;
            let kind = NexthopKind::Gateway { link, gateway };
            changes.set(Entry::Nexthop(Nexthop { id, kind, protocol: PROTOCOL }));
            id
        };
        Some((hop, id))
    });
    let ways: Table<Hop, u32> = ways.collect();
    numbers.used.extend(ways.iter().map(|(_, id)| *id));
    ways
}

pub(crate) fn end_of(hop: Hop, links: &Links) -> Option<(u32, IpAddr)> {
    match hop {
        Hop::Tunnel(gateway) => Some((links.device, gateway)),
        Hop::Direct(gateway) => Some((links.underlay, gateway)),
        Hop::Nowhere => None,
    }
}

pub(crate) fn way(destination: Cidr, hop: Hop, links: &Links, ways: &Table<Hop, u32>) -> (Way, u32) {
    let usual = PrefixRoute::usual_metric(destination.is_ipv4());
    match (end_of(hop, links), ways.get(&hop)) {
        (Some(_), Some(id)) => (Way::Nexthop(*id), usual),
        // Without objects, the metric is what says whose a route is that does not go through the device.
        (Some((link, gateway)), None) => {
            (Way::Gateway { link, gateway }, if link == links.device { usual } else { links.mark })
        }
        // Behind the route of the bridge that the containers are on, and before any default route.
        (None, _) => (Way::Blackhole, links.mark),
    }
}
