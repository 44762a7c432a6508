//! Who is in the network, as the source has told so far, and how far that is to be believed.

use std::collections::{BTreeMap, BTreeSet};

use ferrule_overlay::{Listed, NodeId, Purge};

use crate::status::Moment;

/// How far an absence from the list is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trust {
    /// There was no list from the source yet, at most one from disk: nothing is taken away.
    None,
    /// There was one list. It may take away a little, not almost everything.
    Once,
    /// A list that would have taken away almost everything has been kept from doing so; these were its nodes. The same again is believed.
    Suspended(BTreeSet<NodeId>),
    /// As it is.
    Full,
}

/// The nodes of a network.
#[derive(Debug)]
pub struct Membership {
    nodes: BTreeMap<NodeId, (Listed, Moment)>,
    trust: Trust,
}

impl Default for Membership {
    fn default() -> Self {
        Self { nodes: BTreeMap::new(), trust: Trust::None }
    }
}

impl Membership {
    /// Nodes as they were when last heard of.
    pub fn remembered(listed: Vec<Listed>) -> Self {
        let mut membership = Self::default();
        membership.replace(listed);
        membership
    }

    /// A complete list. Two records of one node stay two: which is right is not decided here.
    pub fn list(&mut self, listed: Vec<Listed>) {
        let names: BTreeSet<NodeId> = listed.iter().map(|listed| listed.record.node.clone()).collect();
        self.trust = match &self.trust {
            Trust::Suspended(before) if *before == names => Trust::Full,
            // A list that takes nothing away is as good as one that has been confirmed.
            _ => Trust::Once,
        };
        self.replace(listed);
    }

    fn replace(&mut self, listed: Vec<Listed>) {
        let now = Moment::now();
        let mut before = std::mem::take(&mut self.nodes);
        for listed in listed {
            let name = listed.record.node.clone();
            let since = match before.remove(&name) {
                Some((old, since)) if old.record == listed.record => since,
                _ => now,
            };
            self.nodes.insert(name, (listed, since));
        }
    }

    /// A node that is new or has changed. Says whether that is news.
    pub fn upsert(&mut self, listed: Listed) -> bool {
        let known = self.nodes.get(&listed.record.node);
        if known.is_some_and(|(known, _)| known.record == listed.record) {
            return false;
        }
        self.nodes.insert(listed.record.node.clone(), (listed, Moment::now()));
        true
    }

    /// A node that has left. Says whether that is news.
    pub fn delete(&mut self, node: &NodeId) -> bool {
        // One that is told to have left, rather than missing from a list, needs no second opinion.
        if self.trust == Trust::Once {
            self.trust = Trust::Full;
        }
        self.nodes.remove(node).is_some()
    }

    /// What the last application has kept from being taken away. Says whether another list is needed.
    pub fn withheld(&mut self, entries: usize) -> bool {
        match self.trust {
            Trust::None => false,
            _ if entries > 0 => {
                self.trust = Trust::Suspended(self.nodes.keys().cloned().collect());
                true
            }
            _ => {
                self.trust = Trust::Full;
                false
            }
        }
    }

    /// What may be taken away.
    pub fn purge(&self) -> Purge {
        match self.trust {
            Trust::None => Purge::Never,
            Trust::Once | Trust::Suspended(_) => Purge::Guarded,
            Trust::Full => Purge::Confirmed,
        }
    }

    /// Whether the source has given a list yet.
    pub fn is_listed(&self) -> bool {
        self.trust != Trust::None
    }

    /// All of them.
    pub fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.nodes.values().map(|(listed, _)| listed)
    }

    /// The record of a node.
    pub fn get(&self, node: &NodeId) -> Option<&Listed> {
        self.nodes.get(node).map(|(listed, _)| listed)
    }

    /// When the record of a node came or changed.
    pub fn since(&self, node: &NodeId) -> Moment {
        self.nodes.get(node).map(|(_, since)| *since).unwrap_or_default()
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use ferrule_overlay::{NodeRecord, Port, Vni};

    use super::*;

    fn nodes(names: &[&str]) -> Vec<Listed> {
        let node = |name: &&str| {
            let id = NodeId::new(*name).unwrap();
            let underlay = ["192.0.2.1".parse().unwrap()];
            let record = NodeRecord::new(id, &underlay, Port::VXLAN, &[Vni::new(1).unwrap()], &[]);
            Listed { path: (*name).to_owned(), record }
        };
        names.iter().map(node).collect()
    }

    #[test]
    fn nothing_goes_before_there_is_a_list() {
        let mut membership = Membership::remembered(nodes(&["a", "b"]));
        assert_eq!(membership.purge(), Purge::Never);
        assert!(!membership.withheld(7));
        assert_eq!(membership.purge(), Purge::Never);
    }

    #[test]
    fn a_drastic_list_is_believed_the_second_time() {
        let mut membership = Membership::default();
        membership.list(nodes(&["a", "b", "c"]));
        assert!(!membership.withheld(0));
        membership.list(nodes(&["a"]));
        assert_eq!(membership.purge(), Purge::Guarded);
        assert!(membership.withheld(9), "another list is asked for");
        assert_eq!(membership.purge(), Purge::Guarded);
        membership.list(nodes(&["a"]));
        assert_eq!(membership.purge(), Purge::Confirmed);
    }

    #[test]
    fn a_second_list_that_says_otherwise_confirms_nothing() {
        let mut membership = Membership::default();
        membership.list(nodes(&["a", "b", "c"]));
        membership.withheld(0);
        membership.list(nodes(&["a"]));
        membership.withheld(9);
        membership.list(nodes(&["a", "b"]));
        assert_eq!(membership.purge(), Purge::Guarded);
    }

    #[test]
    fn a_node_that_says_goodbye_is_believed_at_once() {
        let mut membership = Membership::default();
        membership.list(nodes(&["a", "b"]));
        membership.withheld(0);
        assert!(membership.delete(&NodeId::new("b").unwrap()));
        assert_eq!(membership.purge(), Purge::Confirmed);
    }

    #[test]
    fn what_has_not_changed_is_no_news() {
        let mut membership = Membership::default();
        membership.list(nodes(&["a"]));
        let since = membership.since(&NodeId::new("a").unwrap());
        assert!(!membership.upsert(nodes(&["a"]).remove(0)));
        membership.list(nodes(&["a"]));
        assert_eq!(membership.since(&NodeId::new("a").unwrap()), since);
    }
}
