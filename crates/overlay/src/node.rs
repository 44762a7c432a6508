//! The record of a node: what others must know of it, and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::{Cidr, json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Invalid, Reason};
use crate::names::{Family, NodeId, Port, Vni};

/// The version of the record's format.
pub const FORMAT: u32 = 1;

/// A node, in one form for all sources of peers: a file, etcd, a snapshot. Hardware addresses are not in it: they are computed
/// ([`crate::mac`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeRecord {
    /// The format: [`FORMAT`].
    v: u32,
    /// The node's name.
    pub node: NodeId,
    /// Of two records that claim the same, the one with the larger epoch is right.
    pub epoch: u64,
    /// Where IPv4 reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underlay4: Option<Ipv4Addr>,
    /// Where IPv6 reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underlay6: Option<Ipv6Addr>,
    /// The UDP port it listens on.
    pub port: Port,
    /// The networks it takes part in.
    pub vnis: Vec<Vni>,
    /// The blocks of addresses that are its own.
    pub blocks: Vec<Cidr>,
}

/// As it is read: what is missing is told by us, with its path.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wire {
    v: Option<u32>,
    node: Option<NodeId>,
    epoch: u64,
    underlay4: Option<Ipv4Addr>,
    underlay6: Option<Ipv6Addr>,
    port: Option<Port>,
    vnis: Vec<Vni>,
    blocks: Vec<Cidr>,
}

impl NodeRecord {
    /// A record in canonical form: sorted, each thing once, blocks without host bits.
    pub fn new(node: NodeId, underlay: &[IpAddr], port: Port, vnis: &[Vni], blocks: &[Cidr]) -> Self {
        let underlay4 = underlay.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        let underlay6 = underlay.iter().find_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(*v6),
        });
        let mut record = Self {
            v: FORMAT,
            node,
            epoch: 0,
            underlay4,
            underlay6,
            port,
            vnis: vnis.to_vec(),
            blocks: blocks.iter().map(Cidr::network).collect(),
        };
        record.canonicalise();
        record
    }

    /// The same record with another epoch.
    #[must_use]
    pub fn with_epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    fn canonicalise(&mut self) {
        self.vnis.sort_unstable();
        self.vnis.dedup();
        self.blocks.sort_unstable();
        self.blocks.dedup();
    }

    /// Reads a record. `path` is where it was found (`/ferrule/blue/nodes/a`), and begins the path of an error.
    pub fn from_json(bytes: &[u8], path: &str) -> Result<Self, Invalid> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            let start: String = String::from_utf8_lossy(bytes).chars().take(80).collect();
            Invalid::new(path, start, Reason::Json { error })
        })?;
        Self::from_value(&value, path)
    }

    /// As [`NodeRecord::from_json`], of what was parsed already.
    pub fn from_value(value: &Value, path: &str) -> Result<Self, Invalid> {
        let wire: Wire = json::decode(value).map_err(|error| Invalid::from_json(error, path))?;
        let missing = |key: &str| Invalid::new(&format!("{path}.{key}"), "null", Reason::Missing);
        match wire.v {
            Some(FORMAT) => {}
            None => return Err(missing("v")),
            Some(other) => {
                return Err(Invalid::new(&format!("{path}.v"), other, Reason::Format { known: FORMAT }));
            }
        }
        if wire.underlay4.is_none() && wire.underlay6.is_none() {
            return Err(missing("underlay4"));
        }
        let host_bits = wire.blocks.iter().enumerate().find(|(_, block)| block.network() != **block);
        if let Some((index, block)) = host_bits {
            let path = format!("{path}.blocks[{index}]");
            return Err(Invalid::new(&path, block, Reason::HostBits { network: block.network() }));
        }
        let mut record = Self {
            v: FORMAT,
            node: wire.node.ok_or_else(|| missing("node"))?,
            epoch: wire.epoch,
            underlay4: wire.underlay4,
            underlay6: wire.underlay6,
            port: wire.port.unwrap_or_default(),
            vnis: wire.vnis,
            blocks: wire.blocks,
        };
        record.canonicalise();
        Ok(record)
    }

    /// The record as it is published: the same bytes for the same content, so that what has not changed is not written again.
    pub fn to_json(&self) -> Vec<u8> {
        // A record has nothing that JSON can't express.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Where a family reaches the node.
    pub fn underlay(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => self.underlay4.map(IpAddr::V4),
            Family::Ipv6 => self.underlay6.map(IpAddr::V6),
        }
    }

    /// All addresses it is reached at.
    pub fn underlays(&self) -> impl Iterator<Item = IpAddr> {
        self.underlay4.map(IpAddr::V4).into_iter().chain(self.underlay6.map(IpAddr::V6))
    }

    /// Its blocks of one family.
    pub fn blocks_of(&self, family: Family) -> impl Iterator<Item = Cidr> {
        self.blocks.iter().filter(move |block| block.is_ipv4() == family.is_ipv4()).copied()
    }

    /// Its own address inside the overlay: the first of its first block, which no container is given. Peers route through it.
    pub fn tunnel_address(&self, family: Family) -> Option<IpAddr> {
        self.blocks_of(family).next().map(|block| block.address())
    }
}

/// A record and where it is written: what a source of peers gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Where: `peers[1]`, `/etc/ferrule/blue.json: [1]`, a key in etcd. Errors begin with it.
    pub path: String,
    /// What.
    pub record: NodeRecord,
}

#[cfg(test)]
mod tests;
