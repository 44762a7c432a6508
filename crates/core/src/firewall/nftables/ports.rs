//! Published ports.
//!
//! ```text
//! table inet ferrule_ports {
//!     map any4 { type inet_proto . inet_service : ipv4_addr . inet_service }                    # tcp . 8080 : 10.88.0.2 . 80
//!     map address4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service }    # tcp . 192.0.2.1 . 8080 : …
//!     map hairpin4 { type ipv4_addr : verdict }                                                 # 10.88.0.2 : goto from-…
//!     set localnet { type ifname }                                                              # cni0
//!     chain guard { type filter hook prerouting priority raw; iifname @localnet ip daddr 127.0.0.0/8 drop }
//!     chain prerouting { type nat hook prerouting priority dstnat + 1; fib daddr type local jump published }
//!     chain output { type nat hook output priority dstnat + 1; fib daddr type local jump published }
//!     chain published { jump conditional; dnat ip to meta l4proto . ip daddr . th dport map @address4; … }
//!     chain conditional { ip saddr 198.51.100.0/24 jump network-… }
//!     chain postrouting { type nat hook postrouting priority srcnat; ct status dnat ip daddr vmap @hairpin4; … }
//!     chain from-… { ip saddr 10.88.0.0/16 masquerade; ip saddr 127.0.0.0/8 masquerade }
//! }
//! ```
//!
//! Every translation is behind `fib daddr type local`, also where a host address is given, so that a container cannot take traffic to
//! somebody else's address (CVE-2025-67499). Masquerading is restricted to connections that were translated.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::conditions;
use super::masquerade::{destination, value};
use super::plan::{Claim, Owned, Plan, Policy, Scaffold};
use crate::firewall::{FirewallError, LocalGuard, Mapping, Publish};
use crate::nft::{
    AddressType, Chain, ChainType, DataType, Element, Family, Field, Hook, Protocol, Rule, Set, Table, Value,
    Verdict, ct_status, priority,
};
use crate::owner::{Owner, hex_digest};

pub(super) const TABLE: Table = Table::new(Family::Inet, "ferrule_ports");

const TARGET4: &[DataType] = &[DataType::Ipv4Addr, DataType::InetService];
const TARGET6: &[DataType] = &[DataType::Ipv6Addr, DataType::InetService];
const ANY: &[DataType] = &[DataType::InetProto, DataType::InetService];
const ANY4: Set = Set::map("any4", ANY, TARGET4);
const ANY6: Set = Set::map("any6", ANY, TARGET6);
const ADDRESS4: Set =
    Set::map("address4", &[DataType::InetProto, DataType::Ipv4Addr, DataType::InetService], TARGET4);
const ADDRESS6: Set =
    Set::map("address6", &[DataType::InetProto, DataType::Ipv6Addr, DataType::InetService], TARGET6);
const HAIRPIN4: Set = Set::verdict_map("hairpin4", &[DataType::Ipv4Addr]);
const HAIRPIN6: Set = Set::verdict_map("hairpin6", &[DataType::Ipv6Addr]);
const LOCALNET: Set = Set::new("localnet", &[DataType::IfName]);

/// Behind what others put at the usual place, whoever came first: a published port must not overrule the rules of a service proxy
/// (CVE-2019-9946).
const BEHIND: i32 = priority::DSTNAT + 1;

pub(super) fn sets() -> Vec<Set> {
    vec![ADDRESS4, ANY4, ADDRESS6, ANY6, HAIRPIN4, HAIRPIN6, LOCALNET]
}

/// The translations of one family, most specific first.
fn translations(ipv4: bool, address: &Set, any: &Set) -> [Rule; 2] {
    let network = if ipv4 { Family::Ip } else { Family::Ip6 };
    let rule = || Rule::new(Family::Inet).network(network);
    [
        rule().dnat_map(&[Field::L4PROTO, destination(ipv4), Field::TH_DPORT], address),
        rule().dnat_map(&[Field::L4PROTO, Field::TH_DPORT], any),
    ]
}

pub(super) fn scaffold() -> Scaffold {
    let rule = || Rule::new(Family::Inet);
    let local = || rule().fib_daddr_type(AddressType::Local).jump("published");
    let mut rules = vec![
        (
            "guard",
            rule()
                .in_set(&[Field::IIFNAME], &LOCALNET)
                .within(Field::IP_DADDR, Ipv4Addr::LOCALHOST.into(), 8)
                .drop(),
        ),
        ("prerouting", local()),
        // A connection from ::1 can't leave the host, so translating it would only break what listens there.
        ("output", rule().is(Field::IP6_DADDR, Value::Ipv6(Ipv6Addr::LOCALHOST)).verdict(&Verdict::Return)),
        ("output", local()),
        ("published", rule().jump("conditional")),
    ];
    rules.extend(translations(true, &ADDRESS4, &ANY4).map(|rule| ("published", rule)));
    rules.extend(translations(false, &ADDRESS6, &ANY6).map(|rule| ("published", rule)));
    rules.push(("postrouting", rule().ct_status(ct_status::DNAT).vmap(&[Field::IP_DADDR], &HAIRPIN4)));
    rules.push(("postrouting", rule().ct_status(ct_status::DNAT).vmap(&[Field::IP6_DADDR], &HAIRPIN6)));
    Scaffold {
        table: TABLE,
        sets: sets(),
        chains: vec![
            Chain::regular("conditional"),
            Chain::regular("published"),
            Chain::base("guard", ChainType::Filter, Hook::Prerouting, priority::RAW),
            Chain::base("prerouting", ChainType::Nat, Hook::Prerouting, BEHIND),
            Chain::base("output", ChainType::Nat, Hook::Output, BEHIND),
            Chain::base("postrouting", ChainType::Nat, Hook::Postrouting, priority::SRCNAT),
        ],
        rules,
    }
}

/// The maps that a network with conditions has for itself, so that its conditions apply to nobody else, and nobody else's to it.
fn conditional(entry: &Publish, owner: &Owner) -> Result<(Policy, Set, Set), FirewallError> {
    let ipv4 = entry.address.is_ipv4();
    let content = format!("{} {ipv4} {}", owner.network, entry.conditions.join(" "));
    let digest = hex_digest(&content, 16);
    let (address, any) = if ipv4 { (ADDRESS4, ANY4) } else { (ADDRESS6, ANY6) };
    let address = address.renamed(Cow::Owned(format!("address-{digest}")));
    let any = any.renamed(Cow::Owned(format!("any-{digest}")));
    let name = Policy::name("network", &content);
    let family = if ipv4 { Family::Ip } else { Family::Ip6 };
    let entrance = conditions::compile(&entry.conditions, Rule::new(Family::Inet).network(family))?;
    let policy = Policy {
        table: TABLE,
        comment: format!("{}: {}", owner.network, entry.conditions.join(" ").replace('"', "")),
        sets: vec![address.clone(), any.clone()],
        rules: translations(ipv4, &address, &any).to_vec(),
        entrance: Some(("conditional", entrance.jump(name.clone()).comment(name.clone()))),
        name,
    };
    Ok((policy, address, any))
}

/// The chain that masquerades connections which would otherwise be answered past the host.
fn hairpin(entry: &Publish) -> Policy {
    let ipv4 = entry.address.is_ipv4();
    let subnet = entry.address.network();
    let source = if ipv4 { Field::IP_SADDR } else { Field::IP6_SADDR };
    let from = |address: IpAddr, length: u8| {
        Rule::new(Family::Inet).within(source, address, length).masquerade(false)
    };
    let (name, comment, rules) = if entry.masq_all {
        (
            if ipv4 { "from-all4" } else { "from-all6" }.to_owned(),
            "everybody".to_owned(),
            vec![Rule::new(Family::Inet).masquerade(false)],
        )
    } else {
        let mut rules = vec![from(subnet.address(), subnet.prefix())];
        if ipv4 {
            rules.push(from(Ipv4Addr::LOCALHOST.into(), 8));
        }
        (Policy::name("from", &subnet.to_string()), subnet.to_string(), rules)
    };
    Policy { table: TABLE, name, comment, sets: Vec::new(), rules, entrance: None }
}

fn key(mapping: &Mapping) -> Vec<Value> {
    let mut key = vec![Value::Protocol(Protocol(mapping.protocol.number()))];
    key.extend(mapping.host_ip.map(value));
    key.push(Value::Port(mapping.host_port));
    key
}

fn port(mapping: &Mapping, ipv4: bool) -> String {
    let address = match mapping.host_ip {
        Some(IpAddr::V6(v6)) => format!("[{v6}]"),
        Some(IpAddr::V4(v4)) => v4.to_string(),
        None if ipv4 => Ipv4Addr::UNSPECIFIED.to_string(),
        None => "[::]".to_owned(),
    };
    format!("{} {address}:{}", mapping.protocol.as_str(), mapping.host_port)
}

pub(super) fn compile(entry: &Publish, owner: &Owner, plan: &mut Plan) -> Result<(), FirewallError> {
    if entry.external_mark_chain.is_some() {
        return Err(FirewallError::Unsupported {
            what: "externalSetMarkChain".to_owned(),
            backend: "nftables",
        });
    }
    let ipv4 = entry.address.is_ipv4();
    plan.need(scaffold());
    let (address, any) = if entry.conditions.is_empty() {
        if ipv4 { (ADDRESS4, ANY4) } else { (ADDRESS6, ANY6) }
    } else {
        let (policy, address, any) = conditional(entry, owner)?;
        plan.policy(policy);
        (address, any)
    };
    for mapping in &entry.mappings {
        let target = [value(entry.address.address()), Value::Port(mapping.container_port)];
        plan.elements.push(Owned {
            table: TABLE,
            set: if mapping.host_ip.is_some() { address.clone() } else { any.clone() },
            element: Element::new(key(mapping)).data(target),
            claim: Claim::Refused { port: port(mapping, ipv4) },
        });
    }
    if entry.snat || entry.masq_all {
        let policy = hairpin(entry);
        let verdict = Verdict::goto(policy.name.clone());
        plan.policy(policy);
        plan.elements.push(Owned {
            table: TABLE,
            set: if ipv4 { HAIRPIN4 } else { HAIRPIN6 },
            element: Element::new([value(entry.address.address())]).verdict(verdict),
            claim: Claim::Takes,
        });
    }
    Ok(())
}

pub(super) fn compile_guard(entry: &LocalGuard, plan: &mut Plan) {
    plan.need(scaffold());
    plan.elements.push(Owned {
        table: TABLE,
        set: LOCALNET,
        element: Element::new([Value::IfName(entry.link.to_string())]),
        claim: Claim::Shared,
    });
}
