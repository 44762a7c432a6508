//! Ranges and sets of ranges: what may be handed out, and in which order.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use cni::Cidr;
use cni::address::{next, previous};
use thiserror::Error;

/// Consecutive addresses, both ends included, as [`number`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// The first address.
    pub(crate) first: u128,
    /// The last address.
    pub(crate) last: u128,
}

impl Span {
    /// The addresses of a network.
    pub(crate) fn of(cidr: Cidr) -> Self {
        Self { first: number(cidr.network().address()), last: number(cidr.last()) }
    }

    /// One address.
    pub(crate) fn single(address: IpAddr) -> Self {
        Self { first: number(address), last: number(address) }
    }

    /// Whether an address lies in it.
    pub(crate) fn contains(self, number: u128) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

/// An address as a number; IPv4 as its IPv4-mapped form, so that the families never mix.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of a [`number`].
pub(crate) fn address(number: u128) -> IpAddr {
    Ipv6Addr::from_bits(number).to_canonical()
}

/// What is wrong with a range or a set. The texts are the Go plugin's where it has the same check.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RangeProblem {
    /// A range without a subnet.
    #[error("subnet is required")]
    NoSubnet,
    /// Not an address or not a CIDR.
    #[error("{0}")]
    Text(cni::AddressError),
    /// The subnet is an address in it, not the network's.
    #[error(
        "Network has host bits set. For a subnet mask of length {prefix} the network address is {network}"
    )]
    HostBits {
        /// Prefix length.
        prefix: u8,
        /// The network's address.
        network: IpAddr,
    },
    /// `rangeStart` is outside, or after `rangeEnd`.
    #[error("RangeStart {start} not in network {subnet}")]
    Start {
        /// The start.
        start: IpAddr,
        /// The subnet.
        subnet: Cidr,
    },
    /// `rangeEnd` is outside, or before the first address.
    #[error("RangeEnd {end} not in network {subnet}")]
    End {
        /// The end.
        end: IpAddr,
        /// The subnet.
        subnet: Cidr,
    },
    /// The gateway can't be reached from an address of the subnet.
    #[error("gateway {gateway} is outside its subnet {subnet}")]
    GatewayOutside {
        /// The gateway.
        gateway: IpAddr,
        /// The subnet.
        subnet: Cidr,
    },
    /// A set without ranges.
    #[error("empty range set")]
    EmptySet,
    /// IPv4 and IPv6 in one set.
    #[error("mixed address families")]
    MixedFamilies,
    /// Two ranges of a set share addresses.
    #[error("subnets {first} and {second} overlap")]
    Overlap {
        /// A range.
        first: String,
        /// The other.
        second: String,
    },
    /// Nothing is left after gateways and exclusions.
    #[error("no address of {ranges} is left to allocate")]
    NothingLeft {
        /// The set's ranges.
        ranges: String,
    },
}

impl RangeProblem {
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSubnet => "give every range a subnet such as 10.1.0.0/16".to_owned(),
            Self::Text(_) => return None,
            Self::HostBits { prefix, network } => format!("write {network}/{prefix}"),
            Self::Start { .. } | Self::End { .. } => {
                "rangeStart and rangeEnd lie in the subnet, rangeStart not after rangeEnd".to_owned()
            }
            Self::GatewayOutside { .. } => {
                "choose an address of the subnet, or a link-local one; or leave gateway out".to_owned()
            }
            Self::EmptySet => "a range set is a list of at least one range".to_owned(),
            Self::MixedFamilies => "make one range set for IPv4 and one for IPv6".to_owned(),
            Self::Overlap { .. } => "ranges of a set may share a subnet but no address".to_owned(),
            Self::NothingLeft { .. } => {
                "the gateway and `exclude` cover the whole range: widen the range or exclude less".to_owned()
            }
        })
    }
}

/// A part of a subnet that may be handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    /// The subnet; its prefix length goes into results.
    pub(crate) subnet: Cidr,
    /// First address.
    pub(crate) start: IpAddr,
    /// Last address.
    pub(crate) end: IpAddr,
    /// Gateway; `None` where the subnet is a single address and none was given.
    pub(crate) gateway: Option<IpAddr>,
    /// Addresses never handed out.
    pub(crate) exclude: Vec<Span>,
}

impl Range {
    /// A range with the defaults of the Go plugin for what is `None`: from the second address of the subnet to the last (the one before
    /// the broadcast address in IPv4), the gateway being the second address. In a subnet of two (RFC 3021, RFC 6164) there is neither
    /// network nor broadcast address, and a subnet of one has no gateway: the Go plugin refuses both.
    ///
    /// The error says which of the keys is to blame.
    pub(crate) fn new(
        subnet: Cidr,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, (&'static str, RangeProblem)> {
        let network = subnet.network().address();
        if network != subnet.address() {
            return Err(("subnet", RangeProblem::HostBits { prefix: subnet.prefix(), network }));
        }
        let host_bits = subnet.bits() - subnet.prefix();
        let second = if host_bits == 0 { network } else { next(network).unwrap_or(network) };
        let first = if host_bits < 2 { network } else { second };
        let last = match subnet.last() {
            IpAddr::V4(broadcast) if host_bits >= 2 => previous(broadcast.into()).unwrap_or(subnet.last()),
            last => last,
        };
        if let Some(start) = start
            && !(subnet.contains(start) && end.is_none_or(|end| start <= end))
        {
            return Err(("rangeStart", RangeProblem::Start { start, subnet }));
        }
        let start = start.unwrap_or(first);
        if let Some(end) = end
            && !(subnet.contains(end) && start <= end)
        {
            return Err(("rangeEnd", RangeProblem::End { end, subnet }));
        }
        let end = end.unwrap_or(last);
        if start > end {
            return Err(("rangeStart", RangeProblem::Start { start, subnet }));
        }
        if let Some(gateway) = gateway
            && !reachable(gateway, subnet)
        {
            return Err(("gateway", RangeProblem::GatewayOutside { gateway, subnet }));
        }
        let gateway = gateway.or((host_bits > 0).then_some(second));
        Ok(Self { subnet, start, end, gateway, exclude: Vec::new() })
    }

    /// Whether an address lies between start and end; gateway and exclusions do not matter.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && (self.start..=self.end).contains(&address)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.start) || other.contains(self.start)
    }
}

/// A gateway outside the subnet is a typing error, except where it must be outside (the subnet is one address) and where it is on the
/// link by definition (link-local addresses, as routers of IPv6 have, and as some routed networks use in IPv4).
fn reachable(gateway: IpAddr, subnet: Cidr) -> bool {
    let link_local = match gateway {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    gateway.is_ipv4() == subnet.is_ipv4()
        && (subnet.contains(gateway) || link_local || subnet.prefix() == subnet.bits())
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// A pool: every container gets one address of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeSet {
    ranges: Vec<Range>,
    /// What may be handed out, by index of the range, in order of allocation.
    spans: Vec<(usize, Span)>,
}

impl RangeSet {
    /// A set that never hands out `reserved` (gateways, exclusions of the whole configuration) nor what its ranges exclude.
    pub(crate) fn new(ranges: Vec<Range>, reserved: &[Span]) -> Result<Self, RangeProblem> {
        let Some(first) = ranges.first() else { return Err(RangeProblem::EmptySet) };
        if ranges.iter().any(|range| range.start.is_ipv4() != first.start.is_ipv4()) {
            return Err(RangeProblem::MixedFamilies);
        }
        for (index, range) in ranges.iter().enumerate() {
            if let Some(other) = ranges.iter().skip(index + 1).find(|other| other.overlaps(range)) {
                return Err(RangeProblem::Overlap { first: range.to_string(), second: other.to_string() });
            }
        }
        let mut spans = Vec::new();
        for (index, range) in ranges.iter().enumerate() {
            let whole = Span { first: number(range.start), last: number(range.end) };
            let without: Vec<Span> = reserved.iter().chain(&range.exclude).copied().collect();
            spans.extend(subtract(whole, without).into_iter().map(|span| (index, span)));
        }
        let set = Self { ranges, spans };
        if set.spans.is_empty() {
            return Err(RangeProblem::NothingLeft { ranges: set.to_string() });
        }
        Ok(set)
    }

    /// Whether the set is IPv4.
    pub(crate) fn is_ipv4(&self) -> bool {
        self.ranges.first().is_some_and(|range| range.start.is_ipv4())
    }

    /// The range an address lies in.
    pub(crate) fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.contains(address))
    }

    /// Whether an address may be handed out.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.spans.iter().any(|(_, span)| span.contains(number(address)))
    }

    /// Whether two sets share an address.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.ranges.iter().any(|range| other.ranges.iter().any(|theirs| range.overlaps(theirs)))
    }

    /// What may be handed out, starting after the address handed out last: the rest of its range, the ranges after it, those before it,
    /// and its own range up to and including it. Without such an address, or if it is not in the set: from the beginning.
    pub(crate) fn round(&self, last: Option<IpAddr>) -> impl Iterator<Item = Span> {
        let current = last.and_then(|last| {
            let range = self.ranges.iter().position(|range| range.contains(last))?;
            Some((range, number(last)))
        });
        let whole = |wanted: fn(usize, usize) -> bool| {
            let at = current.map_or(0, |(range, _)| range);
            self.spans.iter().filter(move |(index, _)| wanted(*index, at)).map(|(_, span)| *span)
        };
        let own = move |after: bool| {
            self.spans.iter().filter_map(move |(index, span)| {
                let (range, last) = current?;
                let part = if after {
                    Span { first: span.first.max(last.saturating_add(1)), ..*span }
                } else {
                    Span { last: span.last.min(last), ..*span }
                };
                // `last` may be the highest address there is: nothing is after it.
                let empty = part.first > part.last || (after && last == u128::MAX);
                (*index == range && !empty).then_some(part)
            })
        };
        let all = whole(|_, _| true).filter(move |_| current.is_none());
        let later = whole(|index, at| index > at).filter(move |_| current.is_some());
        let earlier = whole(|index, at| index < at).filter(move |_| current.is_some());
        all.chain(own(true)).chain(later).chain(earlier).chain(own(false))
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{range}")?;
        }
        Ok(())
    }
}

/// A span without others: what is left, in order.
fn subtract(whole: Span, mut without: Vec<Span>) -> Vec<Span> {
    without.sort_unstable();
    let mut left = Vec::new();
    let mut first = whole.first;
    for hole in without {
        if hole.last < first {
            continue;
        }
        if hole.first > whole.last {
            break;
        }
        if hole.first > first {
            left.push(Span { first, last: hole.first - 1 });
        }
        match hole.last.checked_add(1) {
            Some(after) if after <= whole.last => first = after,
            _ => return left,
        }
    }
    left.push(Span { first, last: whole.last });
    left
}

#[cfg(test)]
mod tests;
