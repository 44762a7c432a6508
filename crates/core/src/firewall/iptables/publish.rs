//! Published ports in `nat`:
//!
//! ```text
//! PREROUTING, OUTPUT     local destinations            -> CNI-HOSTPORT-DNAT
//! CNI-HOSTPORT-DNAT      a container's ports           -> CNI-DN-<hash>
//! CNI-DN-<hash>          per port: mark what needs source NAT (CNI-HOSTPORT-SETMARK), then DNAT
//! POSTROUTING            -> CNI-HOSTPORT-MASQ          marked packets are masqueraded
//! ```
//!
//! Each DNAT is behind the jump for local destinations, so that a container can't claim somebody else's address (CVE-2025-67499).
//! The chain of a container does not tell the interface: two interfaces of one container in one network share it, each owning the
//! rules of its own ports.

use std::net::{IpAddr, SocketAddr};

use cni::Cidr;

use super::family::Family;
use super::names::{old_snat_chain, publish_chain, publish_comment, read_comment};
use super::rule::Rule;
use super::table::Table;
use crate::attachment::Collection;
use crate::firewall::{FirewallError, Mapping, Protocol, Publish};
use crate::owner::Owner;

const DNAT: &str = "CNI-HOSTPORT-DNAT";
const SETMARK: &str = "CNI-HOSTPORT-SETMARK";
const MASQ: &str = "CNI-HOSTPORT-MASQ";
/// Made by old versions of the Go suite only.
const OLD_SNAT: &str = "CNI-HOSTPORT-SNAT";

/// What the multiport match takes in one rule.
const MULTIPORT_LIMIT: usize = 15;

/// Whether the rules are to be made, or looked at only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// ADD.
    Make,
    /// CHECK.
    Look,
}

fn top_level_jump() -> Rule {
    Rule::new(["-m", "addrtype", "--dst-type", "LOCAL"]).jump(DNAT)
}

fn masq_jump() -> Rule {
    Rule::new::<&str>([]).comment("CNI portfwd requiring masquerade").jump(MASQ)
}

/// Makes the ports of one address so.
pub(super) fn ensure(table: &mut Table, family: Family, owner: &Owner, entry: &Publish, purpose: Purpose) {
    if entry.snat && entry.external_mark_chain.is_none() {
        let bit = 1_u32.checked_shl(u32::from(entry.mark_bit)).unwrap_or_default();
        let mark = format!("{bit:#x}/{bit:#x}");
        table.ensure_chain(SETMARK);
        let set = Rule::new::<&str>([])
            .comment("CNI portfwd masquerade mark")
            .jump("MARK")
            .with(["--set-xmark", &mark]);
        table.ensure_last(SETMARK, set);
        table.ensure_chain(MASQ);
        table.ensure_last(MASQ, Rule::new(["-m", "mark", "--mark", &mark]).jump("MASQUERADE"));
        // First: else the masquerade rules of the container's own traffic would decide about hairpin connections.
        table.ensure_first("POSTROUTING", masq_jump());
    }
    table.ensure_chain(DNAT);
    // Last, behind what others put there: a published port must not overrule the rules of a service proxy (CVE-2019-9946).
    table.ensure_last("PREROUTING", top_level_jump());
    table.ensure_last("OUTPUT", top_level_jump());

    let chain = publish_chain(owner);
    table.ensure_chain(&chain);
    for mapping in &entry.mappings {
        let wanted = port_rules(family, entry, mapping);
        let positions: Vec<_> = wanted.iter().map(|rule| table.position(&chain, rule)).collect();
        // DNAT ends the walk through the chain, so marks behind it would do nothing.
        if positions.iter().any(Option::is_none) || !positions.is_sorted() {
            // Also one that leads the port to where nobody can say: it would be met before ours.
            let unreadable = |rule: &Rule| {
                rule.target() == Some("DNAT")
                    && Published::of(rule).is_none()
                    && Ports::of(rule).is_some_and(|ports| {
                        ports.protocol == mapping.protocol && ports.covers(mapping.host_port)
                    })
            };
            table.delete(&chain, |rule| unreadable(rule) || wanted.iter().any(|other| other.is(rule)));
            for rule in wanted {
                table.append(&chain, rule);
            }
        }
    }
    ensure_entry_rules(table, owner, entry, &chain, purpose);
}

/// The rules of one port, in order: marks, then DNAT.
fn port_rules(family: Family, entry: &Publish, mapping: &Mapping) -> Vec<Rule> {
    let mark_chain = entry.external_mark_chain.as_deref().unwrap_or(SETMARK);
    let port = |source: Option<String>| {
        let mut words = Vec::new();
        if let Some(source) = source {
            words.extend(["-s".to_owned(), source]);
        }
        // An unspecified address stands for every one of the family.
        if let Some(host_ip) = mapping.host_ip.filter(|ip| !ip.is_unspecified()) {
            words.extend(["-d".to_owned(), Cidr::host(host_ip).to_string()]);
        }
        let protocol = mapping.protocol.as_str();
        words.extend(["-p", protocol, "-m", protocol, "--dport"].map(str::to_owned));
        words.push(mapping.host_port.to_string());
        Rule::new(words)
    };
    let mut rules = Vec::new();
    if entry.snat {
        if entry.masq_all {
            rules.push(port(None).jump(mark_chain));
        } else {
            // The whole subnet: neighbours on the bridge reach the port too, and their replies must come back through this host.
            rules.push(port(Some(entry.address.network().to_string())).jump(mark_chain));
            // IPv6 has no route_localnet, so ::1 can't get here.
            if family == Family::V4 {
                rules.push(port(Some("127.0.0.1/32".to_owned())).jump(mark_chain));
            }
        }
    }
    let destination = entry.destination(mapping).to_string();
    rules.push(port(None).jump("DNAT").with(["--to-destination", &destination]));
    rules
}

/// The rules that lead from the shared chain to the container's, for those ports that none leads for yet.
fn ensure_entry_rules(table: &mut Table, owner: &Owner, entry: &Publish, chain: &str, purpose: Purpose) {
    let ports_of = |protocol: Protocol| {
        entry.mappings.iter().filter(move |m| m.protocol == protocol).map(|m| m.host_port)
    };
    // Conditions are written by an operator, and iptables may print them in other words (`http` as 80). What can't be recognised
    // is replaced on ADD, which is right whatever it says, and believed on CHECK.
    if purpose == Purpose::Make {
        table.delete(DNAT, |rule| {
            rule.target() == Some(chain)
                && conditions(rule, &entry.conditions) != Conditions::Same
                && Ports::of(rule)
                    .is_some_and(|ports| ports_of(ports.protocol).any(|port| ports.covers(port)))
        });
    }
    let comment = publish_comment(owner);
    // The order of the Go suite.
    for protocol in [Protocol::Sctp, Protocol::Tcp, Protocol::Udp] {
        let covered: Vec<Ports> = table
            .rules(DNAT)
            .iter()
            .filter(|rule| rule.target() == Some(chain))
            .filter(|rule| conditions(rule, &entry.conditions) != Conditions::Different)
            .filter_map(Ports::of)
            .filter(|ports| ports.protocol == protocol)
            .collect();
        let missing: Vec<String> = ports_of(protocol)
            .filter(|port| !covered.iter().any(|ports| ports.covers(*port)))
            .map(|port| port.to_string())
            .collect();
        for ports in missing.chunks(MULTIPORT_LIMIT) {
            let rule = Rule::new(["-p", protocol.as_str()])
                .comment(&comment)
                .with(["-m", "multiport", "--dports", &ports.join(",")])
                .with(entry.conditions.iter().cloned())
                .jump(chain);
            table.append(DNAT, rule);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conditions {
    Same,
    Unrecognised,
    Different,
}

/// Whether a rule that leads to a container's chain has these conditions.
fn conditions(rule: &Rule, conditions: &[String]) -> Conditions {
    let there = rule.beyond(&["comment", "multiport"]);
    let wanted = Rule::new(conditions.iter().cloned()).beyond(&[]);
    if there == wanted {
        Conditions::Same
    } else if there.is_empty() || wanted.is_empty() {
        Conditions::Different
    } else {
        Conditions::Unrecognised
    }
}

/// The ports that a rule is about.
#[derive(Debug)]
struct Ports {
    protocol: Protocol,
    ranges: Vec<(u16, u16)>,
}

impl Ports {
    fn of(rule: &Rule) -> Option<Self> {
        let protocol = Protocol::parse(rule.value("-p")?)?;
        let list = ["--dports", "--dport", "--destination-ports"].iter().find_map(|name| rule.value(name))?;
        let range = |text: &str| {
            let (from, to) = text.split_once(':').unwrap_or((text, text));
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        Some(Self { protocol, ranges: list.split(',').filter_map(range).collect() })
    }

    fn covers(&self, port: u16) -> bool {
        self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&port))
    }

    fn overlaps(&self, other: &Self) -> bool {
        let overlap = |a: &(u16, u16), b: &(u16, u16)| a.0 <= b.1 && b.0 <= a.1;
        self.protocol == other.protocol
            && self.ranges.iter().any(|a| other.ranges.iter().any(|b| overlap(a, b)))
    }
}

/// A rule of a container's chain that leads a port somewhere.
struct Published {
    ports: Ports,
    host_ip: Option<IpAddr>,
    to: SocketAddr,
}

impl Published {
    fn of(rule: &Rule) -> Option<Self> {
        if rule.target() != Some("DNAT") {
            return None;
        }
        let to = rule.value("--to-destination")?.parse().ok()?;
        Some(Self { ports: Ports::of(rule)?, host_ip: rule.destination().map(|d| d.address()), to })
    }

    /// Whether a rule of the chain, its mark rules included, is about this port.
    fn has_rule(&self, rule: &Rule) -> bool {
        Ports::of(rule).is_some_and(|ports| ports.overlaps(&self.ports))
            && rule.destination().map(|d| d.address()) == self.host_ip
    }

    fn overlaps(&self, mapping: &Mapping) -> bool {
        let ours = mapping.host_ip.filter(|ip| !ip.is_unspecified());
        self.ports.protocol == mapping.protocol
            && self.ports.covers(mapping.host_port)
            && (self.host_ip.is_none() || ours.is_none() || self.host_ip == ours)
    }
}

/// The first port that leads somewhere else already, as an error that names the owner. Rules under other conditions don't count:
/// they may be about other connections.
pub(super) fn taken(table: &Table, owner: &Owner, entry: &Publish) -> Option<FirewallError> {
    for lead in table.rules(DNAT) {
        let Some(ports) = Ports::of(lead) else { continue };
        let Some(chain) = lead.target() else { continue };
        if conditions(lead, &entry.conditions) != Conditions::Same {
            continue;
        }
        for mapping in
            entry.mappings.iter().filter(|m| m.protocol == ports.protocol && ports.covers(m.host_port))
        {
            let elsewhere =
                table.rules(chain).iter().filter_map(Published::of).find(|published| {
                    published.overlaps(mapping) && published.to != entry.destination(mapping)
                });
            let Some(published) = elsewhere else { continue };
            let other = lead.comment_text().and_then(read_comment);
            // podman asks each network of a container for the same ports: the first that it joined is looked at first, and has them.
            let container = other.map(|(_, container)| container);
            if chain != publish_chain(owner) && container == Some(owner.container_id.as_str()) {
                continue;
            }
            let any = if entry.address.is_ipv4() { "0.0.0.0" } else { "::" };
            let host_ip = mapping.host_ip.map_or(any.to_owned(), |ip| ip.to_string());
            let address = host_ip.parse().map(|ip| SocketAddr::new(ip, mapping.host_port));
            let whose = match other {
                Some((network, container)) if chain != publish_chain(owner) => {
                    format!("container {container} in network {network}")
                }
                Some((network, container)) => {
                    format!("another interface of container {container} in network {network}")
                }
                None => format!("the owner of chain {chain}"),
            };
            return Some(FirewallError::PortTaken {
                port: address.map_or(host_ip, |address| format!("{} {address}", mapping.protocol.as_str())),
                owner: format!("{whose} ({})", published.to),
            });
        }
    }
    None
}

/// Removes the ports of one address.
pub(super) fn remove(table: &mut Table, family: Family, owner: &Owner, entry: &Publish) {
    let chain = publish_chain(owner);
    for mapping in &entry.mappings {
        let rules = port_rules(family, entry, mapping);
        table.delete(&chain, |rule| rules.iter().any(|other| other.is(rule)));
    }
    prune_container(table, owner);
}

/// Removes the ports of an owner that lead to these addresses; all it has where `addresses` is empty.
pub(super) fn remove_owner(table: &mut Table, owner: &Owner, addresses: &[IpAddr]) {
    let chain = publish_chain(owner);
    let elsewhere: Vec<Published> = table
        .rules(&chain)
        .iter()
        .filter_map(Published::of)
        .filter(|published| !addresses.is_empty() && !addresses.contains(&published.to.ip()))
        .collect();
    table.delete(&chain, |rule| !elsewhere.iter().any(|published| published.has_rule(rule)));
    prune_container(table, owner);
}

/// Removes what leads to ports that the container's chain has no longer, and the chain itself when it has none.
fn prune_container(table: &mut Table, owner: &Owner) {
    let chain = publish_chain(owner);
    let left: Vec<Ports> = table.rules(&chain).iter().filter_map(Published::of).map(|p| p.ports).collect();
    table.delete(DNAT, |rule| {
        rule.target() == Some(&chain)
            && !Ports::of(rule).is_some_and(|ports| left.iter().any(|other| other.overlaps(&ports)))
    });
    if left.is_empty() {
        table.delete_chain(&chain);
    }
    let old = old_snat_chain(owner);
    if left.is_empty() && table.has_chain(&old) {
        table.delete(OLD_SNAT, |rule| rule.target() == Some(&old));
        table.delete_chain(&old);
    }
    prune_shared(table);
}

/// Removes the shared chains when no container has a published port any more.
fn prune_shared(table: &mut Table) {
    for (chain, from) in [(OLD_SNAT, &["POSTROUTING"][..]), (DNAT, &["PREROUTING", "OUTPUT"])] {
        if table.has_chain(chain) && table.rules(chain).is_empty() {
            for builtin in from {
                table.delete(builtin, |rule| rule.target() == Some(chain));
            }
            table.delete_chain(chain);
        }
    }
    if !table.has_chain(DNAT) && !table.is_referenced(SETMARK) {
        table.delete_chain(SETMARK);
        table.delete("POSTROUTING", |rule| rule.target() == Some(MASQ));
        table.delete_chain(MASQ);
    }
}

/// Removes the ports of every container of the network that is gone.
pub(super) fn collect(table: &mut Table, collection: &Collection<'_>) {
    for (shared, prefix) in [(DNAT, "CNI-DN-"), (OLD_SNAT, "CNI-SN-")] {
        let stale = |rule: &Rule| {
            rule.target().is_some_and(|target| target.starts_with(prefix))
                && rule.comment_text().and_then(read_comment).is_some_and(|(name, container)| {
                    name == collection.network().as_str() && collection.is_stale_container(container)
                })
        };
        let chains: Vec<String> = table
            .rules(shared)
            .iter()
            .filter(|rule| stale(rule))
            .filter_map(|rule| rule.target().map(str::to_owned))
            .collect();
        table.delete(shared, stale);
        for chain in chains {
            table.delete_chain(&chain);
        }
    }
    prune_shared(table);
}
