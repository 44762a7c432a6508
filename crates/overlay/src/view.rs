//! The network as one node sees it: settings, the node itself, and its peers. A [`View`] is valid: what can't be is refused before one exists.

use std::collections::HashMap;
use std::net::IpAddr;

use cni::{Cidr, LinkName, NameError, NetworkName};
use ferrule_core::netlink::MacAddress;
use ferrule_core::owner::hex_digest;
use serde::{Deserialize, Serialize};

use crate::desired::used;
use crate::error::{Invalid, Reason};
use crate::mac;
use crate::names::{Family, Mode, NodeId, Port, Vni};
use crate::node::{Listed, NodeRecord};

/// The most endpoints of bridged mode that are computed in advance: 0.7 s of programming, and 2 to 3 s for a comparison of all, whose time grows with
/// the square because the kernel walks over what it has listed each time that it goes on.
pub const ENDPOINT_LIMIT: u64 = 100_000;

/// What the nodes of a network have agreed on, and how this node takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The network.
    pub network: NetworkName,
    /// Its VXLAN network identifier.
    pub vni: Vni,
    /// The UDP port.
    #[serde(default)]
    pub port: Port,
    /// Routed or bridged.
    #[serde(default)]
    pub mode: Mode,
    /// The VXLAN device on this host.
    pub device: LinkName,
    /// The bridge that containers of this host are attached to.
    pub bridge: LinkName,
    /// The stretched subnets, one a family at most: those of bridged mode, and those that containers of a routed network see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Cidr>,
    /// MTU inside, in bytes; `None` for what the underlay leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The family that carries the tunnels; `None` for IPv4 where every node has it, else IPv6. It has to be the same on all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Family>,
    /// Peers on the same underlay link are reached without a tunnel.
    #[serde(default)]
    pub direct_routing: bool,
    /// Bridged mode: broadcast, unknown and multicast frames go to every peer.
    #[serde(default)]
    pub bum: bool,
    /// The kernel finds peers by itself, through this group of the underlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multicast_group: Option<IpAddr>,
    /// Packets of the network are taken from any address, not from its nodes only: for kernels without `nf_tables`, and for underlays that
    /// nobody else can send on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_sender: bool,
    /// Networks that all blocks are in, where somebody knows them: what goes there is never masqueraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster: Vec<Cidr>,
}

impl Settings {
    /// Settings with everything at its default; the device is `vx-NETWORK` and the bridge `vb-NETWORK`, with a digest for the name where
    /// it is too long for a link's.
    pub fn new(network: NetworkName, vni: Vni) -> Result<Self, NameError> {
        let device = link_name("vx-", &network)?;
        let bridge = link_name("vb-", &network)?;
        Ok(Self {
            network,
            vni,
            port: Port::default(),
            mode: Mode::default(),
            device,
            bridge,
            subnets: Vec::new(),
            mtu: None,
            transport: None,
            direct_routing: false,
            bum: false,
            multicast_group: None,
            any_sender: false,
            cluster: Vec::new(),
        })
    }

    /// Whether packets of the network are taken from its nodes only. (Where the kernel learns the nodes from a multicast group, nobody knows them.)
    pub fn is_guarded(&self) -> bool {
        self.multicast_group.is_none() && !self.any_sender
    }

    /// A number that tells this network's routes and nexthops from those of other overlays on this host: the metric of routes that do not
    /// go through the device, and the upper half of nexthop identifiers. 0x4000 to 0xffff, from the name.
    pub fn mark(&self) -> u32 {
        let digest = u32::from_str_radix(&hex_digest(self.network.as_str(), 6), 16).unwrap_or_default();
        0x4000 + digest % 0xc000
    }

    /// The text in the alias of the network's device.
    pub fn alias(&self) -> String {
        format!("{ALIAS}{}", self.network)
    }

    /// Whether containers of a routed network see one subnet of IPv4: then this host answers their ARP requests for addresses of other nodes.
    pub fn answers_arp(&self) -> bool {
        self.mode == Mode::Routed && self.subnet(Family::Ipv4).is_some()
    }

    /// The stretched subnet of a family.
    pub fn subnet(&self, family: Family) -> Option<Cidr> {
        self.subnets.iter().find(|subnet| subnet.is_ipv4() == family.is_ipv4()).copied()
    }
}

/// What the alias of an overlay's device begins with; the network's name follows.
pub const ALIAS: &str = "ferrule/vxlan/";

fn link_name(prefix: &str, network: &NetworkName) -> Result<LinkName, NameError> {
    let plain = format!("{prefix}{network}");
    if plain.len() <= 15 {
        return LinkName::new(plain);
    }
    LinkName::new(format!("{prefix}{}", hex_digest(network.as_str(), 15 - prefix.len())))
}

/// The way out of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Underlay {
    /// The address that tunnels begin at.
    pub address: IpAddr,
    /// The length of its prefix: peers within it are on the same link.
    pub prefix: u8,
    /// The link that has it.
    pub interface: LinkName,
    /// What a packet may have in bytes on the way to the peers.
    pub mtu: u32,
}

impl Underlay {
    /// Whether an address is on the same link.
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        Cidr::new(self.address, self.prefix).is_some_and(|subnet| subnet.contains(address))
    }
}

/// The network as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    settings: Settings,
    underlay: Underlay,
    node: NodeRecord,
    peers: Vec<NodeRecord>,
    /// The hardware addresses of the peers' tunnel ends.
    macs: Vec<MacAddress>,
    mtu: u32,
}

impl View {
    /// The family that carries tunnels between these nodes.
    pub fn transport(settings: &Settings, nodes: &[Listed]) -> Family {
        settings.transport.unwrap_or_else(|| {
            let all_have_ipv4 = nodes.iter().all(|listed| listed.record.underlay4.is_some());
            Family::of(all_have_ipv4)
        })
    }

    /// A view of the node `own`, which is one of `nodes`. The first thing that can't be so refuses all of it: for lists that an operator
    /// has written.
    pub fn new(
        settings: Settings,
        underlay: Underlay,
        own: &NodeId,
        nodes: Vec<Listed>,
    ) -> Result<Self, Invalid> {
        // Where the kernel learns who is where, addresses may come from anywhere; else nobody can reach a node without any.
        let bare = nodes.iter().find(|listed| listed.record.blocks.is_empty());
        let bare = bare.filter(|_| settings.multicast_group.is_none()).map(|listed| listed.path.clone());
        let (view, refused) = Self::screened(settings, underlay, own, nodes)?;
        let bare = bare.map(|path| Invalid::new(&format!("{path}.blocks"), "[]", Reason::NoBlock));
        refused.into_iter().next().or(bare).map_or(Ok(view), Err)
    }

    /// As [`View::new`], but a peer that can't be so is left out and told about: for lists that machines have written, in which one bad
    /// record must not end the work of a thousand good ones. Of two that claim the same, the one with the larger epoch stays, then the
    /// one that is listed first; this node itself always stays.
    pub fn screened(
        settings: Settings,
        underlay: Underlay,
        own: &NodeId,
        nodes: Vec<Listed>,
    ) -> Result<(Self, Vec<Invalid>), Invalid> {
        check_settings(&settings)?;
        let transport = Self::transport(&settings, &nodes);
        let mut screen = Screen::new(&settings, transport);
        let mut refused = Vec::new();
        let mut order: Vec<(usize, Listed)> = nodes.into_iter().enumerate().collect();
        order.sort_by_key(|(index, listed)| {
            (listed.record.node != *own, std::cmp::Reverse(listed.record.epoch), *index)
        });
        let mut accepted: Vec<(MacAddress, Listed)> = Vec::with_capacity(order.len());
        for (_, listed) in order {
            match screen.admit(&listed) {
                Ok(mac) => accepted.push((mac, listed)),
                // Without the node itself there is no view.
                Err(invalid) if listed.record.node == *own => return Err(invalid),
                Err(invalid) => refused.push(invalid),
            }
        }
        accepted.sort_by(|(_, one), (_, other)| one.record.node.cmp(&other.record.node));
        let mut node = None;
        let mut peers = Vec::with_capacity(accepted.len());
        let mut macs = Vec::with_capacity(accepted.len());
        for (mac, listed) in accepted {
            if listed.record.node == *own {
                node = Some(listed);
            } else {
                peers.push(listed.record);
                macs.push(mac);
            }
        }
        let Some(Listed { path, record: node }) = node else {
            let reason = Reason::NotAmongPeers { own: vec![underlay.address] };
            return Err(Invalid::new("peers", own, reason));
        };
        check_own(&settings, &path, &node, peers.iter())?;
        let mtu = mtu(&settings, &underlay, &node)?;
        Ok((Self { settings, underlay, node, peers, macs, mtu }, refused))
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The way out of this host.
    pub fn underlay(&self) -> &Underlay {
        &self.underlay
    }

    /// This node.
    pub fn node(&self) -> &NodeRecord {
        &self.node
    }

    /// The other nodes, by name.
    pub fn peers(&self) -> &[NodeRecord] {
        &self.peers
    }

    /// The other nodes with the hardware addresses of their tunnel ends.
    pub(crate) fn peers_and_macs(&self) -> impl Iterator<Item = (&NodeRecord, MacAddress)> {
        self.peers.iter().zip(self.macs.iter().copied())
    }

    /// MTU inside the tunnels in bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The family that carries the tunnels.
    pub fn family(&self) -> Family {
        Family::of(self.underlay.address.is_ipv4())
    }

    /// The hardware address of this node's tunnel end.
    pub fn mac(&self) -> MacAddress {
        mac::vtep(&self.settings.network, &self.node.node)
    }

    /// The networks that no packet is masqueraded to: the configured ones, or else all blocks, joined where they touch.
    pub fn cluster(&self) -> Vec<Cidr> {
        if !self.settings.cluster.is_empty() {
            return self.settings.cluster.clone();
        }
        let subnets = &self.settings.subnets;
        let blocks = std::iter::once(&self.node).chain(&self.peers).flat_map(|node| &node.blocks);
        // In routed mode one family may have a subnet and the other none.
        let outside = blocks.filter(|block| self.settings.subnet(Family::of(block.is_ipv4())).is_none());
        aggregate(subnets.iter().chain(outside).copied().collect())
    }
}

/// Networks joined as far as two of them make exactly one larger.
pub fn aggregate(mut networks: Vec<Cidr>) -> Vec<Cidr> {
    networks.sort_unstable();
    let mut joined: Vec<Cidr> = Vec::new();
    for network in networks {
        let mut network = network.network();
        if joined.last().is_some_and(|last| last.overlaps(&network) && last.prefix() <= network.prefix()) {
            continue;
        }
        while let Some(last) = joined.last() {
            let wider =
                network.prefix().checked_sub(1).and_then(|prefix| Cidr::new(network.address(), prefix));
            match wider.map(|wider| wider.network()) {
                Some(wider) if last.prefix() == network.prefix() && wider.overlaps(last) => {
                    joined.pop();
                    network = wider;
                }
                _ => break,
            }
        }
        joined.push(network);
    }
    joined
}

fn check_settings(settings: &Settings) -> Result<(), Invalid> {
    if let Some(group) = settings.multicast_group
        && !group.is_multicast()
    {
        return Err(Invalid::new("multicastGroup", group, Reason::NotMulticast));
    }
    for (index, subnet) in settings.subnets.iter().enumerate() {
        if subnet.network() != *subnet {
            let reason = Reason::HostBits { network: subnet.network() };
            return Err(Invalid::new(&format!("subnet[{index}]"), subnet, reason));
        }
    }
    Ok(())
}

/// Whether blocks of both families, where there are both, go together.
fn are_paired(blocks: &[Cidr]) -> bool {
    let (four, six): (Vec<Cidr>, Vec<Cidr>) = blocks.iter().partition(|block| block.is_ipv4());
    let large_enough = |(four, six): (&Cidr, &Cidr)| six.bits() - six.prefix() >= four.bits() - four.prefix();
    four.is_empty() || six.is_empty() || (four.len() == six.len() && four.iter().zip(&six).all(large_enough))
}

/// How many containers may be in blocks of a bridged network.
fn endpoint_count(blocks: &[Cidr]) -> u64 {
    let four = blocks.iter().any(Cidr::is_ipv4);
    let size =
        |block: &Cidr| 1_u64.checked_shl(u32::from(block.bits() - used(block).prefix())).unwrap_or(u64::MAX);
    blocks.iter().filter(|block| block.is_ipv4() == four).map(size).fold(0, u64::saturating_add)
}

/// What is asked of this node only.
fn check_own<'p>(
    settings: &Settings,
    path: &str,
    node: &NodeRecord,
    peers: impl Iterator<Item = &'p NodeRecord>,
) -> Result<(), Invalid> {
    // Where the kernel learns who is where, addresses may come from anywhere.
    if node.blocks.is_empty() && settings.multicast_group.is_none() {
        return Err(Invalid::new(&format!("{path}.blocks"), "[]", Reason::NoBlock));
    }
    if settings.mode == Mode::Bridged && settings.multicast_group.is_none() {
        let endpoints = peers.map(|peer| endpoint_count(&peer.blocks)).fold(0, u64::saturating_add);
        if endpoints > ENDPOINT_LIMIT {
            let reason = Reason::TooManyEndpoints { endpoints, limit: ENDPOINT_LIMIT };
            return Err(Invalid::new("mode", "bridged", reason));
        }
    }
    Ok(())
}

fn mtu(settings: &Settings, underlay: &Underlay, node: &NodeRecord) -> Result<u32, Invalid> {
    let overhead = Family::of(underlay.address.is_ipv4()).overhead();
    let room = underlay.mtu.saturating_sub(overhead);
    let mtu = settings.mtu.unwrap_or(room);
    if mtu > room {
        let reason =
            Reason::MtuAboveUnderlay { link: underlay.interface.clone(), carries: underlay.mtu, room };
        return Err(Invalid::new("mtu", mtu, reason));
    }
    let has_ipv6 = node.blocks.iter().any(|block| !block.is_ipv4());
    let (family, least) = if has_ipv6 { (Family::Ipv6, 1280) } else { (Family::Ipv4, 576) };
    if mtu >= least {
        return Ok(mtu);
    }
    let reason = match family {
        _ if room < least => {
            let (link, carries) = (underlay.interface.clone(), underlay.mtu);
            Reason::UnderlayTooSmall { link, carries, room, family, least }
        }
        // More is possible, so somebody has chosen it.
        Family::Ipv6 => Reason::MtuBelowIpv6,
        Family::Ipv4 => Reason::MtuBelowIpv4,
    };
    Err(Invalid::new("mtu", mtu, reason))
}

/// What earlier nodes of a list have claimed.
struct Screen<'s> {
    settings: &'s Settings,
    transport: Family,
    names: HashMap<NodeId, String>,
    /// Sorted, to find those within a block.
    underlays: std::collections::BTreeMap<IpAddr, (NodeId, String)>,
    macs: HashMap<MacAddress, (NodeId, String)>,
    /// By their first address: of blocks that do not overlap, only the neighbours below and above can overlap another.
    blocks: std::collections::BTreeMap<(bool, IpAddr), (Cidr, NodeId, String)>,
}

impl<'s> Screen<'s> {
    fn new(settings: &'s Settings, transport: Family) -> Self {
        Self {
            settings,
            transport,
            names: HashMap::new(),
            underlays: std::collections::BTreeMap::new(),
            macs: HashMap::new(),
            blocks: std::collections::BTreeMap::new(),
        }
    }

    /// Lets a node in, or says why not; one that is not let in claims nothing. Gives the hardware address of its tunnel end.
    fn admit(&mut self, listed: &Listed) -> Result<MacAddress, Invalid> {
        let Listed { path, record } = listed;
        let at = |key: &str| format!("{path}.{key}");
        if let Some(other) = self.names.get(&record.node) {
            return Err(Invalid::new(&at("node"), &record.node, Reason::SameNode { other: other.clone() }));
        }
        if record.underlay(self.transport).is_none() {
            let value = record.underlays().next().map_or_else(|| "null".to_owned(), |ip| ip.to_string());
            return Err(Invalid::new(&at("underlay"), value, Reason::NoUnderlay { family: self.transport }));
        }
        if record.port != self.settings.port {
            let reason = Reason::OtherPort { port: self.settings.port.get() };
            return Err(Invalid::new(&at("port"), record.port, reason));
        }
        if !record.vnis.contains(&self.settings.vni) {
            let vnis: Vec<String> = record.vnis.iter().map(|vni| vni.get().to_string()).collect();
            let reason = Reason::OtherVni { vni: self.settings.vni.get() };
            return Err(Invalid::new(&at("vnis"), vnis.join(", "), reason));
        }
        for address in record.underlays() {
            if let Some((node, other)) = self.underlays.get(&address) {
                let reason = Reason::SameUnderlay { node: node.clone(), other: other.clone() };
                return Err(Invalid::new(&at("underlay"), address, reason));
            }
            if let Some(subnet) = self.settings.subnets.iter().find(|subnet| subnet.contains(address)) {
                return Err(Invalid::new(
                    &at("underlay"),
                    address,
                    Reason::UnderlayInSubnet { subnet: *subnet },
                ));
            }
            // A route into the tunnels would take the place of the one that the tunnels themselves go by.
            let before = self.blocks.range(..=(address.is_ipv4(), address)).next_back();
            if let Some((_, (block, node, other))) = before.filter(|(_, (block, ..))| block.contains(address))
            {
                let reason =
                    Reason::UnderlayInside { block: *block, node: node.clone(), other: other.clone() };
                return Err(Invalid::new(&at("underlay"), address, reason));
            }
        }
        let mac = mac::vtep(&self.settings.network, &record.node);
        if let Some((node, other)) = self.macs.get(&mac) {
            let reason = Reason::SameMac { mac, node: node.clone(), other: other.clone() };
            return Err(Invalid::new(&at("node"), &record.node, reason));
        }
        for (index, block) in record.blocks.iter().enumerate() {
            self.check_block(record, block)
                .map_err(|reason| Invalid::new(&format!("{path}.blocks[{index}]"), block, reason))?;
        }
        for (index, block) in record.blocks.iter().enumerate() {
            let before = record.blocks.get(..index).unwrap_or_default();
            if let Some(other) = before.iter().find(|other| other.overlaps(block)) {
                let reason =
                    Reason::Overlap { block: *other, node: record.node.clone(), other: path.clone() };
                return Err(Invalid::new(&format!("{path}.blocks[{index}]"), block, reason));
            }
        }
        if self.settings.mode == Mode::Bridged && !are_paired(&record.blocks) {
            let blocks: Vec<String> = record.blocks.iter().map(ToString::to_string).collect();
            return Err(Invalid::new(&at("blocks"), blocks.join(", "), Reason::Unpaired));
        }
        self.names.insert(record.node.clone(), path.clone());
        self.macs.insert(mac, (record.node.clone(), path.clone()));
        for address in record.underlays() {
            self.underlays.insert(address, (record.node.clone(), path.clone()));
        }
        for block in &record.blocks {
            let key = (block.is_ipv4(), block.address());
            self.blocks.insert(key, (*block, record.node.clone(), path.clone()));
        }
        Ok(mac)
    }

    fn check_block(&self, record: &NodeRecord, block: &Cidr) -> Result<(), Reason> {
        let family = Family::of(block.is_ipv4());
        let bridged = self.settings.mode == Mode::Bridged;
        let longest = block.bits() - 2;
        if !bridged && block.prefix() > longest {
            return Err(Reason::BlockTooSmall { longest });
        }
        match self.settings.subnet(family) {
            None if bridged => return Err(Reason::NoSubnet { family, node: record.node.clone() }),
            Some(subnet) if !subnet.contains(block.address()) || subnet.prefix() > block.prefix() => {
                return Err(Reason::OutsideSubnet { subnet });
            }
            _ => {}
        }
        let mut own = record.underlays().map(|address| (address, &record.node));
        let within = self.underlays.range(block.address()..=block.last());
        let within = within.map(|(address, (node, _))| (*address, node)).next();
        if let Some((address, node)) = own.find(|(address, _)| block.contains(*address)).or(within) {
            return Err(Reason::ContainsUnderlay { address, node: node.clone() });
        }
        let key = (block.is_ipv4(), block.address());
        let below = self.blocks.range(..=key).next_back();
        let above = self.blocks.range(key..).next();
        let overlapping = [below, above].into_iter().flatten().find(|(_, (other, ..))| other.overlaps(block));
        match overlapping {
            Some((_, (other, node, path))) => {
                Err(Reason::Overlap { block: *other, node: node.clone(), other: path.clone() })
            }
            None => Ok(()),
        }
    }
}

mod step;
#[cfg(test)]
mod tests;

pub use step::Step;
