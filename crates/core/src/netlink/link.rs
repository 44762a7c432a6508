//! Links: veth pairs, and what all kinds have in common.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::str::FromStr;

use cni::LinkName;
use nix::errno::Errno;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use super::message::{
    AF_INET, AF_INET6, LinkHeader, Message, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK,
};
use super::socket::{NLM_F_CREATE, NLM_F_EXCL};
use super::{Netlink, NetlinkError, VxlanSettings};
use crate::nfnetlink::{Attributes, find, ne32, parse, text};

pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_IFALIAS: u16 = 20;
pub(super) const IFLA_AF_SPEC: u16 = 26;
pub(super) const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
pub(super) const IFLA_EXT_MASK: u16 = 29;
const IFLA_PROMISCUITY: u16 = 30;

pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
pub(super) const IFLA_BR_VLAN_FILTERING: u16 = 7;

/// Below a family in `IFLA_AF_SPEC`: sysctls, of IPv4 as attributes by number, counted from 1; of IPv6 as an array, from 0 (`linux/ip.h`, `linux/ipv6.h`).
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_CONF: u16 = 2;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;
const DEVCONF_ACCEPT_RA: usize = 3;

const IFF_UP: u32 = 1;
const IFF_PROMISC: u32 = 0x100;
const IFF_ALLMULTI: u32 = 0x200;

/// States of `IFLA_OPERSTATE`: of a kind of link that does not tell, and of one that can be used.
const IF_OPER_UNKNOWN: u8 = 0;
const IF_OPER_UP: u8 = 6;

/// Statistics are most of an answer, and nobody here reads them.
pub(super) const RTEXT_FILTER_SKIP_STATS: u32 = 8;

/// A hardware address of six bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddress(pub [u8; 6]);

/// Bytes that nobody else has: a keyed hash, whose key the standard library has from `getrandom(2)`, once in a process, and never uses twice.
fn random() -> [u8; 8] {
    RandomState::new().hash_one(()).to_ne_bytes()
}

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
        let [first, second, third, fourth, fifth, sixth, ..] = random();
        Self([(first & 0xfc) | 0x02, second, third, fourth, fifth, sixth])
    }

    /// The link-local address that an interface has by it (RFC 4291, appendix A).
    pub fn link_local(&self) -> Ipv6Addr {
        let [first, second, third, fourth, fifth, sixth] = self.0;
        let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        let identifier = [pair(first ^ 2, second), pair(third, 0xff), pair(0xfe, fourth), pair(fifth, sixth)];
        let [one, two, three, four] = identifier;
        Ipv6Addr::new(0xfe80, 0, 0, 0, one, two, three, four)
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
        let refused = || MacError { text: cni::json::shorten(text) };
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
    /// Its sysctl `net/ipv6/conf/NAME/accept_ra`; `None` if it has no IPv6.
    pub accept_ra: Option<u32>,
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
    /// The sysctl `net/ipv4/conf/NAME/arp_notify`.
    pub arp_notify: Option<u32>,
    /// No link-local IPv6 address for it (`addrgenmode none` in `ip-link(8)`). Where a link has no IPv6 at all, below its least MTU for
    /// instance, the kernel refuses this with `EAFNOSUPPORT`.
    pub no_link_local: bool,
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
    /// The link of a name. Alternative names (`ip link property`) are none: a link's sysctls go by its own, and so do our registers.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let found = self.link_by_any_name(name)?.filter(|link| link.name == name);
        self.remember(name, found.as_ref());
        Ok(found)
    }

    /// The link that the kernel finds by a name, since 5.5 by alternative names as well.
    pub fn link_by_any_name(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = Message::link(RTM_GETLINK, LinkHeader::default());
        message.content.string(IFLA_IFNAME, name);
        self.get_link(message, || format!("look up link {name}"))
    }

    /// The link of an index.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let message = Message::link(RTM_GETLINK, LinkHeader { index, ..LinkHeader::default() });
        self.get_link(message, || format!("look up the link with index {index}"))
    }

    fn get_link(
        &mut self,
        mut message: Message,
        operation: impl Fn() -> String,
    ) -> Result<Option<Link>, NetlinkError> {
        message.content.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        Ok(self.get(&message, operation)?.as_ref().and_then(Link::of))
    }

    /// The index of the link of a name, without asking again where the link has been seen before through this socket. For the length of a plugin's
    /// call: an index is not given to another link, so at worst its link is gone, and the kernel says so when it is used.
    pub fn link_index(&mut self, name: &str) -> Result<Option<u32>, NetlinkError> {
        match self.seen_link(name) {
            Some(link) => Ok(Some(link.index)),
            None => Ok(self.link(name)?.map(|link| link.index)),
        }
    }

    /// The link of a name as it was when it was last seen through this socket.
    pub fn seen_link(&self, name: &str) -> Option<&Link> {
        self.seen.iter().find(|link| link.name == name)
    }

    fn remember(&mut self, name: &str, link: Option<&Link>) {
        self.seen.retain(|link| link.name != name);
        self.seen.extend(link.cloned());
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut message = Message::link(RTM_GETLINK, LinkHeader::default());
        message.content.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.make_room_for_listings();
        let answers = self.dump(&message, || "list links".to_owned())?;
        Ok(answers.iter().filter_map(Link::of).collect())
    }

    /// The ports of a bridge. The kernel chooses them (before 4.20: we do), so that the listing is one message nearly always, which nothing comes between.
    pub fn ports(&mut self, bridge: u32) -> Result<Vec<Link>, NetlinkError> {
        let mut message = Message::link(RTM_GETLINK, LinkHeader::default());
        message.content.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS).u32(IFLA_MASTER, bridge);
        let answers = self.dump(&message, || format!("list the ports of the bridge with index {bridge}"))?;
        Ok(answers.iter().filter_map(Link::of).filter(|link| link.master == Some(bridge)).collect())
    }

    /// Makes a veth pair with its far end in the container at once: no temporary name, no move, no race. Returns the index of the end in this
    /// namespace, if the link is still there.
    pub fn create_veth(&mut self, spec: &VethPairSpec<'_>) -> Result<Option<u32>, NetlinkError> {
        let made = self.change_echoed(&spec.message(), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("create veth pair {} (host) and {} (container)", spec.host, spec.container)
        })?;
        let made = made.as_ref().and_then(Link::of);
        self.remember(spec.host.as_str(), made.as_ref());
        // Before Linux 6.2 the kernel does not say what it has made.
        self.link_index(spec.host.as_str())
    }

    /// Makes a veth pair with both ends in this namespace, and gives one of them an address.
    pub fn create_local_veth(
        &mut self,
        one: &LinkName,
        mac: Option<MacAddress>,
        other: &LinkName,
        mtu: Option<u32>,
    ) -> Result<(), NetlinkError> {
        let peer = |peer: &mut Attributes| {
            peer.string(IFLA_IFNAME, other.as_str());
            if let Some(mtu) = mtu {
                peer.u32(IFLA_MTU, mtu);
            }
        };
        self.change(&veth(one, mac, mtu, peer), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("create veth pair {one} and {other}")
        })
    }

    /// Changes a link. `name` is for messages.
    pub fn change_link(&mut self, index: u32, name: &str, change: &LinkChange) -> Result<(), NetlinkError> {
        self.change(&change.message(index), 0, || format!("change link {name} ({change})"))
    }

    /// Deletes a link by index; that it is gone already is no error.
    pub fn delete_link(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        self.seen.retain(|link| link.index != index);
        let message = Message::link(RTM_DELLINK, LinkHeader { index, ..LinkHeader::default() });
        match self.change(&message, 0, || format!("delete link {name}")) {
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Deletes links by index and name, in one request: a deletion waits for grace periods, 20 ms and more, and so all of them wait once. That one is
    /// gone already is no error. Where the kernel does not do it, they are deleted one by one, past errors; the first is returned.
    pub fn delete_links(&mut self, links: &[(u32, &str)]) -> Result<(), NetlinkError> {
        if links.len() > 1 && self.delete_group(links).is_ok() {
            return Ok(());
        }
        let mut outcome = Ok(());
        for (index, name) in links {
            outcome = outcome.and(self.delete_link(*index, name));
        }
        outcome
    }

    /// Deletes links as members of a group that nobody else has (`rtnl_group_dellink` in the kernel's `rtnetlink.c`). A group is a number that
    /// any link can have, for a request to concern all that have it.
    fn delete_group(&mut self, links: &[(u32, &str)]) -> Result<(), NetlinkError> {
        // Numbers that a person has chosen are small. 0 is the group of everybody else, and the kernel refuses to delete it.
        const OURS: u32 = 1 << 30;
        self.seen.retain(|link| !links.iter().any(|(index, _)| *index == link.index));
        let [first, second, third, fourth, ..] = random();
        let group = u32::from_ne_bytes([first, second, third, fourth]) >> 2 | OURS;
        for (index, name) in links {
            let mut message =
                Message::link(RTM_SETLINK, LinkHeader { index: *index, ..LinkHeader::default() });
            message.content.u32(IFLA_GROUP, group);
            match self.change(&message, 0, || format!("put link {name} into group {group}")) {
                Err(error) if error.errno() == Some(Errno::ENODEV) => {}
                other => other?,
            }
        }
        let mut message = Message::link(RTM_DELLINK, LinkHeader::default());
        message.content.u32(IFLA_GROUP, group);
        match self.change(&message, 0, || format!("delete the links of group {group}")) {
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
            other => other,
        }
    }
}

impl VethPairSpec<'_> {
    pub(super) fn message(&self) -> Message {
        let peer = |peer: &mut Attributes| {
            peer.string(IFLA_IFNAME, self.container.as_str());
            // A descriptor is not negative.
            peer.u32(IFLA_NET_NS_FD, self.netns.as_raw_fd().unsigned_abs());
            if let Some(mtu) = self.mtu {
                peer.u32(IFLA_MTU, mtu);
            }
            if let Some(mac) = self.mac {
                peer.bytes(IFLA_ADDRESS, &mac.0);
            }
        };
        veth(self.host, None, self.mtu, peer)
    }
}

/// The request for a pair. `peer` writes the attributes of the other end.
pub(super) fn veth(
    name: &LinkName,
    mac: Option<MacAddress>,
    mtu: Option<u32>,
    peer: impl FnOnce(&mut Attributes),
) -> Message {
    let mut message = new_link(name, mac, mtu);
    message.content.nest_unmarked(IFLA_LINKINFO, |info| {
        info.string(IFLA_INFO_KIND, "veth").nest_unmarked(IFLA_INFO_DATA, |data| {
            data.nest_unmarked(VETH_INFO_PEER, |end| {
                // Of a link that is to be made, its header says nothing.
                end.append(&Message::link(RTM_NEWLINK, LinkHeader::default()).content);
                peer(end);
            });
        });
    });
    message
}

/// The start of a request for a link.
pub(super) fn new_link(name: &LinkName, mac: Option<MacAddress>, mtu: Option<u32>) -> Message {
    let mut message = Message::link(RTM_NEWLINK, LinkHeader::default());
    message.content.string(IFLA_IFNAME, name.as_str());
    if let Some(mtu) = mtu {
        message.content.u32(IFLA_MTU, mtu);
    }
    if let Some(mac) = mac {
        message.content.bytes(IFLA_ADDRESS, &mac.0);
    }
    message
}

impl LinkChange {
    pub(super) fn message(&self, index: u32) -> Message {
        let mut header = LinkHeader { index, ..LinkHeader::default() };
        for (wanted, flag) in
            [(self.up, IFF_UP), (self.promiscuous, IFF_PROMISC), (self.all_multicast, IFF_ALLMULTI)]
        {
            if let Some(on) = wanted {
                header.change |= flag;
                header.flags |= if on { flag } else { 0 };
            }
        }
        let mut message = Message::link(RTM_SETLINK, header);
        for (kind, value) in [(IFLA_MASTER, self.master), (IFLA_MTU, self.mtu)] {
            if let Some(value) = value {
                message.content.u32(kind, value);
            }
        }
        if let Some(mac) = self.mac {
            message.content.bytes(IFLA_ADDRESS, &mac.0);
        }
        if let Some(alias) = &self.alias {
            message.content.string(IFLA_IFALIAS, alias);
        }
        if let Some(length) = self.tx_queue_len {
            message.content.u32(IFLA_TXQLEN, length);
        }
        if self.arp_notify.is_some() || self.no_link_local {
            message.content.nest_unmarked(IFLA_AF_SPEC, |families| self.write_families(families));
        }
        message
    }

    fn write_families(&self, families: &mut Attributes) {
        if let Some(value) = self.arp_notify {
            families.nest_unmarked(u16::from(AF_INET), |inet| {
                inet.nest_unmarked(IFLA_INET_CONF, |conf| {
                    conf.u32(IPV4_DEVCONF_ARP_NOTIFY, value);
                });
            });
        }
        if self.no_link_local {
            families.nest_unmarked(u16::from(AF_INET6), |inet6| {
                inet6.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
            });
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
        words.extend(self.arp_notify.map(|value| format!("arp_notify {value}")));
        words.extend(self.no_link_local.then(|| "addrgenmode none".to_owned()));
        f.write_str(&words.join(", "))
    }
}

impl Link {
    /// The link of an answer.
    pub(super) fn of(answer: &Message) -> Option<Self> {
        answer.answer(RTM_NEWLINK).and_then(Self::decode)
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let (LinkHeader { index, flags, .. }, attributes) = LinkHeader::split(payload)?;
        let mut link = Self {
            index,
            up: flags & IFF_UP != 0,
            promiscuous: flags & IFF_PROMISC != 0,
            all_multicast: flags & IFF_ALLMULTI != 0,
            ..Self::default()
        };
        for (kind, value) in parse(attributes) {
            match kind {
                IFLA_IFNAME => link.name = text(value),
                IFLA_MTU => link.mtu = ne32(value)?,
                IFLA_TXQLEN => link.tx_queue_len = ne32(value)?,
                IFLA_MASTER => link.master = ne32(value),
                IFLA_LINK => link.peer = ne32(value),
                IFLA_IFALIAS => link.alias = text(value),
                IFLA_PROMISCUITY => link.promiscuity = ne32(value)?,
                IFLA_OPERSTATE => link.running = matches!(value, [IF_OPER_UP | IF_OPER_UNKNOWN]),
                IFLA_ADDRESS => link.mac = mac_text(value),
                IFLA_LINKINFO => link.take_info(value),
                IFLA_AF_SPEC => link.accept_ra = devconf6(value, DEVCONF_ACCEPT_RA),
                _ => {}
            }
        }
        Some(link)
    }

    fn take_info(&mut self, info: &[u8]) {
        self.kind = find(info, IFLA_INFO_KIND).map(text).unwrap_or_default();
        let Some(data) = find(info, IFLA_INFO_DATA) else { return };
        match self.kind.as_str() {
            "bridge" => self.vlan_filtering = find(data, IFLA_BR_VLAN_FILTERING).map(is_on),
            "vxlan" => self.vxlan = Some(VxlanSettings::decode(data)),
            _ => {}
        }
    }
}

impl From<Link> for cni::Interface {
    /// The link as a result lists it; whose sandbox it is in, it does not know.
    fn from(link: Link) -> Self {
        Self { name: link.name, mac: link.mac, mtu: link.mtu, ..Self::default() }
    }
}

/// A switch, which is a byte.
pub(super) fn is_on(value: &[u8]) -> bool {
    value.first().is_some_and(|on| *on != 0)
}

/// A sysctl of an interface below `net/ipv6/conf`, by its number, in what a link says of its families of addresses.
fn devconf6(families: &[u8], number: usize) -> Option<u32> {
    let values = find(find(families, u16::from(AF_INET6))?, IFLA_INET6_CONF)?;
    ne32(values.chunks_exact(4).nth(number)?)
}

fn mac_text(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    let mut text = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        if !text.is_empty() {
            text.push(':');
        }
        text.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    text
}
