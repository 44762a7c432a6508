//! From configuration and prevResult to resources. Nothing here touches the kernel.

use std::net::IpAddr;

use cni::{AddResult, LinkName};
use ferrule_core::firewall::{Backend, Entry, Forward, Isolate};
use ferrule_core::resource::Rules;

use crate::config::Config;

ferrule_core::resources! {
    /// What an attachment is made of.
    pub enum Resource { Rules }
}

/// The addresses that are let through: all of prevResult, each once.
pub fn addresses(previous: &AddResult) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in &previous.ips {
        if !addresses.contains(&ip.address.address()) {
            addresses.push(ip.address.address());
        }
    }
    addresses
}

/// The names of the host's interfaces in prevResult, one of which is the bridge.
pub fn host_interfaces(previous: &AddResult) -> impl Iterator<Item = &str> {
    previous
        .interfaces
        .iter()
        .filter(|interface| interface.sandbox.is_empty())
        .map(|interface| interface.name.as_str())
}

/// A bridge and its ports that lead to the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeEnd {
    /// The bridge.
    pub name: LinkName,
    /// The ports.
    pub ports: Vec<LinkName>,
}

/// Where things go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backends {
    /// Forwarding: every backend in which a packet has to be accepted to pass.
    pub forward: Vec<Backend>,
    /// Isolation: one is enough, because a drop is final.
    pub isolate: Backend,
}

/// The resources. `bridge` is there where the configuration isolates it.
pub fn plan(
    config: &Config,
    backends: &Backends,
    addresses: &[IpAddr],
    bridge: Option<&BridgeEnd>,
) -> Vec<Resource> {
    let isolate = config.isolation.zip(bridge).map(|(policy, bridge)| {
        let BridgeEnd { name, ports } = bridge.clone();
        (backends.isolate, Entry::Isolate(Isolate { bridge: name, policy, ports }))
    });
    let forward = |address: &IpAddr| {
        Entry::Forward(Forward {
            address: *address,
            admin_chain: config.admin_chain.clone(),
            zone: config.zone.clone(),
        })
    };
    let forward = backends
        .forward
        .iter()
        .flat_map(|backend| addresses.iter().map(|address| (*backend, forward(address))));
    let mut rules: Vec<Rules> = Vec::new();
    // Isolation first: nothing is let through before it holds.
    for (backend, entry) in isolate.into_iter().chain(forward) {
        match rules.iter_mut().find(|rules| rules.backend == backend) {
            Some(rules) => rules.entries.push(entry),
            None => rules.push(Rules { backend, entries: vec![entry] }),
        }
    }
    rules.into_iter().map(Resource::from).collect()
}

#[cfg(test)]
mod tests;
