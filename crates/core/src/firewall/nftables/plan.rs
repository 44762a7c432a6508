//! What entries become in nftables: tables that are always the same, chains that are the same for everybody with the same policy, and
//! elements that belong to one owner.
//!
//! The packet path costs one lookup whatever the number of containers, and so does each change: an element is created, read and deleted by
//! its key. Chains are only ever created or deleted, never changed, because changing one costs a grace period of the kernel.

use std::borrow::Cow;

use crate::nft::{Chain, Element, Rule, Set, Table, Transaction};
use crate::owner::hex_digest;

/// A table of ours with everything that does not depend on who uses it. It is made in one transaction, so that where the table is, all of
/// it is.
#[derive(Debug, Clone)]
pub(super) struct Scaffold {
    pub(super) table: Table,
    pub(super) sets: Vec<Set>,
    pub(super) chains: Vec<Chain>,
    pub(super) rules: Vec<(&'static str, Rule)>,
}

impl Scaffold {
    pub(super) fn build(&self, transaction: &mut Transaction) {
        transaction.add_table_with_comment(&self.table, Some("made and removed by Ferrule"));
        for set in &self.sets {
            transaction.add_set(&self.table, set);
        }
        for chain in &self.chains {
            transaction.add_chain(&self.table, chain);
        }
        for (chain, rule) in &self.rules {
            transaction.add_rule(&self.table, chain, rule);
        }
    }

    /// How many rules a chain has.
    pub(super) fn rules_of(&self, chain: &str) -> usize {
        self.rules.iter().filter(|(name, _)| *name == chain).count()
    }
}

/// A chain whose name says what is in it, shared by all owners who need the same.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) table: Table,
    pub(super) name: String,
    pub(super) comment: String,
    /// Sets that belong to the chain.
    pub(super) sets: Vec<Set>,
    pub(super) rules: Vec<Rule>,
    /// A rule elsewhere that leads to the chain; its comment is the chain's name.
    pub(super) entrance: Option<(&'static str, Rule)>,
}

impl Policy {
    /// The name of a policy: what it is for, and a digest of what is in it.
    pub(super) fn name(purpose: &str, content: &str) -> String {
        format!("{purpose}-{}", hex_digest(content, 16))
    }

    pub(super) fn build(&self, transaction: &mut Transaction) {
        let mut comment = self.comment.clone();
        comment.truncate(120);
        transaction.add_chain(&self.table, &Chain::regular(Cow::Owned(self.name.clone())).comment(comment));
        for set in &self.sets {
            transaction.add_set(&self.table, set);
        }
        for rule in &self.rules {
            transaction.add_rule(&self.table, &self.name, rule);
        }
        if let Some((chain, rule)) = &self.entrance {
            transaction.add_rule(&self.table, chain, rule);
        }
    }
}

/// What happens if a key is there already, under another owner's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// The address has been given to a new container, and the old one's DEL is late: the new owner takes it.
    Takes,
    /// A published port: the first owner keeps it, and the second is told.
    Refused {
        /// The port as a message shows it.
        port: String,
    },
    /// It says the same for everybody who needs it; it goes with the last of them.
    Shared,
}

/// An element that belongs to an owner.
#[derive(Debug, Clone)]
pub(super) struct Owned {
    pub(super) table: Table,
    pub(super) set: Set,
    pub(super) element: Element,
    pub(super) claim: Claim,
}

/// Everything that entries need.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) scaffolds: Vec<Scaffold>,
    pub(super) policies: Vec<Policy>,
    pub(super) elements: Vec<Owned>,
}

impl Plan {
    pub(super) fn need(&mut self, scaffold: Scaffold) {
        if !self.scaffolds.iter().any(|present| present.table == scaffold.table) {
            self.scaffolds.push(scaffold);
        }
    }

    pub(super) fn policy(&mut self, policy: Policy) {
        if !self.policies.iter().any(|present| present.table == policy.table && present.name == policy.name) {
            self.policies.push(policy);
        }
    }

    /// The parts in one table.
    pub(super) fn in_table(&self, table: &Table) -> Self {
        Self {
            scaffolds: self.scaffolds.iter().filter(|scaffold| scaffold.table == *table).cloned().collect(),
            policies: self.policies.iter().filter(|policy| policy.table == *table).cloned().collect(),
            elements: self.elements.iter().filter(|owned| owned.table == *table).cloned().collect(),
        }
    }
}
