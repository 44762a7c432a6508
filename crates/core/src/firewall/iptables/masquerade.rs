//! Source NAT of what leaves a container's subnet: a chain per container in `nat`, and a jump per address in `POSTROUTING`.
//!
//! The chain's name and comment do not tell the interface, so two interfaces of one container in one network share it: each owns its
//! jump, and the chain stays as long as there is one. (The Go suite's DEL of one empties the chain of both.)

use std::net::IpAddr;

use cni::Cidr;

use super::family::Family;
use super::names::{is_masquerade_chain, masquerade_chain, masquerade_comment, read_comment};
use super::rule::Rule;
use super::table::Table;
use crate::attachment::Collection;
use crate::firewall::Masquerade;
use crate::owner::Owner;

const POSTROUTING: &str = "POSTROUTING";

fn jump(owner: &Owner, address: IpAddr) -> Rule {
    Rule::new(["-s", &Cidr::host(address).to_string()])
        .comment(&masquerade_comment(owner))
        .jump(&masquerade_chain(owner))
}

fn accept(owner: &Owner, destination: &Cidr) -> Rule {
    Rule::new(["-d", &destination.network().to_string()]).comment(&masquerade_comment(owner)).jump("ACCEPT")
}

/// Makes the masquerade of one address so.
pub(super) fn ensure(table: &mut Table, family: Family, owner: &Owner, entry: &Masquerade) {
    let chain = masquerade_chain(owner);
    table.ensure_chain(&chain);
    // Not to be masqueraded: containers in the subnet must see each other's addresses, by multicast too.
    let masquerade =
        Rule::new(["!", "-d", family.multicast()]).comment(&masquerade_comment(owner)).jump("MASQUERADE");
    for destination in std::iter::once(&entry.address).chain(&entry.exclude) {
        let rule = accept(owner, destination);
        match (table.position(&chain, &rule), table.position(&chain, &masquerade)) {
            (None, None) => table.append(&chain, rule),
            (Some(accept), Some(masquerade)) if accept < masquerade => {}
            (Some(_), None) => {}
            // Behind the masquerade rule it would never be reached: where another address came first.
            (found, Some(_)) => {
                if found.is_some() {
                    table.delete(&chain, |other| other.is(&rule));
                }
                table.prepend(&chain, rule);
            }
        }
    }
    table.ensure_last(&chain, masquerade);
    table.ensure_last(POSTROUTING, jump(owner, entry.address.address()));
}

/// Removes the masquerade of one address.
pub(super) fn remove(table: &mut Table, owner: &Owner, entry: &Masquerade) {
    let chain = masquerade_chain(owner);
    let address = entry.address.address();
    let subnet = entry.address.network();
    table.delete(POSTROUTING, |rule| {
        // The second form is that of the Go suite's first versions.
        rule.target() == Some(&chain)
            && rule.source().is_some_and(|source| source == Cidr::host(address) || source == subnet)
    });
    if !table.is_referenced(&chain) {
        table.delete_chain(&chain);
        return;
    }
    let still_used = table
        .rules(POSTROUTING)
        .iter()
        .filter(|rule| rule.target() == Some(&chain))
        .any(|rule| rule.source().is_none_or(|source| source.overlaps(&subnet)));
    if !still_used {
        let rule = accept(owner, &subnet);
        table.delete(&chain, |other| other.is(&rule));
    }
}

/// Removes the masquerade of an owner's addresses; of all it has where `addresses` is empty.
pub(super) fn remove_owner(table: &mut Table, owner: &Owner, addresses: &[IpAddr]) {
    let chain = masquerade_chain(owner);
    let comment = masquerade_comment(owner);
    table.delete(POSTROUTING, |rule| {
        let ours = rule.target() == Some(&chain)
            || (rule.comment_text() == Some(&comment) && rule.target().is_some_and(is_masquerade_chain));
        let asked = addresses.is_empty()
            || rule.source().is_none_or(|source| addresses.iter().any(|address| source.contains(*address)));
        ours && asked
    });
    table.delete_chain(&chain);
}

/// Removes the masquerade of every container of the network that is gone.
pub(super) fn collect(table: &mut Table, collection: &Collection<'_>) {
    let stale = |rule: &Rule| {
        rule.comment_text().and_then(read_comment).is_some_and(|(name, container)| {
            name == collection.network().as_str() && collection.is_stale_container(container)
        })
    };
    // A chain without a jump is what a crash left; its own rules carry the comment too.
    let chains: Vec<String> = table
        .chain_names()
        .filter(|name| is_masquerade_chain(name) && table.rules(name).iter().any(stale))
        .map(str::to_owned)
        .collect();
    table.delete(POSTROUTING, |rule| stale(rule) && rule.target().is_some_and(is_masquerade_chain));
    for chain in chains {
        table.delete_chain(&chain);
    }
}
