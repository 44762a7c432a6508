//! VXLAN devices.

use std::net::IpAddr;

use cni::LinkName;
use serde::{Deserialize, Serialize};

use super::link::{
    IFLA_EXT_MASK, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, RTEXT_FILTER_SKIP_STATS, is_on, new_link,
};
use super::message::{LinkHeader, Message, RTM_GETLINK, RTM_NEWLINK};
use super::socket::{NLM_F_CREATE, NLM_F_EXCL};
use super::{Link, MacAddress, Netlink, NetlinkError};
use crate::nfnetlink::{Attributes, be16, ip, ne32, parse};

const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_GROUP: u16 = 2;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_GROUP6: u16 = 16;
const IFLA_VXLAN_LOCAL6: u16 = 17;
/// What makes a device take other packets than plain VXLAN from its socket (`VXLAN_F_RCV_FLAGS` of the kernel), so that it shares the socket with devices of
/// the same settings only: UDP checksums of zero, remote checksum offload (two), group policy, metadata (`external`), other protocols inside (GPE), a
/// filter of identifiers.
const OWN_SOCKET: [u16; 7] = [20, 22, 23, 24, 25, 27, 30];

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
    /// It shares its port with no device that is made here: it takes other packets than plain VXLAN. Read, and never written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
}

impl VxlanSettings {
    /// Reads what a VXLAN device says of itself.
    pub(super) fn decode(data: &[u8]) -> Self {
        let mut settings = Self::default();
        for (kind, value) in parse(data) {
            match kind {
                IFLA_VXLAN_ID => settings.vni = ne32(value).unwrap_or_default(),
                IFLA_VXLAN_PORT => settings.port = be16(value).unwrap_or_default(),
                IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => settings.local = ip(value),
                IFLA_VXLAN_GROUP | IFLA_VXLAN_GROUP6 => settings.group = ip(value),
                IFLA_VXLAN_LINK => settings.link = ne32(value).filter(|index| *index != 0),
                IFLA_VXLAN_LEARNING => settings.learning = is_on(value),
                // Some are flags, whose being there says it.
                other if OWN_SOCKET.contains(&other) => {
                    settings.exclusive |= value.is_empty() || is_on(value);
                }
                _ => {}
            }
        }
        settings
    }

    pub(super) fn write(&self, data: &mut Attributes) {
        data.u32(IFLA_VXLAN_ID, self.vni);
        data.bytes(IFLA_VXLAN_PORT, &self.port.to_be_bytes());
        data.u8(IFLA_VXLAN_LEARNING, self.learning.into());
        if let Some(address) = self.local {
            write_local(data, address);
        }
        if let Some(group) = self.group {
            data.ip(if group.is_ipv4() { IFLA_VXLAN_GROUP } else { IFLA_VXLAN_GROUP6 }, group);
        }
        if let Some(link) = self.link {
            data.u32(IFLA_VXLAN_LINK, link);
        }
    }
}

pub(super) fn write_local(data: &mut Attributes, address: IpAddr) {
    data.ip(if address.is_ipv4() { IFLA_VXLAN_LOCAL } else { IFLA_VXLAN_LOCAL6 }, address);
}

/// Appends what only a VXLAN device has.
pub(super) fn write_info(message: &mut Message, data: impl FnOnce(&mut Attributes)) {
    message.content.nest_unmarked(IFLA_LINKINFO, |info| {
        info.string(IFLA_INFO_KIND, "vxlan").nest_unmarked(IFLA_INFO_DATA, data);
    });
}

impl Netlink {
    /// All VXLAN devices.
    pub fn vxlans(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let answers = self.dump_loosely(&list(), || "list VXLAN devices".to_owned())?;
        // A kernel that does not know the filter sends all links.
        Ok(answers.iter().filter_map(Link::of).filter(|link| link.vxlan.is_some()).collect())
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
        let mut message = new_link(name, Some(mac), Some(mtu));
        write_info(&mut message, |data| settings.write(data));
        self.change(&message, NLM_F_CREATE | NLM_F_EXCL, || {
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
        let mut message = Message::link(RTM_NEWLINK, LinkHeader { index, ..LinkHeader::default() });
        write_info(&mut message, |data| write_local(data, address));
        self.change(&message, 0, || format!("give the tunnels of {name} the source address {address}"))
    }
}

/// The request for all VXLAN devices.
pub(super) fn list() -> Message {
    let mut message = Message::link(RTM_GETLINK, LinkHeader::default());
    message.content.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    message.content.nest_unmarked(IFLA_LINKINFO, |info| {
        info.string(IFLA_INFO_KIND, "vxlan");
    });
    message
}
