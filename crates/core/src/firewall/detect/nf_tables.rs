//! The chains of `nf_tables` at the forward hook: those of `iptables-nft`, and others.

use std::collections::HashSet;

use super::{Evidence, Sign, Variant, is_of_an_owner};
use crate::nft::{ChainInfo, Connection, Error, Family, Hook, Outcome, Policy, Table, Verdict};

/// The start of the names of our own tables.
const OURS: &str = "ferrule_";

/// What decides about forwarded packets.
pub(super) fn look(connection: &mut Connection) -> Result<Vec<Evidence>, Error> {
    let chains = connection.chains(None)?;
    let mut evidence = Vec::new();
    for chain in chains.iter().filter(|chain| is_at_forward(chain) && !chain.table.name.starts_with(OURS)) {
        let policy = chain.base.as_ref().is_some_and(|base| base.policy == Policy::Drop);
        if is_of_iptables(chain) {
            let names = chains.iter().filter(|other| other.table == chain.table).map(|other| &other.name);
            if let Some(sign) = sign(connection, chain, policy, names)? {
                let ipv6 = chain.table.family == Family::Ip6;
                evidence.push(Evidence::Iptables { variant: Variant::Nft, ipv6, sign });
            }
        } else if policy || dropping(connection, &chain.table, &chain.name)?.is_some() {
            evidence.push(Evidence::ForeignNftables {
                table: chain.table.to_string(),
                chain: chain.name.clone(),
                by_policy: policy,
            });
        }
    }
    Ok(evidence)
}

fn is_at_forward(chain: &ChainInfo) -> bool {
    chain.base.as_ref().is_some_and(|base| base.hook == Hook::Forward)
        && matches!(chain.table.family, Family::Ip | Family::Ip6 | Family::Inet)
}

fn is_of_iptables(chain: &ChainInfo) -> bool {
    chain.table.name == "filter" && chain.name == "FORWARD" && chain.table.family != Family::Inet
}

/// What shows that a table of iptables filters, the cheapest to find first.
fn sign<'a>(
    connection: &mut Connection,
    forward: &ChainInfo,
    policy: bool,
    mut chains: impl Iterator<Item = &'a String>,
) -> Result<Option<Sign>, Error> {
    if policy {
        return Ok(Some(Sign::Policy));
    }
    if let Some(name) = chains.find(|name| is_of_an_owner(name)) {
        return Ok(Some(Sign::Chain(name.clone())));
    }
    Ok(dropping(connection, &forward.table, &forward.name)?.map(Sign::Drop))
}

/// The first chain that can be reached from `start` and may drop a packet.
fn dropping(connection: &mut Connection, table: &Table, start: &str) -> Result<Option<String>, Error> {
    let mut ahead = vec![start.to_owned()];
    let mut seen = HashSet::new();
    while let Some(chain) = ahead.pop() {
        if !seen.insert(chain.clone()) {
            continue;
        }
        for rule in connection.rules(table, &chain)? {
            for outcome in rule.outcomes() {
                match outcome {
                    // What a map holds is not looked up: who has one at this hook filters.
                    Outcome::Reject | Outcome::Map(_) | Outcome::Verdict(Verdict::Drop) => {
                        return Ok(Some(chain));
                    }
                    Outcome::Verdict(Verdict::Jump(next) | Verdict::Goto(next)) => {
                        ahead.push(next.into_owned());
                    }
                    Outcome::Verdict(_) => {}
                }
            }
        }
    }
    Ok(None)
}
