//! Software bridges, their ports and the ports' VLANs.

use cni::LinkName;

use super::link::{
    IFLA_AF_SPEC, IFLA_BR_VLAN_FILTERING, IFLA_EXT_MASK, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND,
    IFLA_LINKINFO, is_on, new_link,
};
use super::message::{AF_BRIDGE, LinkHeader, Message, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK};
use super::socket::{NLM_F_CREATE, NLM_F_EXCL};
use super::{MacAddress, Netlink, NetlinkError};
use crate::nfnetlink::{find, parse, text};

const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;

const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
const IFLA_BRPORT_MCAST_FLOOD: u16 = 27;
const IFLA_BRPORT_BCAST_FLOOD: u16 = 30;
const IFLA_BRPORT_NEIGH_SUPPRESS: u16 = 32;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BRPORT_LOCKED: u16 = 39;

const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const BRIDGE_VLAN_INFO_PVID: u16 = 1 << 1;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 1 << 2;
const BRIDGE_VLAN_INFO_RANGE_BEGIN: u16 = 1 << 3;
const BRIDGE_VLAN_INFO_RANGE_END: u16 = 1 << 4;

const RTEXT_FILTER_BRVLAN: u32 = 2;

/// A bridge to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BridgeSettings {
    /// MTU in bytes; `None` for the kernel's default.
    pub mtu: Option<u32>,
    /// Hardware address. One that is set at creation stays; otherwise a bridge takes the lowest address of its ports.
    pub mac: Option<MacAddress>,
    /// Filter VLANs.
    pub vlan_filtering: Option<bool>,
}

/// Settings of a bridge port; what is `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortSettings {
    /// Frames may leave through the port they came from.
    pub hairpin: Option<bool>,
    /// No frames between isolated ports.
    pub isolated: Option<bool>,
    /// Enter the senders of frames.
    pub learning: Option<bool>,
    /// Take frames only from hardware addresses that have an entry for this port (Linux 5.18).
    pub locked: Option<bool>,
    /// Frames for unknown addresses, for groups and for everybody leave through the port.
    pub flood: Option<bool>,
    /// Answer for neighbours behind the port that the bridge knows, instead of asking there.
    pub suppress_neighbours: Option<bool>,
}

/// One VLAN, or a range of them, on a bridge port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanRange {
    /// First VLAN id, 1 to 4094.
    pub first: u16,
    /// Last VLAN id.
    pub last: u16,
    /// Untagged frames that arrive belong to it (one VLAN only).
    pub pvid: bool,
    /// Frames leave untagged.
    pub untagged: bool,
}

/// A VLAN that a port has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vlan {
    /// VLAN id.
    pub id: u16,
    /// Untagged frames that arrive belong to it.
    pub pvid: bool,
    /// Frames leave untagged.
    pub untagged: bool,
}

impl Netlink {
    /// Makes a bridge, down.
    pub fn create_bridge(&mut self, name: &LinkName, settings: &BridgeSettings) -> Result<(), NetlinkError> {
        let mut message = new_link(name, settings.mac, settings.mtu);
        settings.write(&mut message);
        self.change(&message, NLM_F_CREATE | NLM_F_EXCL, || format!("create bridge {name}"))
    }

    /// Switches VLAN filtering of a bridge. `RTM_NEWLINK`, because `RTM_SETLINK` accepts this and does nothing.
    pub fn set_vlan_filtering(&mut self, index: u32, name: &LinkName, on: bool) -> Result<(), NetlinkError> {
        let mut message = Message::link(RTM_NEWLINK, LinkHeader { index, ..LinkHeader::default() });
        BridgeSettings { vlan_filtering: Some(on), ..BridgeSettings::default() }.write(&mut message);
        self.change(&message, 0, || {
            format!("switch VLAN filtering of bridge {name} {}", if on { "on" } else { "off" })
        })
    }

    /// Changes settings of a bridge port.
    pub fn set_port(
        &mut self,
        index: u32,
        name: &LinkName,
        settings: PortSettings,
    ) -> Result<(), NetlinkError> {
        if settings == PortSettings::default() {
            return Ok(());
        }
        let message = settings.message(index);
        self.change(&message, 0, || format!("change settings of bridge port {name}"))
    }

    /// The settings of a bridge port; `None` if the link is not a port of a bridge.
    pub fn port(&mut self, name: &LinkName) -> Result<Option<PortSettings>, NetlinkError> {
        let mut message = Message::link(RTM_GETLINK, LinkHeader::default());
        message.content.string(IFLA_IFNAME, name.as_str());
        let answer = self.get(&message, || format!("look up bridge port {name}"))?;
        Ok(answer.as_ref().and_then(|answer| PortSettings::decode(answer.answer(RTM_NEWLINK)?)))
    }

    /// The VLANs of a bridge port.
    pub fn port_vlans(&mut self, index: u32, name: &LinkName) -> Result<Vec<Vlan>, NetlinkError> {
        let header = LinkHeader { family: AF_BRIDGE, ..LinkHeader::default() };
        let mut message = Message::link(RTM_GETLINK, header);
        message.content.u32(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN);
        let answers = self.dump(&message, || format!("list VLANs of bridge port {name}"))?;
        let payloads = answers.iter().filter_map(|answer| answer.answer(RTM_NEWLINK));
        Ok(payloads.flat_map(|payload| vlans(payload, index)).collect())
    }

    /// Adds VLANs to a bridge port, all in one request.
    pub fn add_port_vlans(
        &mut self,
        index: u32,
        name: &LinkName,
        ranges: &[VlanRange],
    ) -> Result<(), NetlinkError> {
        let message = vlan_message(RTM_SETLINK, index, ranges);
        self.change(&message, 0, || format!("add VLANs to bridge port {name}"))
    }

    /// Removes VLANs from a bridge port.
    pub fn delete_port_vlans(
        &mut self,
        index: u32,
        name: &LinkName,
        ranges: &[VlanRange],
    ) -> Result<(), NetlinkError> {
        let message = vlan_message(RTM_DELLINK, index, ranges);
        self.change(&message, 0, || format!("remove VLANs from bridge port {name}"))
    }
}

impl BridgeSettings {
    /// Writes what only a bridge has.
    pub(super) fn write(&self, message: &mut Message) {
        message.content.nest_unmarked(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "bridge");
            if let Some(on) = self.vlan_filtering {
                info.nest_unmarked(IFLA_INFO_DATA, |data| {
                    data.u8(IFLA_BR_VLAN_FILTERING, on.into());
                });
            }
        });
    }
}

impl PortSettings {
    pub(super) fn message(self, index: u32) -> Message {
        let mut message = Message::link(RTM_NEWLINK, LinkHeader { index, ..LinkHeader::default() });
        message.content.nest_unmarked(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_SLAVE_KIND, "bridge").nest_unmarked(IFLA_INFO_SLAVE_DATA, |data| {
                for (kind, wanted) in [
                    (IFLA_BRPORT_MODE, self.hairpin),
                    (IFLA_BRPORT_ISOLATED, self.isolated),
                    (IFLA_BRPORT_LEARNING, self.learning),
                    (IFLA_BRPORT_LOCKED, self.locked),
                    (IFLA_BRPORT_UNICAST_FLOOD, self.flood),
                    (IFLA_BRPORT_MCAST_FLOOD, self.flood),
                    (IFLA_BRPORT_BCAST_FLOOD, self.flood),
                    (IFLA_BRPORT_NEIGH_SUPPRESS, self.suppress_neighbours),
                ] {
                    if let Some(on) = wanted {
                        data.u8(kind, on.into());
                    }
                }
            });
        });
        message
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let (_, attributes) = LinkHeader::split(payload)?;
        let info = find(attributes, IFLA_LINKINFO)?;
        find(info, IFLA_INFO_SLAVE_KIND).filter(|kind| text(kind) == "bridge")?;
        let mut settings = Self::default();
        for (kind, value) in parse(find(info, IFLA_INFO_SLAVE_DATA)?) {
            let on = Some(is_on(value));
            match kind {
                IFLA_BRPORT_MODE => settings.hairpin = on,
                IFLA_BRPORT_ISOLATED => settings.isolated = on,
                IFLA_BRPORT_LEARNING => settings.learning = on,
                IFLA_BRPORT_LOCKED => settings.locked = on,
                IFLA_BRPORT_BCAST_FLOOD => settings.flood = on,
                IFLA_BRPORT_NEIGH_SUPPRESS => settings.suppress_neighbours = on,
                _ => {}
            }
        }
        Some(settings)
    }
}

/// The VLANs in an answer, if it is about this link.
pub(super) fn vlans(payload: &[u8], index: u32) -> Vec<Vlan> {
    let Some((header, attributes)) = LinkHeader::split(payload) else { return Vec::new() };
    if header.index != index {
        return Vec::new();
    }
    let specs = find(attributes, IFLA_AF_SPEC).unwrap_or_default();
    let infos = parse(specs).filter(|(kind, _)| *kind == IFLA_BRIDGE_VLAN_INFO);
    infos
        .filter_map(|(_, info)| {
            let flags = u16::from_ne_bytes(*info.first_chunk()?);
            Some(Vlan {
                id: u16::from_ne_bytes(*info.get(2..)?.first_chunk()?),
                pvid: flags & BRIDGE_VLAN_INFO_PVID != 0,
                untagged: flags & BRIDGE_VLAN_INFO_UNTAGGED != 0,
            })
        })
        .collect()
}

pub(super) fn vlan_message(kind: u16, index: u32, ranges: &[VlanRange]) -> Message {
    let header = LinkHeader { family: AF_BRIDGE, index, ..LinkHeader::default() };
    let mut message = Message::link(kind, header);
    message.content.nest_unmarked(IFLA_AF_SPEC, |specs| {
        let mut spec = |flags: u16, id: u16| {
            let info = [flags.to_ne_bytes(), id.to_ne_bytes()].concat();
            specs.bytes(IFLA_BRIDGE_VLAN_INFO, &info);
        };
        for range in ranges {
            let mut flags = if range.pvid { BRIDGE_VLAN_INFO_PVID } else { 0 };
            flags |= if range.untagged { BRIDGE_VLAN_INFO_UNTAGGED } else { 0 };
            if range.first == range.last {
                spec(flags, range.first);
            } else {
                spec(flags | BRIDGE_VLAN_INFO_RANGE_BEGIN, range.first);
                spec(flags | BRIDGE_VLAN_INFO_RANGE_END, range.last);
            }
        }
    });
    message
}
