//! A transaction: changes that are made together, or not at all.

use super::Error;
use super::abi;
use super::element::Element;
use super::rule::Rule;
use super::set::Set;
use super::table::{Base, Chain, Family, Policy, Table};
use super::userdata;
use crate::nfnetlink::{Kind, Message};

/// Changes to be committed together by [`Connection::commit`](super::Connection::commit).
///
/// *Adding* what exists already succeeds without a change, as with `nft add`; *creating* it fails ([`Error::is_exists`]).
/// *Deleting* what does not exist fails ([`Error::is_missing`]); *destroying* it succeeds.
///
/// What costs time: adding a chain that exists already, and any deletion, each make the kernel wait once per transaction for
/// all CPUs to let go of the old ruleset (8 to 24 ms), when the connection is closed. Since Linux 6.9 nobody here waits for that, but whoever
/// commits next in this network namespace (`crate::nfnetlink`). New objects and elements cost nothing of that kind. So look up chains before
/// adding them, and put deletions together.
#[derive(Debug, Default)]
pub struct Transaction {
    pub(super) operations: Vec<Operation>,
    pub(super) generation: Option<u32>,
    fault: Option<(String, String)>,
}

/// One change.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) request: Message,
    /// For messages to people: a verb phrase.
    pub(super) what: String,
    /// For an operation that is fine with a missing object: the message that says so to a kernel that knows it.
    pub(super) destroy: Option<u8>,
}

/// Where a rule goes in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    Last,
}

impl Transaction {
    /// A transaction that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// True if there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Makes the commit fail with [`Error::Conflict`] if any ruleset of this network namespace has changed since
    /// [`Connection::generation`](super::Connection::generation) gave this number: for changes that depend on what was read.
    pub fn expect_generation(&mut self, generation: u32) {
        self.generation = Some(generation);
    }

    /// Adds a table.
    pub fn add_table(&mut self, table: &Table) {
        self.add_table_with_comment(table, None);
    }

    /// Adds a table; one that exists keeps its comment.
    pub fn add_table_with_comment(&mut self, table: &Table, comment: Option<&str>) {
        let what = format!("add table '{table}'");
        self.check(&what, comment.and_then(userdata::comment_fault));
        let mut request = new(abi::message::NEWTABLE, libc::NLM_F_CREATE, table.family);
        request.attributes.string(abi::table::NAME, &table.name);
        if let Some(comment) = comment {
            request.attributes.bytes(abi::table::USERDATA, &userdata::comment(comment));
        }
        self.push(what, request, None);
    }

    /// Deletes a table with everything in it.
    pub fn delete_table(&mut self, table: &Table) {
        self.remove_table(table, None);
    }

    /// Deletes a table with everything in it, if it exists.
    pub fn destroy_table(&mut self, table: &Table) {
        self.remove_table(table, Some(abi::message::DESTROYTABLE));
    }

    fn remove_table(&mut self, table: &Table, destroy: Option<u8>) {
        let mut request = new(abi::message::DELTABLE, 0, table.family);
        request.attributes.string(abi::table::NAME, &table.name);
        self.push(format!("delete table '{table}'"), request, destroy);
    }

    /// Adds a chain. One that exists already is left as it is, but see [`Transaction`] for what that costs.
    pub fn add_chain(&mut self, table: &Table, chain: &Chain) {
        let what = format!("add chain '{table} {}'", chain.name);
        self.check(&what, chain.comment.as_deref().and_then(userdata::comment_fault));
        let mut request = new(abi::message::NEWCHAIN, libc::NLM_F_CREATE, table.family);
        request.attributes.string(abi::chain::TABLE, &table.name);
        request.attributes.string(abi::chain::NAME, &chain.name);
        if let Some(Base { kind, hook, priority, policy }) = &chain.base {
            let Some(number) = hook.number(table.family) else {
                return self.refuse(what, format!("the {} family has no {hook} hook", table.family));
            };
            request.attributes.nest(abi::chain::HOOK, |attachment| {
                attachment.be32(abi::chain::HOOK_NUMBER, number);
                attachment.bytes(abi::chain::HOOK_PRIORITY, &priority.to_be_bytes());
            });
            let policy = match policy {
                Policy::Drop => 0,
                Policy::Accept => 1,
            };
            request.attributes.be32(abi::chain::POLICY, policy);
            request.attributes.string(abi::chain::TYPE, kind.name());
        }
        if let Some(comment) = &chain.comment {
            request.attributes.bytes(abi::chain::USERDATA, &userdata::comment(comment));
        }
        self.push(what, request, None);
    }

    /// Deletes a chain, which must be empty and not referred to.
    pub fn delete_chain(&mut self, table: &Table, chain: &str) {
        self.remove_chain(table, chain, None);
    }

    /// Deletes a chain, if it exists; it must be empty and not referred to.
    pub fn destroy_chain(&mut self, table: &Table, chain: &str) {
        self.remove_chain(table, chain, Some(abi::message::DESTROYCHAIN));
    }

    fn remove_chain(&mut self, table: &Table, chain: &str, destroy: Option<u8>) {
        let mut request = new(abi::message::DELCHAIN, 0, table.family);
        request.attributes.string(abi::chain::TABLE, &table.name).string(abi::chain::NAME, chain);
        self.push(format!("delete chain '{table} {chain}'"), request, destroy);
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, table: &Table, chain: &str) {
        let mut request = new(abi::message::DELRULE, 0, table.family);
        request.attributes.string(abi::rule::TABLE, &table.name).string(abi::rule::CHAIN, chain);
        self.push(format!("flush chain '{table} {chain}'"), request, None);
    }

    /// Adds a rule at the end of a chain. Rules have no identity: adding one twice makes two.
    pub fn add_rule(&mut self, table: &Table, chain: &str, rule: &Rule) {
        self.place_rule(table, chain, rule, Place::Last);
    }

    /// Adds a rule at the head of a chain.
    pub fn insert_rule(&mut self, table: &Table, chain: &str, rule: &Rule) {
        self.place_rule(table, chain, rule, Place::First);
    }

    fn place_rule(&mut self, table: &Table, chain: &str, rule: &Rule, place: Place) {
        let what = format!("add {rule} to chain '{table} {chain}'");
        self.check(&what, rule.fault());
        self.check(
            &what,
            (rule.family != table.family).then(|| format!("it was made for family {}", rule.family)),
        );
        let position = if place == Place::Last { libc::NLM_F_APPEND } else { 0 };
        let mut request = new(abi::message::NEWRULE, libc::NLM_F_CREATE | position, table.family);
        request.attributes.string(abi::rule::TABLE, &table.name).string(abi::rule::CHAIN, chain);
        request.attributes.nest(abi::rule::EXPRESSIONS, |list| _ = list.append(&rule.expressions));
        if let Some(comment) = &rule.comment {
            request.attributes.bytes(abi::rule::USERDATA, &userdata::comment(comment));
        }
        self.push(what, request, None);
    }

    /// Deletes the rule with this handle, as [`Connection::rules`](super::Connection::rules) gave it.
    pub fn delete_rule(&mut self, table: &Table, chain: &str, handle: u64) {
        self.remove_rule(table, chain, handle, None);
    }

    /// Deletes the rule with this handle, if it exists.
    pub fn destroy_rule(&mut self, table: &Table, chain: &str, handle: u64) {
        self.remove_rule(table, chain, handle, Some(abi::message::DESTROYRULE));
    }

    fn remove_rule(&mut self, table: &Table, chain: &str, handle: u64, destroy: Option<u8>) {
        let mut request = new(abi::message::DELRULE, 0, table.family);
        request.attributes.string(abi::rule::TABLE, &table.name).string(abi::rule::CHAIN, chain);
        request.attributes.be64(abi::rule::HANDLE, handle);
        self.push(format!("delete rule with handle {handle} from chain '{table} {chain}'"), request, destroy);
    }

    /// Adds a set or map. One of that name that exists must have been declared alike.
    pub fn add_set(&mut self, table: &Table, set: &Set) {
        let what = format!("add {} '{table} {}'", set.noun(), set.name);
        self.check(&what, set.fault());
        let mut request = new(abi::message::NEWSET, libc::NLM_F_CREATE, table.family);
        request.attributes.string(abi::set::TABLE, &table.name).string(abi::set::NAME, &set.name);
        set.encode(&mut request.attributes);
        // The kernel wants a number by which later messages of the batch could refer to the set; ours use the name.
        let id = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
        request.attributes.be32(abi::set::ID, id);
        self.push(what, request, None);
    }

    /// Deletes a set or map, which must not be referred to by rules.
    pub fn delete_set(&mut self, table: &Table, set: &Set) {
        self.remove_set(table, set, None);
    }

    /// Deletes a set or map, if it exists; it must not be referred to by rules.
    pub fn destroy_set(&mut self, table: &Table, set: &Set) {
        self.remove_set(table, set, Some(abi::message::DESTROYSET));
    }

    fn remove_set(&mut self, table: &Table, set: &Set, destroy: Option<u8>) {
        let mut request = new(abi::message::DELSET, 0, table.family);
        request.attributes.string(abi::set::TABLE, &table.name).string(abi::set::NAME, &set.name);
        self.push(format!("delete {} '{table} {}'", set.noun(), set.name), request, destroy);
    }

    /// Deletes all elements of a set or map.
    pub fn flush_set(&mut self, table: &Table, set: &Set) {
        let request = elements_of(abi::message::DELSETELEM, 0, table, set);
        self.push(format!("flush {} '{table} {}'", set.noun(), set.name), request, None);
    }

    /// Adds an element. One with the same key and value that exists is left as it is, comment included; one with the same key
    /// and another value is an error ([`Error::is_exists`]).
    pub fn add_element(&mut self, table: &Table, set: &Set, element: &Element) {
        self.element(abi::message::NEWSETELEM, libc::NLM_F_CREATE, table, set, element, None);
    }

    /// Adds an element whose key must not exist ([`Error::is_exists`]): for claiming a key.
    pub fn create_element(&mut self, table: &Table, set: &Set, element: &Element) {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.element(abi::message::NEWSETELEM, flags, table, set, element, None);
    }

    /// Deletes the element with this key (and, for an interval, this end); its value and comment do not matter.
    pub fn delete_element(&mut self, table: &Table, set: &Set, element: &Element) {
        self.element(abi::message::DELSETELEM, 0, table, set, element, None);
    }

    /// Deletes the element with this key, if it exists.
    pub fn destroy_element(&mut self, table: &Table, set: &Set, element: &Element) {
        self.element(abi::message::DELSETELEM, 0, table, set, element, Some(abi::message::DESTROYSETELEM));
    }

    fn element(
        &mut self,
        message: u8,
        flags: i32,
        table: &Table,
        set: &Set,
        element: &Element,
        destroy: Option<u8>,
    ) {
        let adds = message == abi::message::NEWSETELEM;
        let (verb, preposition) = if adds { ("add", "to") } else { ("delete", "from") };
        let what = format!("{verb} element '{element}' {preposition} {} '{table} {}'", set.noun(), set.name);
        // One message for each element, so that a refusal names it.
        let mut request = elements_of(message, flags, table, set);
        let mut encoded = Ok(());
        request
            .attributes
            .nest(abi::element::LIST_ELEMENTS, |list| encoded = element.encode(set, !adds, list));
        if let Err(reason) = encoded {
            return self.refuse(what, reason);
        }
        self.push(what, request, destroy);
    }

    fn push(&mut self, what: String, request: Message, destroy: Option<u8>) {
        if !request.attributes.is_encodable() {
            return self.refuse(what, "a name contains NUL, or something is longer than 64 KiB".to_owned());
        }
        self.operations.push(Operation { request, what, destroy });
    }

    fn check(&mut self, what: &str, fault: Option<impl Into<String>>) {
        if let Some(fault) = fault {
            self.refuse(what.to_owned(), fault.into());
        }
    }

    /// Remembers the first thing that cannot be expressed; the commit will report it before anything is sent.
    fn refuse(&mut self, what: String, reason: String) {
        self.fault.get_or_insert((what, reason));
    }

    pub(super) fn fault(&self) -> Result<(), Error> {
        match self.fault.clone() {
            Some((operation, reason)) => Err(Error::Unencodable { operation, reason }),
            None => Ok(()),
        }
    }
}

/// A message of `nf_tables`.
pub(super) fn new(message: u8, flags: i32, family: Family) -> Message {
    Message::new(Kind { subsystem: abi::batch::SUBSYSTEM, message }, flags, family.number())
}

/// A message about elements of a set, without naming any.
pub(super) fn elements_of(message: u8, flags: i32, table: &Table, set: &Set) -> Message {
    let mut request = new(message, flags, table.family);
    request
        .attributes
        .string(abi::element::LIST_TABLE, &table.name)
        .string(abi::element::LIST_SET, &set.name);
    request
}
