//! Forwarding in `filter`: `FORWARD` leads to `CNI-FORWARD`, which first asks the operator's chain and then accepts what comes from a
//! container, and replies to it.

use std::net::IpAddr;

use cni::Cidr;

use super::isolate;
use super::publish::Purpose;
use super::rule::Rule;
use super::table::Table;
use crate::firewall::Forward;

pub(super) const FORWARD: &str = "FORWARD";
/// The chain that accepts.
pub(crate) const CNI_FORWARD: &str = "CNI-FORWARD";
/// The operator's chain unless another is configured. Only this one is ours to delete.
const CNI_ADMIN: &str = "CNI-ADMIN";
const ADMIN_COMMENT: &str = "CNI firewall plugin admin overrides";

fn forward_jump() -> Rule {
    Rule::new::<&str>([]).comment("CNI firewall plugin rules").jump(CNI_FORWARD)
}

/// The Go suite's two rules, and one of our own: without it a published port is closed to other machines where FORWARD drops, because the
/// first packet of such a connection is neither a reply nor from the container. The Go suite's DEL leaves that one; ours and GC do not.
fn address_rules(address: IpAddr) -> [Rule; 3] {
    let address = Cidr::host(address).to_string();
    [
        Rule::new(["-d", &address, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]).jump("ACCEPT"),
        Rule::new(["-s", &address]).jump("ACCEPT"),
        Rule::new(["-d", &address, "-m", "conntrack", "--ctstate", "DNAT"]).jump("ACCEPT"),
    ]
}

fn is_admin_jump(rule: &Rule) -> bool {
    rule.comment_text() == Some(ADMIN_COMMENT)
}

/// Makes the forwarding of one address so. To look, the Go suite's rules are enough: an attachment of its own has no others.
pub(super) fn ensure(table: &mut Table, entry: &Forward, purpose: Purpose) {
    table.ensure_chain(CNI_FORWARD);
    table.ensure_chain(&entry.admin_chain);
    table.ensure_first(FORWARD, forward_jump());
    // The operator's word comes before any of ours: only other operators' chains may stand before it.
    let admin = Rule::new::<&str>([]).comment(ADMIN_COMMENT).jump(&entry.admin_chain);
    match table.position(CNI_FORWARD, &admin) {
        Some(position) if table.rules(CNI_FORWARD)[..position].iter().all(is_admin_jump) => {}
        found => {
            if found.is_some() {
                table.delete(CNI_FORWARD, |rule| rule.is(&admin));
            }
            table.prepend(CNI_FORWARD, admin);
        }
    }
    let [replies, outgoing, published] = address_rules(entry.address);
    let ours = (purpose == Purpose::Make).then_some(published);
    for rule in [replies, outgoing].into_iter().chain(ours) {
        table.ensure_last(CNI_FORWARD, rule);
    }
    isolate::keep_before_forward(table);
}

/// Removes the forwarding of addresses, and the chains when nothing is left in them. An operator's rules are left as they are, and
/// what leads to them.
pub(super) fn remove(table: &mut Table, addresses: &[IpAddr]) {
    for address in addresses {
        let rules = address_rules(*address);
        table.delete(CNI_FORWARD, |rule| rules.iter().any(|other| other.is(rule)));
    }
    let rules = table.rules(CNI_FORWARD);
    let admin_chains: Vec<String> = rules.iter().filter_map(Rule::target).map(str::to_owned).collect();
    let in_use = rules.iter().any(|rule| !is_admin_jump(rule))
        || admin_chains.iter().any(|chain| !table.rules(chain).is_empty());
    if !table.has_chain(CNI_FORWARD) || in_use {
        return;
    }
    table.delete(FORWARD, |rule| rule.is(&forward_jump()));
    table.delete_chain(CNI_FORWARD);
    if !table.has_chain(CNI_FORWARD) && table.rules(CNI_ADMIN).is_empty() {
        table.delete_chain(CNI_ADMIN);
    }
}
