//! A veth pair between host and container.

use std::os::fd::AsFd;

use cni::{LinkName, NetworkName, ValidAttachments};
use serde::{Deserialize, Serialize};

use super::{Lifecycle, container_link, host_link, same};
use crate::error::Error;
use crate::host::Host;
use crate::netlink::{LinkChange, MacAddress, Netlink, VethPairSpec};
use crate::owner::Owner;
use crate::sysctl::Key;

/// A veth pair. The host's end carries the owner in its alias and refuses router advertisements before it is ever up (CVE-2020-10749).
/// Both ends are made down.
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
        match host.netlink()?.create_veth(&spec) {
            Err(error) if error.is_exists() => return Err(self.taken(host)?),
            other => other?,
        }
        let link = host_link(host, self.host.as_str())?;
        host.netlink()?.change_link(
            link.index,
            &link.name,
            &LinkChange { alias: Some(alias), ..LinkChange::default() },
        )?;
        Key::of_interface("ipv6", &self.host, "accept_ra").write_if_present("0")?;
        Ok(())
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let outside = host_link(host, self.host.as_str())?;
        let inside = container_link(host, self.container.as_str(), "look for its interface")?;
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
        let alias = host.owner().alias();
        let Some(link) = host.netlink()?.link(self.host.as_str())? else { return Ok(()) };
        // Without an alias it was made, and the plugin killed before it could write one.
        if link.kind != "veth" || !(link.alias.is_empty() || link.alias == alias) {
            return Ok(());
        }
        Ok(host.netlink()?.delete_link(link.index, &link.name)?)
    }
}

/// Deletes the container's interface, whoever made it: for attachments without a record. Its peer on the host goes with it.
pub fn remove_container_link(host: &mut Host<'_>, name: &LinkName) -> Result<(), Error> {
    let Some(container) = host.container() else { return Ok(()) };
    match container.netlink()?.link(name.as_str())? {
        Some(link) => Ok(container.netlink()?.delete_link(link.index, &link.name)?),
        None => Ok(()),
    }
}

/// Deletes the host's ends of pairs that belong to a network and to no attachment in use, by their aliases: what is left where a record was
/// lost. Their other ends go with them.
pub fn collect_pairs(network: &NetworkName, valid: &ValidAttachments) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    for link in netlink.links()? {
        let Some(tag) = Owner::tag_in_alias(&link.alias) else { continue };
        let stale = Owner::from_tag(tag).is_some_and(|owner| {
            owner.network == *network && !valid.contains(owner.container_id.as_str(), owner.ifname.as_str())
        });
        if stale && link.kind == "veth" {
            netlink.delete_link(link.index, &link.name)?;
        }
    }
    Ok(())
}
