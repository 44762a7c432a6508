//! A bridge and its ports.

use cni::LinkName;
use serde::{Deserialize, Serialize};

use super::{Lifecycle, host_link, same};
use crate::error::Error;
use crate::host::Host;
use crate::netlink::{BridgeSettings, Link, LinkChange, MacAddress, PortSettings, VlanRange};
use crate::shared::Shared;
use crate::sysctl::Key;

/// A bridge as declared: made if it is missing, changed where it is not as described, removed with its last port if it was made here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bridge {
    /// Name.
    pub name: LinkName,
    /// MTU in bytes; `None` leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Filter VLANs; false leaves it.
    #[serde(default)]
    pub vlan_filtering: bool,
    /// Promiscuous mode; false leaves it.
    #[serde(default)]
    pub promiscuous: bool,
}

/// The note of a bridge: it was made here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    index: u32,
}

impl Bridge {
    fn shared(&self) -> Shared {
        Shared::new("bridge", self.name.as_str())
    }

    fn find(&self, host: &mut Host<'_>) -> Result<Option<Link>, Error> {
        let Some(link) = host.netlink()?.link(self.name.as_str())? else { return Ok(None) };
        if link.kind == "bridge" {
            return Ok(Some(link));
        }
        let found = if link.kind.is_empty() { "plain device".to_owned() } else { link.kind };
        Err(Error::Kind { name: self.name.to_string(), found, wanted: "bridge" })
    }

    fn create(&self, host: &mut Host<'_>) -> Result<Link, Error> {
        let settings = BridgeSettings {
            mtu: self.mtu,
            // An address that is set stays; otherwise it would follow the lowest of the ports, and neighbours' ARP entries go stale.
            mac: Some(MacAddress::random()),
            vlan_filtering: self.vlan_filtering.then_some(true),
        };
        host.netlink()?.create_bridge(&self.name, &settings)?;
        // Before it is up: a container must not become the host's router (CVE-2020-10749).
        Key::of_interface("ipv6", &self.name, "accept_ra").write_if_present("0")?;
        // The kernel solicits neighbours for what it forwards from the link-local address only, and not while that is tentative
        // (`ndisc_send_ns`): for its first second or two, nobody outside would reach the bridge's containers over IPv6.
        Key::of_interface("ipv6", &self.name, "accept_dad").write_if_present("0")?;
        host_link(host, self.name.as_str())
    }

    fn adjust(&self, host: &mut Host<'_>, link: &Link) -> Result<(), Error> {
        if self.vlan_filtering && link.vlan_filtering != Some(true) {
            host.netlink()?.set_vlan_filtering(link.index, &self.name, true)?;
        }
        let change = LinkChange {
            up: (!link.up).then_some(true),
            mtu: self.mtu.filter(|mtu| *mtu != link.mtu),
            promiscuous: (self.promiscuous && !link.promiscuous).then_some(true),
            ..LinkChange::default()
        };
        if change != LinkChange::default() {
            host.netlink()?.change_link(link.index, &link.name, &change)?;
        }
        Ok(())
    }

    /// Deletes the bridge unless somebody else uses it by now.
    fn dispose(&self, host: &mut Host<'_>, made: &Made) -> Result<(), Error> {
        let Some(link) = host.netlink()?.link(self.name.as_str())? else { return Ok(()) };
        let ports = host.netlink()?.links()?.iter().any(|port| port.master == Some(link.index));
        if link.kind != "bridge" || link.index != made.index || ports {
            return Ok(());
        }
        Ok(host.netlink()?.delete_link(link.index, &link.name)?)
    }
}

impl Lifecycle for Bridge {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        // Looked at before the lock, so that a name held by something else leaves no trace.
        self.find(host)?;
        self.shared().acquire(&host.user(), |note: Option<Made>| {
            let (link, note) = if let Some(link) = self.find(host)? {
                let note = note.filter(|made| made.index == link.index);
                (link, note)
            } else {
                let link = self.create(host)?;
                let made = Made { index: link.index };
                (link, Some(made))
            };
            self.adjust(host, &link)?;
            Ok::<_, Error>(note)
        })
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let link = self
            .find(host)?
            .ok_or_else(|| Error::LinkMissing { name: self.name.to_string(), place: "on the host" })?;
        same(|| format!("state of bridge {}", self.name), &"up", &if link.up { "up" } else { "down" })?;
        if self.vlan_filtering {
            same(
                || format!("VLAN filtering of bridge {}", self.name),
                &true,
                &link.vlan_filtering.unwrap_or_default(),
            )?;
        }
        // Neither MTU nor promiscuous mode is compared: other ports lower the one, and a packet capture raises the other.
        Ok(())
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().release(&host.user(), |note: Option<Made>| match note {
            Some(made) => self.dispose(host, &made),
            None => Ok(()),
        })
    }
}

/// A VLAN id, 1 to 4094.
pub type VlanId = u16;

/// Tagged VLANs of a port: single ids and ranges, sorted, without overlaps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VlanTrunk(pub Vec<(VlanId, VlanId)>);

/// The host's end of a pair as a port of a bridge, up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgePort {
    /// The port.
    pub link: LinkName,
    /// The bridge.
    pub bridge: LinkName,
    /// Frames may leave through the port they came from.
    #[serde(default)]
    pub hairpin: bool,
    /// No frames between isolated ports.
    #[serde(default)]
    pub isolated: bool,
    /// The VLAN of untagged frames; `None` where VLANs are not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native_vlan: Option<VlanId>,
    /// Tagged VLANs.
    #[serde(default)]
    pub trunk: VlanTrunk,
    /// Remove the VLANs that the port has from the start (normally 1).
    #[serde(default)]
    pub clear_vlans: bool,
}

impl BridgePort {
    fn configure_vlans(&self, host: &mut Host<'_>, index: u32) -> Result<(), Error> {
        let wanted = self.vlans();
        if self.clear_vlans {
            let present = host.netlink()?.port_vlans(index, &self.link)?;
            let surplus: Vec<VlanRange> = present
                .iter()
                .filter(|vlan| !wanted.iter().any(|range| (range.first..=range.last).contains(&vlan.id)))
                .map(|vlan| VlanRange { first: vlan.id, last: vlan.id, pvid: false, untagged: false })
                .collect();
            if !surplus.is_empty() {
                host.netlink()?.delete_port_vlans(index, &self.link, &surplus)?;
            }
        }
        if !wanted.is_empty() {
            host.netlink()?.add_port_vlans(index, &self.link, &wanted)?;
        }
        Ok(())
    }

    fn vlans(&self) -> Vec<VlanRange> {
        let native = self.native_vlan.map(|id| VlanRange { first: id, last: id, pvid: true, untagged: true });
        let mut ranges: Vec<VlanRange> = native.into_iter().collect();
        for &(first, last) in &self.trunk.0 {
            // The native VLAN is not tagged, so it is cut out of a range that covers it.
            let pieces = match self.native_vlan.filter(|id| (first..=last).contains(id)) {
                None => vec![(first, last)],
                Some(id) => vec![(first, id.saturating_sub(1)), (id + 1, last)],
            };
            let pieces = pieces.into_iter().filter(|(first, last)| first <= last);
            ranges.extend(pieces.map(|(first, last)| VlanRange {
                first,
                last,
                pvid: false,
                untagged: false,
            }));
        }
        ranges
    }
}

impl Lifecycle for BridgePort {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let bridge = host_link(host, self.bridge.as_str())?;
        let link = host_link(host, self.link.as_str())?;
        let change = LinkChange { master: Some(bridge.index), ..LinkChange::default() };
        host.netlink()?.change_link(link.index, &link.name, &change)?;
        // A new port has neither, so only what is asked for is written.
        let settings =
            PortSettings { hairpin: self.hairpin.then_some(true), isolated: self.isolated.then_some(true) };
        host.netlink()?.set_port(link.index, &self.link, settings)?;
        if self.clear_vlans || self.native_vlan.is_some() || !self.trunk.0.is_empty() {
            self.configure_vlans(host, link.index)?;
        }
        // Up only now, so that no frame passes with other settings.
        Ok(host.netlink()?.change_link(
            link.index,
            &link.name,
            &LinkChange { up: Some(true), ..LinkChange::default() },
        )?)
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let bridge = host_link(host, self.bridge.as_str())?;
        let link = host_link(host, self.link.as_str())?;
        let master = |index: u32| if index == 0 { "none".to_owned() } else { format!("index {index}") };
        same(
            || format!("bridge of port {}", self.link),
            &master(bridge.index),
            &master(link.master.unwrap_or_default()),
        )?;
        same(|| format!("state of port {}", self.link), &"up", &if link.up { "up" } else { "down" })?;
        let settings = host.netlink()?.port(&self.link)?.unwrap_or_default();
        same(
            || format!("hairpin mode of port {}", self.link),
            &self.hairpin,
            &settings.hairpin.unwrap_or_default(),
        )?;
        same(
            || format!("isolation of port {}", self.link),
            &self.isolated,
            &settings.isolated.unwrap_or_default(),
        )?;
        let wanted = self.vlans();
        if wanted.is_empty() {
            return Ok(());
        }
        let present = host.netlink()?.port_vlans(link.index, &self.link)?;
        for range in &wanted {
            for id in range.first..=range.last {
                let found = present.iter().find(|vlan| vlan.id == id);
                let as_wanted =
                    found.is_some_and(|vlan| vlan.pvid == range.pvid && vlan.untagged == range.untagged);
                same(|| format!("VLAN {id} of port {}", self.link), &true, &as_wanted)?;
            }
        }
        Ok(())
    }

    /// The port goes with its link.
    fn remove(&self, _: &mut Host<'_>) -> Result<(), Error> {
        Ok(())
    }
}
