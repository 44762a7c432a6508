//! The nftables backend: over netlink, in tables of our own, one transaction a verb.
//!
//! Each kind of entry has a table (its module shows it). A table is there while somebody uses it, and goes with its last user; so do the
//! chains that several owners share. Who uses what is registered (`crate::shared`), because counting elements would cost more with each.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{Entry, Firewall, FirewallError, Role};
use crate::attachment::Collection;
use crate::nft::{self, Connection, Element, Set, Table, Transaction};
use crate::owner::Owner;
use crate::shared::{Shared, User};

mod conditions;
mod foreign;
mod forward;
mod masquerade;
mod neighbours;
mod plan;
mod ports;
mod spoof;

use plan::{Claim, Owned, Plan, Policy, Scaffold};

/// How long the kernel may take for everything one call asks. Deletions wait for grace periods, and for each other.
const DEADLINE: Duration = Duration::from_secs(30);

/// nftables, for one plugin.
#[derive(Debug)]
pub struct Nftables {
    plugin: &'static str,
    connection: Option<Connection>,
}

impl Nftables {
    /// The backend, for the users that a plugin's attachments are.
    pub fn new(plugin: &'static str) -> Self {
        Self { plugin, connection: None }
    }

    /// Whether the kernel has nftables and lets us use it.
    pub fn probe() -> Result<(), FirewallError> {
        Connection::open(Instant::now() + DEADLINE)?.generation()?;
        Ok(())
    }

    fn connection(&mut self) -> Result<&mut Connection, FirewallError> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(Instant::now() + DEADLINE)?);
        }
        self.connection
            .as_mut()
            .ok_or(FirewallError::Missing { what: "the connection".to_owned(), backend: "nftables" })
    }

    fn user(&self, owner: &Owner) -> User {
        User::new(owner, self.plugin)
    }

    /// Makes the parts of a plan that are in one table, while nobody enters or leaves it.
    fn ensure_table(&mut self, owner: &Owner, plan: &Plan) -> Result<(), FirewallError> {
        let Some(scaffold) = plan.scaffolds.first() else { return Ok(()) };
        let user = self.user(owner);
        table_register(&scaffold.table).enter(&user, || {
            let mut transaction = Transaction::new();
            let fresh = self.is_missing(scaffold)?;
            if fresh {
                scaffold.build(&mut transaction);
            }
            for policy in &plan.policies {
                self.ensure_policy(&user, policy, fresh, &mut transaction)?;
            }
            for item in &plan.elements {
                self.claim(owner, item, fresh, &mut transaction)?;
            }
            if !transaction.is_empty() {
                self.connection()?.commit(&transaction)?;
            }
            Ok::<_, FirewallError>(())
        })
    }

    /// Whether a table, or its content, is to be made. What is made in one transaction can be flushed by somebody else in pieces.
    fn is_missing(&mut self, scaffold: &Scaffold) -> Result<bool, FirewallError> {
        let connection = self.connection()?;
        if connection.table(&scaffold.table)?.is_none() {
            return Ok(true);
        }
        for chain in &scaffold.chains {
            if connection.chain(&scaffold.table, &chain.name)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn ensure_policy(
        &mut self,
        user: &User,
        policy: &Policy,
        fresh: bool,
        transaction: &mut Transaction,
    ) -> Result<(), FirewallError> {
        policy_register(policy).enter(user, || {
            if fresh || self.connection()?.chain(&policy.table, &policy.name)?.is_none() {
                policy.build(transaction);
            }
            Ok(())
        })
    }

    fn claim(
        &mut self,
        owner: &Owner,
        item: &Owned,
        fresh: bool,
        transaction: &mut Transaction,
    ) -> Result<(), FirewallError> {
        let Owned { table, set, element, claim } = item;
        let tag = match claim {
            Claim::Shared => {
                // Entered for every user, so that the last one can tell.
                element_register(item).enter(&self.user(owner), || Ok::<_, FirewallError>(()))?;
                "shared".to_owned()
            }
            Claim::Takes | Claim::Refused { .. } => owner.tag(),
        };
        let wanted = element.clone().comment(tag.clone());
        let present = if fresh { None } else { self.connection()?.element(table, set, &element.key)? };
        match present {
            None => transaction.create_element(table, set, &wanted),
            Some(present)
                if present.comment.as_deref() == Some(tag.as_str()) && present.value == element.value => {}
            // podman asks each network of a container for the same ports: the first that it joins has them.
            Some(present) if matches!(claim, Claim::Refused { .. }) && is_sibling(&present, owner) => {}
            Some(present) => {
                let stranger = present.comment.as_deref() != Some(tag.as_str());
                if let (Claim::Refused { port }, true) = (claim, stranger) {
                    let owner = present.comment.unwrap_or_else(|| "an unknown owner".to_owned());
                    return Err(FirewallError::PortTaken { port: port.clone(), owner: describe(&owner) });
                }
                transaction.delete_element(table, set, &present);
                transaction.create_element(table, set, &wanted);
            }
        }
        Ok(())
    }

    fn remove_table(&mut self, owner: &Owner, plan: &Plan) -> Result<(), FirewallError> {
        let Some(scaffold) = plan.scaffolds.first() else { return Ok(()) };
        let user = self.user(owner);
        let mut gone = false;
        table_register(&scaffold.table).leave(&user, || {
            let mut transaction = Transaction::new();
            transaction.destroy_table(&scaffold.table);
            tolerate_missing(self.connection()?.commit(&transaction))?;
            gone = true;
            Ok::<_, FirewallError>(())
        })?;
        let mut transaction = Transaction::new();
        for item in &plan.elements {
            self.disclaim(owner, item, gone, &mut transaction)?;
        }
        self.commit_deletions(&transaction)?;
        for policy in &plan.policies {
            self.release_policy(&user, policy, gone)?;
        }
        Ok(())
    }

    /// Elements go before the chains they lead to, which can't be deleted while something does.
    fn release_policy(&mut self, user: &User, policy: &Policy, gone: bool) -> Result<(), FirewallError> {
        policy_register(policy).leave(user, || {
            if gone {
                return Ok(());
            }
            let connection = self.connection()?;
            let mut transaction = Transaction::new();
            if let Some((chain, _)) = &policy.entrance {
                let rules = connection.rules(&policy.table, chain)?;
                for rule in rules.iter().filter(|rule| rule.comment.as_deref() == Some(policy.name.as_str()))
                {
                    transaction.delete_rule(&policy.table, chain, rule.handle);
                }
            }
            transaction.flush_chain(&policy.table, &policy.name);
            transaction.delete_chain(&policy.table, &policy.name);
            for set in &policy.sets {
                transaction.delete_set(&policy.table, set);
            }
            tolerate_missing(connection.commit(&transaction))
        })
    }

    fn disclaim(
        &mut self,
        owner: &Owner,
        item: &Owned,
        gone: bool,
        transaction: &mut Transaction,
    ) -> Result<(), FirewallError> {
        let Owned { table, set, element, claim } = item;
        let mut ours = true;
        if *claim == Claim::Shared {
            ours = false;
            element_register(item).leave(&self.user(owner), || {
                ours = true;
                Ok::<_, FirewallError>(())
            })?;
        }
        if gone || !ours {
            return Ok(());
        }
        let tag = if *claim == Claim::Shared { "shared".to_owned() } else { owner.tag() };
        let present = self.connection()?.element(table, set, &element.key)?;
        if present.is_some_and(|present| present.comment.as_deref() == Some(tag.as_str())) {
            transaction.destroy_element(table, set, element);
        }
        Ok(())
    }

    /// What has gone meanwhile (a flush by somebody else) was to be deleted anyway; the rest of the transaction still is.
    fn commit_deletions(&mut self, transaction: &Transaction) -> Result<(), FirewallError> {
        if transaction.is_empty() {
            return Ok(());
        }
        tolerate_missing(self.connection()?.commit(transaction))
    }

    fn verify_table(&mut self, owner: &Owner, plan: &Plan) -> Result<(), FirewallError> {
        let missing = |what: String| FirewallError::Missing { what, backend: "nftables" };
        for scaffold in &plan.scaffolds {
            self.verify_chains(scaffold, plan)?;
        }
        for item in &plan.elements {
            let found = self.connection()?.element(&item.table, &item.set, &item.element.key)?;
            let tag = if item.claim == Claim::Shared { "shared".to_owned() } else { owner.tag() };
            let right = found.is_some_and(|found| match item.claim {
                Claim::Refused { .. } if is_sibling(&found, owner) => true,
                _ => found.comment == Some(tag) && found.value == item.element.value,
            });
            if !right {
                let key: Vec<String> = item.element.key.iter().map(ToString::to_string).collect();
                return Err(missing(format!(
                    "element {} of {} {}",
                    key.join(" . "),
                    item.table,
                    item.set.name()
                )));
            }
        }
        Ok(())
    }

    /// Verifies the chains of one table. Only where one is not as it should be is it asked for what is missing, from the outside in: rules tell of
    /// their chain and table.
    fn verify_chains(&mut self, scaffold: &Scaffold, plan: &Plan) -> Result<(), FirewallError> {
        let missing = |what: String| FirewallError::Missing { what, backend: "nftables" };
        let table = &scaffold.table;
        let policies: Vec<&Policy> = plan.policies.iter().filter(|policy| policy.table == *table).collect();
        let fixed = scaffold.chains.iter().map(|chain| chain.name.as_ref());
        let names: Vec<&str> = fixed.chain(policies.iter().map(|policy| policy.name.as_str())).collect();
        let connection = self.connection()?;
        let mut found = connection.rules_of(table, &names)?.into_iter().map(|rules| rules.len());
        for chain in &scaffold.chains {
            let (wanted, found) = (scaffold.rules_of(&chain.name), found.next().unwrap_or_default());
            if found >= wanted && wanted > 0 {
                continue;
            }
            connection.table(table)?.ok_or_else(|| missing(format!("table {table}")))?;
            let chain = connection
                .chain(table, &chain.name)?
                .ok_or_else(|| missing(format!("chain {table} {}", chain.name)))?;
            if found < wanted {
                return Err(missing(format!("a rule of chain {table} {}", chain.name)));
            }
        }
        for policy in policies {
            if found.next() != Some(policy.rules.len()) {
                return Err(missing(format!("chain {table} {} ({})", policy.name, policy.comment)));
            }
        }
        Ok(())
    }

    /// Takes an owner out of the registers of a role's chains and tables, of which nothing says more than their names.
    fn leave(&mut self, owner: &Owner, role: Role) -> Result<(), FirewallError> {
        let user = self.user(owner);
        for (table, sets) in tables(role) {
            for name in Shared::entered(CHAINS, &user)? {
                let chain = name.strip_prefix(table.name.as_ref()).and_then(|name| name.strip_prefix('.'));
                if let Some(chain) = chain {
                    Shared::new(CHAINS, &name).leave(&user, || self.delete_chain(&table, chain))?;
                }
            }
            self.leave_elements(&user, &table, &sets)?;
            table_register(&table).leave(&user, || self.delete_unused(&table, &sets))?;
        }
        Ok(())
    }

    /// Takes a user out of the registers of elements that attachments share, and deletes those that were its alone.
    fn leave_elements(&mut self, user: &User, table: &Table, sets: &[Set]) -> Result<(), FirewallError> {
        let names = Shared::entered(ELEMENTS, user)?;
        for set in sets.iter().filter(|set| names.iter().any(|name| is_of_set(name, table, set))) {
            for element in self.connection()?.elements(table, set)? {
                let name = element_name(table, set, &element);
                if names.contains(&name) && element.comment.as_deref() == Some("shared") {
                    let mut transaction = Transaction::new();
                    transaction.destroy_element(table, set, &element);
                    Shared::new(ELEMENTS, &name).leave(user, || self.commit_deletions(&transaction))?;
                }
            }
            // Those that are gone.
            for name in names.iter().filter(|name| is_of_set(name, table, set)) {
                Shared::new(ELEMENTS, name).leave(user, || Ok::<_, FirewallError>(()))?;
            }
        }
        Ok(())
    }

    /// Deletes the tables of a role that nobody is registered for and that have no elements.
    fn sweep_tables(&mut self, role: Role) -> Result<(), FirewallError> {
        for (table, sets) in tables(role) {
            if self.connection()?.table(&table)?.is_some() {
                table_register(&table).sweep(|| self.delete_unused(&table, &sets))?;
            }
        }
        Ok(())
    }

    /// Deletes a chain, unless a rule that leads to it keeps it there until the table goes.
    fn delete_chain(&mut self, table: &Table, chain: &str) -> Result<(), FirewallError> {
        let connection = self.connection()?;
        if connection.chain(table, chain)?.is_none() {
            return Ok(());
        }
        let mut transaction = Transaction::new();
        transaction.flush_chain(table, chain);
        transaction.delete_chain(table, chain);
        match connection.commit(&transaction) {
            Err(error) if error.errno() == Some(Errno::EBUSY) => Ok(()),
            other => tolerate_missing(other),
        }
    }

    /// Deletes a table that is ours if nothing is in its sets.
    fn delete_unused(&mut self, table: &Table, sets: &[Set]) -> Result<(), FirewallError> {
        let connection = self.connection()?;
        if connection.table(table)?.is_none() {
            return Ok(());
        }
        for set in sets {
            if !connection.is_empty(table, set)? {
                return Ok(());
            }
        }
        let mut transaction = Transaction::new();
        transaction.destroy_table(table);
        tolerate_missing(connection.commit(&transaction))
    }

    /// Deletes the elements of a role whose comment is chosen.
    fn sweep(&mut self, role: Role, chosen: &dyn Fn(&str) -> bool) -> Result<(), FirewallError> {
        let mut transaction = Transaction::new();
        for (table, sets) in tables(role) {
            for set in sets {
                let elements = self.connection()?.elements(&table, &set)?;
                let stale = elements.iter().filter(|element| element.comment.as_deref().is_some_and(chosen));
                for element in stale {
                    transaction.destroy_element(&table, &set, element);
                }
            }
        }
        self.commit_deletions(&transaction)
    }
}

impl Firewall for Nftables {
    fn ensure(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), FirewallError> {
        let plan = compile(owner, entries)?;
        for scaffold in &plan.scaffolds {
            self.ensure_table(owner, &plan.in_table(&scaffold.table))?;
        }
        Ok(())
    }

    fn verify(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), FirewallError> {
        self.verify_table(owner, &compile(owner, entries)?)
    }

    fn remove(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), FirewallError> {
        let plan = compile(owner, entries)?;
        for scaffold in &plan.scaffolds {
            self.remove_table(owner, &plan.in_table(&scaffold.table))?;
        }
        Ok(())
    }

    fn remove_owner(&mut self, owner: &Owner, role: Role, _: &[IpAddr]) -> Result<(), FirewallError> {
        let tag = owner.tag();
        self.sweep(role, &|comment| comment == tag)?;
        self.leave(owner, role)?;
        self.sweep_tables(role)?;
        foreign::remove(self.connection()?, role, owner)
    }

    fn collect(&mut self, collection: &Collection<'_>, role: Role) -> Result<(), FirewallError> {
        self.sweep(role, &|comment| collection.is_stale(comment))?;
        for owner in Shared::owners(self.plugin, collection.network())? {
            collection.if_unrecorded(&owner, || self.leave(&owner, role))?;
        }
        self.sweep_tables(role)?;
        foreign::collect(self.connection()?, role, collection)
    }
}

fn compile(owner: &Owner, entries: &[Entry]) -> Result<Plan, FirewallError> {
    let mut plan = Plan::default();
    for entry in entries {
        match entry {
            Entry::Masquerade(entry) => masquerade::compile(entry, &mut plan),
            Entry::SpoofGuard(entry) => spoof::compile(entry, &mut plan),
            Entry::NeighbourGuard(entry) => neighbours::compile(entry, &mut plan),
            Entry::Publish(entry) => ports::compile(entry, owner, &mut plan)?,
            Entry::Forward(entry) => forward::compile(entry, &mut plan),
            Entry::LocalGuard(entry) => ports::compile_guard(entry, &mut plan),
            Entry::Isolate(entry) => forward::compile_isolation(entry, &mut plan),
        }
    }
    Ok(plan)
}

fn tables(role: Role) -> Vec<(Table, Vec<Set>)> {
    match role {
        Role::Interface => vec![
            (masquerade::TABLE, masquerade::sets()),
            (spoof::TABLE, spoof::sets()),
            (neighbours::TABLE, neighbours::sets()),
        ],
        Role::Publish => vec![(ports::TABLE, ports::sets())],
        Role::Forward => {
            vec![(forward::TABLE, forward::sets()), (forward::BRIDGE_TABLE, forward::bridge_sets())]
        }
    }
}

/// The registers of chains, each named TABLE.CHAIN.
const CHAINS: &str = "nftables-chain";

fn table_register(table: &Table) -> Shared {
    Shared::new("nftables-table", &format!("{}.{}", table.family, table.name))
}

fn policy_register(policy: &Policy) -> Shared {
    Shared::new(CHAINS, &format!("{}.{}", policy.table.name, policy.name))
}

/// The registers of elements that attachments share, each named TABLE SET KEY.
const ELEMENTS: &str = "nftables-element";

fn element_name(table: &Table, set: &Set, element: &Element) -> String {
    let key: Vec<String> = element.key.iter().map(ToString::to_string).collect();
    format!("{table} {} {}", set.name(), key.join(" . "))
}

fn is_of_set(name: &str, table: &Table, set: &Set) -> bool {
    name.starts_with(&format!("{table} {} ", set.name()))
}

fn element_register(item: &Owned) -> Shared {
    Shared::new(ELEMENTS, &element_name(&item.table, &item.set, &item.element))
}

/// Whether an element belongs to the same container in another network.
fn is_sibling(element: &Element, owner: &Owner) -> bool {
    let other = element.comment.as_deref().and_then(Owner::from_tag);
    other.is_some_and(|other| other.container_id == owner.container_id && other.network != owner.network)
}

/// An owner's tag as a message shows it.
fn describe(tag: &str) -> String {
    match Owner::from_tag(tag) {
        Some(owner) => format!(
            "container {} (network {}, interface {})",
            owner.container_id, owner.network, owner.ifname
        ),
        None => tag.to_owned(),
    }
}

fn tolerate_missing(result: Result<(), nft::Error>) -> Result<(), FirewallError> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        other => Ok(other?),
    }
}
