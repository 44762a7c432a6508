//! Links: veth pairs, and what all kinds have in common.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::str::FromStr;

use cni::LinkName;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
    LinkMessage, State,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use super::{Netlink, NetlinkError, VxlanSettings};

/// A hardware address of six bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddress(pub [u8; 6]);

/// Why a text is no hardware address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is not a MAC address such as 02:42:ac:11:00:02")]
pub struct MacError {
    /// What was given.
    pub text: String,
}

impl MacAddress {
    /// A random address, locally administered and not multicast.
    pub fn random() -> Self {
        let mut bytes = [0; 6];
        // Without randomness (no /dev) the kernel's rule for the address decides; the bit pattern below is valid in any case.
        let _ = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
        if let Some(first) = bytes.first_mut() {
            *first = (*first & 0xfc) | 0x02;
        }
        Self(bytes)
    }

    /// Whether an interface may have it: neither a group's nor all zeros (the kernel refuses both).
    pub fn is_unicast(&self) -> bool {
        self.0.first().is_some_and(|first| first & 1 == 0) && self.0 != [0; 6]
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    /// Takes the forms of Go's `net.ParseMAC` for six bytes: colons, dashes, or groups of four digits with dots.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let refused = || MacError { text: text.to_owned() };
        let digits: Vec<&str> =
            if text.contains('.') { text.split('.').collect() } else { text.split([':', '-']).collect() };
        let (groups, width) = if text.contains('.') { (3, 4) } else { (6, 2) };
        if digits.len() != groups || (text.contains(':') && text.contains('-')) {
            return Err(refused());
        }
        let mut bytes = [0; 6];
        let mut filled = bytes.iter_mut();
        for group in digits {
            if group.len() != width || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refused());
            }
            for start in (0..width).step_by(2) {
                let byte = group.get(start..start + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
                match (filled.next(), byte) {
                    (Some(place), Some(byte)) => *place = byte,
                    _ => return Err(refused()),
                }
            }
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mac_text(&self.0))
    }
}

/// A link as the kernel describes it.
#[expect(clippy::struct_excessive_bools, reason = "they are flags of the kernel's, not states of ours")]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind: `veth`, `bridge` …; empty for hardware and `lo`.
    pub kind: String,
    /// Hardware address in colon form; empty if it has none.
    pub mac: String,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// Transmit queue length in packets.
    pub tx_queue_len: u32,
    /// Index of the bridge (or other master) it is a port of.
    pub master: Option<u32>,
    /// Index of the other end of a veth pair, in that end's namespace.
    pub peer: Option<u32>,
    /// Alias, a text of the administrator's or of ours.
    pub alias: String,
    /// Administratively up.
    pub up: bool,
    /// Operationally up, or of a kind that does not tell.
    pub running: bool,
    /// Promiscuous by wish of an administrator.
    pub promiscuous: bool,
    /// How many have asked for promiscuous mode.
    pub promiscuity: u32,
    /// Receives all multicast.
    pub all_multicast: bool,
    /// For a bridge: whether it filters VLANs.
    pub vlan_filtering: Option<bool>,
    /// For a VXLAN device: its settings.
    pub vxlan: Option<VxlanSettings>,
}

/// Changes to a link; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Up or down.
    pub up: Option<bool>,
    /// Port of this master, by index; 0 for none.
    pub master: Option<u32>,
    /// Maximum transmission unit in bytes.
    pub mtu: Option<u32>,
    /// Hardware address.
    pub mac: Option<MacAddress>,
    /// Alias; empty removes it.
    pub alias: Option<String>,
    /// Promiscuous mode.
    pub promiscuous: Option<bool>,
    /// Reception of all multicast.
    pub all_multicast: Option<bool>,
    /// Transmit queue length in packets.
    pub tx_queue_len: Option<u32>,
}

/// A veth pair to be made, one end here, the other in a container.
#[derive(Debug)]
pub struct VethPairSpec<'a> {
    /// Name of the end in this namespace.
    pub host: &'a LinkName,
    /// Name of the end in the container.
    pub container: &'a LinkName,
    /// The container's namespace.
    pub netns: BorrowedFd<'a>,
    /// MTU of both ends; `None` for the kernel's default.
    pub mtu: Option<u32>,
    /// Hardware address of the container's end.
    pub mac: Option<MacAddress>,
}

impl Netlink {
    /// The link of a name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(message, || format!("look up link {name}"))
    }

    /// The link of an index.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.get_link(message, || format!("look up the link with index {index}"))
    }

    fn get_link(
        &mut self,
        mut message: LinkMessage,
        operation: impl Fn() -> String,
    ) -> Result<Option<Link>, NetlinkError> {
        // Statistics are most of an answer, and nobody here reads them.
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.get(RouteNetlinkMessage::GetLink(message), operation)? {
            Some(RouteNetlinkMessage::NewLink(answer)) => Ok(Some(Link::from_message(answer))),
            _ => Ok(None),
        }
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = self.dump(&RouteNetlinkMessage::GetLink(message), || "list links".to_owned())?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
                _ => None,
            })
            .collect())
    }

    /// Makes a veth pair with its far end in the container at once: no temporary name, no move, no race.
    pub fn create_veth(&mut self, spec: &VethPairSpec<'_>) -> Result<(), NetlinkError> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(spec.container.to_string()));
        peer.attributes.push(LinkAttribute::NetNsFd(spec.netns.as_raw_fd()));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(spec.host.to_string()));
        if let Some(mtu) = spec.mtu {
            peer.attributes.push(LinkAttribute::Mtu(mtu));
            message.attributes.push(LinkAttribute::Mtu(mtu));
        }
        if let Some(mac) = spec.mac {
            peer.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        }
        let data = InfoData::Veth(InfoVeth::Peer(peer));
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("create veth pair {} (host) and {} (container)", spec.host, spec.container)
        })
    }

    /// Makes a veth pair with both ends in this namespace, and gives one of them an address.
    pub fn create_local_veth(
        &mut self,
        one: &LinkName,
        mac: Option<MacAddress>,
        other: &LinkName,
        mtu: Option<u32>,
    ) -> Result<(), NetlinkError> {
        let mut ends = [one, other].map(|name| {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::IfName(name.to_string()));
            message.attributes.extend(mtu.map(LinkAttribute::Mtu));
            message
        });
        let [message, peer] = &mut ends;
        message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        let data = InfoData::Veth(InfoVeth::Peer(std::mem::take(peer)));
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
        let message = std::mem::take(message);
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("create veth pair {one} and {other}")
        })
    }

    /// Changes a link. `name` is for messages.
    pub fn change_link(&mut self, index: u32, name: &str, change: &LinkChange) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        for (wanted, flag) in [
            (change.up, LinkFlags::Up),
            (change.promiscuous, LinkFlags::Promisc),
            (change.all_multicast, LinkFlags::Allmulti),
        ] {
            if let Some(on) = wanted {
                message.header.change_mask |= flag;
                message.header.flags.set(flag, on);
            }
        }
        let attributes = &mut message.attributes;
        attributes.extend(change.master.map(LinkAttribute::Controller));
        attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        attributes.extend(change.alias.clone().map(LinkAttribute::IfAlias));
        attributes.extend(change.tx_queue_len.map(LinkAttribute::TxQueueLen));
        self.change(RouteNetlinkMessage::SetLink(message), 0, || format!("change link {name} ({change})"))
    }

    /// Deletes a link by index; that it is gone already is no error.
    pub fn delete_link(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.change(RouteNetlinkMessage::DelLink(message), 0, || format!("delete link {name}")) {
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
            other => other,
        }
    }
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.up.map(|up| if up { "up".to_owned() } else { "down".to_owned() }));
        words.extend(
            self.master.map(|index| {
                if index == 0 { "no master".to_owned() } else { format!("master index {index}") }
            }),
        );
        words.extend(self.mtu.map(|mtu| format!("mtu {mtu}")));
        words.extend(self.mac.map(|mac| format!("address {mac}")));
        words.extend(self.alias.as_ref().map(|alias| format!("alias {alias:?}")));
        words.extend(self.promiscuous.map(|on| format!("promisc {}", if on { "on" } else { "off" })));
        words.extend(self.all_multicast.map(|on| format!("allmulticast {}", if on { "on" } else { "off" })));
        words.extend(self.tx_queue_len.map(|length| format!("txqueuelen {length}")));
        f.write_str(&words.join(", "))
    }
}

impl Link {
    pub(super) fn from_message(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            promiscuous: flags.contains(LinkFlags::Promisc),
            all_multicast: flags.contains(LinkFlags::Allmulti),
            ..Self::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::TxQueueLen(length) => link.tx_queue_len = length,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::Link(index) => link.peer = Some(index),
                LinkAttribute::IfAlias(alias) => link.alias = alias,
                LinkAttribute::Promiscuity(count) => link.promiscuity = count,
                LinkAttribute::OperState(state) => link.running = matches!(state, State::Up | State::Unknown),
                LinkAttribute::Address(bytes) => link.mac = mac_text(&bytes),
                LinkAttribute::LinkInfo(infos) => link.take_info(infos),
                _ => {}
            }
        }
        link
    }

    fn take_info(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = kind.to_string(),
                LinkInfo::Data(InfoData::Bridge(settings)) => {
                    self.vlan_filtering = settings.iter().find_map(|setting| match setting {
                        InfoBridge::VlanFiltering(on) => Some(*on),
                        _ => None,
                    });
                }
                LinkInfo::Data(InfoData::Vxlan(settings)) => {
                    self.vxlan = Some(VxlanSettings::from_attributes(&settings));
                }
                _ => {}
            }
        }
    }
}

fn mac_text(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(":")
}
