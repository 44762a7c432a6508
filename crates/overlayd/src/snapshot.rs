//! The last known good view on disk: what a node that comes up while its source is away works from.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cni::NetworkName;
use ferrule_core::state::replace;
use ferrule_overlay::{Family, Listed, NodeRecord, Vni, source};
use serde_json::{Value, json};
use tracing::warn;

use crate::error::Error;

/// Where snapshots are unless told otherwise. They have to survive a reboot, unlike everything else.
pub const DIRECTORY: &str = "/var/lib/ferrule/overlay";

/// This node's record and everybody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// This node.
    pub node: NodeRecord,
    /// The others.
    pub peers: Vec<NodeRecord>,
    /// The family that carries the tunnels, where the nodes have agreed on it.
    pub transport: Option<Family>,
}

impl Snapshot {
    /// Where that of a network is.
    pub fn path(directory: &Path, network: &NetworkName) -> PathBuf {
        directory.join(format!("{network}.snapshot.json"))
    }

    /// Reads it. One that can't be read is as good as none, and is told about: the source will give another.
    pub fn read(directory: &Path, network: &NetworkName, vni: Vni) -> Option<Self> {
        let path = Self::path(directory, network);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %path.display(), %error, "can't read the snapshot; waiting for the source");
                return None;
            }
        };
        let parsed = Self::parse(&bytes, &path.display().to_string(), vni);
        parsed.unwrap_or_else(|error| {
            warn!(path = %path.display(), %error, "the snapshot is damaged; waiting for the source");
            None
        })
    }

    fn parse(bytes: &[u8], path: &str, vni: Vni) -> Result<Option<Self>, ferrule_overlay::Error> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            let reason = ferrule_overlay::Reason::Json { error };
            ferrule_overlay::Invalid::new(path, format!("{} bytes", bytes.len()), reason)
        })?;
        // Of another network that had this name before.
        if value["vni"] != json!(vni) {
            return Ok(None);
        }
        let port = ferrule_overlay::Port::default();
        let node = NodeRecord::from_value(&value["node"], &format!("{path}: node"))?;
        let peers = source::peers(&value["peers"], &format!("{path}: peers"), vni, port)?;
        let peers = peers.into_iter().map(|listed| listed.record).collect();
        let transport = serde_json::from_value(value["transport"].clone()).ok();
        Ok(Some(Self { node, peers, transport }))
    }

    /// Writes it, in one step and to the disk.
    pub fn write(&self, directory: &Path, network: &NetworkName, vni: Vni) -> Result<(), Error> {
        let content =
            json!({"vni": vni, "node": self.node, "peers": self.peers, "transport": self.transport});
        let written = replace(&Self::path(directory, network), content.to_string().as_bytes());
        Ok(written.map_err(ferrule_overlay::Error::from)?)
    }

    /// Removes it; that there is none is no error.
    pub fn remove(directory: &Path, network: &NetworkName) -> Result<(), Error> {
        let path = Self::path(directory, network);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(Error::File { operation: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// All its records, as a source lists them.
    pub fn listed(&self) -> Vec<Listed> {
        let place = "snapshot";
        let listed = |record: &NodeRecord| Listed {
            path: format!("{place}: {}", record.node),
            record: record.clone(),
        };
        std::iter::once(&self.node).chain(&self.peers).map(listed).collect()
    }
}
