//! Source NAT of what leaves a container's subnet.
//!
//! ```text
//! table inet ferrule_masquerade {
//!     map masquerade4 { type ipv4_addr : verdict }        # 10.88.0.2 : goto subnet-…
//!     chain postrouting { type nat hook postrouting priority srcnat; ip saddr vmap @masquerade4; ip6 saddr vmap @masquerade6 }
//!     chain subnet-… { ip daddr 10.88.0.0/16 return; ip daddr 224.0.0.0/4 return; masquerade }
//! }
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::Cidr;

use super::plan::{Claim, Owned, Plan, Policy, Scaffold};
use crate::firewall::Masquerade;
use crate::nft::{
    Chain, ChainType, DataType, Element, Family, Field, Hook, Rule, Set, Table, Value, Verdict, priority,
};

pub(super) const TABLE: Table = Table::new(Family::Inet, "ferrule_masquerade");
const IPV4: Set = Set::verdict_map("masquerade4", &[DataType::Ipv4Addr]);
const IPV6: Set = Set::verdict_map("masquerade6", &[DataType::Ipv6Addr]);

pub(super) fn sets() -> Vec<Set> {
    vec![IPV4, IPV6]
}

pub(super) fn scaffold() -> Scaffold {
    let rule = || Rule::new(Family::Inet);
    Scaffold {
        table: TABLE,
        sets: sets(),
        chains: vec![Chain::base("postrouting", ChainType::Nat, Hook::Postrouting, priority::SRCNAT)],
        rules: vec![
            ("postrouting", rule().vmap(&[Field::IP_SADDR], &IPV4)),
            ("postrouting", rule().vmap(&[Field::IP6_SADDR], &IPV6)),
        ],
    }
}

pub(super) fn value(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(v4) => Value::Ipv4(v4),
        IpAddr::V6(v6) => Value::Ipv6(v6),
    }
}

pub(super) fn destination(ipv4: bool) -> Field {
    if ipv4 { Field::IP_DADDR } else { Field::IP6_DADDR }
}

pub(super) fn compile(entry: &Masquerade, plan: &mut Plan) {
    let ipv4 = entry.address.is_ipv4();
    let subnet = entry.address.network();
    let multicast = if ipv4 {
        Cidr::new(Ipv4Addr::new(224, 0, 0, 0).into(), 4)
    } else {
        Cidr::new(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8)
    };
    let mut untouched: Vec<Cidr> = vec![subnet];
    untouched.extend(multicast);
    let mut exclude: Vec<Cidr> = entry.exclude.iter().map(Cidr::network).collect();
    exclude.sort();
    exclude.dedup();
    untouched.extend(&exclude);

    let excluded: Vec<String> = exclude.iter().map(ToString::to_string).collect();
    let content = format!("{subnet} except {}", excluded.join(" "));
    let mut rules: Vec<Rule> = untouched
        .iter()
        .map(|network| {
            Rule::new(Family::Inet)
                .within(destination(ipv4), network.address(), network.prefix())
                .verdict(&Verdict::Return)
        })
        .collect();
    rules.push(Rule::new(Family::Inet).masquerade(false));
    let name = Policy::name("subnet", &content);
    plan.need(scaffold());
    plan.policy(Policy {
        table: TABLE,
        name: name.clone(),
        comment: if excluded.is_empty() { subnet.to_string() } else { content },
        sets: Vec::new(),
        rules,
        entrance: None,
    });
    plan.elements.push(Owned {
        table: TABLE,
        set: if ipv4 { IPV4 } else { IPV6 },
        element: Element::new([value(entry.address.address())]).verdict(Verdict::goto(name)),
        claim: Claim::Takes,
    });
}
