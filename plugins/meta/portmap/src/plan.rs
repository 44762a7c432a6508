//! From configuration and prevResult to resources: what published ports are made of. Nothing here touches the kernel.

use cni::{AddResult, Cidr, LinkName};
use ferrule_core::firewall::{Backend, Entry, LocalGuard, Mapping, Publish};
use ferrule_core::resource::{LocalRouting, Rules};

use crate::config::{Config, HostAddress, PortMapping};

ferrule_core::resources! {
    /// What an attachment is made of.
    pub enum Resource { Rules, LocalRouting }
}

/// The container's addresses that ports lead to: the first of each family that belongs to its interface.
pub fn destinations(previous: &AddResult, ifname: &LinkName) -> Vec<Cidr> {
    let first = |ipv4: bool| {
        let mut own = previous.ips_of(ifname.as_str()).map(|ip| ip.address);
        own.find(|address| address.is_ipv4() == ipv4)
    };
    [first(true), first(false)].into_iter().flatten().collect()
}

/// The mappings that no destination serves, because the container has no address of their family.
pub fn unserved<'a>(config: &'a Config, destinations: &'a [Cidr]) -> impl Iterator<Item = &'a PortMapping> {
    let served = |mapping: &PortMapping| {
        destinations.iter().any(|destination| mapping.host.has_family(destination.is_ipv4()))
    };
    config.mappings.iter().filter(move |mapping| !served(mapping))
}

/// Whether connections from 127.0.0.1 have to be led to this destination.
pub fn needs_local_routing(config: &Config, destination: &Cidr) -> bool {
    // Without source NAT they would arrive from 127.0.0.1, to which nobody can answer.
    config.snat
        && destination.is_ipv4()
        && config.mappings.iter().any(|mapping| mapping.host.includes_localhost())
}

/// What of the host matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// The backend for the ports.
    pub backend: Backend,
    /// Whether there is nftables, which has the one guard against packets to 127.0.0.0/8, whatever the backend for the ports.
    pub nftables: bool,
    /// The host's link towards the container, if it is known.
    pub towards: Option<LinkName>,
}

/// The resources.
pub fn plan(config: &Config, host: &Surroundings, destinations: &[Cidr]) -> Vec<Resource> {
    let entries: Vec<Publish> = destinations
        .iter()
        .map(|destination| publish(config, destination))
        .filter(|entry| !entry.mappings.is_empty())
        .collect();
    if entries.is_empty() {
        return Vec::new();
    }
    let mut rules =
        vec![Rules { backend: host.backend, entries: entries.into_iter().map(Entry::Publish).collect() }];
    let local = destinations.iter().any(|destination| needs_local_routing(config, destination));
    let link = host.towards.as_ref().filter(|_| local);
    if let Some(link) = link.filter(|_| host.nftables) {
        let guard = Entry::LocalGuard(LocalGuard { link: link.clone() });
        match rules.iter_mut().find(|rules| rules.backend == Backend::Nftables) {
            Some(rules) => rules.entries.push(guard),
            None => rules.push(Rules { backend: Backend::Nftables, entries: vec![guard] }),
        }
    }
    let mut resources: Vec<Resource> = rules.into_iter().map(Resource::from).collect();
    // Behind its guard.
    resources.extend(link.map(|link| LocalRouting { link: link.clone() }.into()));
    resources
}

fn publish(config: &Config, destination: &Cidr) -> Publish {
    let ipv4 = destination.is_ipv4();
    let mut mappings = Vec::new();
    for mapping in config.mappings.iter().filter(|mapping| mapping.host.has_family(ipv4)) {
        let host_ip = match mapping.host {
            HostAddress::One(address) => Some(address),
            HostAddress::Any | HostAddress::AnyOf { .. } => None,
        };
        let PortMapping { protocol, host_port, container_port, .. } = *mapping;
        let mapping = Mapping { protocol, host_ip, host_port, container_port };
        // Listed for all addresses and for 0.0.0.0, say.
        if !mappings.contains(&mapping) {
            mappings.push(mapping);
        }
    }
    Publish {
        address: *destination,
        mappings,
        snat: config.snat,
        masq_all: config.snat && config.masq_all,
        mark_bit: config.mark_bit,
        external_mark_chain: config.external_mark_chain.clone(),
        conditions: config.conditions(ipv4).to_vec(),
    }
}

#[cfg(test)]
mod tests;
