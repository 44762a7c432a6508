//! Forwarding to and from containers, and isolation of bridges.
//!
//! An accept here says only that this table has nothing against the packet: nftables has no verdict that overrules a drop in somebody
//! else's chain. Where the host's forward path belongs to somebody else, another backend is chosen (`firewall::detect`).
//!
//! ```text
//! table inet ferrule_forward {
//!     set forward4 { type ipv4_addr }               # 10.88.0.2
//!     set guarded { type ifname }                   # cni0
//!     set internal { type ifname . ifname }         # cni0 . cni0
//!     chain isolation { type filter hook forward priority -10; iifname . oifname @internal return; iifname @guarded oifname @guarded drop }
//!     chain forward { type filter hook forward priority filter; ip daddr @forward4 ct state established,related accept; ip saddr @forward4 accept }
//! }
//! table bridge ferrule_isolation {
//!     set isolated { type ifname }                  # vethd9a1f2c3
//!     chain forward { type filter hook forward priority -200; iifname @isolated drop; oifname @isolated drop }
//! }
//! ```
//!
//! Isolation on a bridge is by port and not by `meta ibrname`, which is a module that many kernels lack (`CONFIG_NFT_BRIDGE_META`).

use std::net::IpAddr;

use super::masquerade::value;
use super::plan::{Claim, Owned, Plan, Scaffold};
use crate::firewall::{Forward, Isolate, IsolationPolicy};
use crate::nft::{
    Chain, ChainType, DataType, Element, Family, Field, Hook, Rule, Set, Table, Value, Verdict, ct_state,
    priority,
};

pub(super) const TABLE: Table = Table::new(Family::Inet, "ferrule_forward");
pub(super) const BRIDGE_TABLE: Table = Table::new(Family::Bridge, "ferrule_isolation");
const IPV4: Set = Set::new("forward4", &[DataType::Ipv4Addr]);
const IPV6: Set = Set::new("forward6", &[DataType::Ipv6Addr]);
const GUARDED: Set = Set::new("guarded", &[DataType::IfName]);
const INTERNAL: Set = Set::new("internal", &[DataType::IfName, DataType::IfName]);
const ISOLATED: Set = Set::new("isolated", &[DataType::IfName]);

pub(super) fn sets() -> Vec<Set> {
    vec![IPV4, IPV6, GUARDED, INTERNAL]
}

pub(super) fn bridge_sets() -> Vec<Set> {
    vec![ISOLATED]
}

pub(super) fn scaffold() -> Scaffold {
    let rule = || Rule::new(Family::Inet);
    let replies = ct_state::ESTABLISHED | ct_state::RELATED;
    Scaffold {
        table: TABLE,
        sets: sets(),
        chains: vec![
            Chain::base("isolation", ChainType::Filter, Hook::Forward, priority::FILTER - 10),
            Chain::base("forward", ChainType::Filter, Hook::Forward, priority::FILTER),
        ],
        rules: vec![
            (
                "isolation",
                rule().in_set(&[Field::IIFNAME, Field::OIFNAME], &INTERNAL).verdict(&Verdict::Return),
            ),
            (
                "isolation",
                rule().in_set(&[Field::IIFNAME], &GUARDED).in_set(&[Field::OIFNAME], &GUARDED).drop(),
            ),
            ("forward", rule().in_set(&[Field::IP_DADDR], &IPV4).ct_state(replies).accept()),
            ("forward", rule().in_set(&[Field::IP_SADDR], &IPV4).accept()),
            ("forward", rule().in_set(&[Field::IP6_DADDR], &IPV6).ct_state(replies).accept()),
            ("forward", rule().in_set(&[Field::IP6_SADDR], &IPV6).accept()),
        ],
    }
}

pub(super) fn bridge_scaffold() -> Scaffold {
    Scaffold {
        table: BRIDGE_TABLE,
        sets: bridge_sets(),
        chains: vec![Chain::base("forward", ChainType::Filter, Hook::Forward, priority::BRIDGE_FILTER)],
        rules: [Field::IIFNAME, Field::OIFNAME]
            .map(|port| ("forward", Rule::new(Family::Bridge).in_set(&[port], &ISOLATED).drop()))
            .into(),
    }
}

pub(super) fn compile(entry: &Forward, plan: &mut Plan) {
    plan.need(scaffold());
    plan.elements.push(Owned {
        table: TABLE,
        set: if matches!(entry.address, IpAddr::V4(_)) { IPV4 } else { IPV6 },
        element: Element::new([value(entry.address)]),
        claim: Claim::Takes,
    });
}

pub(super) fn compile_isolation(entry: &Isolate, plan: &mut Plan) {
    let bridge = Value::IfName(entry.bridge.to_string());
    let mut shared = |table: Table, set: Set, key: Vec<Value>| {
        plan.elements.push(Owned { table, set, element: Element::new(key), claim: Claim::Shared });
    };
    if entry.policy == IsolationPolicy::SameBridge {
        shared(TABLE, INTERNAL, vec![bridge.clone(), bridge.clone()]);
    }
    shared(TABLE, GUARDED, vec![bridge]);
    plan.need(scaffold());
    if entry.policy == IsolationPolicy::Isolated && !entry.ports.is_empty() {
        plan.need(bridge_scaffold());
        plan.elements.extend(entry.ports.iter().map(|port| Owned {
            table: BRIDGE_TABLE,
            set: ISOLATED,
            element: Element::new([Value::IfName(port.to_string())]),
            claim: Claim::Takes,
        }));
    }
}
