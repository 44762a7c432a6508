//! What an attachment asks of the host's firewall, as data, and the backends that make it so.
//!
//! A plugin says *what* it wants ([`Entry`]); a [`Firewall`] knows *how*: [`nftables`] over netlink with sets and maps, [`iptables`] with
//! the chains of the Go suite, [`firewalld`] over D-Bus. All entries of one attachment and one plugin go in one transaction.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use cni::{Cidr, LinkName};
use serde::{Deserialize, Serialize};

use crate::attachment::Collection;
use crate::owner::Owner;

mod choice;
pub mod detect;
mod error;
mod firewalld;
mod iptables;
mod nftables;
mod vteps;

pub use choice::{collect, preferred, probe, remove_owner, usable};
pub use error::FirewallError;
pub use firewalld::Firewalld;
pub use iptables::Iptables;
pub use nftables::Nftables;
pub use vteps::VtepGuard;

/// A firewall implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// nftables over netlink, in tables of our own.
    Nftables,
    /// `iptables-restore`, in the chains of the Go suite.
    Iptables,
    /// firewalld zones over D-Bus; forwarding only.
    Firewalld,
}

impl Backend {
    /// The name as configurations spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Firewalld => "firewalld",
        }
    }
}

/// Which plugin's part of the firewall is meant, where there are no entries to say it (DEL without a record, GC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `ipMasq`, `macspoofchk` and `spoofchk` of the interface plugins.
    Interface,
    /// Published ports.
    Publish,
    /// Forwarding and isolation.
    Forward,
}

/// A transport protocol that ports can be published for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, protocol 6.
    Tcp,
    /// UDP, protocol 17.
    Udp,
    /// SCTP, protocol 132.
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The lower-case name, as iptables and nft spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The protocol with this name in any case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|protocol| protocol.as_str().eq_ignore_ascii_case(text))
    }
}

/// One thing an attachment asks of the firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Entry {
    /// Source NAT of what leaves the container's subnet.
    Masquerade(Masquerade),
    /// Frames from a bridge port must carry the container's MAC address.
    SpoofGuard(SpoofGuard),
    /// A bridge port speaks for the container's addresses only, by ARP and neighbour discovery.
    NeighbourGuard(NeighbourGuard),
    /// Host ports that lead to the container, one entry per address family.
    Publish(Publish),
    /// Nobody on a link reaches what listens on 127.0.0.0/8. Shared by all attachments to that link.
    LocalGuard(LocalGuard),
    /// Forwarding from the container, and of replies to it, is accepted.
    Forward(Forward),
    /// A bridge is isolated from others. Shared by all attachments to that bridge.
    Isolate(Isolate),
}

/// Traffic from `address` to anything but its own subnet, multicast and the excluded networks leaves with the host's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Masquerade {
    /// The container's address with the prefix length of its subnet.
    pub address: Cidr,
    /// Destinations that see the container's own address; same family as `address`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Cidr>,
}

/// Frames that enter through `port` and are not from `mac` are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpoofGuard {
    /// The host's end of the veth pair.
    pub port: LinkName,
    /// The container's hardware address, lower-case colon form.
    pub mac: String,
}

/// ARP and neighbour discovery that enter through `port` and speak for another address than these are dropped; so are router advertisements and
/// redirects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NeighbourGuard {
    /// The host's end of the veth pair.
    pub port: LinkName,
    /// The container's addresses, its link-local one among them.
    pub addresses: Vec<IpAddr>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mapping {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The host's address; `None` for every local address of the family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// Port on the host, 1 to 65535.
    pub host_port: u16,
    /// Port in the container, 1 to 65535.
    pub container_port: u16,
}

/// The published ports of a container in one address family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Publish {
    /// The container's address with the prefix length of its subnet.
    pub address: Cidr,
    /// The ports, each host address of the family of `address`.
    pub mappings: Vec<Mapping>,
    /// Masquerade connections from the container's own subnet and from the host's loopback address, so that their replies come back.
    pub snat: bool,
    /// Masquerade every published connection (for containers whose way back does not pass this host).
    pub masq_all: bool,
    /// Bit of the packet mark that stands for "masquerade" in iptables.
    pub mark_bit: u8,
    /// A chain of somebody else's to set the mark with (iptables).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_mark_chain: Option<String>,
    /// More conditions, in the backend's own words, one token each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
}

impl Publish {
    /// Where a mapping leads.
    pub fn destination(&self, mapping: &Mapping) -> SocketAddr {
        SocketAddr::new(self.address.address(), mapping.container_port)
    }
}

/// Packets to 127.0.0.0/8 that come in through `link` are dropped, which `route_localnet` would let in (CVE-2020-8558).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalGuard {
    /// A link of the host.
    pub link: LinkName,
}

/// Packets from `address` are forwarded, and packets of its connections to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forward {
    /// The container's address.
    pub address: IpAddr,
    /// The chain in which an operator overrides (iptables): `CNI-ADMIN` unless configured.
    pub admin_chain: String,
    /// The zone (firewalld): `trusted` unless configured.
    pub zone: String,
}

/// How far a bridge is isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IsolationPolicy {
    /// Not reachable from other isolated bridges.
    SameBridge,
    /// Nor from other containers on the same bridge.
    Isolated,
}

impl IsolationPolicy {
    /// The value of `ingressPolicy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SameBridge => "same-bridge",
            Self::Isolated => "isolated",
        }
    }
}

/// A bridge's isolation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Isolate {
    /// The bridge.
    pub bridge: LinkName,
    /// How far.
    pub policy: IsolationPolicy,
    /// The bridge's ports that lead to the container. Frames between these and other ports never come to the IP layer, so where they
    /// are to be dropped (`isolated`) it is at the port. (iptables sees them only with `net.bridge.bridge-nf-call-iptables`.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<LinkName>,
}

/// The longest chain name iptables takes (`XT_EXTENSION_MAXNAMELEN` less the terminating NUL).
pub const CHAIN_NAME_LIMIT: usize = 28;

/// Whether iptables takes this as the name of a chain.
pub fn is_chain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= CHAIN_NAME_LIMIT
        && !name.starts_with(['-', '!'])
        && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A backend. Entries are those of one owner and one plugin; everything in one transaction per family at most.
pub trait Firewall: fmt::Debug {
    /// Makes the entries so. Repeating it changes nothing. A port that another owner has published is
    /// [`FirewallError::PortTaken`] with that owner's name, and nothing is changed.
    fn ensure(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), FirewallError>;

    /// Succeeds if the entries are as `ensure` makes them, including what they need of shared chains. Changes nothing.
    fn verify(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), FirewallError>;

    /// Removes the entries of this owner; what is not there is no error. What they shared with nobody else any more goes too.
    fn remove(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), FirewallError>;

    /// Removes what can be found of an owner without knowing its entries: by comment, and by the names the Go suite derives.
    /// `addresses` are those of prevResult, where there is one.
    fn remove_owner(&mut self, owner: &Owner, role: Role, addresses: &[IpAddr]) -> Result<(), FirewallError>;

    /// Removes what belongs to attachments that are gone, the Go suite's included where its comments tell. Where they tell the container
    /// only, one interface of it that is listed or has a record keeps everything of that container.
    fn collect(&mut self, collection: &Collection<'_>, role: Role) -> Result<(), FirewallError>;
}

/// A backend, for a plugin: the plugin's name tells its users of shared chains and tables from those of others.
pub fn open(backend: Backend, plugin: &'static str) -> Box<dyn Firewall> {
    match backend {
        Backend::Nftables => Box::new(Nftables::new(plugin)),
        Backend::Iptables => Box::new(Iptables::new(plugin)),
        Backend::Firewalld => Box::new(Firewalld::new(plugin)),
    }
}
