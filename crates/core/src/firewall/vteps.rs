//! Who may send into an overlay.
//!
//! VXLAN has no authentication: whoever reaches the UDP port can put frames into a network. So packets of a network are taken from its own
//! nodes only. Those of other networks on the same port are not looked at, which may be somebody else's.
//!
//! ```text
//! table inet ferrule_vxlan {
//!     set vteps4-blue { type ipv4_addr }                    # the nodes of network blue
//!     chain input {
//!         type filter hook input priority -10
//!         meta nfproto ipv4 udp dport 4789 @th,96,24 100 ip saddr != @vteps4-blue counter drop comment "blue: VNI 100 on port 4789 over IPv4"
//!     }
//! }
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use cni::NetworkName;

use super::FirewallError;
use crate::nft::{
    self, Chain, ChainType, Connection, DataType, Element, Family, Field, Hook, Protocol, Rule, RuleInfo,
    Set, Table, Transaction, Value, priority,
};
use crate::owner::hex_digest;

const TABLE: Table = Table::new(Family::Inet, "ferrule_vxlan");
const CHAIN: &str = "input";
/// How often a change is planned again because rulesets have changed: each time somebody else has got somewhere.
const ATTEMPTS: u32 = 1000;
/// How long the kernel may take for everything one call asks.
const DEADLINE: Duration = Duration::from_secs(30);

/// The guard of one network on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VtepGuard {
    /// The network.
    pub network: NetworkName,
    /// Whether IPv4 carries the tunnels.
    pub ipv4: bool,
    /// The UDP port.
    pub port: u16,
    /// The VXLAN network identifier.
    pub vni: u32,
}

impl VtepGuard {
    fn set(&self) -> Set {
        set_of(&self.network, self.ipv4)
    }

    fn rule(&self) -> Rule {
        let (family, source) =
            if self.ipv4 { (Family::Ip, Field::IP_SADDR) } else { (Family::Ip6, Field::IP6_SADDR) };
        Rule::new(Family::Inet)
            .network(family)
            .transport(Protocol::UDP)
            .is(Field::TH_DPORT, self.port)
            .vxlan_vni(self.vni)
            .not_in_set(&[source], &self.set())
            .counter()
            .drop()
            .comment(self.comment())
    }

    /// The network and what the rule is about: another port or identifier is another rule.
    fn comment(&self) -> String {
        let family = if self.ipv4 { "IPv4" } else { "IPv6" };
        format!("{}VNI {} on port {} over {family}", comment_prefix(&self.network), self.vni, self.port)
    }

    /// Lets in packets of the network from these addresses, and from no others. Repeating it changes nothing.
    pub fn ensure(&self, vteps: &BTreeSet<IpAddr>) -> Result<(), FirewallError> {
        let mut connection = Connection::open(Instant::now() + DEADLINE)?;
        unchanged(&mut connection, |connection| self.difference(connection, vteps, true))
    }

    /// Lets in packets from these addresses as well as from those that are let in already.
    pub fn admit(&self, vteps: &BTreeSet<IpAddr>) -> Result<(), FirewallError> {
        let mut connection = Connection::open(Instant::now() + DEADLINE)?;
        unchanged(&mut connection, |connection| self.difference(connection, vteps, false))
    }

    /// Lets in packets from some addresses more, and from some no more, without a look at all others: one transaction, none where there is nothing to
    /// change. Fails where the guard is not there.
    pub fn change(&self, admitted: &[IpAddr], expelled: &[IpAddr]) -> Result<(), FirewallError> {
        let mut transaction = Transaction::new();
        let set = self.set();
        for vtep in admitted {
            transaction.add_element(&TABLE, &set, &element(*vtep));
        }
        for vtep in expelled {
            transaction.destroy_element(&TABLE, &set, &element(*vtep));
        }
        if !transaction.is_empty() {
            Connection::open(Instant::now() + DEADLINE)?.commit(&transaction)?;
        }
        Ok(())
    }

    /// What has to change.
    fn difference(
        &self,
        connection: &mut Connection,
        vteps: &BTreeSet<IpAddr>,
        exactly: bool,
    ) -> Result<Transaction, FirewallError> {
        let mut transaction = Transaction::new();
        let set = self.set();
        let rules = rules(connection)?;
        if rules.is_none() {
            transaction.add_table_with_comment(&TABLE, Some("made and removed by Ferrule"));
            transaction.add_chain(
                &TABLE,
                &Chain::base(CHAIN, ChainType::Filter, Hook::Input, priority::FILTER - 10),
            );
        }
        let fresh = rules.is_none() || !connection.has_set(&TABLE, &set)?;
        if fresh {
            transaction.add_set(&TABLE, &set);
        }
        let other = if fresh { Some(BTreeSet::new()) } else { others(connection, &set, vteps)? };
        if let Some(present) = other {
            for vtep in vteps.difference(&present) {
                transaction.add_element(&TABLE, &set, &element(*vtep));
            }
            for vtep in present.difference(vteps).filter(|_| exactly) {
                transaction.destroy_element(&TABLE, &set, &element(*vtep));
            }
        }
        let mut there = false;
        for rule in rules.iter().flatten().filter(|rule| is_of(rule, &self.network)) {
            if !there && rule.comment.as_deref() == Some(self.comment().as_str()) {
                there = true;
            } else {
                transaction.delete_rule(&TABLE, CHAIN, rule.handle);
            }
        }
        if !there {
            transaction.add_rule(&TABLE, CHAIN, &self.rule());
        }
        Ok(transaction)
    }

    /// Succeeds if these addresses are let in. Says how many others are.
    pub fn verify(&self, vteps: &BTreeSet<IpAddr>) -> Result<usize, FirewallError> {
        let missing = |what: String| FirewallError::Missing { what, backend: "nftables" };
        let mut connection = Connection::open(Instant::now() + DEADLINE)?;
        let rules = rules(&mut connection)?.ok_or_else(|| missing(format!("table {TABLE}")))?;
        if !rules.iter().any(|rule| rule.comment.as_deref() == Some(self.comment().as_str())) {
            return Err(missing(format!("the rule of network {} in chain {TABLE} {CHAIN}", self.network)));
        }
        let set = self.set();
        let Some(present) = others(&mut connection, &set, vteps)? else { return Ok(0) };
        match vteps.difference(&present).next() {
            Some(vtep) => Err(missing(format!("element {vtep} of set {TABLE} {}", set.name()))),
            None => Ok(present.difference(vteps).count()),
        }
    }

    /// Removes the guard of a network, and the table with the last of them.
    pub fn remove(network: &NetworkName) -> Result<(), FirewallError> {
        let mut connection = Connection::open(Instant::now() + DEADLINE)?;
        unchanged(&mut connection, |connection| Self::removal(connection, network))
    }

    fn removal(connection: &mut Connection, network: &NetworkName) -> Result<Transaction, FirewallError> {
        let mut transaction = Transaction::new();
        if connection.table(&TABLE)?.is_none() {
            return Ok(transaction);
        }
        let rules = rules(connection)?.unwrap_or_default();
        if rules.iter().all(|rule| is_of(rule, network)) {
            transaction.destroy_table(&TABLE);
        } else {
            for rule in rules.iter().filter(|rule| is_of(rule, network)) {
                transaction.destroy_rule(&TABLE, CHAIN, rule.handle);
            }
            for ipv4 in [true, false] {
                transaction.destroy_set(&TABLE, &set_of(network, ipv4));
            }
        }
        Ok(transaction)
    }
}

/// Commits what `plan` makes of what it reads, unless somebody has changed a ruleset in between: then it reads again. So two networks that come and
/// go at once neither make the rule of one twice nor take the table from under it, and no lock is left behind by who is killed.
fn unchanged(
    connection: &mut Connection,
    plan: impl Fn(&mut Connection) -> Result<Transaction, FirewallError>,
) -> Result<(), FirewallError> {
    let mut attempts = 0;
    loop {
        let generation = connection.generation()?;
        let mut transaction = plan(connection)?;
        if transaction.is_empty() {
            return Ok(());
        }
        transaction.expect_generation(generation);
        match connection.commit(&transaction) {
            Err(nft::Error::Conflict { .. }) if attempts < ATTEMPTS => attempts += 1,
            other => return Ok(other?),
        }
    }
}

/// The rules of the chain; `None` without table or chain.
fn rules(connection: &mut Connection) -> Result<Option<Vec<RuleInfo>>, FirewallError> {
    if connection.chain(&TABLE, CHAIN)?.is_none() {
        return Ok(None);
    }
    Ok(Some(connection.rules(&TABLE, CHAIN)?))
}

fn set_of(network: &NetworkName, ipv4: bool) -> Set {
    let key: &'static [DataType] = if ipv4 { &[DataType::Ipv4Addr] } else { &[DataType::Ipv6Addr] };
    // A name of nftables begins with a letter, and so does this whatever the network's does.
    Set::new("vteps", key).renamed(format!("vteps{}-{}", if ipv4 { 4 } else { 6 }, short(network)))
}

/// A network's name, as far as there is room for it in a comment.
fn short(network: &NetworkName) -> String {
    if network.as_str().len() <= 40 { network.to_string() } else { hex_digest(network.as_str(), 40) }
}

fn comment_prefix(network: &NetworkName) -> String {
    format!("{}: ", short(network))
}

fn is_of(rule: &RuleInfo, network: &NetworkName) -> bool {
    rule.comment.as_deref().is_some_and(|comment| comment.starts_with(&comment_prefix(network)))
}

fn element(vtep: IpAddr) -> Element {
    Element::new([Value::from(vtep)])
}

/// The addresses in the set; `None` where they are the expected ones, as every few seconds of an agent's life.
fn others(
    connection: &mut Connection,
    set: &Set,
    expected: &BTreeSet<IpAddr>,
) -> Result<Option<BTreeSet<IpAddr>>, FirewallError> {
    let listed = connection.elements_unless(&TABLE, set, |found| are(found, expected))?;
    Ok((!are(&listed, expected)).then(|| addresses(&listed).collect()))
}

/// Whether a list has these addresses and no others. They are of one family, so numbers are compared, which takes a fraction of the time.
fn are(found: &[Element], expected: &BTreeSet<IpAddr>) -> bool {
    if found.len() != expected.len() {
        return false;
    }
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let mut numbers: Vec<u128> = addresses(found).map(number).collect();
    numbers.sort_unstable();
    numbers.into_iter().eq(expected.iter().map(|address| number(*address)))
}

fn addresses(elements: &[Element]) -> impl Iterator<Item = IpAddr> {
    elements.iter().filter_map(|element| match element.key.first() {
        Some(Value::Ipv4(v4)) => Some(IpAddr::V4(*v4)),
        Some(Value::Ipv6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })
}
