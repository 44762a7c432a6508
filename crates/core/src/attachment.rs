//! The attachment as data: what a plugin makes for one container, written down before it is made.
//!
//! The record is a write-ahead log, `/run/ferrule/attachments/NETWORK/PLUGIN/CONTAINER/IFNAME`: a line that says whose it is, then a line a
//! resource, each there before the kernel is asked. Whatever happens to the plugin, DEL and GC find in it everything that may exist.
//! Removal of what was never made, or is gone, succeeds. The file is locked while an operation is at work, so two calls for the same
//! attachment take turns.

mod collection;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod listed;

use std::path::PathBuf;

use cni::{AddResult, Attachment, Code, ContainerId, Failure, LinkName, NetworkName, Request, Verb};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::host::Host;
use crate::netns::NetnsId;
use crate::nfnetlink;
use crate::owner::Owner;
use crate::privilege;
use crate::resource::{self, Lease, Lifecycle, Resources, Role, remove_registered};
use crate::shared::Shared;
use crate::state::{self, LockedFile, StateError};

pub use collection::Collection;

/// The format of records. One of a later version is as good as one that can't be read: removal goes by what can be found.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: u32,
    owner: Owner,
    plugin: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<NetnsId>,
}

/// What a record says.
#[derive(Debug)]
struct Record<R> {
    netns: Option<NetnsId>,
    resources: Vec<R>,
    /// Something in it can't be read: there may be more than `resources`.
    damaged: bool,
}

impl<R: Resources> Record<R> {
    /// Reads as much as was written; `None` without a header.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let header: Header =
            serde_json::from_slice(lines.next().filter(|line| line.ends_with(b"\n"))?).ok()?;
        if header.format != FORMAT {
            return None;
        }
        let mut record = Self { netns: header.netns, resources: Vec::new(), damaged: false };
        for line in lines {
            match resource::read(line) {
                Some(resource) if line.ends_with(b"\n") => record.resources.push(resource),
                _ => record.damaged = true,
            }
        }
        Some(record)
    }
}

/// Resources as what can be done with them.
fn kinds<R: Resources>(resources: &[R]) -> Vec<&dyn Lifecycle> {
    resources.iter().map(Resources::kind).collect()
}

/// Where the records of a plugin's attachments to a network are, in a directory for each container.
fn directory(network: &NetworkName, plugin: &str) -> PathBuf {
    state::path(["attachments", network.as_str(), plugin])
}

fn path(owner: &Owner, plugin: &str) -> PathBuf {
    directory(&owner.network, plugin).join(owner.container_id.as_str()).join(owner.ifname.as_str())
}

fn line<T: Serialize>(value: &T) -> Result<Vec<u8>, StateError> {
    let mut line = serde_json::to_vec(value).map_err(|source| StateError::Encode { source })?;
    line.push(b'\n');
    Ok(line)
}

/// An attachment that is being made.
#[derive(Debug)]
pub struct Building<'h, 'r, R> {
    host: &'h mut Host<'r>,
    log: LockedFile,
    made: Vec<R>,
}

impl<'r, R: Resources> Building<'_, 'r, R> {
    /// The host.
    pub fn host(&mut self) -> &mut Host<'r> {
        self.host
    }

    /// Writes resources down, then makes them, in order. The first that fails ends it.
    pub fn ensure(&mut self, mut resources: Vec<R>) -> Result<(), Failure> {
        self.write_down(&mut resources)?;
        for resource in resources {
            let outcome = resource.kind().ensure(self.host);
            // What is somebody else's was not made here, not even in part, and is not to be removed.
            if !matches!(outcome, Err(Error::Exists { .. })) {
                self.made.push(resource);
            }
            outcome?;
        }
        Ok(())
    }

    /// Writes a resource down, then has `make` make it: for what takes more to be made than the record says.
    pub fn ensure_by(
        &mut self,
        resource: R,
        make: impl FnOnce(&Host<'r>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut resources = [resource];
        self.write_down(&mut resources)?;
        self.made.extend(resources);
        make(self.host)
    }

    fn write_down(&mut self, resources: &mut [R]) -> Result<(), Failure> {
        let mut lines = Vec::new();
        for resource in resources {
            resource.kind_mut().observe(self.host)?;
            lines.extend(line(resource)?);
        }
        Ok(self.log.append(&lines)?)
    }

    /// Writes a lease down, then runs the IPAM plugin.
    pub fn lease(&mut self, kind: &str) -> Result<cni::AddResult, Failure>
    where
        R: From<Lease>,
    {
        let delegate = self.host.request().delegate(kind)?;
        self.ensure(vec![Lease { kind: kind.to_owned() }.into()])?;
        match delegate.start(Verb::Add) {
            Ok(running) => running.add_result(),
            Err(failure) => {
                // A plugin that can't be executed has given nothing, and could not be asked to take it back.
                self.made.pop();
                Err(failure)
            }
        }
    }
}

/// ADD: makes an attachment. If `build` fails, everything it has made is removed again, in reverse, and its error is returned.
///
/// What an earlier ADD for the same attachment left (one that was killed, or whose container died without a DEL) is removed first.
pub fn add<'r, R: Resources, T>(
    host: &mut Host<'r>,
    build: impl FnOnce(&mut Building<'_, 'r, R>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let log = begin(host, |host, content| match Record::<R>::parse(content) {
        Some(earlier) => Failure::join(remove(host, earlier.netns, &kinds(&earlier.resources))),
        None => Ok(()),
    })?;
    let mut building = Building { host, log, made: Vec::new() };
    match build(&mut building) {
        Ok(result) => Ok(result),
        Err(failure) => {
            let Building { host, log, made } = building;
            Err(undo(host, log, &kinds(&made), failure))
        }
    }
}

/// Opens the record and has `clear` remove what is in it, then writes whose it is.
fn begin(
    host: &mut Host<'_>,
    clear: impl FnOnce(&mut Host<'_>, &[u8]) -> Result<(), Failure>,
) -> Result<LockedFile, Failure> {
    let mut log = LockedFile::create(&path(host.owner(), host.plugin()))?;
    let content = log.read()?;
    clear(host, &content)?;
    let header = Header {
        format: FORMAT,
        owner: host.owner().clone(),
        plugin: host.plugin().to_owned(),
        netns: host.netns_id(),
    };
    let begun = log.clear().and_then(|()| log.append(&line(&header)?));
    if let Err(error) = begun {
        // A full file system: nothing has been made yet, and the empty record would say otherwise.
        log.remove()?;
        return Err(error.into());
    }
    Ok(log)
}

/// Removes what an ADD has made that failed.
fn undo(host: &mut Host<'_>, log: LockedFile, made: &[&dyn Lifecycle], failure: Failure) -> Failure {
    nfnetlink::leave();
    let mut leftovers = remove(host, host.netns_id(), made);
    if leftovers.is_empty() {
        leftovers.extend(log.remove().err().map(Failure::from));
    }
    leftovers.iter().fold(privilege::explain(failure), |failure, leftover| {
        failure.detail(format!("and cleaning up failed: {}", leftover.message()))
    })
}

/// DEL: removes an attachment, past errors. `unrecorded` removes what can be found where there is no record: the attachment was made by
/// the Go suite, or the record is lost or damaged.
pub fn del<R: Resources>(
    host: &mut Host<'_>,
    unrecorded: impl FnOnce(&mut Host<'_>) -> Vec<Failure>,
) -> Result<(), Failure> {
    // The deletion of a link, by the plugin that comes after this one or for the next container, would wait for the wait.
    nfnetlink::leave();
    let path = path(host.owner(), host.plugin());
    let Some(mut log) = LockedFile::open(&path)? else {
        let mut failures = unrecorded(host);
        failures.extend(registered::<R>(host));
        // Of a call that was killed, when it had no record yet or none any more.
        path.parent().map(state::prune);
        return Failure::join(failures);
    };
    let record = Record::<R>::parse(&log.read()?);
    let damaged = record.as_ref().is_none_or(|record| record.damaged);
    let mut failures =
        record.map(|record| remove(host, record.netns, &kinds(&record.resources))).unwrap_or_default();
    if damaged {
        failures.extend(unrecorded(host));
        failures.extend(registered::<R>(host));
    }
    if failures.is_empty() {
        log.remove()?;
    }
    Failure::join(failures)
}

/// Removes what the attachment is entered for in registers of shared objects.
fn registered<R: Resources>(host: &mut Host<'_>) -> Vec<Failure> {
    remove_registered::<R>(host).into_iter().map(Failure::from).collect()
}

/// CHECK: verifies what the record says ADD made; where there is no record, what `expected` derives from configuration and prevResult.
pub fn check<R: Resources>(
    host: &mut Host<'_>,
    expected: impl FnOnce(&mut Host<'_>) -> Result<Vec<R>, Failure>,
) -> Result<(), Failure> {
    let resources = made(host, expected)?;
    verify(host, &kinds(&resources))
}

/// What ADD made: what the record says, else what is expected.
fn made<R: Resources>(
    host: &mut Host<'_>,
    expected: impl FnOnce(&mut Host<'_>) -> Result<Vec<R>, Failure>,
) -> Result<Vec<R>, Failure> {
    let record = match LockedFile::open(&path(host.owner(), host.plugin()))? {
        Some(mut log) => Record::<R>::parse(&log.read()?).filter(|record| !record.damaged),
        None => None,
    };
    match record {
        Some(record) => {
            if record.netns.is_some() && record.netns != host.netns_id() {
                let message = format!("attachment {} was made for another network namespace", host.owner());
                return Err(Failure::new(Code::CheckFailed, message).hint("run DEL, then ADD"));
            }
            Ok(record.resources)
        }
        None => expected(host),
    }
}

/// Verifies leases beside everything else: an IPAM plugin takes about as long to start as the rest of a CHECK to be done. It is ended if
/// there is an error already; nobody changes anything in a CHECK.
fn verify(host: &mut Host<'_>, resources: &[&dyn Lifecycle]) -> Result<(), Failure> {
    let request = host.request();
    let mut delegates = Vec::new();
    for resource in resources {
        if let Role::Lease(lease) = resource.role() {
            delegates.push(request.delegate(&lease.kind)?);
        }
    }
    let running: Result<Vec<_>, _> = delegates.iter().map(|delegate| delegate.start(Verb::Check)).collect();
    let running = running?;
    for resource in resources.iter().filter(|resource| !matches!(resource.role(), Role::Lease(_))) {
        resource.verify(host)?;
    }
    for delegate in running {
        delegate.wait()?;
    }
    Ok(())
}

/// CHECK against prevResult too: its interface is in this container, what it does not list any more is not asked for, and what was made for
/// an address is asked for that address.
pub fn check_listed<R: Resources>(
    host: &mut Host<'_>,
    previous: &AddResult,
    expected: impl FnOnce(&mut Host<'_>) -> Result<Vec<R>, Failure>,
) -> Result<(), Failure> {
    listed::same_container(host, previous)?;
    let mut resources = made(host, expected)?;
    for resource in &mut resources {
        resource.kind_mut().heed(previous)?;
    }
    verify(host, &kinds(&resources))
}

/// GC: removes every attachment of a network and a plugin that is not listed, past errors: those with a record, and those that only a
/// register of shared objects remembers. Makes sure of the firewall entries of those that are listed: somebody may have emptied the firewall.
pub fn gc<R: Resources>(request: &Request, collection: &Collection<'_>) -> Vec<Failure> {
    nfnetlink::leave();
    let mut failures = Vec::new();
    let (network, plugin) = (collection.network(), collection.plugin());
    match recorded(network, plugin) {
        Ok(attachments) => {
            // First what is stale: it may be in the way of what is to be made again.
            let (listed, stale): (Vec<_>, Vec<_>) =
                attachments.into_iter().partition(|attachment| collection.lists(attachment));
            let mut each = |attachments: Vec<Attachment>, work: fn(&mut Host<'_>) -> Result<(), Failure>| {
                for attachment in attachments {
                    let call = request.for_attachment(&attachment);
                    failures.extend(work(&mut Host::for_removal(&call, &attachment, plugin, None)).err());
                }
            };
            each(stale, |host| del::<R>(host, |_| Vec::new()));
            each(listed, repair::<R>);
        }
        Err(error) => failures.push(error.into()),
    }
    match Shared::owners(plugin, network) {
        Ok(owners) => {
            for owner in owners {
                let work = || {
                    let attachment =
                        Attachment { container_id: owner.container_id.clone(), ifname: owner.ifname.clone() };
                    let call = request.for_attachment(&attachment);
                    let mut host = Host::for_removal(&call, &attachment, plugin, None);
                    Failure::join(registered::<R>(&mut host))
                };
                failures.extend(collection.if_unrecorded(&owner, work).err());
            }
        }
        Err(error) => failures.push(error.into()),
    }
    failures.extend(Shared::tidy().err().map(Failure::from));
    failures
}

/// Makes the firewall entries of an attachment again that are not there any more. One that somebody is at work on is left to them.
fn repair<R: Resources>(host: &mut Host<'_>) -> Result<(), Failure> {
    let Some(mut log) = LockedFile::open_free(&path(host.owner(), host.plugin()))? else { return Ok(()) };
    let Some(record) = Record::<R>::parse(&log.read()?) else { return Ok(()) };
    for resource in kinds(&record.resources) {
        if !matches!(resource.role(), Role::Entries) {
            continue;
        }
        if let Err(missing) = resource.verify(host) {
            resource.ensure(host)?;
            let missing = Failure::from(missing);
            host.request().note(format!("GC: {} is repaired: {}", host.owner(), missing.message()));
        }
    }
    Ok(())
}

/// The attachments of a network and a plugin that have a record.
pub fn recorded(network: &NetworkName, plugin: &str) -> Result<Vec<Attachment>, StateError> {
    let directory = directory(network, plugin);
    let mut attachments = Vec::new();
    for container in state::names(&directory)? {
        let interfaces = state::names(&directory.join(&container))?;
        if interfaces.is_empty() {
            // Of a call that was killed. Whoever is making a record in it at this moment makes the directory again.
            state::prune(&directory.join(&container));
        }
        for ifname in interfaces {
            let names = (ContainerId::new(container.as_str()), LinkName::new(ifname));
            if let (Ok(container_id), Ok(ifname)) = names {
                attachments.push(Attachment { container_id, ifname });
            }
        }
    }
    // Of a call that was killed, or could not remove it.
    state::prune(&directory);
    Ok(attachments)
}

/// What the attachments of a network and a plugin are made of, of the kinds that are asked for. Records that cannot be read say nothing, and one
/// that somebody is at work on is left to them: what it says may not be there yet, or any more.
pub fn resources_of<R: Resources>(network: &NetworkName, plugin: &str) -> Result<Vec<R>, StateError> {
    let directory = directory(network, plugin);
    let mut resources = Vec::new();
    for container in state::names(&directory)? {
        for ifname in state::names(&directory.join(&container))? {
            let Some(mut log) = LockedFile::open_free(&directory.join(&container).join(ifname))? else {
                continue;
            };
            let record = Record::<R>::parse(&log.read()?);
            resources.extend(record.into_iter().flat_map(|record| record.resources));
        }
    }
    Ok(resources)
}

/// What the same plugin made for other interfaces of the same container, in whatever network: a setting of the whole namespace is theirs
/// too. Records that cannot be read say nothing.
pub(crate) fn siblings<R: Resources>(host: &Host<'_>) -> Vec<R> {
    let own = path(host.owner(), host.plugin());
    let networks = state::path(["attachments"]);
    let container = [host.plugin(), host.owner().container_id.as_str()];
    let mut resources = Vec::new();
    for network in state::names(&networks).unwrap_or_default() {
        let directory = networks.join(network).join(container[0]).join(container[1]);
        for ifname in state::names(&directory).unwrap_or_default() {
            let path = directory.join(ifname);
            let record = (path != own).then(|| std::fs::read(&path).ok()).flatten();
            let record = record.and_then(|bytes| Record::<R>::parse(&bytes));
            // Of a namespace that the container had before, nothing is left.
            let record = record.filter(|record| record.netns.is_some() && record.netns == host.netns_id());
            resources.extend(record.into_iter().flat_map(|record| record.resources));
        }
    }
    resources
}

/// Removes resources in reverse, past errors; but firewall entries after the rest, and leases last.
///
/// A transaction with deletions waits until what the plugin before this one has deleted is freed, a grace period; so does the deletion of a
/// link. The first wait goes by during the second; and where the last port of a bridge goes, and the bridge with it, there is one such wait for both. And
/// an address may be given to somebody else as soon as its lease is gone, so nothing may use it any more.
fn remove(host: &mut Host<'_>, netns: Option<NetnsId>, resources: &[&dyn Lifecycle]) -> Vec<Failure> {
    let work = |host: &mut Host<'_>| {
        let (mut objects, mut entries, mut leases) = (Vec::new(), Vec::new(), Vec::new());
        for resource in resources.iter().rev() {
            match resource.role() {
                Role::Entries => entries.push(*resource),
                Role::Lease(_) => leases.push(*resource),
                _ => objects.push(*resource),
            }
        }
        let (mut failures, stays) = if objects.iter().any(|resource| resource.goes_with_its_port(host)) {
            let ((mut failures, stays), deleted) = host.together(|host| remove_each(host, &objects));
            let stays = stays || deleted.is_err();
            failures.extend(deleted.err().map(Failure::from));
            (failures, stays)
        } else {
            remove_each(host, &objects)
        };
        failures.extend(remove_each(host, &entries).0);
        // What still has the address keeps it. The record stays, too, and the next DEL comes to both.
        if !stays {
            failures.extend(remove_each(host, &leases).0);
        }
        failures
    };
    // A path that names another namespace now (PID reuse) is not the container this record is about.
    if netns.is_some() && netns != host.netns_id() { host.without_container(work) } else { work(host) }
}

/// Removes resources in order, past errors. Whether a port is still there.
fn remove_each(host: &mut Host<'_>, resources: &[&dyn Lifecycle]) -> (Vec<Failure>, bool) {
    let mut failures = Vec::new();
    let mut plugged_in = false;
    for resource in resources {
        if plugged_in && matches!(resource.role(), Role::Shared) {
            // With a port that is not gone, it would be taken for one that somebody else uses, and be forgotten. The record stays, so
            // the next DEL comes to it.
            continue;
        }
        if let Err(error) = resource.remove(host) {
            plugged_in |= matches!(resource.role(), Role::Port);
            failures.push(Failure::from(error));
        }
    }
    (failures, plugged_in)
}

#[cfg(test)]
mod tests;
