//! A bridge and its ports.

use cni::LinkName;
use serde::{Deserialize, Serialize};

use super::{Lifecycle, Role, is_shared, mark_shared, same};
use crate::error::Error;
use crate::host::Host;
use crate::netlink::{BridgeSettings, Link, LinkChange, MacAddress, Netlink, PortSettings, VlanRange};
use crate::shared::{Note, Shared};
use crate::sysctl::Key;

/// A bridge as declared: made if it is missing, changed where it is not as described. With its last user it goes again if it was made here,
/// and else becomes what it was before.
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
    /// This host is the router of its network: it takes no other's advertisements; false leaves it. A bridge made here never does.
    #[serde(default)]
    pub router: bool,
}

/// The note of a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Origin {
    /// It was made here, with this address.
    Made(MacAddress),
    /// It was there, and this was changed.
    Found(Before),
}

/// What was changed of a bridge that was there: the values it had. What is `None` was not changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Before {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    up: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promiscuous: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vlan_filtering: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accept_ra: Option<String>,
}

impl Bridge {
    /// A bridge of which nothing is asked.
    pub fn new(name: LinkName) -> Self {
        Self { name, mtu: None, vlan_filtering: false, promiscuous: false, router: false }
    }

    fn shared(&self) -> Shared {
        Shared::new(Self::REGISTER, self.name.as_str())
    }

    const REGISTER: &str = "bridge";

    fn find(&self, host: &mut Host<'_>) -> Result<Option<Link>, Error> {
        let Some(link) = host.netlink()?.link(self.name.as_str())? else { return Ok(None) };
        if link.kind == "bridge" {
            return Ok(Some(link));
        }
        let found = if link.kind.is_empty() { "plain device".to_owned() } else { link.kind };
        Err(Error::Kind { name: self.name.to_string(), found, wanted: "bridge" })
    }

    fn accept_ra(&self) -> Key {
        Key::of_interface("ipv6", &self.name, "accept_ra")
    }

    /// The link-local address is what the host asks for its neighbours from when it forwards a packet. It is made of an address that was
    /// made up here, so there is no duplicate to be detected, and no second or two to be lost.
    fn accept_dad(&self) -> Key {
        Key::of_interface("ipv6", &self.name, "accept_dad")
    }

    fn create(&self, host: &mut Host<'_>, note: &mut Note<'_, Origin>) -> Result<Link, Error> {
        // An address that is set stays; otherwise it would follow the lowest of the ports, and neighbours' ARP entries go stale.
        let mac = MacAddress::random();
        note.set(Origin::Made(mac))?;
        let settings = BridgeSettings {
            mtu: self.mtu,
            mac: Some(mac),
            vlan_filtering: self.vlan_filtering.then_some(true),
        };
        let netlink = host.netlink()?;
        match netlink.create_bridge(&self.name, &settings) {
            Err(error) if error.is_exists() => match netlink.link_by_any_name(self.name.as_str())? {
                Some(link) if link.name != self.name.as_str() => {
                    Err(Error::AlternativeName { name: self.name.to_string(), link: link.name })
                }
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
            Ok(()) => host.need_link(&self.name),
        }
    }

    fn adjust(&self, host: &mut Host<'_>, link: &Link, note: &mut Note<'_, Origin>) -> Result<(), Error> {
        let mut before = match note.get() {
            Some(Origin::Found(before)) => Some(before.clone()),
            _ => None,
        };
        let known = before.clone();
        if before.is_none() && !is_shared(link) {
            mark_shared(host, link)?;
            self.accept_dad().put_if_present("0")?;
        }
        let change = LinkChange {
            up: (!link.up).then_some(true),
            mtu: self.mtu.filter(|mtu| *mtu != link.mtu),
            promiscuous: (self.promiscuous && !link.promiscuous).then_some(true),
            ..LinkChange::default()
        };
        let filter = self.vlan_filtering && link.vlan_filtering != Some(true);
        let refuses = self.router || before.is_none();
        let accept_ra = link.accept_ra.filter(|value| refuses && *value != 0);
        if let Some(before) = &mut before {
            before.up = before.up.or(change.up.map(|_| link.up));
            before.mtu = before.mtu.or(change.mtu.map(|_| link.mtu));
            before.promiscuous = before.promiscuous.or(change.promiscuous.map(|_| link.promiscuous));
            before.vlan_filtering = before.vlan_filtering.or(filter.then_some(false));
            before.accept_ra = before.accept_ra.take().or_else(|| accept_ra.map(|value| value.to_string()));
        }
        if before != known {
            before.map_or(Ok(()), |before| note.set(Origin::Found(before)))?;
        }
        if accept_ra.is_some() {
            // Before it is up: a container must not become the host's router (CVE-2020-10749).
            self.accept_ra().put_if_present("0")?;
        }
        if filter {
            host.netlink()?.set_vlan_filtering(link.index, &self.name, true)?;
        }
        if change != LinkChange::default() {
            host.netlink()?.change_link(link.index, &link.name, &change)?;
        }
        Ok(())
    }

    /// After the last user: the bridge is deleted if it was made here, and nobody else uses it by now; together with the links that are to go anyway.
    fn dispose(
        &self,
        netlink: &mut Netlink,
        origin: Option<Origin>,
        leaving: &[(u32, String)],
    ) -> Result<(), Error> {
        let mut leaving: Vec<(u32, &str)> =
            leaving.iter().map(|(index, name)| (*index, name.as_str())).collect();
        let Some(link) = netlink.link(self.name.as_str())?.filter(|link| link.kind == "bridge") else {
            return Ok(netlink.delete_links(&leaving)?);
        };
        let stays = |port: &Link| !leaving.iter().any(|(index, _)| *index == port.index);
        let has_ports = netlink.ports(link.index)?.iter().any(stays);
        let made_here = match &origin {
            Some(Origin::Found(_)) => false,
            Some(Origin::Made(mac)) => is_shared(&link) || link.mac == mac.to_string(),
            // The note is damaged or lost, but who made the bridge has marked it.
            None => is_shared(&link),
        };
        if made_here && !has_ports {
            leaving.push((link.index, &link.name));
        }
        netlink.delete_links(&leaving)?;
        match origin {
            Some(Origin::Found(before)) => self.restore(netlink, &link, &before, has_ports),
            _ => Ok(()),
        }
    }

    fn restore(
        &self,
        netlink: &mut Netlink,
        link: &Link,
        before: &Before,
        has_ports: bool,
    ) -> Result<(), Error> {
        let change = LinkChange {
            // Ports of somebody else's have come meanwhile; to them it is of use.
            up: before.up.filter(|_| !has_ports),
            mtu: before.mtu,
            promiscuous: before.promiscuous,
            ..LinkChange::default()
        };
        if change != LinkChange::default() {
            netlink.change_link(link.index, &link.name, &change)?;
        }
        if let Some(on) = before.vlan_filtering {
            netlink.set_vlan_filtering(link.index, &self.name, on)?;
        }
        if let Some(value) = &before.accept_ra {
            self.accept_ra().write_if_present(value)?;
        }
        Ok(())
    }
}

impl Lifecycle for Bridge {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().acquire(&host.user(), |note: &mut Note<'_, Origin>| {
            let link = match self.find(host)? {
                None => self.create(host, note)?,
                Some(link) => {
                    let ours = match note.get() {
                        Some(Origin::Made(mac)) => is_shared(&link) || link.mac == mac.to_string(),
                        Some(Origin::Found(_)) => true,
                        None => false,
                    };
                    if !ours {
                        // One that bears our mark was made here, though nobody remembers.
                        let mac = link.mac.parse().ok().filter(|_| is_shared(&link));
                        note.set(mac.map_or(Origin::Found(Before::default()), Origin::Made))?;
                    }
                    link
                }
            };
            self.adjust(host, &link, note)
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
        self.shared().release(&host.user(), |note: Option<Origin>| {
            let leaving = host.take_leaving();
            let disposed = host.netlink().and_then(|netlink| self.dispose(netlink, note, &leaving));
            if disposed.is_err() {
                host.leave_again(leaving);
            }
            disposed
        })
    }

    fn register() -> Option<&'static str> {
        Some(Self::REGISTER)
    }

    fn of_register(name: &str) -> Option<Self> {
        LinkName::new(name).ok().map(Self::new)
    }

    fn role(&self) -> Role<'_> {
        Role::Shared
    }

    fn goes_with_its_port(&self, host: &Host<'_>) -> bool {
        self.shared().has_only(&host.user())
    }
}

/// Deletes a bridge that bears our mark, that no register knows, and that nobody uses: what remains where the state directory was lost.
pub fn sweep_bridge(netlink: &mut Netlink, name: LinkName) -> Result<(), Error> {
    let bridge = Bridge::new(name);
    let find = |netlink: &mut Netlink| netlink.link(bridge.name.as_str()).map(|link| link.filter(is_shared));
    if find(netlink)?.is_none() {
        return Ok(());
    }
    bridge.shared().sweep(|| match find(netlink)? {
        Some(link) => bridge.dispose(netlink, link.mac.parse().ok().map(Origin::Made), &[]),
        None => Ok(()),
    })
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
        let bridge = host.need_link_index(&self.bridge)?;
        let link = host.need_link_index(&self.link)?;
        // A new port has neither, so only what is asked for is written.
        let settings = PortSettings {
            hairpin: self.hairpin.then_some(true),
            isolated: self.isolated.then_some(true),
            ..PortSettings::default()
        };
        let has_vlans = self.clear_vlans || self.native_vlan.is_some() || !self.trunk.0.is_empty();
        let up = Some(true);
        let name = self.link.as_str();
        if settings == PortSettings::default() && !has_vlans {
            // In one request the kernel makes it a port before it brings it up; older ones the other way round, which is as good for a pair whose other end is down.
            let change = LinkChange { master: Some(bridge), up, ..LinkChange::default() };
            return Ok(host.netlink()?.change_link(link, name, &change)?);
        }
        let change = LinkChange { master: Some(bridge), ..LinkChange::default() };
        host.netlink()?.change_link(link, name, &change)?;
        host.netlink()?.set_port(link, &self.link, settings)?;
        if has_vlans {
            self.configure_vlans(host, link)?;
        }
        // Up only now, so that no frame passes with other settings.
        Ok(host.netlink()?.change_link(link, name, &LinkChange { up, ..LinkChange::default() })?)
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let bridge = host.need_link(&self.bridge)?;
        let link = host.need_link(&self.link)?;
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
