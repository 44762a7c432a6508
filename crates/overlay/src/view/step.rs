//! A view that differs from another in one node.

use std::net::IpAddr;

use cni::Cidr;

use super::{Screen, View, check_own};
use crate::mac;
use crate::names::NodeId;
use crate::node::{Listed, NodeRecord};

/// What a node was in a view, and what it is now: all that two views differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `None` for a node that joins.
    pub before: Option<NodeRecord>,
    /// `None` for a node that leaves.
    pub after: Option<NodeRecord>,
}

impl View {
    /// Takes a peer in, puts another record in its place, or leaves it out, where nothing else follows from that; the view is then what
    /// [`View::screened`] makes of all nodes. `None`, and the view as it was, where something else does, or may: then it has to be made of all of them.
    ///
    /// Only for a view that nobody was refused for, and whose underlay carries what it did. What others are refused for may end with any change.
    pub fn step(&mut self, node: &NodeId, after: Option<&Listed>) -> Option<Step> {
        if *node == self.node.node {
            return None;
        }
        let place = self.peers.binary_search_by(|peer| peer.node.cmp(node));
        let before = place.ok().and_then(|place| self.peers.get(place)).cloned();
        if self.settings.transport.is_none() && self.may_change_transport(after) {
            return None;
        }
        if let Some(listed) = after {
            self.screen_one(node, listed)?;
        }
        match (place, after) {
            (Ok(place), Some(listed)) => *self.peers.get_mut(place)? = listed.record.clone(),
            (Err(place), Some(listed)) => {
                self.peers.insert(place, listed.record.clone());
                self.macs.insert(place, mac::vtep(&self.settings.network, node));
            }
            (Ok(place), None) => {
                self.peers.remove(place);
                self.macs.remove(place);
            }
            (Err(_), None) => {}
        }
        Some(Step { before, after: after.map(|listed| listed.record.clone()) })
    }

    /// Tunnels go by IPv4 where every node has it.
    fn may_change_transport(&self, after: Option<&Listed>) -> bool {
        !self.family().is_ipv4() || after.is_some_and(|listed| listed.record.underlay4.is_none())
    }

    /// Succeeds if a record can be, and claims nothing that another node has.
    fn screen_one(&self, node: &NodeId, listed: &Listed) -> Option<()> {
        let record = &listed.record;
        let mac = Screen::new(&self.settings, self.family()).admit(listed).ok()?;
        let claims_the_same = |other: &NodeRecord| {
            let overlaps = |block: &Cidr| record.blocks.iter().any(|own| own.overlaps(block));
            let within = |end: IpAddr, blocks: &[Cidr]| blocks.iter().any(|block| block.contains(end));
            other.underlays().any(|address| record.underlays().any(|own| own == address))
                || other.underlays().any(|address| within(address, &record.blocks))
                || record.underlays().any(|address| within(address, &other.blocks))
                || other.blocks.iter().any(overlaps)
        };
        let others = || self.peers_and_macs().filter(|(other, _)| other.node != *node);
        if record.node != *node
            || claims_the_same(&self.node)
            || mac == self.mac()
            || others().any(|(other, other_mac)| other_mac == mac || claims_the_same(other))
        {
            return None;
        }
        let all = others().map(|(other, _)| other).chain([record]);
        check_own(&self.settings, "", &self.node, all).ok()
    }
}
