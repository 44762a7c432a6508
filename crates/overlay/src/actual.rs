//! What the kernel has for a network.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::Cidr;
use ferrule_core::marks::{PROTOCOL, nexthop_window};
use ferrule_core::netlink::{
    FdbTarget, MacAddress, NetlinkError, Nexthop, NexthopKind, PrefixRoute, Tables, Way,
};

use crate::nexthops::Nexthops;
use crate::table::Table;

/// Hardware address of the entries for frames that no other entry is for.
pub(crate) const UNKNOWN: MacAddress = MacAddress([0; 6]);

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

/// A permanent neighbour on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) mac: MacAddress,
    /// Somebody else has made it: put right where it is in the way, and never taken away.
    pub(crate) foreign: bool,
}

/// A group of one nexthop, which FDB entries point at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) id: u32,
    pub(crate) member: u32,
}

/// The objects of a network that the kernel has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    pub(crate) neighbours: Table<IpAddr, Present>,
    pub(crate) endpoints: Table<IpAddr, MacAddress>,
    pub(crate) fdb: Table<MacAddress, FdbTarget>,
    /// The addresses that the bridge has an entry for, towards the device.
    pub(crate) switched: Table<MacAddress, ()>,
    pub(crate) flood: BTreeSet<IpAddr>,
    /// Our nexthop objects.
    pub(crate) own: Vec<Nexthop>,
    /// Those for routes by where they lead.
    pub(crate) gateways: Table<(u32, IpAddr), u32>,
    /// Those for FDB entries by the tunnel end that they lead to.
    pub(crate) groups: Table<IpAddr, Group>,
    /// Every identifier in our range that is taken, by whomever, in order.
    pub(crate) taken: Vec<u32>,
    pub(crate) routes: Table<(Cidr, u32), Way>,
    /// Whether routes can go by nexthop objects (since Linux 5.3).
    pub(crate) objects: bool,
    /// Whether FDB entries can point at nexthop objects (since Linux 5.8), where there are enough for it to matter.
    pub(crate) fdb_objects: bool,
}

impl Actual {
    /// Lists what is there: a handful of requests, whatever the number of peers.
    pub fn read(tables: &mut Tables, links: &Links) -> Result<Self, NetlinkError> {
        let mut actual = Self::default();
        let (mut neighbours, mut endpoints, mut routes) = (Vec::new(), Vec::new(), Vec::new());
        for ipv4 in [true, false] {
            let on_device = tables.neighbours(links.device, ipv4)?.into_iter();
            neighbours.extend(on_device.map(|neighbour| {
                let foreign = neighbour.protocol != PROTOCOL;
                (neighbour.address, Present { mac: neighbour.mac, foreign })
            }));
            if let Some(bridge) = links.bridge {
                let own = tables.neighbours(bridge, ipv4)?.into_iter().filter(|n| n.protocol == PROTOCOL);
                endpoints.extend(own.map(|neighbour| (neighbour.address, neighbour.mac)));
            }
            let own = tables.routes(ipv4, PROTOCOL)?.into_iter().filter(|route| is_of(links, route));
            routes.extend(own.map(|route| ((route.destination, route.metric), route.way)));
        }
        actual.neighbours = neighbours.into();
        actual.endpoints = endpoints.into();
        actual.routes = routes.into();
        actual.read_fdb(tables, links)?;
        actual.read_nexthops(tables, links)?;
        Ok(actual)
    }

    fn read_fdb(&mut self, tables: &mut Tables, links: &Links) -> Result<(), NetlinkError> {
        let (mut fdb, mut switched) = (Vec::new(), Vec::new());
        for entry in tables.fdb(links.device)? {
            match entry.target {
                FdbTarget::Port => switched.push((entry.mac, ())),
                FdbTarget::Vtep(vtep) if entry.mac == UNKNOWN => {
                    self.flood.insert(vtep);
                }
                target => fdb.push((entry.mac, target)),
            }
        }
        self.fdb = fdb.into();
        self.switched = switched.into();
        Ok(())
    }

    fn read_nexthops(&mut self, tables: &mut Tables, links: &Links) -> Result<(), NetlinkError> {
        let Some(nexthops) = tables.nexthops()? else { return Ok(()) };
        self.objects = true;
        // In routed mode a node has one hardware address, and a group would save nothing.
        self.fdb_objects = links.bridge.is_some() && tables.has_fdb_nexthops()?;
        let window = nexthop_window(links.mark);
        let in_window = nexthops.into_iter().filter(|nexthop| window.contains(&nexthop.id));
        let (mut gateways, mut vteps, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        for nexthop in in_window {
            self.taken.push(nexthop.id);
            if nexthop.protocol != PROTOCOL {
                continue;
            }
            match &nexthop.kind {
                NexthopKind::Gateway { link, gateway } => gateways.push(((*link, *gateway), nexthop.id)),
                NexthopKind::Vtep(vtep) => vteps.push((nexthop.id, *vtep)),
                NexthopKind::VtepGroup(members) => {
                    if let &[member] = members.as_slice() {
                        groups.push(Group { id: nexthop.id, member });
                    }
                }
                NexthopKind::Other => {}
            }
            self.own.push(nexthop);
        }
        self.taken.sort_unstable();
        self.gateways = gateways.into();
        let vteps: Table<u32, IpAddr> = vteps.into();
        let led = groups.into_iter().filter_map(|group| Some((*vteps.get(&group.member)?, group)));
        self.groups = led.collect();
        Ok(())
    }

    /// Which nexthops there are.
    pub(crate) fn nexthops(self) -> Nexthops {
        let Self { gateways, groups, taken, objects, fdb_objects, .. } = self;
        Nexthops { gateways, groups, taken, objects, fdb_objects }
    }

    /// Treats the kernel as one without nexthop objects (before 5.3).
    pub fn without_objects(&mut self) {
        self.objects = false;
        self.fdb_objects = false;
    }

    /// How many entries there are that only peers can be the reason of.
    pub(crate) fn peers(&self) -> usize {
        self.fdb.len() + self.routes.iter().filter(|(_, way)| *way != Way::Blackhole).count()
    }
}

/// Whether a route with our protocol number is this network's rather than that of another overlay on this host.
pub(crate) fn is_of(links: &Links, route: &PrefixRoute) -> bool {
    match route.way {
        Way::Nexthop(id) => nexthop_window(links.mark).contains(&id),
        Way::Gateway { link, .. } => link == links.device || route.metric == links.mark,
        Way::Blackhole => route.metric == links.mark,
        Way::Other => false,
    }
}
