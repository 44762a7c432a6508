//! Which backends there are on this host, and what is done in all of them.

use std::net::IpAddr;

use cni::Failure;

use super::{Backend, FirewallError, Firewalld, Iptables, Nftables, Role, open};
use crate::attachment::Collection;
use crate::owner::Owner;

/// The backend where a configuration names none: nftables, where the kernel has it and lets us use it, else iptables.
pub fn preferred() -> Backend {
    if Nftables::probe().is_ok() { Backend::Nftables } else { Backend::Iptables }
}

/// Whether a backend can be used on this host; the error says what is missing.
pub fn probe(backend: Backend) -> Result<(), FirewallError> {
    match backend {
        Backend::Nftables => Nftables::probe(),
        Backend::Firewalld => Firewalld::probe(),
        Backend::Iptables => Iptables::new("").probe(),
    }
}

/// The backends that can be used on this host, where something may be found to remove.
pub fn usable() -> Vec<Backend> {
    [Backend::Nftables, Backend::Iptables, Backend::Firewalld]
        .into_iter()
        .filter(|backend| probe(*backend).is_ok())
        .collect()
}

/// Removes what can be found of an owner in every backend that can be used; see [`super::Firewall::remove_owner`].
pub fn remove_owner(plugin: &'static str, owner: &Owner, role: Role, addresses: &[IpAddr]) -> Vec<Failure> {
    let remove = |backend| open(backend, plugin).remove_owner(owner, role, addresses);
    usable().into_iter().filter_map(|backend| remove(backend).err().map(Failure::from)).collect()
}

/// Removes what is not valid any more from every backend that can be used; see [`super::Firewall::collect`].
pub fn collect(collection: &Collection<'_>, role: Role) -> Vec<Failure> {
    let collect = |backend| open(backend, collection.plugin()).collect(collection, role);
    usable().into_iter().filter_map(|backend| collect(backend).err().map(Failure::from)).collect()
}
