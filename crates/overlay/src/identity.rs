//! Which of the nodes in a list is this host: the one that has one of its addresses.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use cni::LinkName;
use ferrule_core::netlink::{Netlink, Tables};

use crate::error::{Error, Invalid, Reason};
use crate::names::{Family, NodeId};
use crate::node::{Listed, NodeRecord};
use crate::view::Underlay;

/// What an operator may say about the way out of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hint {
    /// The link.
    pub interface: Option<LinkName>,
    /// The address.
    pub address: Option<IpAddr>,
}

/// An address of this host and the link that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix.
    pub prefix: u8,
    /// The link's name.
    pub interface: LinkName,
    /// The link's MTU in bytes.
    pub mtu: u32,
}

/// The addresses of this host's links, of the families given, without link-local IPv6 ones: no peer is reached at those, and a host has one for
/// each container.
pub fn own_addresses(netlink: &mut Netlink, families: &[Family]) -> Result<Vec<OwnAddress>, Error> {
    let mut own = Vec::new();
    let mut links: HashMap<u32, Option<(LinkName, u32)>> = HashMap::new();
    for family in families {
        for (index, address) in netlink.addresses_by_link(family.is_ipv4())? {
            let (address, prefix) = (address.cidr.address(), address.cidr.prefix());
            if !family.is_ipv4() && is_link_local(&address) {
                continue;
            }
            let link = match links.entry(index) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let link = netlink.link_by_index(index)?;
                    unknown.insert(link.and_then(|link| Some((LinkName::new(link.name).ok()?, link.mtu))))
                }
            };
            if let Some((interface, mtu)) = link.clone() {
                own.push(OwnAddress { address, prefix, interface, mtu });
            }
        }
    }
    Ok(own)
}

/// The families of the addresses that nodes are reached at.
pub fn families(nodes: &[Listed]) -> Vec<Family> {
    let has = |family: &Family| nodes.iter().any(|listed| listed.record.underlay(*family).is_some());
    Family::ALL.into_iter().filter(has).collect()
}

/// Finds this host in a list of nodes, and the address that its tunnels begin at. Pure: `own` are the addresses of this host.
pub fn recognise(
    nodes: &[Listed],
    transport: Family,
    hint: &Hint,
    own: &[OwnAddress],
) -> Result<(NodeId, Underlay), Invalid> {
    let candidates = candidates(hint, own)?;
    let is_own =
        |record: &NodeRecord| record.underlays().any(|ip| candidates.iter().any(|own| own.address == ip));
    let mut mine = nodes.iter().filter(|listed| is_own(&listed.record));
    let Some(Listed { path, record }) = mine.next() else {
        if let Some(interface) = &hint.interface {
            return Err(Invalid::new("underlay.interface", interface, Reason::NoAddressOnLink));
        }
        let names: Vec<String> = nodes
            .iter()
            .flat_map(|listed| listed.record.underlays())
            .take(8)
            .map(|ip| ip.to_string())
            .collect();
        let reachable = |address: &IpAddr| !address.is_loopback() && !is_link_local(address);
        let own = own.iter().map(|own| own.address).filter(reachable).collect();
        return Err(Invalid::new("peers", names.join(", "), Reason::NotAmongPeers { own }));
    };
    if let Some(other) = mine.next() {
        let reason = Reason::Ambiguous { one: record.node.clone(), other: other.record.node.clone() };
        return Err(Invalid::new(&format!("{}.node", other.path), &other.record.node, reason));
    }
    let address = record.underlay(transport).ok_or_else(|| {
        Invalid::new(&format!("{path}.underlay"), &record.node, Reason::NoUnderlay { family: transport })
    })?;
    // Of an address that several links have, the largest MTU is not to be relied on.
    let link = own.iter().filter(|own| own.address == address).min_by_key(|own| own.mtu);
    let link = link.ok_or_else(|| Invalid::new(&format!("{path}.underlay"), address, Reason::NotLocal))?;
    let underlay =
        Underlay { address, prefix: link.prefix, interface: link.interface.clone(), mtu: link.mtu };
    Ok((record.node.clone(), underlay))
}

/// The largest packet in bytes that gets from this host to each of the nodes: the least of what the links towards them carry and of what the routes
/// to them say.
///
/// What the kernel has learnt of a way does not count: it forgets that after ten minutes, and what containers have must not come and go.
pub fn path_mtu(netlink: &mut Netlink, underlay: &Underlay, nodes: &[Listed]) -> Result<u32, Error> {
    let family = Family::of(underlay.address.is_ipv4());
    let others = nodes.iter().filter_map(|listed| listed.record.underlay(family));
    let others: Vec<IpAddr> = others.filter(|address| *address != underlay.address).collect();
    let mut mtu = underlay.mtu;
    let mut links = HashSet::new();
    for path in Tables::open()?.paths(&others)?.into_iter().flatten() {
        mtu = path.mtu.map_or(mtu, |said| said.min(mtu));
        links.extend(path.links);
    }
    for link in links {
        mtu = netlink.link_by_index(link)?.map_or(mtu, |link| link.mtu.min(mtu));
    }
    Ok(mtu)
}

fn candidates<'o>(hint: &Hint, own: &'o [OwnAddress]) -> Result<Vec<&'o OwnAddress>, Invalid> {
    if let Some(address) = hint.address
        && !own.iter().any(|own| own.address == address)
    {
        return Err(Invalid::new("underlay.address", address, Reason::NotLocal));
    }
    if let Some(interface) = &hint.interface
        && !own.iter().any(|own| own.interface == *interface)
    {
        return Err(Invalid::new("underlay.interface", interface, Reason::NoLink));
    }
    Ok(own
        .iter()
        .filter(|own| hint.address.is_none_or(|address| own.address == address))
        .filter(|own| hint.interface.as_ref().is_none_or(|interface| own.interface == *interface))
        .collect())
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
