//! The host's own interface in a VLAN of a bridge.

use cni::LinkName;
use serde::{Deserialize, Serialize};

use super::{Lifecycle, is_shared, mark_shared, same};
use crate::error::Error;
use crate::host::Host;
use crate::netlink::{Link, LinkChange, MacAddress, VlanRange};
use crate::shared::{Note, Shared};
use crate::sysctl::Key;

/// An interface of the host in one VLAN of a bridge: a veth pair of which one end is a port of the bridge in that VLAN, and the other,
/// `BRIDGE.VLAN`, carries the gateway address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VlanGateway {
    /// The bridge.
    pub bridge: LinkName,
    /// The interface, `BRIDGE.VLAN`.
    pub name: LinkName,
    /// The end that is a port.
    pub port: LinkName,
    /// The VLAN.
    pub vlan: u16,
    /// MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Keep the VLANs that a new port has from the start.
    #[serde(default)]
    pub keep_default_vlan: bool,
}

/// The note of such a pair: it was made here, and `BRIDGE.VLAN` got this address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    mac: MacAddress,
}

impl VlanGateway {
    const REGISTER: &str = "vlan-gateway";

    fn shared(&self) -> Shared {
        Shared::new(Self::REGISTER, self.name.as_str())
    }

    fn find(&self, host: &mut Host<'_>) -> Result<Option<Link>, Error> {
        match host.netlink()?.link(self.name.as_str())? {
            Some(link) if link.kind != "veth" => {
                Err(Error::Kind { name: link.name, found: link.kind, wanted: "veth" })
            }
            found => Ok(found),
        }
    }

    /// Every step can be repeated: whoever was at it before may have been killed.
    fn configure(&self, host: &mut Host<'_>, link: &Link) -> Result<(), Error> {
        for name in [&self.name, &self.port] {
            for parameter in ["accept_ra", "accept_dad"] {
                Key::of_interface("ipv6", name, parameter).put_if_present("0")?;
            }
        }
        let bridge = host.need_link(&self.bridge)?;
        let port = host.need_link(&self.port)?;
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        if port.master != Some(bridge.index) {
            let change = LinkChange { master: Some(bridge.index), ..LinkChange::default() };
            host.netlink()?.change_link(port.index, &port.name, &change)?;
        }
        let netlink = host.netlink()?;
        if !self.keep_default_vlan {
            let present = netlink.port_vlans(port.index, &self.port)?;
            let surplus: Vec<VlanRange> = present
                .iter()
                .filter(|vlan| vlan.id != self.vlan)
                .map(|vlan| VlanRange { first: vlan.id, last: vlan.id, pvid: false, untagged: false })
                .collect();
            if !surplus.is_empty() {
                netlink.delete_port_vlans(port.index, &self.port, &surplus)?;
            }
        }
        let range = VlanRange { first: self.vlan, last: self.vlan, pvid: true, untagged: true };
        netlink.add_port_vlans(port.index, &self.port, &[range])?;
        netlink.change_link(port.index, &port.name, &up)?;
        netlink.change_link(link.index, &link.name, &up)?;
        for end in [link, &port] {
            mark_shared(host, end)?;
        }
        Ok(())
    }
}

impl Lifecycle for VlanGateway {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.find(host)?;
        self.shared().acquire(&host.user(), |note: &mut Note<'_, Made>| {
            let link = match self.find(host)? {
                // The mark is the last step.
                Some(link) if is_shared(&link) => {
                    if let (None, Ok(mac)) = (note.get(), link.mac.parse()) {
                        note.set(Made { mac })?;
                    }
                    return Ok(());
                }
                Some(link) if note.get().is_some_and(|made| made.mac.to_string() == link.mac) => link,
                // An administrator's, or the Go suite's: taken as it is.
                Some(_) => return Ok(()),
                None => {
                    let mac = MacAddress::random();
                    note.set(Made { mac })?;
                    host.netlink()?.create_local_veth(&self.name, Some(mac), &self.port, self.mtu)?;
                    host.need_link(&self.name)?
                }
            };
            self.configure(host, &link)
        })
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let link = host.need_link(&self.name)?;
        same(|| format!("state of {}", self.name), &"up", &if link.up { "up" } else { "down" })
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().release(&host.user(), |note: Option<Made>| {
            let Some(made) = note else { return Ok(()) };
            match host.netlink()?.link(self.name.as_str())? {
                Some(link) if is_shared(&link) || link.mac == made.mac.to_string() => {
                    Ok(host.netlink()?.delete_link(link.index, &link.name)?)
                }
                _ => Ok::<_, Error>(()),
            }
        })
    }

    fn register() -> Option<&'static str> {
        Some(Self::REGISTER)
    }

    fn of_register(name: &str) -> Option<Self> {
        let (bridge, vlan) = name.rsplit_once('.')?;
        let name = LinkName::new(name).ok()?;
        Some(Self {
            bridge: LinkName::new(bridge).ok()?,
            port: name.clone(),
            name,
            vlan: vlan.parse().ok()?,
            mtu: None,
            keep_default_vlan: false,
        })
    }
}
