//! What tells routes, neighbours and nexthop objects of ours from those of everybody else.

use std::ops::RangeInclusive;

/// The protocol number (`rtm_protocol`, `NDA_PROTOCOL`, `nh_protocol`) of entries that are made here: a number that neither the kernel nor a routing
/// daemon known to `iproute2` uses.
pub const PROTOCOL: u8 = 70;

/// The identifiers of nexthop objects that an overlay with this mark (0x4000 to 0xffff) may use. The kernel counts up from 1 and routing daemons
/// start at 200,000,000, so nobody else comes here.
pub const fn nexthop_window(mark: u32) -> RangeInclusive<u32> {
    let first = (mark & 0xffff) << 16;
    first + 1..=first + 0xffff
}
