//! A veth pair between host and container.

use std::os::fd::AsFd;

use cni::LinkName;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{Lifecycle, Role, same};
use crate::attachment::Collection;
use crate::error::Error;
use crate::host::Host;
use crate::netlink::{LinkChange, MacAddress, Netlink, NetlinkError, VethPairSpec};
use crate::owner::Owner;
use crate::sysctl::Key;

/// A veth pair whose host's end is to be a port of a bridge. That end carries the owner in its alias, and before it is ever up it refuses
/// router advertisements (CVE-2020-10749) and has no link-local address: a port's own is of use to nobody, and on a host that forwards IPv6 such
/// an address comes with the anycast address of routers, for which a deletion waits for one more grace period. Both ends are made down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VethPair {
    /// Name of the end on the host.
    pub host: LinkName,
    /// Name of the end in the container.
    pub container: LinkName,
    /// MTU of both ends in bytes; `None` for the kernel's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Hardware address of the container's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
}

/// A name for the host's end: the owner's, unless a link of somebody else's has it.
pub fn free_host_end(host: &mut Host<'_>) -> Result<LinkName, Error> {
    const ATTEMPTS: u32 = 8;
    let mine = host.owner().alias();
    for attempt in 0..ATTEMPTS {
        let Some(name) = host.owner().host_veth_name(attempt) else { continue };
        match host.link(name.as_str())? {
            Some(link) if link.alias != mine => {}
            _ => return Ok(name),
        }
    }
    Err(Error::Exists {
        what: format!("each of {ATTEMPTS} names for the host's end of {}", host.owner()),
        hint: "remove links named veth and eight digits that nobody uses",
    })
}

impl VethPair {
    fn taken(&self, host: &mut Host<'_>) -> Result<Error, Error> {
        let inside =
            host.need_container("look for its interface")?.netlink()?.link(self.container.as_str())?;
        Ok(match inside {
            Some(_) => Error::Exists {
                what: format!("interface {} in the container", self.container),
                hint: "use another CNI_IFNAME, or run DEL for the attachment that made it",
            },
            None => {
                Error::Exists { what: format!("link {} on the host", self.host), hint: "remove or rename it" }
            }
        })
    }
}

impl Lifecycle for VethPair {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let alias = host.owner().alias();
        let netns = host.need_container("create its interface")?.duplicate()?;
        let spec = VethPairSpec {
            host: &self.host,
            container: &self.container,
            netns: netns.as_fd(),
            mtu: self.mtu,
            mac: self.mac,
        };
        let mut made = host.netlink()?.create_veth(&spec);
        if made.as_ref().is_err_and(NetlinkError::is_exists)
            && let Some(left) = host.link(self.host.as_str())?.filter(|link| link.alias == alias)
        {
            // An earlier attachment of this name, of which nothing else is known.
            host.netlink()?.delete_link(left.index, &left.name)?;
            made = host.netlink()?.create_veth(&spec);
        }
        let index = match made {
            Err(error) if error.is_exists() => return Err(self.taken(host)?),
            other => other?,
        };
        let index = index.ok_or_else(|| Error::missing_link(&self.host, "on the host"))?;
        let mut change = LinkChange { alias: Some(alias), no_link_local: true, ..LinkChange::default() };
        let mut changed = host.netlink()?.change_link(index, self.host.as_str(), &change);
        if changed.as_ref().is_err_and(|error| error.errno() == Some(Errno::EAFNOSUPPORT)) {
            // A link without IPv6 gets no such address either.
            change.no_link_local = false;
            changed = host.netlink()?.change_link(index, self.host.as_str(), &change);
        }
        changed?;
        Key::of_interface("ipv6", &self.host, "accept_ra").put_if_present("0")?;
        Ok(())
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let outside = host.need_link(&self.host)?;
        let inside = host.need_container_link(&self.container)?;
        for (link, place) in [(&outside, "on the host"), (&inside, "in the container")] {
            same(|| format!("kind of link {} {place}", link.name), &"veth", &link.kind.as_str())?;
        }
        same(
            || format!("peer of {} in the container", self.container),
            &outside.index,
            &inside.peer.unwrap_or_default(),
        )?;
        if let Some(mtu) = self.mtu {
            same(|| format!("MTU of {}", self.host), &mtu, &outside.mtu)?;
        }
        Ok(())
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let Some(link) = host.link(self.host.as_str())? else {
            // Renamed, or moved to another namespace: the pair goes with either end.
            return remove_container_link(host, &self.container);
        };
        // Without an alias it was made, and the plugin killed before it could write one.
        if link.kind != "veth" || !(link.alias.is_empty() || link.alias == host.owner().alias()) {
            return Ok(());
        }
        host.delete_link(&link)
    }

    fn role(&self) -> Role<'_> {
        Role::Port
    }
}

/// Removes the pair of an attachment without a record, whoever made it: by alias, by derived name, by the container's end.
pub fn remove_unrecorded_veth(host: &mut Host<'_>, container: &LinkName) -> Result<(), Error> {
    let alias = host.owner().alias();
    for link in host.netlink()?.links()?.iter().filter(|link| link.alias == alias) {
        host.netlink()?.delete_link(link.index, &link.name)?;
    }
    match host.owner().host_veth_name(0) {
        Some(name) => {
            VethPair { host: name, container: container.clone(), mtu: None, mac: None }.remove(host)
        }
        None => remove_container_link(host, container),
    }
}

/// Deletes the container's interface if it is one end of a pair. One whose other end bears the name of another attachment is left.
fn remove_container_link(host: &mut Host<'_>, name: &LinkName) -> Result<(), Error> {
    let Some(container) = host.container() else { return Ok(()) };
    let Some(link) = container.netlink()?.link(name.as_str())?.filter(|link| link.kind == "veth") else {
        return Ok(());
    };
    if let Some(index) = link.peer {
        let peer = host.netlink()?.link_by_index(index)?.map(|peer| peer.alias).unwrap_or_default();
        if Owner::tag_in_alias(&peer).is_some() && peer != host.owner().alias() {
            return Ok(());
        }
    }
    let container = host.need_container("delete its interface")?;
    Ok(container.netlink()?.delete_link(link.index, &link.name)?)
}

/// GC: removes the pairs of attachments that are gone, by alias.
pub fn collect_pairs(collection: &Collection<'_>) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    for link in netlink.links()? {
        let stale = Owner::tag_in_alias(&link.alias).is_some_and(|tag| collection.is_stale(tag));
        if stale && link.kind == "veth" {
            netlink.delete_link(link.index, &link.name)?;
        }
    }
    Ok(())
}
