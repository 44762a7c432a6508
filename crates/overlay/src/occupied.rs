//! What this host has already where blocks of other nodes would go: addresses of its links, and routes that somebody else has made.
//!
//! The kernel replaces a route by another to the same network without a word, so it has to be asked before anything is changed.

use std::net::IpAddr;

use cni::Cidr;
use ferrule_core::marks::{PROTOCOL, nexthop_window};
use ferrule_core::netlink::{Netlink, NexthopKind, PrefixRoute, Standing, Tables, Way};

use crate::actual::{Links, is_of};
use crate::error::{Error, Invalid, Reason};
use crate::identity::OwnAddress;
use crate::names::{Family, Mode, NodeId};
use crate::node::{Listed, NodeRecord};
use crate::view::Settings;

/// The nodes of a list, by their place in it, that can't be peers of this host, `node`, because of what it has: an address in one of their blocks, or a route
/// to one. The route to the block would take the place of the link's, or of the other route, and neither is worth less than a list. Changes nothing.
///
/// A route that somebody has put in the place of one of ours is no reason: that is damage, and is repaired.
pub fn occupied(
    settings: &Settings,
    nodes: &[Listed],
    node: &NodeId,
    own: &[OwnAddress],
) -> Result<Vec<(usize, Invalid)>, Error> {
    let mut refused = Vec::new();
    let mut blocks: Vec<(usize, usize, Cidr)> = Vec::new();
    for (place, listed) in nodes.iter().enumerate().filter(|(_, listed)| listed.record.node != *node) {
        let within = |block: &Cidr| own.iter().find(|own| block.contains(own.address));
        let all = || listed.record.blocks.iter().enumerate();
        match all().find_map(|(index, block)| Some((index, block, within(block)?))) {
            Some((index, block, own)) => {
                let reason = Reason::ContainsOwn { address: own.address, link: own.interface.clone() };
                refused.push((place, invalid(listed, index, block, reason)));
            }
            None => blocks.extend(all().map(|(index, block)| (place, index, *block))),
        }
    }
    // The blocks of a bridged network have no routes.
    if settings.mode == Mode::Routed {
        refused.extend(routed(settings, nodes, &blocks)?);
        refused.sort_by_key(|(place, _)| *place);
    }
    Ok(refused)
}

fn invalid(listed: &Listed, index: usize, block: &Cidr, reason: Reason) -> Invalid {
    Invalid::new(&format!("{}.blocks[{index}]", listed.path), block, reason)
}

/// Those with a block that somebody else has a route to.
fn routed(
    settings: &Settings,
    nodes: &[Listed],
    blocks: &[(usize, usize, Cidr)],
) -> Result<Vec<(usize, Invalid)>, Error> {
    let mut tables = Tables::open()?;
    let networks: Vec<Cidr> = blocks.iter().map(|(_, _, block)| *block).collect();
    let mut netlink = Netlink::open()?;
    let index = netlink.link(settings.device.as_str())?.filter(|link| link.alias == settings.alias());
    let device = index.map(|link| link.index).unwrap_or_default();
    let links = Links { device, bridge: None, underlay: 0, mark: settings.mark() };
    let mut made = None;
    let mut refused: Vec<(usize, Invalid)> = Vec::new();
    for ((place, index, block), standing) in blocks.iter().zip(tables.standing(&networks)?) {
        let is_ours = |route: &PrefixRoute| route.protocol == PROTOCOL && is_of(&links, route);
        let Some(standing) = standing.filter(|standing| !is_ours(&standing.route)) else { continue };
        let (Some(listed), false) =
            (nodes.get(*place), refused.last().is_some_and(|(other, _)| other == place))
        else {
            continue;
        };
        let made = match &made {
            Some(made) => made,
            None => made.insert(Made::read(&mut tables, &links)?),
        };
        if !made.had_route(&listed.record, block) {
            let way = way(&mut netlink, &standing)?;
            refused.push((*place, invalid(listed, *index, block, Reason::Routed { way })));
        }
    }
    Ok(refused)
}

/// As `ip route` shows it.
fn way(netlink: &mut Netlink, standing: &Standing) -> Result<String, Error> {
    let mut words = Vec::new();
    words.extend(standing.gateway.map(|gateway| format!("via {gateway}")));
    if let Some(index) = standing.link.filter(|_| standing.route.way != Way::Blackhole) {
        let name = netlink.link_by_index(index)?.map(|link| link.name);
        words.push(format!("dev {}", name.unwrap_or_else(|| format!("with index {index}"))));
    }
    Ok(if words.is_empty() { "to nowhere".to_owned() } else { words.join(" ") })
}

/// What has been made for peers before.
struct Made {
    routes: Vec<PrefixRoute>,
    /// Where nexthop objects, or neighbours, lead, and the numbers of the former.
    ends: Vec<(IpAddr, Option<u32>)>,
}

impl Made {
    fn read(tables: &mut Tables, links: &Links) -> Result<Self, Error> {
        let (mut routes, mut ends) = (Vec::new(), Vec::new());
        for ipv4 in [true, false] {
            routes.extend(tables.routes(ipv4, PROTOCOL)?.into_iter().filter(|route| is_of(links, route)));
            if links.device != 0 {
                let ours =
                    tables.neighbours(links.device, ipv4)?.into_iter().filter(|n| n.protocol == PROTOCOL);
                ends.extend(ours.map(|neighbour| (neighbour.address, None)));
            }
        }
        let window = nexthop_window(links.mark);
        for nexthop in tables.nexthops()?.unwrap_or_default() {
            if let NexthopKind::Gateway { gateway, .. } = nexthop.kind
                && nexthop.protocol == PROTOCOL
                && window.contains(&nexthop.id)
            {
                ends.push((gateway, Some(nexthop.id)));
            }
        }
        Ok(Self { routes, ends })
    }

    /// Whether a block has a route of ours, or had one: what leads to the node is there, and no route goes by it.
    fn had_route(&self, record: &NodeRecord, block: &Cidr) -> bool {
        if self.routes.iter().any(|route| route.destination == *block) {
            return true;
        }
        let family = Family::of(block.is_ipv4());
        let ends = [record.tunnel_address(family), record.underlay(family)];
        let of_node = |end: IpAddr| ends.contains(&Some(end));
        let numbers: Vec<u32> =
            self.ends.iter().filter(|(end, _)| of_node(*end)).filter_map(|(_, id)| *id).collect();
        let leads_there = |route: &PrefixRoute| match route.way {
            Way::Nexthop(id) => numbers.contains(&id),
            Way::Gateway { gateway, .. } => of_node(gateway),
            Way::Blackhole | Way::Other => false,
        };
        self.ends.iter().any(|(end, _)| of_node(*end)) && !self.routes.iter().any(leads_there)
    }
}
