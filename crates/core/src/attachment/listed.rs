//! What prevResult has to say in a CHECK. It is the result of the whole list: later plugins may have changed it, and a runtime may have given
//! another container's.

use std::net::IpAddr;
use std::path::Path;

use cni::{AddResult, Code, Failure};

use crate::error::Error;
use crate::firewall::Entry;
use crate::host::Host;
use crate::netns::Netns;
use crate::resource::{Resource, Rules};

/// Whether the interface that prevResult lists is in this container. It may name the namespace by another path, or by one that is gone.
///
/// # Errors
/// It is in another namespace that exists.
pub(super) fn same_container(host: &Host<'_>, previous: &AddResult) -> Result<(), Failure> {
    let ifname = &host.owner().ifname;
    let listed = previous
        .interfaces
        .iter()
        .filter(|interface| interface.name == ifname.as_str() && !interface.sandbox.is_empty());
    let mut elsewhere = None;
    for interface in listed {
        match Netns::open(Path::new(&interface.sandbox)) {
            Ok(netns) if Some(netns.id()) != host.netns_id() => elsewhere = Some(&interface.sandbox),
            _ => return Ok(()),
        }
    }
    match elsewhere {
        None => Ok(()),
        Some(sandbox) => {
            let message =
                format!("prevResult has {ifname} in {sandbox}, which is not the namespace of CNI_NETNS");
            Err(Failure::new(Code::CheckFailed, message)
                .hint("CHECK is given the result of this container's ADD"))
        }
    }
}

/// Leaves out what later plugins took away, according to prevResult: routes.
///
/// # Errors
/// An address that rules are for and that prevResult does not list.
pub(super) fn select(resources: &mut [Resource], previous: &AddResult) -> Result<(), Failure> {
    for resource in resources {
        match resource {
            Resource::Interface(interface) => {
                let listed = |dst| previous.routes.iter().any(|route| route.dst.network() == dst);
                interface.routes.retain(|route| listed(route.dst));
            }
            Resource::Rules(rules) => addresses_listed(rules, previous)?,
            _ => {}
        }
    }
    Ok(())
}

fn addresses_listed(rules: &Rules, previous: &AddResult) -> Result<(), Failure> {
    let addresses = rules.entries.iter().filter_map(|entry| match entry {
        Entry::Publish(publish) => Some(publish.address.address()),
        Entry::Forward(forward) => Some(forward.address),
        _ => None,
    });
    let listed = |address: &IpAddr| previous.ips.iter().any(|ip| ip.address.address() == *address);
    match addresses.into_iter().find(|address| !listed(address)) {
        None => Ok(()),
        Some(address) => Err(Error::Different {
            what: format!("address {address} of the firewall rules"),
            expected: "listed in prevResult".to_owned(),
            found: "missing".to_owned(),
        }
        .into()),
    }
}
