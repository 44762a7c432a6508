//! What the kernel should have for a view: a pure function of it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::Cidr;
use ferrule_core::netlink::MacAddress;

use crate::mac;
use crate::names::{Family, Mode};
use crate::node::NodeRecord;
use crate::table::Table;
use crate::view::View;

/// Which way packets to a block go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hop {
    /// Through the tunnel, to the node with this address inside.
    Tunnel(IpAddr),
    /// Through the underlay's link, to the node with this address.
    Direct(IpAddr),
    /// Nowhere: addresses of this node's own blocks that no container has. Without this, such packets would leave by the default route and
    /// come back.
    Nowhere,
}

/// The kernel objects of a view, without the device itself and without numbers that only this host's kernel gives (indexes, identifiers).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Addresses of the device, each a network of one.
    pub addresses: Vec<Cidr>,
    /// Addresses of the bridge: the gateways of the stretched subnets, each with its subnet's prefix.
    pub gateways: Vec<Cidr>,
    /// Neighbours on the device: the nodes' addresses inside.
    pub neighbours: Table<IpAddr, MacAddress>,
    /// Neighbours on the bridge: the containers of other nodes, so that it answers for them.
    pub endpoints: Table<IpAddr, MacAddress>,
    /// The other nodes' tunnel ends.
    pub vteps: Vec<IpAddr>,
    /// Which of them, by its place, frames for a hardware address go to.
    pub fdb: Table<MacAddress, usize>,
    /// Where frames go that no entry is for.
    pub flood: BTreeSet<IpAddr>,
    /// Routes to blocks.
    pub routes: Table<Cidr, Hop>,
    /// How many peers there are: nothing is taken away without question where there are none.
    pub peers: usize,
}

impl Desired {
    /// The objects of a view.
    pub fn of(view: &View) -> Self {
        let settings = view.settings();
        let mut desired = Self::default();
        if let Some(group) = settings.multicast_group {
            // The kernel's own entry for the group, which it makes with the device.
            desired.flood.insert(group);
        }
        match settings.mode {
            Mode::Routed => {
                for family in Family::ALL {
                    desired.addresses.extend(view.node().tunnel_address(family).map(Cidr::host));
                }
                // What no node has of a subnet that containers see as one is nowhere either, and this host does not answer for it.
                let nowhere = view.node().blocks.iter().chain(&settings.subnets);
                desired.routes = nowhere.map(|network| (*network, Hop::Nowhere)).collect();
            }
            Mode::Bridged => desired.gateways = gateways(&settings.subnets),
        }
        desired.extend(Self::of_peers(view, view.peers_and_macs()));
        desired
    }

    /// Those that there are because of one peer.
    pub fn of_peer(view: &View, peer: &NodeRecord) -> Self {
        Self::of_peers(view, std::iter::once((peer, mac::vtep(&view.settings().network, &peer.node))))
    }

    fn of_peers<'v>(view: &View, peers: impl Iterator<Item = (&'v NodeRecord, MacAddress)>) -> Self {
        let settings = view.settings();
        match settings.mode {
            Mode::Routed => Self::routed(view, peers),
            // The kernel learns who is where.
            Mode::Bridged if settings.multicast_group.is_some() => {
                Self { peers: peers.count(), ..Self::default() }
            }
            Mode::Bridged => Self::bridged(view, peers),
        }
    }

    fn routed<'v>(view: &View, peers: impl Iterator<Item = (&'v NodeRecord, MacAddress)>) -> Self {
        let mut desired = Self::default();
        let (mut neighbours, mut fdb, mut routes) = (Vec::new(), Vec::new(), Vec::new());
        for (peer, mac) in peers {
            desired.peers += 1;
            let Some(vtep) = peer.underlay(view.family()) else { continue };
            let mut tunnelled = false;
            let direct = |family| {
                let underlay = peer.underlay(family).filter(|address| view.underlay().is_on_link(*address));
                underlay.filter(|_| view.settings().direct_routing)
            };
            for family in Family::ALL {
                let Some(inside) = peer.tunnel_address(family) else { continue };
                // A packet that is not wrapped needs an underlay of its own family.
                let hop = direct(family).map_or(Hop::Tunnel(inside), Hop::Direct);
                if matches!(hop, Hop::Tunnel(_)) {
                    neighbours.push((inside, mac));
                    tunnelled = true;
                }
                routes.extend(peer.blocks_of(family).map(|block| (block, hop)));
            }
            if tunnelled {
                fdb.push((mac, desired.vteps.len()));
                desired.vteps.push(vtep);
            }
        }
        desired.routes = routes.into();
        desired.neighbours = neighbours.into();
        desired.fdb = fdb.into();
        desired
    }

    fn bridged<'v>(view: &View, peers: impl Iterator<Item = (&'v NodeRecord, MacAddress)>) -> Self {
        let settings = view.settings();
        let mut desired = Self::default();
        // Each node has the gateway's address itself.
        let gateways: Vec<IpAddr> = settings.subnets.iter().filter_map(gateway).collect();
        let (mut neighbours, mut fdb) = (Vec::new(), Vec::new());
        for (peer, _) in peers {
            desired.peers += 1;
            let Some(vtep) = peer.underlay(view.family()) else { continue };
            if settings.bum {
                desired.flood.insert(vtep);
            }
            for endpoint in endpoints(&peer.blocks) {
                if gateways.contains(&endpoint.address) {
                    continue;
                }
                let mac = mac::container(&settings.network, endpoint.address);
                fdb.push((mac, desired.vteps.len()));
                neighbours.push((endpoint.address, mac));
                neighbours.extend(endpoint.second.map(|second| (second, mac)));
            }
            desired.vteps.push(vtep);
        }
        desired.fdb = fdb.into();
        desired.endpoints = neighbours.into();
        desired
    }

    /// Takes in the objects of peers that are not in it yet.
    pub fn extend(&mut self, part: Self) {
        let before = self.vteps.len();
        self.vteps.extend(part.vteps);
        self.fdb.extend(part.fdb.map(|place| before + place));
        self.neighbours.extend(part.neighbours);
        self.endpoints.extend(part.endpoints);
        self.routes.extend(part.routes);
        self.flood.extend(part.flood);
        self.peers += part.peers;
    }

    /// Leaves out the objects of peers that are in it.
    pub fn subtract(&mut self, part: &Self) {
        self.fdb.subtract(&part.fdb);
        self.neighbours.subtract(&part.neighbours);
        self.endpoints.subtract(&part.endpoints);
        self.routes.subtract(&part.routes);
        self.flood.retain(|vtep| !part.flood.contains(vtep));
        self.peers -= part.peers;
        for vtep in &part.vteps {
            let Some(place) = self.vteps.iter().position(|other| other == vtep) else { continue };
            // The last one takes the place that has become free.
            self.vteps.swap_remove(place);
            let last = self.vteps.len();
            for other in self.fdb.values_mut().filter(|other| **other == last) {
                *other = place;
            }
        }
    }
}

/// A container that a node of a bridged network may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address, of which its hardware address is computed.
    pub address: IpAddr,
    /// Its IPv6 address where the node has blocks of both families.
    pub second: Option<IpAddr>,
}

/// The prefix of the part of an IPv6 block that addresses are given from in bridged mode: a /64 has more than can be listed.
const IPV6_USED: u8 = 120;

/// The part of a block that a bridged network gives addresses from: all of it, but of an IPv6 block the first 256 addresses.
pub fn used(block: &Cidr) -> Cidr {
    let narrowed = (!block.is_ipv4() && block.prefix() < IPV6_USED)
        .then(|| Cidr::new(block.network().address(), IPV6_USED))
        .flatten();
    narrowed.unwrap_or(*block)
}

/// Whether other nodes of a bridged network look for an address at the node that has these blocks.
pub fn is_endpoint(blocks: &[Cidr], address: IpAddr) -> bool {
    let four = blocks.iter().any(Cidr::is_ipv4);
    blocks.iter().any(|block| block.is_ipv4() == four && used(block).contains(address))
}

/// Every container that may be in a node's blocks. Where there are blocks of both families they go together, in order: a container has the same
/// place in both, so that its one hardware address can be computed from either.
pub fn endpoints(blocks: &[Cidr]) -> impl Iterator<Item = Endpoint> {
    let (four, six): (Vec<Cidr>, Vec<Cidr>) = blocks.iter().partition(|block| block.is_ipv4());
    let (first, second) =
        if four.is_empty() { (six.iter().map(used).collect(), Vec::new()) } else { (four, six) };
    let mut second = second.into_iter();
    first.into_iter().flat_map(move |block| {
        let other = second.next();
        let mut place = Some((block.address(), other.map(|other| other.address())));
        std::iter::from_fn(move || {
            let (address, second) = place.filter(|(address, _)| block.contains(*address))?;
            let following = second.and_then(cni::address::next);
            place = cni::address::next(address).map(|address| (address, following));
            Some(Endpoint { address, second })
        })
    })
}

/// The gateway of a subnet: its first address after its own.
pub fn gateway(subnet: &Cidr) -> Option<IpAddr> {
    cni::address::next(subnet.network().address()).filter(|gateway| subnet.contains(*gateway))
}

/// The gateways of stretched subnets as addresses of the bridge, each with its subnet's prefix.
pub fn gateways(subnets: &[Cidr]) -> Vec<Cidr> {
    subnets.iter().filter_map(|subnet| Cidr::new(gateway(subnet)?, subnet.prefix())).collect()
}
