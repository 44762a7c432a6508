//! A port of a bridge that learns nothing.

use cni::LinkName;
use serde::{Deserialize, Serialize};

use super::{Lifecycle, link_on_host, same};
use crate::error::Error;
use crate::host::Host;
use crate::netlink::{
    Change, Entry, Fdb, FdbTarget, LinkChange, MacAddress, Netlink, NetlinkError, PortSettings, Tables,
};

/// The host's end of a pair as a port that one hardware address is behind, and no other: the bridge has a static entry for it, learns nothing from
/// the port, and drops frames from other addresses, so that a container can't take another's traffic. The entry goes with the port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverlayPort {
    /// The port.
    pub link: LinkName,
    /// The bridge.
    pub bridge: LinkName,
    /// The hardware address behind it.
    pub mac: MacAddress,
}

impl OverlayPort {
    fn entry(&self, link: u32) -> Fdb {
        Fdb { link, mac: self.mac, target: FdbTarget::Port, bridge: true }
    }

    /// Plugs the link in. Both links have to be there.
    pub fn plug_in(&self, netlink: &mut Netlink) -> Result<(), Error> {
        let bridge = link_on_host(netlink, &self.bridge)?;
        let link = link_on_host(netlink, &self.link)?;
        let change = LinkChange { master: Some(bridge.index), ..LinkChange::default() };
        netlink.change_link(link.index, &link.name, &change)?;
        let settings = PortSettings { learning: Some(false), locked: Some(true), ..PortSettings::default() };
        netlink.set_port(link.index, &self.link, settings)?;
        let change = Change::Set(Entry::Fdb(self.entry(link.index)));
        match Tables::open()?.apply(std::slice::from_ref(&change))?.pop() {
            Some(refusal) => {
                let operation = format!("{change} ({})", self.link);
                Err(NetlinkError::Refused { operation, source: refusal.error }.into())
            }
            None => Ok(()),
        }
    }

    /// Succeeds if the link is plugged in, as [`OverlayPort::plug_in`] does it.
    pub fn verify_plugged_in(&self, netlink: &mut Netlink) -> Result<(), Error> {
        let link = link_on_host(netlink, &self.link)?;
        let Some(settings) = netlink.port(&self.link)? else {
            return same(|| format!("bridge of port {}", self.link), &self.bridge.as_str(), &"none");
        };
        same_settings(&self.link, settings)?;
        let present = Tables::open()?.fdb(link.index)?.contains(&self.entry(link.index));
        let state = if present { "present" } else { "missing" };
        same(|| format!("entry for {} at port {}", self.mac, self.link), &"present", &state)
    }
}

impl Lifecycle for OverlayPort {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.plug_in(host.netlink()?)
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.verify_plugged_in(host.netlink()?)
    }

    fn remove(&self, _: &mut Host<'_>) -> Result<(), Error> {
        Ok(())
    }
}

fn same_settings(link: &LinkName, settings: PortSettings) -> Result<(), Error> {
    // Kernels before 5.18 know no locks, and say nothing of them.
    for (what, expected, found) in [
        ("learning", false, settings.learning.unwrap_or(true)),
        ("lock", true, settings.locked.unwrap_or(true)),
    ] {
        same(|| format!("{what} of port {link}"), &expected, &found)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_locks_is_no_difference() {
        let link = LinkName::new("veth0").unwrap();
        let port = |learning, locked| PortSettings { learning, locked, ..PortSettings::default() };
        let judge = |port| same_settings(&link, port).map_err(|error| error.to_string());
        assert_eq!(judge(port(Some(false), Some(true))), Ok(()));
        assert_eq!(judge(port(Some(false), None)), Ok(()));
        assert!(judge(port(Some(false), Some(false))).unwrap_err().contains("lock of port veth0"));
        assert!(judge(port(Some(true), Some(true))).unwrap_err().contains("learning of port veth0"));
    }
}
