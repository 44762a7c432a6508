//! A bridge port speaks for the addresses of its container, and for no other's.
//!
//! Neighbours believe whoever answers: by ARP (RFC 826), and by neighbour discovery (RFC 4861), where solicitations, too, say who is where. And who
//! advertises itself as a router, or redirects, is given packets for everybody.
//!
//! ```text
//! table bridge ferrule_neighbours {
//!     set ports { type ifname }                     # vethabcd1234
//!     set ipv4 { type ifname . ipv4_addr }          # vethabcd1234 . 10.50.1.2
//!     set ipv6 { type ifname . ipv6_addr }
//!     chain prerouting { type filter hook prerouting priority -300
//!         iifname @ports iifname . arp saddr ip != @ipv4 drop
//!         iifname @ports icmpv6 type nd-neighbor-advert iifname . icmpv6 taddr != @ipv6 drop
//!         iifname @ports icmpv6 type nd-neighbor-solicit iifname . ip6 saddr != @ipv6 drop   # nd-router-solicit likewise
//!         iifname @ports icmpv6 type nd-router-advert drop                                   # nd-redirect likewise
//!     }
//! }
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::plan::{Claim, Owned, Plan, Scaffold};
use crate::firewall::NeighbourGuard;
use crate::nft::{
    Chain, ChainType, DataType, Element, Family, Field, Hook, Rule, Set, Table, Value, priority,
};

pub(super) const TABLE: Table = Table::new(Family::Bridge, "ferrule_neighbours");
const PORTS: Set = Set::new("ports", &[DataType::IfName]);
const IPV4: Set = Set::new("ipv4", &[DataType::IfName, DataType::Ipv4Addr]);
const IPV6: Set = Set::new("ipv6", &[DataType::IfName, DataType::Ipv6Addr]);

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

pub(super) fn sets() -> Vec<Set> {
    vec![PORTS, IPV4, IPV6]
}

pub(super) fn scaffold() -> Scaffold {
    let from_port = || Rule::new(Family::Bridge).in_set(&[Field::IIFNAME], &PORTS);
    let claims = |kind: u8, field: Field| {
        from_port().icmpv6_type(kind).not_in_set(&[Field::IIFNAME, field], &IPV6).drop()
    };
    let rules = [
        from_port().not_in_set(&[Field::IIFNAME, Field::ARP_SADDR_IP], &IPV4).drop(),
        claims(NEIGHBOUR_ADVERTISEMENT, Field::ND_TARGET),
        claims(NEIGHBOUR_SOLICITATION, Field::IP6_SADDR),
        claims(ROUTER_SOLICITATION, Field::IP6_SADDR),
        from_port().icmpv6_type(ROUTER_ADVERTISEMENT).drop(),
        from_port().icmpv6_type(REDIRECT).drop(),
    ];
    Scaffold {
        table: TABLE,
        sets: sets(),
        chains: vec![Chain::base("prerouting", ChainType::Filter, Hook::Prerouting, priority::RAW)],
        rules: rules.map(|rule| ("prerouting", rule)).to_vec(),
    }
}

pub(super) fn compile(entry: &NeighbourGuard, plan: &mut Plan) {
    let port = Value::IfName(entry.port.to_string());
    plan.need(scaffold());
    // Who has no address yet asks with none whether somebody has the one it wants (RFC 5227, RFC 4862), and speaks for nobody with that.
    let nobody = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let mut elements: Vec<(Set, Vec<Value>)> = Vec::new();
    for address in nobody.iter().chain(&entry.addresses) {
        let set = if address.is_ipv4() { IPV4 } else { IPV6 };
        elements.push((set, vec![port.clone(), Value::from(*address)]));
    }
    // The port last: from then on the rules are about it.
    elements.push((PORTS, vec![port]));
    for (set, key) in elements {
        plan.elements.push(Owned { table: TABLE, set, element: Element::new(key), claim: Claim::Takes });
    }
}
