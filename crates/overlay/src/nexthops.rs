//! The numbers of a network's nexthop objects, remembered from the last look.

use std::collections::HashMap;
use std::net::IpAddr;

use ferrule_core::marks::PROTOCOL;
use ferrule_core::netlink::{Change, Entry, FdbTarget, Nexthop, NexthopKind};

use crate::actual::{Actual, Group, Links, Present};
use crate::desired::{Desired, Hop};
use crate::diff::{end_of, way};
use crate::table::Table;

/// Which nexthops there are, and where they lead: the only thing that a change of one node has to know of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Nexthops {
    pub(crate) gateways: Table<(u32, IpAddr), u32>,
    pub(crate) groups: Table<IpAddr, Group>,
    /// In order.
    pub(crate) taken: Vec<u32>,
    pub(crate) objects: bool,
    pub(crate) fdb_objects: bool,
}

impl Nexthops {
    /// What the kernel has of a part of a network, unless somebody has altered it since: the difference is then made from this.
    pub(crate) fn actual_of(&self, part: &Desired, links: &Links) -> Actual {
        let mut actual = Actual {
            objects: self.objects,
            fdb_objects: self.fdb_objects,
            taken: self.taken.clone(),
            neighbours: part.neighbours.clone().map(|mac| Present { mac, foreign: false }),
            endpoints: part.endpoints.clone(),
            flood: part.flood.clone(),
            ..Actual::default()
        };
        if links.bridge.is_some() {
            actual.switched = part.fdb.clone().map(|_| ());
        }
        let own = |id, kind| Nexthop { id, kind, protocol: PROTOCOL };
        for vtep in &part.vteps {
            if let Some(group) = self.groups.get(vtep) {
                actual.own.push(own(group.id, NexthopKind::VtepGroup(vec![group.member])));
                actual.own.push(own(group.member, NexthopKind::Vtep(*vtep)));
            }
        }
        actual.groups = part.vteps.iter().filter_map(|vtep| Some((*vtep, *self.groups.get(vtep)?))).collect();
        let targets = part.fdb.iter().filter_map(|(mac, place)| {
            let vtep = part.vteps.get(*place)?;
            let group = actual.groups.get(vtep).filter(|_| self.fdb_objects);
            Some((*mac, group.map_or(FdbTarget::Vtep(*vtep), |group| FdbTarget::Nexthops(group.id))))
        });
        actual.fdb = targets.collect();
        let ways = part.routes.iter().filter_map(|(_, hop)| {
            let end = end_of(*hop, links)?;
            Some((*hop, *self.gateways.get(&end)?))
        });
        let ways: Table<Hop, u32> = ways.collect();
        for (hop, id) in ways.iter() {
            if let Some((link, gateway)) = end_of(*hop, links) {
                actual.own.push(own(*id, NexthopKind::Gateway { link, gateway }));
            }
        }
        actual.gateways = ways.iter().filter_map(|(hop, id)| Some((end_of(*hop, links)?, *id))).collect();
        let routes = part.routes.iter().map(|(destination, hop)| {
            let (way, metric) = way(*destination, *hop, links, &ways);
            ((*destination, metric), way)
        });
        actual.routes = routes.collect();
        actual
    }

    /// Takes note of changes that were made.
    pub(crate) fn learn(&mut self, changes: &[Change]) {
        let (mut gateways, mut groups) = (Vec::new(), Vec::new());
        let mut ends: HashMap<u32, IpAddr> = HashMap::new();
        let mut gone = Vec::new();
        for change in changes {
            match change {
                Change::Set(Entry::Nexthop(nexthop)) => {
                    self.taken.push(nexthop.id);
                    match &nexthop.kind {
                        NexthopKind::Gateway { link, gateway } => {
                            gateways.push(((*link, *gateway), nexthop.id));
                        }
                        NexthopKind::Vtep(vtep) => {
                            ends.insert(nexthop.id, *vtep);
                        }
                        NexthopKind::VtepGroup(members) => {
                            let member = members.first().copied().unwrap_or_default();
                            groups.push(Group { id: nexthop.id, member });
                        }
                        NexthopKind::Other => {}
                    }
                }
                Change::Remove(Entry::Nexthop(nexthop)) => gone.push(nexthop.id),
                _ => {}
            }
        }
        // Of a node that has moved, the nexthop leads elsewhere, and its group is what it was.
        groups.extend(
            self.groups.iter().map(|(_, group)| *group).filter(|group| ends.contains_key(&group.member)),
        );
        self.groups.retain(|_, group| !ends.contains_key(&group.member));
        let led = groups.into_iter().filter_map(|group| Some((*ends.get(&group.member)?, group)));
        self.groups.extend(led.collect());
        self.gateways.extend(gateways.into());
        if !gone.is_empty() {
            gone.sort_unstable();
            let is_there = |id: &u32| gone.binary_search(id).is_err();
            self.taken.retain(is_there);
            self.gateways.retain(|_, id| is_there(id));
            self.groups.retain(|_, group| is_there(&group.id) && is_there(&group.member));
        }
        self.taken.sort_unstable();
        self.taken.dedup();
    }
}
