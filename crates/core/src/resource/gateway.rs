//! The host's own address in a container network.

use cni::{Cidr, LinkName};
use serde::{Deserialize, Serialize};

use super::{Lifecycle, host_link, same};
use crate::error::Error;
use crate::host::Host;
use crate::netlink::{LinkChange, VlanRange};
use crate::shared::Shared;
use crate::sysctl::Key;

/// A gateway address on a link of the host. IPv6 addresses are used at once, without duplicate address detection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// The link: a bridge, or its interface in a VLAN.
    pub link: LinkName,
    /// The address with the prefix length of the subnet.
    pub address: Cidr,
    /// Replace another address that is in the way.
    #[serde(default)]
    pub force: bool,
}

/// The note of a gateway address: it was added here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Added {
    index: u32,
}

impl Gateway {
    fn shared(&self) -> Shared {
        Shared::new("gateway", &format!("{} {}", self.link, self.address))
    }

    /// The rule of the Go suite: of IPv4 one address only, of IPv6 none whose subnet overlaps.
    fn in_the_way(&self, other: &Cidr) -> bool {
        other.is_ipv4() == self.address.is_ipv4()
            && *other != self.address
            && (self.address.is_ipv4() || (other.overlaps(&self.address) && !link_local(other)))
    }
}

fn link_local(cidr: &Cidr) -> bool {
    matches!(cidr.address(), std::net::IpAddr::V6(v6) if v6.is_unicast_link_local())
}

impl Lifecycle for Gateway {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().acquire(&host.user(), |note: Option<Added>| {
            let link = host_link(host, self.link.as_str())?;
            let netlink = host.netlink()?;
            let present = netlink.addresses(link.index)?;
            if present.iter().any(|address| address.cidr == self.address) {
                return Ok::<_, Error>(note.filter(|added| added.index == link.index));
            }
            for other in present.iter().filter(|other| self.in_the_way(&other.cidr)) {
                if !self.force {
                    return Err(Error::OtherAddress {
                        link: self.link.to_string(),
                        wanted: self.address.to_string(),
                        found: other.cidr.to_string(),
                    });
                }
                netlink.delete_address(link.index, &link.name, &other.cidr)?;
            }
            if !self.address.is_ipv4() {
                // A host that has IPv6 disabled by default can still have it on this link, where it is asked for.
                Key::of_interface("ipv6", &self.link, "disable_ipv6").write_if_present("0")?;
            }
            netlink.add_address(link.index, &link.name, &self.address, false)?;
            Ok(Some(Added { index: link.index }))
        })
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let link = host_link(host, self.link.as_str())?;
        let present =
            host.netlink()?.addresses(link.index)?.iter().any(|address| address.cidr == self.address);
        same(
            || format!("gateway address {} on {}", self.address, self.link),
            &"present",
            &if present { "present" } else { "missing" },
        )
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().release(&host.user(), |note: Option<Added>| {
            let Some(added) = note else { return Ok(()) };
            let Some(link) = host.netlink()?.link(self.link.as_str())? else { return Ok(()) };
            if link.index != added.index {
                return Ok(());
            }
            match host.netlink()?.delete_address(link.index, &link.name, &self.address) {
                Err(error) if error.is_missing() => Ok(()),
                other => Ok(other?),
            }
        })
    }
}

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

impl VlanGateway {
    fn shared(&self) -> Shared {
        Shared::new("vlan-gateway", self.name.as_str())
    }

    fn create(&self, host: &mut Host<'_>) -> Result<u32, Error> {
        let bridge = host_link(host, self.bridge.as_str())?;
        host.netlink()?.create_local_veth(&self.name, &self.port, self.mtu)?;
        for name in [&self.name, &self.port] {
            Key::of_interface("ipv6", name, "accept_ra").write_if_present("0")?;
        }
        let port = host_link(host, self.port.as_str())?;
        let netlink = host.netlink()?;
        netlink.change_link(
            port.index,
            &port.name,
            &LinkChange { master: Some(bridge.index), ..LinkChange::default() },
        )?;
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
        netlink.change_link(
            port.index,
            &port.name,
            &LinkChange { up: Some(true), ..LinkChange::default() },
        )?;
        let link = host_link(host, self.name.as_str())?;
        host.netlink()?.change_link(
            link.index,
            &link.name,
            &LinkChange { up: Some(true), ..LinkChange::default() },
        )?;
        Ok(link.index)
    }
}

impl Lifecycle for VlanGateway {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().acquire(&host.user(), |note: Option<Added>| {
            match host.netlink()?.link(self.name.as_str())? {
                Some(link) if link.kind == "veth" => Ok(note.filter(|added| added.index == link.index)),
                Some(link) => Err(Error::Kind { name: link.name, found: link.kind, wanted: "veth" }),
                None => self.create(host).map(|index| Some(Added { index })),
            }
        })
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let link = host_link(host, self.name.as_str())?;
        same(|| format!("state of {}", self.name), &"up", &if link.up { "up" } else { "down" })
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().release(&host.user(), |note: Option<Added>| {
            let Some(added) = note else { return Ok(()) };
            match host.netlink()?.link(self.name.as_str())? {
                Some(link) if link.index == added.index => {
                    Ok(host.netlink()?.delete_link(link.index, &link.name)?)
                }
                _ => Ok(()),
            }
        })
    }
}
