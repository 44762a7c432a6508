//! VXLAN devices.

use std::net::IpAddr;

use cni::LinkName;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage,
};
use serde::{Deserialize, Serialize};

use super::{Link, MacAddress, Netlink, NetlinkError};

/// What makes a VXLAN device the one it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VxlanSettings {
    /// VXLAN network identifier; 0 for a device that carries many (`external`).
    pub vni: u32,
    /// UDP port that packets are sent to and received on.
    pub port: u16,
    /// Source address of the tunnels. The device is not bound to a link, so that it outlives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// Multicast group that frames without an entry go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<IpAddr>,
    /// The link that the group is joined on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<u32>,
    /// Enter the senders of received frames. Anybody who can send packets here could then take over addresses.
    #[serde(default)]
    pub learning: bool,
}

impl VxlanSettings {
    pub(super) fn from_attributes(attributes: &[InfoVxlan]) -> Self {
        let mut settings = Self::default();
        for attribute in attributes {
            match attribute {
                InfoVxlan::Id(id) => settings.vni = *id,
                InfoVxlan::Port(port) => settings.port = *port,
                InfoVxlan::Local(address) => settings.local = Some((*address).into()),
                InfoVxlan::Local6(address) => settings.local = Some((*address).into()),
                InfoVxlan::Group(address) => settings.group = Some((*address).into()),
                InfoVxlan::Group6(address) => settings.group = Some((*address).into()),
                InfoVxlan::Link(index) if *index != 0 => settings.link = Some(*index),
                InfoVxlan::Learning(on) => settings.learning = *on,
                _ => {}
            }
        }
        settings
    }

    fn attributes(&self) -> Vec<InfoVxlan> {
        let mut data =
            vec![InfoVxlan::Id(self.vni), InfoVxlan::Port(self.port), InfoVxlan::Learning(self.learning)];
        data.extend(self.local.map(local));
        data.extend(self.group.map(|group| match group {
            IpAddr::V4(v4) => InfoVxlan::Group(v4),
            IpAddr::V6(v6) => InfoVxlan::Group6(v6),
        }));
        data.extend(self.link.map(InfoVxlan::Link));
        data
    }
}

fn local(address: IpAddr) -> InfoVxlan {
    match address {
        IpAddr::V4(v4) => InfoVxlan::Local(v4),
        IpAddr::V6(v6) => InfoVxlan::Local6(v6),
    }
}

impl Netlink {
    /// All VXLAN devices.
    pub fn vxlans(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan)]));
        let request = RouteNetlinkMessage::GetLink(message);
        let answers = self.dump_loosely(&request, || "list VXLAN devices".to_owned())?;
        let links = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
            _ => None,
        });
        // A kernel that does not know the filter sends all links.
        Ok(links.filter(|link| link.vxlan.is_some()).collect())
    }

    /// Makes a VXLAN device, down. The hardware address and the MTU are given at once: a service that gives new links persistent addresses
    /// (systemd-udevd) leaves one alone that was set at creation, and a device without a lower link has an MTU of 1500 otherwise.
    pub fn create_vxlan(
        &mut self,
        name: &LinkName,
        settings: &VxlanSettings,
        mac: MacAddress,
        mtu: u32,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        message.attributes.push(LinkAttribute::Mtu(mtu));
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        message.attributes.push(info(settings.attributes()));
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("create VXLAN device {name} (VNI {}, UDP port {})", settings.vni, settings.port)
        })
    }

    /// Gives the tunnels of a device another source address; its entries stay. (Most other settings can't be changed.)
    pub fn set_vxlan_local(
        &mut self,
        index: u32,
        name: &LinkName,
        address: IpAddr,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(info(vec![local(address)]));
        self.change(RouteNetlinkMessage::NewLink(message), 0, || {
            format!("give the tunnels of {name} the source address {address}")
        })
    }
}

fn info(data: Vec<InfoVxlan>) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))])
}
