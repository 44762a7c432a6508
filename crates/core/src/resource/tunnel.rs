//! This host's part of an overlay network, shared by the attachments to it.

use cni::LinkName;
use serde::{Deserialize, Serialize};

use super::{Lifecycle, host_link, same};
use crate::error::Error;
use crate::firewall::VtepGuard;
use crate::host::Host;
use crate::marks::{PROTOCOL, nexthop_window};
use crate::netlink::{Change, Entry, Netlink, Tables, Way};
use crate::shared::Shared;

/// The tunnel device of an overlay, with everything that refers to it. Its users are registered here; what it consists of is made by whoever
/// knows the network's nodes. With its last user all of it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// The VXLAN device.
    pub device: LinkName,
    /// The bridge that stretches a subnet over the hosts, where it was made with the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<LinkName>,
    /// What tells routes and nexthops of this overlay from those of others ([`crate::marks`]).
    pub mark: u32,
    /// The alias of its links.
    pub alias: String,
}

impl Tunnel {
    pub(super) const REGISTER: &str = "overlay";

    fn shared(&self) -> Shared {
        let bridge = self.bridge.as_ref().map(LinkName::as_str).unwrap_or_default();
        Shared::new(Self::REGISTER, &format!("{} {bridge} {} {}", self.device, self.mark, self.alias))
    }

    /// The overlay that a register is named after.
    pub(super) fn of_register(name: &str) -> Option<Self> {
        let mut parts = name.splitn(4, ' ');
        let device = LinkName::new(parts.next()?).ok()?;
        let bridge = LinkName::new(parts.next()?).ok();
        let mark = parts.next()?.parse().ok()?;
        Some(Self { device, bridge, mark, alias: parts.next()?.to_owned() })
    }

    /// Whether an attachment is registered.
    pub fn is_used(&self) -> bool {
        self.shared().is_used()
    }

    /// Removes the overlay if no attachment is registered, even if there is no register.
    pub fn sweep(&self, network: &cni::NetworkName, netlink: &mut Netlink) -> Result<(), Error> {
        match netlink.link(self.device.as_str())?.filter(|link| link.alias == self.alias) {
            Some(_) => self.shared().sweep(|| self.dismantle(network, netlink)),
            None => Ok(()),
        }
    }

    /// Removes the overlay from this host: routes and nexthops by their marks, links by their alias, and the guard of its port. What bears
    /// other marks is left alone.
    pub fn dismantle(&self, network: &cni::NetworkName, netlink: &mut Netlink) -> Result<(), Error> {
        let mut tables = Tables::open()?;
        let window = nexthop_window(self.mark);
        let mut stale = Vec::new();
        for ipv4 in [true, false] {
            let ours = tables.routes(ipv4, PROTOCOL)?.into_iter().filter(|route| match route.way {
                Way::Nexthop(id) => window.contains(&id),
                _ => route.metric == self.mark,
            });
            stale.extend(ours.map(|route| Change::Remove(Entry::Route(route))));
        }
        let nexthops = tables.nexthops()?.unwrap_or_default().into_iter();
        let ours = nexthops.filter(|nexthop| nexthop.protocol == PROTOCOL && window.contains(&nexthop.id));
        stale.extend(ours.map(|nexthop| Change::Remove(Entry::Nexthop(nexthop))));
        // What is refused goes with the device, or has gone meanwhile.
        tables.apply(&stale)?;
        for name in [Some(&self.device), self.bridge.as_ref()].into_iter().flatten() {
            if let Some(link) = netlink.link(name.as_str())?.filter(|link| link.alias == self.alias) {
                netlink.delete_link(link.index, &link.name)?;
            }
        }
        Ok(VtepGuard::remove(network)?)
    }
}

impl Lifecycle for Tunnel {
    /// Enters the user. The device is made after that, by whoever knows the nodes: from now on it is not taken away.
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().enter(&host.user(), || Ok::<_, Error>(()))
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        for name in [Some(&self.device), self.bridge.as_ref()].into_iter().flatten() {
            let link = host_link(host, name.as_str())?;
            same(|| format!("alias of link {name}"), &self.alias, &link.alias)?;
            same(|| format!("state of link {name}"), &"up", &if link.up { "up" } else { "down" })?;
        }
        Ok(())
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let network = host.owner().network.clone();
        self.shared().leave(&host.user(), || self.dismantle(&network, host.netlink()?))
    }
}
