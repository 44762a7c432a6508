//! This host's part of an overlay network, shared by the attachments to it.

use cni::LinkName;
use serde::{Deserialize, Serialize};

use super::{Lifecycle, Role, same};
use crate::error::Error;
use crate::firewall::VtepGuard;
use crate::host::Host;
use crate::marks::{PROTOCOL, nexthop_window};
use crate::netlink::{Change, Entry, Link, MacAddress, Netlink, Tables, Way};
use crate::shared::Shared;

/// The links of an overlay, with everything that refers to them. Its users are registered here; what it consists of is made by whoever knows the
/// network's nodes. With its last user all of it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// The VXLAN device first, then the bridge that stretches a subnet over the hosts, where it was made with the device.
    pub links: Vec<TunnelLink>,
    /// What tells routes and nexthops of this overlay from those of others ([`crate::marks`]).
    pub mark: u32,
    /// The alias of its links.
    pub alias: String,
}

/// A link of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelLink {
    /// Its name.
    pub name: LinkName,
    /// Its hardware address, where that is known: a link is made with it, and marked by its alias a moment later. Who is killed in between
    /// leaves one that nothing else tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
}

impl Tunnel {
    const REGISTER: &str = "overlay";

    fn shared(&self) -> Shared {
        let names: Vec<&str> = self.links.iter().map(|link| link.name.as_str()).collect();
        Shared::new(Self::REGISTER, &format!("{} {} {}", names.join("/"), self.mark, self.alias))
    }

    /// Whether a link of the kernel's is the one that was made for this overlay.
    fn has_made(&self, made: &TunnelLink, link: &Link) -> bool {
        let unfinished = || made.mac.is_some_and(|mac| link.mac == mac.to_string());
        link.alias == self.alias || (link.alias.is_empty() && unfinished())
    }

    /// Whether an attachment is registered.
    pub fn is_used(&self) -> bool {
        self.shared().is_used()
    }

    /// Looks at the overlay while no attachment makes or removes it; not at all if none is registered.
    pub fn look<E: From<crate::state::StateError>>(
        &self,
        look: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        self.shared().look(look)
    }

    /// Registers the host's user and works on the overlay on its behalf; nobody else does meanwhile, and it is not taken away.
    pub fn work<E: From<crate::state::StateError>>(
        &self,
        host: &Host<'_>,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        self.shared().enter(&host.user(), work)
    }

    /// Removes the overlay if no attachment is registered, even if there is no register.
    pub fn sweep(&self, network: &cni::NetworkName, netlink: &mut Netlink) -> Result<(), Error> {
        for made in &self.links {
            if netlink.link(made.name.as_str())?.is_some_and(|link| self.has_made(made, &link)) {
                return self.shared().sweep(|| self.dismantle(network, netlink));
            }
        }
        Ok(())
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
        let mut links = Vec::new();
        for made in &self.links {
            let link = netlink.link(made.name.as_str())?.filter(|link| self.has_made(made, link));
            links.extend(link.map(|link| (link.index, made.name.as_str())));
        }
        netlink.delete_links(&links)?;
        Ok(VtepGuard::remove(network)?)
    }
}

impl Lifecycle for Tunnel {
    /// Enters the user. Who knows the nodes makes the rest by [`Tunnel::work`].
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().enter(&host.user(), || Ok::<_, Error>(()))
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        for TunnelLink { name, .. } in &self.links {
            let link = host.need_link(name)?;
            same(|| format!("alias of link {name}"), &self.alias, &link.alias)?;
            same(|| format!("state of link {name}"), &"up", &if link.up { "up" } else { "down" })?;
        }
        Ok(())
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let network = host.owner().network.clone();
        self.shared().leave(&host.user(), || self.dismantle(&network, host.netlink()?))
    }

    fn register() -> Option<&'static str> {
        Some(Self::REGISTER)
    }

    fn of_register(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, ' ');
        let link = |name: &str| LinkName::new(name).ok().map(|name| TunnelLink { name, mac: None });
        let links = parts.next()?.split('/').map(link).collect::<Option<Vec<_>>>()?;
        let mark = parts.next()?.parse().ok()?;
        Some(Self { links, mark, alias: parts.next()?.to_owned() })
    }

    fn role(&self) -> Role<'_> {
        Role::Shared
    }
}
