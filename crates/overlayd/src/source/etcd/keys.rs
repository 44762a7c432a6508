//! Where everything is in etcd.
//!
//! ```text
//! PREFIX/NETWORK/network       what all nodes have to agree on
//! PREFIX/NETWORK/nodes/NODE    a node's record: the only keys that every agent watches
//! PREFIX/NETWORK/blocks/CIDR   whose a block is; `/` is written `-`. Under a lease while a block that was given back rests
//! PREFIX/NETWORK/alive/NODE    which agent it is that has the node's name, under its lease
//! PREFIX/NETWORK/cleaner/...   etcd's election of the one agent that removes nodes which have been silent for long
//! ```
//!
//! Records have no lease: were they to expire, every agent would take away what works, because of a server's bad minute.

use cni::{Cidr, NetworkName};
use ferrule_overlay::NodeId;

/// The keys of a network.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    base: String,
}

impl Keys {
    pub(super) fn new(prefix: &str, network: &NetworkName) -> Self {
        Self { base: format!("{prefix}/{network}") }
    }

    pub(super) fn network(&self) -> String {
        format!("{}/network", self.base)
    }

    pub(super) fn nodes(&self) -> String {
        format!("{}/nodes/", self.base)
    }

    pub(super) fn node(&self, node: &NodeId) -> String {
        format!("{}{node}", self.nodes())
    }

    pub(super) fn blocks(&self) -> String {
        format!("{}/blocks/", self.base)
    }

    pub(super) fn block(&self, block: &Cidr) -> String {
        format!("{}{}", self.blocks(), block.to_string().replace('/', "-"))
    }

    pub(super) fn living(&self) -> String {
        format!("{}/alive/", self.base)
    }

    pub(super) fn alive(&self, node: &NodeId) -> String {
        format!("{}{node}", self.living())
    }

    pub(super) fn cleaner(&self) -> String {
        format!("{}/cleaner", self.base)
    }
}

/// The node whose key this is, below `directory`.
pub(super) fn node_of(key: &[u8], directory: &str) -> Option<NodeId> {
    let name = std::str::from_utf8(key).ok()?.strip_prefix(directory)?;
    NodeId::new(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_what_they_are_for() {
        let keys = Keys::new("/ferrule", &NetworkName::new("blue").unwrap());
        let node = NodeId::new("a").unwrap();
        assert_eq!(keys.node(&node), "/ferrule/blue/nodes/a");
        assert_eq!(keys.block(&"fd00:40::/64".parse().unwrap()), "/ferrule/blue/blocks/fd00:40::-64");
        assert_eq!(node_of(b"/ferrule/blue/nodes/a", &keys.nodes()), Some(node));
        assert_eq!(node_of(b"/ferrule/green/nodes/a", &keys.nodes()), None);
    }
}
