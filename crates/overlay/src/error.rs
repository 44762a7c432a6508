//! What is wrong with a description of a network, and what went wrong in making it so.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use cni::json::JsonError;
use cni::{Cidr, Code, Failure, LinkName};
use ferrule_core::netlink::{KernelError, MacAddress, NetlinkError};
use ferrule_core::nft;
use ferrule_core::state::StateError;
use thiserror::Error;

use crate::names::{Family, NodeId};

/// Something in a description of a network that can't be so. Nothing has been changed when this is returned.
#[derive(Debug, Error)]
#[error("{path}: {reason} (value: {value})")]
pub struct Invalid {
    /// Where it is written: `peers[1].blocks[0]`.
    pub path: String,
    /// What is written there.
    pub value: String,
    /// Why it can't be.
    pub reason: Reason,
}

/// Why a description can't be so.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Reason {
    /// Not JSON.
    #[error("not JSON: {error}")]
    Json {
        /// What the parser says.
        error: serde_json::Error,
    },
    /// Another type than it should be.
    #[error("{text}")]
    Shape {
        /// What the decoder says.
        text: String,
    },
    /// Nothing there.
    #[error("it is missing")]
    Missing,
    /// A format of a later release.
    #[error("the format is not known here, {known} is")]
    Format {
        /// What is known.
        known: u32,
    },
    /// An address where a network should be.
    #[error("it has host bits; the network is {network}")]
    HostBits {
        /// The network.
        network: Cidr,
    },
    /// Two nodes with the same name.
    #[error("it names the same node as {other}")]
    SameNode {
        /// The other's path.
        other: String,
    },
    /// Two nodes with the same underlay address.
    #[error("node {node} at {other} has the same address")]
    SameUnderlay {
        /// The other node.
        node: NodeId,
        /// The other's path.
        other: String,
    },
    /// Blocks of two nodes that share addresses.
    #[error("it overlaps {block} of node {node} at {other}")]
    Overlap {
        /// The other block.
        block: Cidr,
        /// The other node.
        node: NodeId,
        /// The other's path.
        other: String,
    },
    /// An underlay address that would be reached through the tunnels.
    #[error("it is within {block} of node {node} at {other}, which is reached through the tunnels")]
    UnderlayInside {
        /// The block.
        block: Cidr,
        /// Whose it is.
        node: NodeId,
        /// That one's path.
        other: String,
    },
    /// A block with an underlay address in it.
    #[error("it contains {address}, at which the tunnels of node {node} end")]
    ContainsUnderlay {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        node: NodeId,
    },
    /// A block of another node with an address of this host in it.
    #[error("it contains {address}, which the link {link} of this host has")]
    ContainsOwn {
        /// The address.
        address: IpAddr,
        /// The link.
        link: LinkName,
    },
    /// A block of another node that this host has a route to already, which is somebody else's.
    #[error("this host has a route to it that is not of this network: {way}")]
    Routed {
        /// Which way it goes.
        way: String,
    },
    /// Two nodes whose tunnel ends would have the same hardware address.
    #[error("its tunnel end would have the hardware address {mac}, which is that of node {node} at {other}")]
    SameMac {
        /// The address.
        mac: MacAddress,
        /// The other node.
        node: NodeId,
        /// The other's path.
        other: String,
    },
    /// No room for a network address, a gateway and a container.
    #[error(
        "it is too small: a block has room for a gateway and a container, so its prefix is at most /{longest}"
    )]
    BlockTooSmall {
        /// The longest prefix.
        longest: u8,
    },
    /// Blocks of both families that do not go together.
    #[error(
        "in bridged mode blocks of both families go together: as many of each, in order, and of IPv6 at least as large"
    )]
    Unpaired,
    /// A block outside the stretched subnet.
    #[error("it is not within the subnet of the network, {subnet}")]
    OutsideSubnet {
        /// The subnet.
        subnet: Cidr,
    },
    /// An underlay address inside the stretched subnet.
    #[error("it is within {subnet}, the subnet of the network, whose addresses are inside the tunnels")]
    UnderlayInSubnet {
        /// The subnet.
        subnet: Cidr,
    },
    /// Bridged mode without its subnet.
    #[error("a bridged network needs a subnet of {family}, because node {node} has a block of it")]
    NoSubnet {
        /// The family.
        family: Family,
        /// The node.
        node: NodeId,
    },
    /// More endpoints than can be computed in advance.
    #[error(
        "bridged mode would need entries for {endpoints} addresses in its peers' blocks, and {limit} are possible; give the nodes smaller blocks (a /26 has room for 64 containers), or use mode \"routed\", which needs one for each node"
    )]
    TooManyEndpoints {
        /// How many.
        endpoints: u64,
        /// How many are possible.
        limit: u64,
    },
    /// The family that carries the tunnel.
    #[error("it has no {family} address, which carries the tunnels of this network")]
    NoUnderlay {
        /// The family.
        family: Family,
    },
    /// No block at all.
    #[error("it has no block of addresses")]
    NoBlock,
    /// Another port than the network's.
    #[error("the network's port is {port}")]
    OtherPort {
        /// The network's.
        port: u16,
    },
    /// A record of another network's node.
    #[error("the network's VNI {vni} is not among its own")]
    OtherVni {
        /// The network's.
        vni: u32,
    },
    /// This host is not in the list.
    #[error("this host is not among its peers: it has none of these addresses (its own: {})", list(own))]
    NotAmongPeers {
        /// The addresses of this host.
        own: Vec<IpAddr>,
    },
    /// This host is in the list more than once.
    #[error("this host has the addresses of {one} and of {other}; `underlay.address` says which it is")]
    Ambiguous {
        /// One node.
        one: NodeId,
        /// Another.
        other: NodeId,
    },
    /// An address that this host does not have.
    #[error("this host does not have this address")]
    NotLocal,
    /// A link that this host does not have.
    #[error("this host has no such link")]
    NoLink,
    /// A link without a usable address.
    #[error("the link has no address that a peer record names")]
    NoAddressOnLink,
    /// Too small for IPv6.
    #[error("IPv6 needs an MTU of 1280 at least (RFC 8200, section 5)")]
    MtuBelowIpv6,
    /// Too small for IPv4.
    #[error("IPv4 needs an MTU of 576 at least")]
    MtuBelowIpv4,
    /// The underlay is too small for a family inside.
    #[error(
        "{link} carries {carries} bytes, of which {room} are left for a packet inside the tunnel, and {family} needs {least} at least"
    )]
    UnderlayTooSmall {
        /// The link.
        link: LinkName,
        /// What the ways to the peers carry.
        carries: u32,
        /// What is left.
        room: u32,
        /// The family inside.
        family: Family,
        /// What it needs.
        least: u32,
    },
    /// Larger than what the underlay carries.
    #[error("{link} carries {carries} bytes, of which {room} are left for a packet inside the tunnel")]
    MtuAboveUnderlay {
        /// The link.
        link: LinkName,
        /// Its MTU.
        carries: u32,
        /// What is left.
        room: u32,
    },
    /// A variable of a file that is not there or not usable.
    #[error("{text}")]
    Variable {
        /// What is wrong with it.
        text: String,
    },
    /// A group address was expected.
    #[error("it is not a multicast address")]
    NotMulticast,
}

impl Reason {
    /// What to do, where the reason itself does not say it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::ContainsOwn { .. } => "give the node another block, or that link other addresses",
            Self::Routed { .. } => "give the node another block, or remove that route",
            Self::SameMac { .. } => {
                "hardware addresses are computed from the network's and the node's name: rename one of the two nodes"
            }
            _ => return None,
        })
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

impl Invalid {
    /// A problem at a path.
    pub fn new(path: &str, value: impl fmt::Display, reason: Reason) -> Self {
        Self { path: path.to_owned(), value: value.to_string(), reason }
    }

    /// What the decoder refused, below a path.
    pub fn from_json(error: JsonError, path: &str) -> Self {
        let error = error.under(path);
        Self {
            path: error.path(),
            value: error.value().unwrap_or("null").to_owned(),
            reason: Reason::Shape { text: error.reason().to_owned() },
        }
    }
}

/// What went wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The description.
    #[error(transparent)]
    Invalid(#[from] Box<Invalid>),
    /// The kernel, at one request.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A resource of the host.
    #[error(transparent)]
    Core(#[from] ferrule_core::Error),
    /// The firewall.
    #[error(transparent)]
    Nft(#[from] nft::Error),
    /// A state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file of peers, or of another suite's.
    #[error("can't {operation} {}", path.display())]
    File {
        /// What was done.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent has not written its state yet.
    #[error("network {network} has no state file {} yet", path.display())]
    NoState {
        /// The network.
        network: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// Some of many changes were refused.
    #[error("{failed} of {total} changes were refused; the first: {first}")]
    Refused {
        /// How many.
        failed: usize,
        /// Of how many.
        total: usize,
        /// What was tried first in vain.
        first: String,
        /// The kernel's answer to that.
        source: KernelError,
    },
    /// The VNI and port are held by a device that is not ours.
    #[error("VNI {vni} on UDP port {port} is held by {holder}, which does not belong to network {network}")]
    Held {
        /// The VNI.
        vni: u32,
        /// The port.
        port: u16,
        /// Who holds it.
        holder: String,
        /// Who wants it.
        network: String,
    },
    /// The port is held by a socket that is no device's of this host.
    #[error("UDP port {port}, which network {network} receives on, is held by {holder}")]
    PortHeld {
        /// The port.
        port: u16,
        /// The network.
        network: String,
        /// Who holds it.
        holder: String,
    },
    /// The device's name is taken, or the bridge's.
    #[error("the link {link} exists and is not {wanted} of network {network} but {found}")]
    Taken {
        /// The name.
        link: String,
        /// What it should be.
        wanted: &'static str,
        /// The network.
        network: String,
        /// What it is.
        found: String,
    },
    /// The identifiers of two networks on this host collide.
    #[error("networks {network} and {other} share the identifier {mark} on this host")]
    Collision {
        /// The one.
        network: String,
        /// The other.
        other: String,
        /// The number.
        mark: u32,
    },
    /// Something that was programmed is not there.
    #[error("{what} of network {network} is {found}")]
    Drift {
        /// Which object.
        what: String,
        /// The network.
        network: String,
        /// "missing", or what it is.
        found: String,
    },
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(Box::new(invalid))
    }
}

impl Error {
    fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidConfig,
            Self::File { .. } => Code::Io,
            Self::NoState { .. } => Code::TryAgainLater,
            Self::Held { .. } | Self::PortHeld { .. } | Self::Taken { .. } | Self::Collision { .. } => {
                Code::Conflict
            }
            Self::Drift { .. } => Code::CheckFailed,
            Self::Netlink(_) | Self::Core(_) | Self::Nft(_) | Self::State(_) | Self::Refused { .. } => {
                Code::Kernel
            }
        }
    }

    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoState { .. } => {
                "the node agent writes it once it has a block; is overlayd running for this network?"
            }
            Self::Held { .. } => "choose another vni or port, or remove that link",
            Self::PortHeld { .. } => {
                "`ss -uanp` lists who has which port; end that program, or choose another port, on all nodes"
            }
            Self::Taken { .. } => "remove or rename that link",
            Self::Collision { .. } => "rename one of the networks",
            Self::Drift { .. } => "the next ADD, or the node agent, puts it right",
            Self::Refused { .. } => "the others were made; the next attempt makes the rest",
            _ => return None,
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(invalid) => {
                let failure = Self::new(Code::InvalidConfig, format!("invalid configuration: {invalid}"));
                match invalid.reason.hint() {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
            Error::Netlink(error) => error.into(),
            Error::Core(error) => error.into(),
            Error::State(error) => error.into(),
            Error::Nft(error) => ferrule_core::firewall::FirewallError::from(error).into(),
            other => {
                let failure = Self::from_error(other.code(), &other);
                match other.hint() {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
        }
    }
}
