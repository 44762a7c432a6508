//! What a GC may take: what belongs to attachments of its network that the runtime does not list and that have no record.
//!
//! What has a record is the record's to remove, under its lock. So an attachment that is being made beside a GC is left alone by
//! everything that looks for objects by their marks: it would lose some of them, and the registers that tell its DEL of the others.

use std::collections::BTreeSet;

use cni::{Attachment, ContainerId, NetworkName, ValidAttachments};

use super::{directory, path, recorded};
use crate::owner::Owner;
use crate::state::{self, LockedFile, StateError};

/// A GC of one plugin's objects in one network.
///
/// Its questions are to be asked after the object in question was seen: a record is written before what it speaks of is made, and removed
/// after, so whatever was there and has no record now belongs to nobody.
#[derive(Debug)]
pub struct Collection<'a> {
    network: &'a NetworkName,
    plugin: &'static str,
    valid: &'a ValidAttachments,
    kept: BTreeSet<String>,
}

impl<'a> Collection<'a> {
    /// The collection of what a plugin made in a network for attachments that are not `valid`.
    pub fn new(network: &'a NetworkName, plugin: &'static str, valid: &'a ValidAttachments) -> Self {
        Self { network, plugin, valid, kept: Owner::tags(network, valid) }
    }

    /// The network.
    pub fn network(&self) -> &'a NetworkName {
        self.network
    }

    /// The plugin.
    pub fn plugin(&self) -> &'static str {
        self.plugin
    }

    /// The attachments that the runtime lists.
    pub fn valid(&self) -> &'a ValidAttachments {
        self.valid
    }

    /// Whether the runtime lists an attachment of the network.
    pub fn lists(&self, attachment: &Attachment) -> bool {
        self.valid.contains(attachment.container_id.as_str(), attachment.ifname.as_str())
    }

    /// Whether the tag of an object that was seen is that of an attachment of the network which is gone.
    pub fn is_stale(&self, tag: &str) -> bool {
        Owner::tag_is_of_network(tag, self.network) && !self.kept.contains(tag) && !self.is_recorded(tag)
    }

    fn is_recorded(&self, tag: &str) -> bool {
        match Owner::from_tag(tag) {
            Some(owner) => path(&owner, self.plugin).exists(),
            // Of a long name it has a hash only.
            None => recorded(self.network, self.plugin).is_ok_and(|attachments| {
                attachments.iter().any(|attachment| Owner::new(self.network, attachment).tag() == tag)
            }),
        }
    }

    /// Whether no interface of a container is listed or has a record: for objects that do not tell the interface.
    pub fn is_stale_container(&self, container_id: &str) -> bool {
        let records = |id: ContainerId| state::names(&directory(self.network, self.plugin).join(id.as_str()));
        !self.valid.contains_container(container_id)
            && ContainerId::new(container_id)
                .map(records)
                .is_ok_and(|names| names.is_ok_and(|names| names.is_empty()))
    }

    /// Does something about an attachment that is not listed, unless it has a record; it gets none meanwhile.
    pub(crate) fn if_unrecorded<E: From<StateError>>(
        &self,
        owner: &Owner,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let path = path(owner, self.plugin);
        if self.kept.contains(&owner.tag()) || path.exists() {
            return Ok(());
        }
        let record = LockedFile::create(&path)?;
        if !record.is_empty() {
            return Ok(());
        }
        let done = work();
        record.remove()?;
        done
    }
}
