//! A file that tells the Go suite's `tuning` plugin what to restore.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cni::{LinkName, json};
use serde::{Deserialize, Serialize};

use super::{Lifecycle, LinkProperty, Setting};
use crate::error::Error;
use crate::host::Host;
use crate::owner::Owner;
use crate::state::{self, StateError};

/// What properties of the container's interface were before they were changed, in the file and the format in which the Go suite's
/// `tuning` plugin keeps it: a DEL by that plugin restores them, as ours does from its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// The directory of such files.
    pub directory: PathBuf,
    /// The interface in the container.
    pub link: LinkName,
    /// The properties; their values are those before once they have been looked at.
    pub properties: Vec<LinkProperty>,
}

/// Far beyond any such file, in bytes.
const LIMIT: u64 = 64 << 10;

/// The format.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Content {
    #[serde(skip_serializing_if = "String::is_empty")]
    mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    promisc: Option<bool>,
    #[serde(skip_serializing_if = "is_zero")]
    mtu: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    allmulti: Option<bool>,
    #[serde(rename = "txQLen", skip_serializing_if = "Option::is_none")]
    tx_queue_len: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Content {
    fn of(properties: &[LinkProperty]) -> Self {
        let mut content = Self::default();
        for property in properties {
            match *property {
                LinkProperty::Mac(mac) => content.mac = mac.to_string(),
                LinkProperty::Mtu(mtu) => content.mtu = mtu,
                LinkProperty::Promiscuous(on) => content.promisc = Some(on),
                LinkProperty::AllMulticast(on) => content.allmulti = Some(on),
                LinkProperty::TxQueueLength(length) => content.tx_queue_len = Some(length),
                // Not in the format.
                LinkProperty::Up(_) => {}
            }
        }
        content
    }

    fn properties(&self) -> Vec<LinkProperty> {
        let mtu = Some(self.mtu).filter(|mtu| *mtu != 0);
        [
            self.mac.parse().ok().map(LinkProperty::Mac),
            mtu.map(LinkProperty::Mtu),
            self.promisc.map(LinkProperty::Promiscuous),
            self.allmulti.map(LinkProperty::AllMulticast),
            self.tx_queue_len.map(LinkProperty::TxQueueLength),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn path(directory: &Path, owner: &Owner) -> PathBuf {
    directory.join(format!("{}_{}.json", owner.container_id, owner.ifname))
}

impl Backup {
    /// What is to be removed, in reverse, to restore what a file of this owner says; nothing where there is none. A file that can't be
    /// read says nothing, and is to be removed too.
    pub fn find<R: From<Self> + From<Setting>>(directory: &Path, host: &Host<'_>) -> Vec<R> {
        // In a directory that others can write, it may be a link, or something that never ends.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
        let mut bytes = Vec::new();
        let read = options.open(path(directory, host.owner()));
        if read.and_then(|file| file.take(LIMIT).read_to_end(&mut bytes)).is_err() {
            return Vec::new();
        }
        let content: Content =
            json::parse(&bytes).ok().and_then(|value| json::decode(&value).ok()).unwrap_or_default();
        let link = host.owner().ifname.clone();
        let properties = content.properties();
        let settings = properties.iter().map(|property| {
            Setting { link: link.clone(), wanted: *property, before: Some(*property) }.into()
        });
        let mut resources: Vec<R> = settings.collect();
        resources.insert(0, Self { directory: directory.to_owned(), link, properties }.into());
        resources
    }
}

impl Lifecycle for Backup {
    fn observe(&mut self, host: &mut Host<'_>) -> Result<(), Error> {
        let link = host.need_container_link(&self.link)?;
        for property in &mut self.properties {
            *property = property.of(&link);
        }
        Ok(())
    }

    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        state::make_directory(&self.directory)?;
        let path = path(&self.directory, host.owner());
        let bytes = serde_json::to_vec(&Content::of(&self.properties))
            .map_err(|source| StateError::file("write", &path)(source.into()))?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(&path)
            .and_then(|mut file| file.write_all(&bytes))
            .map_err(StateError::file("write", &path))?;
        Ok(())
    }

    /// The file is for another suite's DEL; the attachment is as it should be without it.
    fn verify(&self, _: &mut Host<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let path = path(&self.directory, host.owner());
        match fs::remove_file(&path) {
            Err(error) if !state::missing(&error) => Err(StateError::file("remove", &path)(error).into()),
            _ => Ok(()),
        }
    }
}
