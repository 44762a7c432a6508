//! Tables and chains: the containers of a ruleset.

use std::borrow::Cow;
use std::fmt;

/// The address family of a table, which says what packets its chains see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4 and IPv6 together.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// ARP.
    Arp,
    /// Frames a bridge forwards.
    Bridge,
    /// Frames of one device.
    Netdev,
}

impl Family {
    /// `NFPROTO_*` of `linux/netfilter.h`.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Inet, Self::Ip, Self::Ip6, Self::Arp, Self::Bridge, Self::Netdev]
            .into_iter()
            .find(|family| family.number() == number)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        })
    }
}

/// A table by family and name, such as `inet ferrule`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Table {
    /// The family.
    pub family: Family,
    /// The name, unique in its family.
    pub name: Cow<'static, str>,
}

impl Table {
    /// A table with a fixed name; fit for a `const`.
    pub const fn new(family: Family, name: &'static str) -> Self {
        Self { family, name: Cow::Borrowed(name) }
    }

    /// A table whose name is made at run time.
    pub fn named(family: Family, name: impl Into<String>) -> Self {
        Self { family, name: Cow::Owned(name.into()) }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// Where in the packet path a base chain is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are netfilter's")]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Ingress,
    Egress,
}

impl Hook {
    /// The hooks of a family, each at the index which is its number.
    const fn of(family: Family) -> &'static [Self] {
        match family {
            Family::Inet | Family::Ip | Family::Ip6 | Family::Bridge => &[
                Self::Prerouting,
                Self::Input,
                Self::Forward,
                Self::Output,
                Self::Postrouting,
                Self::Ingress,
            ],
            Family::Arp => &[Self::Input, Self::Output, Self::Forward],
            Family::Netdev => &[Self::Ingress, Self::Egress],
        }
    }

    pub(super) fn number(self, family: Family) -> Option<u32> {
        Self::of(family).iter().position(|hook| *hook == self).and_then(|index| u32::try_from(index).ok())
    }

    pub(super) fn from_number(family: Family, number: u32) -> Option<Self> {
        Self::of(family).get(usize::try_from(number).ok()?).copied()
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// What a base chain may do with packets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ChainType {
    /// Decides the fate of every packet.
    Filter,
    /// Sees the first packet of a connection and may translate its addresses.
    Nat,
    /// Routes again when headers or the mark changed (output only).
    Route,
    /// A type this library does not know; only ever read.
    Unknown(String),
}

impl ChainType {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
            Self::Unknown(name) => name,
        }
    }

    pub(super) fn from_name(name: String) -> Self {
        match name.as_str() {
            "filter" => Self::Filter,
            "nat" => Self::Nat,
            "route" => Self::Route,
            _ => Self::Unknown(name),
        }
    }
}

/// What happens to a packet that reaches the end of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are netfilter's")]
pub enum Policy {
    Accept,
    Drop,
}

/// Order among the base chains of a hook: lower comes first. The names are those `nft` prints.
pub mod priority {
    /// Before connection tracking.
    pub const RAW: i32 = -300;
    /// Header changes, before routing decisions.
    pub const MANGLE: i32 = -150;
    /// Destination NAT.
    pub const DSTNAT: i32 = -100;
    /// Packet filtering.
    pub const FILTER: i32 = 0;
    /// Source NAT.
    pub const SRCNAT: i32 = 100;
    /// Packet filtering in a table of the bridge family, which has its own scale.
    pub const BRIDGE_FILTER: i32 = -200;
}

/// How a base chain is attached to the packet path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Base {
    /// What the chain may do.
    pub kind: ChainType,
    /// Where it is attached.
    pub hook: Hook,
    /// Its place among the chains at that hook.
    pub priority: i32,
    /// What happens at its end.
    pub policy: Policy,
}

/// A chain to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The name, unique in its table.
    pub name: Cow<'static, str>,
    /// For a base chain: where it is attached. A regular chain is only reached by jumps.
    pub base: Option<Base>,
    /// Shown by `nft list`.
    pub comment: Option<String>,
}

impl Chain {
    /// A chain that other chains jump to.
    pub fn regular(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), base: None, comment: None }
    }

    /// A chain that sees packets at `hook`, in the order of `priority` (see [`priority`]). Its policy is to accept.
    pub fn base(name: impl Into<Cow<'static, str>>, kind: ChainType, hook: Hook, priority: i32) -> Self {
        let base = Base { kind, hook, priority, policy: Policy::Accept };
        Self { name: name.into(), base: Some(base), comment: None }
    }

    /// Sets what happens at the end of a base chain; a regular chain has no policy and stays as it is.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        if let Some(base) = &mut self.base {
            base.policy = policy;
        }
        self
    }

    /// Sets the comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}
