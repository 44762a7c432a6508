//! What prevResult has to say of the container in a CHECK: a runtime may have given another's. What it says of the rest, resources heed.

use std::path::Path;

use cni::{AddResult, Code, Failure};

use crate::host::Host;
use crate::netns::Netns;

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
