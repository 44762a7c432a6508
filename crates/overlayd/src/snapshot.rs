//! The last known nodes on disk: what a node that comes up while its source is away works from. Once they are written, what changes is added.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cni::NetworkName;
use ferrule_overlay::{Family, Listed, NodeId, NodeRecord, Vni, ledger};
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
    pub peers: Vec<Listed>,
    /// The family that carries the tunnels, where the nodes have agreed on it.
    pub transport: Option<Family>,
}

impl Snapshot {
    /// Where that of a network is.
    pub fn path(directory: &Path, network: &NetworkName) -> PathBuf {
        directory.join(format!("{network}.snapshot.jsonl"))
    }

    /// Reads it. One that can't be read is as good as none, and is told about: the source will give another.
    pub fn read(directory: &Path, network: &NetworkName, vni: Vni) -> Option<Self> {
        let path = Self::path(directory, network);
        if !path.exists() {
            return None;
        }
        Self::parse(&path, vni).unwrap_or_else(|error| {
            warn!(path = %path.display(), %error, "the snapshot is damaged; waiting for the source");
            None
        })
    }

    fn parse(path: &Path, vni: Vni) -> Result<Option<Self>, ferrule_overlay::Error> {
        let (head, peers) = ledger::read(path, true)?;
        // Of another network that had this name before.
        if head["vni"] != json!(vni) {
            return Ok(None);
        }
        let node = NodeRecord::from_value(&head["node"], &format!("{}: node", path.display()))?;
        let transport = serde_json::from_value(head["transport"].clone()).ok();
        Ok(Some(Self { node, peers, transport }))
    }

    /// The line before the others: what there is but them.
    pub fn head(vni: Vni, node: &NodeRecord, transport: Option<Family>) -> Value {
        json!({"vni": vni, "node": node, "transport": transport})
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
        let own = Listed { path: format!("snapshot: {}", self.node.node), record: self.node.clone() };
        std::iter::once(own).chain(self.peers.iter().cloned()).collect()
    }
}

/// What of the nodes is not on disk yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Unwritten {
    /// Nothing.
    #[default]
    Nothing,
    /// What has become of these.
    Nodes(Vec<NodeId>),
    /// All of it, or nobody knows what.
    All,
}

impl Unwritten {
    /// One more node.
    pub(crate) fn add(&mut self, node: NodeId) {
        match self {
            Self::Nothing => *self = Self::Nodes(vec![node]),
            Self::Nodes(nodes) => nodes.push(node),
            Self::All => {}
        }
    }
}
