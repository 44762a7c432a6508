//! The iptables backend: one `iptables-save` and at most one `iptables-restore` per family and verb.
//!
//! Chains, rules and comments are those of the Go suite, so that either suite removes what the other made. What is there is read
//! first; only what is missing is written, in one atomic change per family. Which iptables it is, nft or legacy, is whatever the host
//! calls by that name.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

mod family;
mod forward;
mod isolate;
mod masquerade;
mod names;
mod program;
mod publish;
mod rule;
mod table;

pub(crate) use forward::CNI_FORWARD as FORWARD_CHAIN;

use family::Family;
use publish::Purpose;
use table::{Changes, Table, Unreadable};

use super::{Entry, Firewall, FirewallError, Forward, Isolate, Role};
use crate::attachment::Collection;
use crate::netlink::{Netlink, NetlinkError};
use crate::nft::{self, Connection};
use crate::owner::Owner;
use crate::shared::{Shared, User};
use crate::state::{self, LockedFile, StateError};

const NAT: &str = "nat";
const FILTER: &str = "filter";
const BACKEND: &str = "iptables";

/// How long the kernel may take to say which tables there are.
const LIST_DEADLINE: Duration = Duration::from_secs(10);

/// How often a change is planned anew because the tables had changed under it.
const ATTEMPTS: u32 = 8;

/// The iptables backend.
#[derive(Debug, Clone)]
pub struct Iptables {
    plugin: &'static str,
    path: OsString,
}

/// A table that a verb is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    family: Family,
    table: &'static str,
    /// Whether it is an error if the table can't be read. Where not, there can't be anything of ours in it.
    required: bool,
}

impl Iptables {
    /// The backend, for the users that a plugin's attachments are, with the programs on PATH or in the usual directories.
    pub fn new(plugin: &'static str) -> Self {
        Self { plugin, path: std::env::var_os("PATH").unwrap_or_default() }
    }

    /// The programs on this search path instead.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<OsString>) -> Self {
        self.path = path.into();
        self
    }

    /// Whether the programs are there for IPv4. An error names the one that is missing.
    pub fn probe(&self) -> Result<(), FirewallError> {
        program::find(Family::V4.save(), &self.path)?;
        program::find(Family::V4.restore(), &self.path)?;
        Ok(())
    }

    /// Reads a table. One with nothing in it is looked at again: the nft variant prints that, and succeeds, where the kernel would not list the chains at
    /// this moment, and what is in the table would be taken for gone.
    fn read(&self, place: Place) -> Result<Table, FirewallError> {
        let table = self.look(place)?;
        if table.is_bare() { self.look(place) } else { Ok(table) }
    }

    fn look(&self, place: Place) -> Result<Table, FirewallError> {
        let program = program::find(place.family.save(), &self.path)?;
        let text = program::run(&program, &["-t", place.table], "")?;
        Table::read(place.table, &text).map_err(|unreadable| {
            let program = program.display().to_string();
            match unreadable {
                Unreadable::Incompatible => FirewallError::Incompatible { table: place.table },
                Unreadable::Line(line) => FirewallError::Output { program, line },
            }
        })
    }

    /// The tables of all places, read side by side: most of it is waiting for a child. Places that can't be read and need not are left out.
    fn read_all(&self, places: &[Place]) -> Result<Vec<(Family, Table)>, FirewallError> {
        let results = side_by_side(places, |place| self.read(*place));
        let mut tables = Vec::new();
        for (place, result) in places.iter().zip(results) {
            match result {
                Ok(table) => tables.push((place.family, table)),
                // Least of all from a table that somebody filled with nft.
                Err(
                    FirewallError::Program { .. }
                    | FirewallError::ProgramMissing { .. }
                    | FirewallError::Incompatible { .. },
                ) if !place.required => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tables)
    }

    /// Reads the tables, plans, and makes the changes: all or none in each family. Plans anew where the tables changed in between.
    /// Returns whether there was anything to change.
    fn change(
        &self,
        places: &[Place],
        plan: impl Fn(Family, &mut Table) -> Result<(), FirewallError>,
    ) -> Result<bool, FirewallError> {
        let mut last: Option<(Vec<(Family, Changes)>, FirewallError)> = None;
        let mut by_number = false;
        for _ in 0..ATTEMPTS {
            let changes = self.plan(places, &plan)?;
            if changes.is_empty() {
                return Ok(last.is_some());
            }
            if let Some((tried, error)) = last.take()
                && tried == changes
            {
                // Nothing changed under us: it is the change itself that is refused.
                if by_number || changes.iter().all(|(_, changes)| changes.numbered == changes.text) {
                    return Err(error);
                }
                // A rule that is not what it says it is.
                by_number = true;
            }
            let results = side_by_side(&changes, |(family, changes)| {
                self.write(*family, if by_number { &changes.numbered } else { &changes.text })
            });
            match results.into_iter().find_map(Result::err) {
                None => return Ok(true),
                Some(error @ FirewallError::Program { .. }) => last = Some((changes, error)),
                Some(error) => return Err(error),
            }
        }
        last.map_or(Ok(true), |(_, error)| Err(error))
    }

    /// Reads the tables, and plans: what is to be changed in each family, if anything.
    fn plan(
        &self,
        places: &[Place],
        plan: impl Fn(Family, &mut Table) -> Result<(), FirewallError>,
    ) -> Result<Vec<(Family, Changes)>, FirewallError> {
        let mut all: Vec<(Family, Changes)> = Vec::new();
        for (family, mut table) in self.read_all(places)? {
            plan(family, &mut table)?;
            if !table.is_changed() {
                continue;
            }
            let changes = table.changes().map_err(|word| FirewallError::Unwritable { word })?;
            match all.iter_mut().find(|(of, _)| *of == family) {
                Some((_, before)) => before.extend(&changes),
                None => all.push((family, changes)),
            }
        }
        Ok(all)
    }

    fn write(&self, family: Family, text: &str) -> Result<(), FirewallError> {
        let program = program::find(family.restore(), &self.path)?;
        let wait = program::LOCK_WAIT.as_secs().to_string();
        program::run(&program, &["-w", &wait, "--noflush"], text).map(drop)
    }
}

/// Does something while none of our own processes reads or changes tables or the registers of who uses what: the lock of xtables is held
/// for one program at a time only, and by the nft variant not at all.
fn alone(work: impl FnOnce() -> Result<(), FirewallError>) -> Result<(), FirewallError> {
    let lock = LockedFile::create(&state::path(["iptables.lock"]))?;
    let result = work();
    lock.remove()?;
    result
}

/// As [`alone`], and without the lock where there is no room for it: a file system that is full or read-only must not keep a container from
/// being removed.
fn alone_if_possible(work: impl FnOnce() -> Result<(), FirewallError>) -> Result<(), FirewallError> {
    match LockedFile::create(&state::path(["iptables.lock"])) {
        Err(StateError::File { source, .. })
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::ReadOnlyFilesystem) =>
        {
            work()
        }
        Err(error) => Err(error.into()),
        Ok(lock) => {
            let result = work();
            lock.remove()?;
            result
        }
    }
}

/// Does the same for each item, each but the first in a thread of its own.
fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let Some((first, rest)) = items.split_first() else { return Vec::new() };
    thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = rest.iter().map(|item| scope.spawn(move || work(item))).collect();
        let mut results = vec![work(first)];
        for other in others {
            match other.join() {
                Ok(result) => results.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}

fn unsupported(what: &str) -> FirewallError {
    FirewallError::Unsupported { what: what.to_owned(), backend: BACKEND }
}

/// The table an entry is in, and its family; `None` for that of all families. Error: an entry that iptables can't express.
fn place(entry: &Entry) -> Result<(&'static str, Option<Family>), FirewallError> {
    Ok(match entry {
        Entry::Masquerade(entry) => (NAT, Some(Family::of(entry.address.address()))),
        Entry::Publish(entry) => (NAT, Some(Family::of(entry.address.address()))),
        Entry::Forward(entry) => (FILTER, Some(Family::of(entry.address))),
        Entry::Isolate(_) => (FILTER, None),
        Entry::SpoofGuard(_) => return Err(unsupported("macspoofchk")),
        Entry::NeighbourGuard(_) => return Err(unsupported("spoofchk")),
        Entry::LocalGuard(_) => return Err(unsupported("guarding of 127.0.0.0/8")),
    })
}

fn is_in(entry: &Entry, family: Family, table: &str) -> bool {
    place(entry).is_ok_and(|(name, of)| name == table && of.is_none_or(|of| of == family))
}

/// Where the entries are, each place once.
fn places(entries: &[Entry]) -> Result<Vec<Place>, FirewallError> {
    let mut places = Vec::new();
    let mut isolates = false;
    for entry in entries {
        match place(entry)? {
            (table, Some(family)) => places.push(Place { family, table, required: true }),
            (_, None) => isolates = true,
        }
    }
    // The families of the container's addresses, as the Go suite does; without addresses, all there are.
    if isolates && !places.iter().any(|place| place.table == FILTER) {
        places.extend(Family::ALL.map(|family| Place {
            family,
            table: FILTER,
            required: family_exists(family),
        }));
    }
    places.sort();
    places.dedup();
    Ok(places)
}

/// Whether the kernel speaks the family: IPv6 can be left out of a kernel, or switched off on its command line.
fn family_exists(family: Family) -> bool {
    family == Family::V4 || Path::new("/proc/net/if_inet6").exists()
}

/// Both families of a table, where anything may be.
fn anywhere(table: &'static str) -> Vec<Place> {
    existing(Family::ALL.map(|family| Place { family, table, required: false }))
}

/// Those of the places where there is a table to remove anything from. Asking iptables would start a process and, with the legacy variant,
/// make the table.
fn existing(places: impl IntoIterator<Item = Place>) -> Vec<Place> {
    let mut connection = Connection::open(Instant::now() + LIST_DEADLINE);
    let mut in_nf_tables = |place: &Place| {
        let family = match place.family {
            Family::V4 => nft::Family::Ip,
            Family::V6 => nft::Family::Ip6,
        };
        let table = nft::Table::named(family, place.table);
        match connection.as_mut().map(|connection| connection.table(&table)) {
            Ok(Ok(table)) => table.is_some(),
            // Where it can't be told, iptables is asked, but for a kernel that has no nf_tables.
            Ok(Err(error)) => !error.is_unsupported(),
            Err(error) => !error.is_unsupported(),
        }
    };
    let legacy = |place: &Place| {
        std::fs::read_to_string(place.family.legacy_tables())
            .is_ok_and(|names| names.lines().any(|name| name == place.table))
    };
    places.into_iter().filter(|place| legacy(place) || in_nf_tables(place)).collect()
}

fn role_table(role: Role) -> &'static str {
    match role {
        Role::Interface | Role::Publish => NAT,
        Role::Forward => FILTER,
    }
}

/// Who uses the rules of an address. An address that was given to another container is no more the first one's to cut off.
fn forward_register(entry: &Forward) -> Shared {
    Shared::new("iptables-forward", &entry.address.to_string())
}

/// Who uses the isolation of a bridge.
fn isolation_register(entry: &Isolate) -> Shared {
    Shared::new("iptables-isolation", entry.bridge.as_str())
}

/// Whether somebody else has a port on the bridge: the Go suite registers nothing, so it may count on what is there.
fn has_strange_ports(entry: &Isolate) -> Result<bool, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let Some(bridge) = netlink.link(entry.bridge.as_str())? else { return Ok(false) };
    let strange = |alias: &str| Owner::tag_in_alias(alias).is_none();
    Ok(netlink.ports(bridge.index)?.iter().any(|link| strange(&link.alias)))
}

fn plan(
    purpose: Purpose,
    owner: &Owner,
    entries: &[Entry],
    family: Family,
    table: &mut Table,
) -> Result<(), FirewallError> {
    let name = table.name();
    for entry in entries.iter().filter(|entry| is_in(entry, family, name)) {
        match entry {
            Entry::Masquerade(entry) => {
                masquerade::ensure(table, family, owner, entry);
            }
            Entry::Publish(entry) => {
                if let Some(taken) = publish::taken(table, owner, entry) {
                    return Err(taken);
                }
                publish::ensure(table, family, owner, entry, purpose);
            }
            Entry::Forward(entry) => forward::ensure(table, entry, purpose),
            Entry::Isolate(entry) => isolate::ensure(table, entry),
            Entry::SpoofGuard(_) | Entry::NeighbourGuard(_) | Entry::LocalGuard(_) => {}
        }
    }
    Ok(())
}

impl Iptables {
    /// Enters the owner as a user of what it shares.
    fn register(&self, owner: &Owner, entries: &[Entry]) -> Result<(), FirewallError> {
        let user = User::new(owner, self.plugin);
        for entry in entries {
            let register = match entry {
                Entry::Forward(entry) => forward_register(entry),
                Entry::Isolate(entry) => isolation_register(entry),
                _ => continue,
            };
            register.enter(&user, || Ok::<_, FirewallError>(()))?;
        }
        Ok(())
    }

    /// Takes the owner out again. Returns the entries that nobody needs any more.
    fn unregister<'a>(&self, owner: &Owner, entries: &'a [Entry]) -> Result<Vec<&'a Entry>, FirewallError> {
        let user = User::new(owner, self.plugin);
        let mut unused = Vec::new();
        for entry in entries {
            let register = match entry {
                Entry::Forward(entry) => forward_register(entry),
                Entry::Isolate(entry) => isolation_register(entry),
                _ => {
                    unused.push(entry);
                    continue;
                }
            };
            register.leave(&user, || Ok::<_, FirewallError>(()))?;
            let still_needed = register.is_used()
                || match entry {
                    Entry::Isolate(entry) => has_strange_ports(entry)?,
                    _ => false,
                };
            if !still_needed {
                unused.push(entry);
            }
        }
        Ok(unused)
    }
}

/// Removes entries that are in one family's table.
fn remove(owner: &Owner, entries: &[&Entry], family: Family, table: &mut Table) {
    let name = table.name();
    for entry in entries.iter().filter(|entry| is_in(entry, family, name)) {
        match entry {
            Entry::Masquerade(entry) => masquerade::remove(table, owner, entry),
            Entry::Publish(entry) => publish::remove(table, family, owner, entry),
            Entry::Forward(entry) => forward::remove(table, &[entry.address]),
            Entry::Isolate(entry) => isolate::remove(table, &entry.bridge),
            Entry::SpoofGuard(_) | Entry::NeighbourGuard(_) | Entry::LocalGuard(_) => {}
        }
    }
}

impl Firewall for Iptables {
    fn ensure(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), FirewallError> {
        let places = places(entries)?;
        alone(|| {
            self.register(owner, entries)?;
            // Read again: `iptables-restore` has been seen to succeed with a rule that nobody asked for, when the kernel had no memory to tell it which versions
            // of an extension there are.
            let mut missing = String::new();
            for _ in 0..2 {
                let make = |family, table: &mut Table| plan(Purpose::Make, owner, entries, family, table);
                if !self.change(&places, make)? {
                    return Ok(());
                }
                match self.verify(owner, entries) {
                    Err(FirewallError::Missing { what, .. }) => missing = what,
                    other => return other,
                }
            }
            Err(FirewallError::Ineffective { what: missing })
        })
    }

    fn verify(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), FirewallError> {
        for (family, mut table) in self.read_all(&places(entries)?)? {
            plan(Purpose::Look, owner, entries, family, &mut table)?;
            if let Some(change) = table.first_change() {
                let what = format!("`{change}` ({})", family.restore().trim_end_matches("-restore"));
                return Err(FirewallError::Missing { what, backend: BACKEND });
            }
        }
        Ok(())
    }

    fn remove(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), FirewallError> {
        let places = existing(places(entries)?);
        alone(|| {
            let unused = self.unregister(owner, entries)?;
            self.change(&places, |family, table| {
                remove(owner, &unused, family, table);
                Ok(())
            })
            .map(drop)
        })
    }

    fn remove_owner(&mut self, owner: &Owner, role: Role, addresses: &[IpAddr]) -> Result<(), FirewallError> {
        alone_if_possible(|| {
            self.change(&anywhere(role_table(role)), |family, table| {
                match role {
                    Role::Interface => masquerade::remove_owner(table, owner, addresses),
                    Role::Publish => publish::remove_owner(table, owner, addresses),
                    Role::Forward => {
                        let here: Vec<IpAddr> = addresses
                            .iter()
                            .copied()
                            .filter(|address| Family::of(*address) == family)
                            .collect();
                        forward::remove(table, &here);
                    }
                }
                Ok(())
            })
            .map(drop)
        })
    }

    fn collect(&mut self, collection: &Collection<'_>, role: Role) -> Result<(), FirewallError> {
        alone_if_possible(|| {
            self.change(&anywhere(role_table(role)), |_, table| {
                match role {
                    Role::Interface => masquerade::collect(table, collection),
                    Role::Publish => publish::collect(table, collection),
                    // Forwarding rules have an address and no owner: nothing tells whose they are.
                    Role::Forward => {}
                }
                Ok(())
            })
            .map(drop)
        })
    }
}
