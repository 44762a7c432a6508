//! Reading the ruleset back.

use std::collections::HashSet;

use super::abi;
use super::connection::Connection;
use super::element::{Element, RawElement, assemble};
use super::set::Set;
use super::table::{Base, ChainType, Family, Hook, Policy, Table};
use super::transaction::{elements_of, new};
use super::value::Concatenation;
use super::{Error, Value, userdata};
use crate::nfnetlink::{self, ATTEMPTS, Answer, Message, be32, be64, find, parse, text};

/// A table that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Family and name.
    pub table: Table,
    /// Its comment.
    pub comment: Option<String>,
}

/// A chain that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    /// The table it is in.
    pub table: Table,
    /// Its name.
    pub name: String,
    /// For a base chain: where it is attached. `None` too for one at a hook this library does not know.
    pub base: Option<Base>,
    /// Its comment.
    pub comment: Option<String>,
}

/// A rule that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its number, unique in the table for as long as the table exists; what deletions name it by.
    pub handle: u64,
    /// Its comment.
    pub comment: Option<String>,
    /// Its expressions as the kernel encodes them (`NFTA_RULE_EXPRESSIONS`).
    pub expressions: Vec<u8>,
}

impl Connection {
    /// The number of the current ruleset generation of the network namespace: it grows with every commit of anybody.
    /// See [`Transaction::expect_generation`](super::Transaction::expect_generation).
    pub fn generation(&mut self) -> Result<u32, Error> {
        let request = new(abi::message::GETGEN, 0, Family::Inet);
        let read = |answer: Answer<'_>| find(answer.attributes, abi::generation::ID).and_then(be32);
        let found = self.socket.query(&request, &"read the ruleset generation", read)?;
        Ok(found.first().copied().unwrap_or_default())
    }

    /// The table of that family and name, if it exists.
    pub fn table(&mut self, table: &Table) -> Result<Option<TableInfo>, Error> {
        let mut request = new(abi::message::GETTABLE, 0, table.family);
        request.attributes.string(abi::table::NAME, &table.name);
        self.get(&request, &format!("look for table '{table}'"), read_table)
    }

    /// All tables, of all families.
    pub fn tables(&mut self) -> Result<Vec<TableInfo>, Error> {
        let mut request = new(abi::message::GETTABLE, libc::NLM_F_DUMP, Family::Inet);
        request.family = 0;
        self.list(&request, "list tables", read_table)
    }

    /// The chain of that name, if it and its table exist. The cost does not depend on how many chains there are.
    pub fn chain(&mut self, table: &Table, name: &str) -> Result<Option<ChainInfo>, Error> {
        let mut request = new(abi::message::GETCHAIN, 0, table.family);
        request.attributes.string(abi::chain::TABLE, &table.name).string(abi::chain::NAME, name);
        self.get(&request, &format!("look for chain '{table} {name}'"), read_chain)
    }

    /// All chains of one family, or of all; also those of other programs, such as `iptables-nft` and firewalld. The chains of
    /// `iptables-legacy` are not part of `nf_tables` and not listed.
    pub fn chains(&mut self, family: Option<Family>) -> Result<Vec<ChainInfo>, Error> {
        let mut request = new(abi::message::GETCHAIN, libc::NLM_F_DUMP, Family::Inet);
        request.family = family.map_or(0, Family::number);
        self.list(&request, "list chains", read_chain)
    }

    /// The rules of one chain, in their order. A chain that does not exist has none.
    pub fn rules(&mut self, table: &Table, chain: &str) -> Result<Vec<RuleInfo>, Error> {
        Ok(self.rules_of(table, &[chain])?.pop().unwrap_or_default())
    }

    /// The rules of several chains of a table as they were at one moment, chain by chain. Half the requests of asking for one after the other,
    /// and none of them is as long as the list of a table's chains may be.
    pub fn rules_of(&mut self, table: &Table, chains: &[&str]) -> Result<Vec<Vec<RuleInfo>>, Error> {
        let what = format!("list the rules of chain '{table} {}'", chains.join(", "));
        self.unchanged(&what, |connection| {
            chains.iter().map(|chain| connection.listed_rules(table, chain, &what)).collect()
        })
    }

    fn listed_rules(&mut self, table: &Table, chain: &str, what: &str) -> Result<Vec<RuleInfo>, Error> {
        let mut request = new(abi::message::GETRULE, libc::NLM_F_DUMP, table.family);
        request.attributes.string(abi::rule::TABLE, &table.name).string(abi::rule::CHAIN, chain);
        let read = |answer: Answer<'_>| {
            // Kernels older than 4.10 ignore the names in the request.
            let named =
                |kind, name: &str| find(answer.attributes, kind).is_some_and(|found| text(found) == name);
            if !named(abi::rule::TABLE, &table.name) || !named(abi::rule::CHAIN, chain) {
                return None;
            }
            read_rule(answer)
        };
        Ok(missing_is_empty(self.socket.query(&request, &what, read))?)
    }

    /// True if there is a set or map of that name, whatever its type.
    pub fn has_set(&mut self, table: &Table, set: &Set) -> Result<bool, Error> {
        let mut request = new(abi::message::GETSET, 0, table.family);
        request.attributes.string(abi::set::TABLE, &table.name).string(abi::set::NAME, set.name());
        let what = format!("look for {} '{table} {}'", set.noun(), set.name());
        Ok(self.get(&request, &what, |_| Some(()))?.is_some())
    }

    /// The element with this key, if it, its set and its table exist; in a set of intervals, the one that contains the key.
    ///
    /// The cost does not depend on how many elements there are, except for intervals over single values: those are listed,
    /// because the kernel keeps their ends as elements of their own and, asked for one where two intervals touch, gives either.
    pub fn element(&mut self, table: &Table, set: &Set, key: &[Value]) -> Result<Option<Element>, Error> {
        let what = format!("look up '{}' in {} '{table} {}'", Concatenation(key), set.noun(), set.name());
        let Some(encoded) = set.encode_key(key) else {
            let reason = format!("the key is not of the type of the {}", set.noun());
            return Err(Error::Unencodable { operation: what, reason });
        };
        if set.splits_intervals() {
            let contains = |element: &Element| {
                element.key.as_slice() <= key && key <= element.through.as_deref().unwrap_or(&element.key)
            };
            return Ok(self.elements(table, set)?.into_iter().find(contains));
        }
        let mut request = elements_of(abi::message::GETSETELEM, 0, table, set);
        request.attributes.nest(abi::element::LIST_ELEMENTS, |list| {
            list.nest(abi::list::ELEM, |element| {
                element.nest(abi::element::KEY, |value| _ = value.bytes(abi::data::VALUE, &encoded));
            });
        });
        let found = self.get(&request, &what, |answer| read_elements(set, answer))?;
        Ok(assemble(set, found.unwrap_or_default()).into_iter().next())
    }

    /// All elements of a set or map. One that does not exist has none. Elements whose type or verdict this library cannot
    /// express, and the catch-all element, are left out.
    ///
    /// A set that is a hash table is rehashed some time after a commit, without a sign: who is in the middle of a list then meets elements
    /// twice or not at all. So a list of more than a few elements, which may come in several parts, counts once it came twice.
    pub fn elements(&mut self, table: &Table, set: &Set) -> Result<Vec<Element>, Error> {
        self.elements_unless(table, set, |_| false)
    }

    /// As [`Connection::elements`], at half the cost where the first list is as the caller expects: one that misses something expected is not.
    pub fn elements_unless(
        &mut self,
        table: &Table,
        set: &Set,
        as_expected: impl Fn(&[Element]) -> bool,
    ) -> Result<Vec<Element>, Error> {
        const ONE_PART: usize = 8;
        let mut before = HashSet::new();
        for _ in 0..ATTEMPTS {
            let found = self.listed_elements(table, set)?;
            if found.len() <= ONE_PART || as_expected(&found) {
                return Ok(found);
            }
            let all: HashSet<Element> = found.iter().cloned().collect();
            if found.len() == all.len() && all == before {
                return Ok(found);
            }
            before = all;
        }
        let operation = format!("list the elements of {} '{table} {}'", set.noun(), set.name());
        Err(nfnetlink::Error::Interrupted { operation, attempts: ATTEMPTS }.into())
    }

    /// Whether a set or map has no element, or is not there.
    pub fn is_empty(&mut self, table: &Table, set: &Set) -> Result<bool, Error> {
        // However the kernel mixes up a list of many elements, some are in it.
        Ok(self.listed_elements(table, set)?.is_empty())
    }

    fn listed_elements(&mut self, table: &Table, set: &Set) -> Result<Vec<Element>, Error> {
        let mut request = elements_of(abi::message::GETSETELEM, 0, table, set);
        request.flags = libc::NLM_F_DUMP;
        let what = format!("list the elements of {} '{table} {}'", set.noun(), set.name());
        let found = self.list(&request, &what, |answer| read_elements(set, answer))?;
        Ok(assemble(set, found.into_iter().flatten().collect()))
    }

    /// Reads a list as it was at one moment.
    ///
    /// The kernel hands it out in parts, and marks a part if there was a commit since the part before. It does not notice a
    /// commit during the last part; nor a transaction that is being prepared, whose objects are in the list already, invisible,
    /// and shift the place where the next part begins: entries come twice or not at all. So afterwards the generation must still
    /// be the same, and no transaction under way.
    fn list<T>(
        &mut self,
        request: &Message,
        what: &str,
        mut read: impl FnMut(Answer<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        self.unchanged(what, |connection| {
            Ok(missing_is_empty(connection.socket.query(request, &what, &mut read))?)
        })
    }

    /// Reads again until nobody has changed anything meanwhile: see [`Connection::list`].
    fn unchanged<T>(
        &mut self,
        what: &str,
        mut read: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            let generation = self.generation()?;
            let found = read(self)?;
            if self.is_still(generation)? {
                return Ok(found);
            }
        }
        Err(nfnetlink::Error::Interrupted { operation: what.to_owned(), attempts: ATTEMPTS }.into())
    }

    fn get<T>(
        &mut self,
        request: &Message,
        what: &str,
        read: impl FnMut(Answer<'_>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        Ok(missing_is_empty(self.socket.query(request, &what, read))?.into_iter().next())
    }
}

/// Not finding something is an answer, not a failure.
fn missing_is_empty<T>(found: Result<Vec<T>, nfnetlink::Error>) -> Result<Vec<T>, nfnetlink::Error> {
    match found {
        Err(error) if error.errno() == Some(nix::errno::Errno::ENOENT) => Ok(Vec::new()),
        found => found,
    }
}

pub(super) fn read_table(answer: Answer<'_>) -> Option<TableInfo> {
    let name = text(find(answer.attributes, abi::table::NAME)?);
    Some(TableInfo {
        table: Table::named(Family::from_number(answer.family)?, name),
        comment: find(answer.attributes, abi::table::USERDATA).and_then(userdata::read_comment),
    })
}

pub(super) fn read_chain(answer: Answer<'_>) -> Option<ChainInfo> {
    let get = |kind| find(answer.attributes, kind);
    let family = Family::from_number(answer.family)?;
    let base = || {
        let attachment = get(abi::chain::HOOK)?;
        let number = find(attachment, abi::chain::HOOK_NUMBER).and_then(be32)?;
        let priority = find(attachment, abi::chain::HOOK_PRIORITY)?;
        Some(Base {
            kind: ChainType::from_name(text(get(abi::chain::TYPE)?)),
            hook: Hook::from_number(family, number)?,
            priority: i32::from_be_bytes(priority.try_into().ok()?),
            policy: if get(abi::chain::POLICY).and_then(be32) == Some(0) {
                Policy::Drop
            } else {
                Policy::Accept
            },
        })
    };
    Some(ChainInfo {
        table: Table::named(family, text(get(abi::chain::TABLE)?)),
        name: text(get(abi::chain::NAME)?),
        base: base(),
        comment: get(abi::chain::USERDATA).and_then(userdata::read_comment),
    })
}

pub(super) fn read_rule(answer: Answer<'_>) -> Option<RuleInfo> {
    let get = |kind| find(answer.attributes, kind);
    Some(RuleInfo {
        handle: get(abi::rule::HANDLE).and_then(be64)?,
        comment: get(abi::rule::USERDATA).and_then(userdata::read_comment),
        expressions: get(abi::rule::EXPRESSIONS).unwrap_or_default().to_vec(),
    })
}

pub(super) fn read_elements(set: &Set, answer: Answer<'_>) -> Option<Vec<RawElement>> {
    let list = find(answer.attributes, abi::element::LIST_ELEMENTS)?;
    Some(parse(list).filter_map(|(_, element)| RawElement::decode(set, element)).collect())
}
