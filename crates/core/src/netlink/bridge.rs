//! Software bridges, their ports and the ports' VLANs.

use cni::LinkName;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoBridgePort, InfoData, InfoKind,
    InfoPortData, InfoPortKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{MacAddress, Netlink, NetlinkError};

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
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        message.attributes.extend(settings.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(settings.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        let mut info = vec![LinkInfo::Kind(InfoKind::Bridge)];
        info.extend(
            settings
                .vlan_filtering
                .map(|on| LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(on)]))),
        );
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("create bridge {name}")
        })
    }

    /// Switches VLAN filtering of a bridge. `RTM_NEWLINK`, because `RTM_SETLINK` accepts this and does nothing.
    pub fn set_vlan_filtering(&mut self, index: u32, name: &LinkName, on: bool) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let data = InfoData::Bridge(vec![InfoBridge::VlanFiltering(on)]);
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(data)]));
        self.change(RouteNetlinkMessage::NewLink(message), 0, || {
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
        let mut data = Vec::new();
        data.extend(settings.hairpin.map(InfoBridgePort::HairpinMode));
        data.extend(settings.isolated.map(InfoBridgePort::Isolated));
        data.extend(settings.learning.map(InfoBridgePort::Learning));
        data.extend(settings.locked.map(InfoBridgePort::Locked));
        if let Some(on) = settings.flood {
            data.extend([
                InfoBridgePort::UnicastFlood(on),
                InfoBridgePort::MulticastFlood(on),
                InfoBridgePort::BroadcastFlood(on),
            ]);
        }
        data.extend(settings.suppress_neighbours.map(InfoBridgePort::NeighSupress));
        if data.is_empty() {
            return Ok(());
        }
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(data)),
        ]));
        self.change(RouteNetlinkMessage::NewLink(message), 0, || {
            format!("change settings of bridge port {name}")
        })
    }

    /// The settings of a bridge port; `None` if the link is not a port of a bridge.
    pub fn port(&mut self, name: &LinkName) -> Result<Option<PortSettings>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        let answer =
            self.get(RouteNetlinkMessage::GetLink(message), || format!("look up bridge port {name}"))?;
        let Some(RouteNetlinkMessage::NewLink(message)) = answer else { return Ok(None) };
        for attribute in message.attributes {
            let LinkAttribute::LinkInfo(infos) = attribute else { continue };
            for info in infos {
                if let LinkInfo::PortData(InfoPortData::BridgePort(data)) = info {
                    let mut settings = PortSettings::default();
                    for value in data {
                        match value {
                            InfoBridgePort::HairpinMode(on) => settings.hairpin = Some(on),
                            InfoBridgePort::Isolated(on) => settings.isolated = Some(on),
                            InfoBridgePort::Learning(on) => settings.learning = Some(on),
                            InfoBridgePort::Locked(on) => settings.locked = Some(on),
                            InfoBridgePort::BroadcastFlood(on) => settings.flood = Some(on),
                            InfoBridgePort::NeighSupress(on) => settings.suppress_neighbours = Some(on),
                            _ => {}
                        }
                    }
                    return Ok(Some(settings));
                }
            }
        }
        Ok(None)
    }

    /// The VLANs of a bridge port.
    pub fn port_vlans(&mut self, index: u32, name: &LinkName) -> Result<Vec<Vlan>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Brvlan]));
        let answers = self
            .dump(&RouteNetlinkMessage::GetLink(message), || format!("list VLANs of bridge port {name}"))?;
        let mut vlans = Vec::new();
        for answer in answers {
            let RouteNetlinkMessage::NewLink(message) = answer else { continue };
            if message.header.index != index {
                continue;
            }
            for attribute in message.attributes {
                let LinkAttribute::AfSpecBridge(specs) = attribute else { continue };
                vlans.extend(specs.into_iter().filter_map(|spec| match spec {
                    AfSpecBridge::VlanInfo(info) => Some(Vlan {
                        id: info.vid,
                        pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
                        untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
                    }),
                    _ => None,
                }));
            }
        }
        Ok(vlans)
    }

    /// Adds VLANs to a bridge port, all in one request.
    pub fn add_port_vlans(
        &mut self,
        index: u32,
        name: &LinkName,
        ranges: &[VlanRange],
    ) -> Result<(), NetlinkError> {
        let message = vlan_message(index, ranges);
        self.change(RouteNetlinkMessage::SetLink(message), 0, || format!("add VLANs to bridge port {name}"))
    }

    /// Removes VLANs from a bridge port.
    pub fn delete_port_vlans(
        &mut self,
        index: u32,
        name: &LinkName,
        ranges: &[VlanRange],
    ) -> Result<(), NetlinkError> {
        let message = vlan_message(index, ranges);
        self.change(RouteNetlinkMessage::DelLink(message), 0, || {
            format!("remove VLANs from bridge port {name}")
        })
    }
}

fn vlan_message(index: u32, ranges: &[VlanRange]) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    let mut specs = Vec::new();
    for range in ranges {
        let mut flags = BridgeVlanInfoFlags::empty();
        flags.set(BridgeVlanInfoFlags::Pvid, range.pvid);
        flags.set(BridgeVlanInfoFlags::Untagged, range.untagged);
        if range.first == range.last {
            specs.push(AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid: range.first }));
        } else {
            specs.push(AfSpecBridge::VlanInfo(BridgeVlanInfo {
                flags: flags | BridgeVlanInfoFlags::RangeBegin,
                vid: range.first,
            }));
            specs.push(AfSpecBridge::VlanInfo(BridgeVlanInfo {
                flags: flags | BridgeVlanInfoFlags::RangeEnd,
                vid: range.last,
            }));
        }
    }
    message.attributes.push(LinkAttribute::AfSpecBridge(specs));
    message
}
