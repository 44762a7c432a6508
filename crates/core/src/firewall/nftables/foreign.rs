//! What the Go suite's nftables backends leave: rules found by their comments.

use cni::NetworkName;

use super::tolerate_missing;
use crate::attachment::Collection;
use crate::firewall::{FirewallError, Role};
use crate::nft::{Connection, Family, RuleInfo, Table, Transaction};
use crate::owner::{Owner, hex_digest};

const MASQUERADE: Table = Table::new(Family::Inet, "cni_plugins_masquerade");
const SPOOF: Table = Table::new(Family::Bridge, "nat");
const PORTS: [Table; 2] = [Table::new(Family::Ip, "cni_hostport"), Table::new(Family::Ip6, "cni_hostport")];
const PORT_CHAINS: [&str; 3] = ["hostports", "hostip_hostports", "masquerading"];

/// The start of the comment of the masquerade rules of an attachment.
fn instance(network: &NetworkName, container_id: &str, ifname: &str) -> String {
    format!("{}-{}", hex_digest(network.as_str(), 16), hex_digest(&format!("{ifname}:{container_id}"), 16))
}

fn delete_rules(
    connection: &mut Connection,
    table: &Table,
    chain: &str,
    chosen: impl Fn(&RuleInfo) -> bool,
) -> Result<(), FirewallError> {
    let mut transaction = Transaction::new();
    for rule in connection.rules(table, chain)?.iter().filter(|rule| chosen(rule)) {
        transaction.delete_rule(table, chain, rule.handle);
    }
    if transaction.is_empty() { Ok(()) } else { tolerate_missing(connection.commit(&transaction)) }
}

fn starts(rule: &RuleInfo, prefix: &str) -> bool {
    rule.comment.as_deref().is_some_and(|comment| comment.starts_with(prefix))
}

/// Removes what the Go suite made for one attachment.
pub(super) fn remove(connection: &mut Connection, role: Role, owner: &Owner) -> Result<(), FirewallError> {
    let (container, ifname) = (owner.container_id.as_str(), owner.ifname.as_str());
    match role {
        Role::Interface => {
            let prefix = instance(&owner.network, container, ifname);
            delete_rules(connection, &MASQUERADE, "masq_checks", |rule| starts(rule, &prefix))?;
            let comment = format!("macspoofchk-{container}-{ifname}");
            delete_rules(connection, &SPOOF, "PREROUTING", |rule| {
                rule.comment.as_deref() == Some(comment.as_str())
            })?;
            for chain in [
                format!("cni-br-iface-{container}-{ifname}"),
                format!("cni-br-iface-{container}-{ifname}-mac"),
            ] {
                if connection.chain(&SPOOF, &chain)?.is_some() {
                    let mut transaction = Transaction::new();
                    transaction.flush_chain(&SPOOF, &chain);
                    transaction.delete_chain(&SPOOF, &chain);
                    tolerate_missing(connection.commit(&transaction))?;
                }
            }
        }
        Role::Publish => {
            for table in &PORTS {
                for chain in PORT_CHAINS {
                    delete_rules(connection, table, chain, |rule| {
                        rule.comment.as_deref() == Some(container)
                    })?;
                }
            }
        }
        // The Go suite has no nftables backend for forwarding.
        Role::Forward => {}
    }
    Ok(())
}

/// Removes what the Go suite made for attachments of a network that are not valid. Its port rules name only the container, not the
/// network, so they are left: they may be another network's.
pub(super) fn collect(
    connection: &mut Connection,
    role: Role,
    collection: &Collection<'_>,
) -> Result<(), FirewallError> {
    let network = collection.network();
    if role != Role::Interface {
        return Ok(());
    }
    let prefix = format!("{}-", hex_digest(network.as_str(), 16));
    let kept: Vec<String> =
        collection.valid().iter().map(|(container, ifname)| instance(network, container, ifname)).collect();
    delete_rules(connection, &MASQUERADE, "masq_checks", |rule| {
        starts(rule, &prefix) && !kept.iter().any(|instance| starts(rule, instance))
    })
}
