//! What one node changes, made so without a look at all others.

use std::collections::{BTreeMap, BTreeSet};

use ferrule_core::netlink::Change;
use ferrule_overlay::{Listed, NodeId, Purge, State, Step, View, occupied};
use tokio::time::Instant;
use tracing::{debug, info};

use super::Agent;
use crate::error::{Error, chain};
use crate::kernel;
use crate::notify::{Noticed, Notifications};
use crate::status::joined;

/// Of more nodes than this at once, everything is composed anew, which costs what some tens of them cost.
const FEW: usize = 16;

impl Agent {
    /// Takes note of a node that joins, leaves or is another.
    pub(super) fn note_step(&mut self, node: NodeId) {
        self.stepped.insert(node);
        self.compose_at = Some(Instant::now());
    }

    /// Takes note of a list that an operator has written, where it differs from the last good one in a few nodes. `false` where it has to be looked at as a
    /// whole.
    pub(super) fn note_list(&mut self, listed: &[Listed]) -> bool {
        let known = self.written.as_deref().filter(|_| !self.cause.told && self.is_steady());
        let Some(differences) = known.and_then(|known| few_differences(known, listed)) else { return false };
        for (node, after) in differences {
            match after {
                Some(listed) => self.membership.upsert(listed),
                None => self.membership.delete(&node),
            };
            self.note_step(node);
        }
        true
    }

    /// Makes it so what the source has told: the nodes it has told of, or everything where that is not all that may have changed.
    pub(super) fn advance(&mut self, notifications: &mut Notifications) {
        if self.cause.told || self.stepped.is_empty() || self.stepped.len() > FEW || !self.is_steady() {
            self.compose();
            return;
        }
        self.compose_at = None;
        while let Some(node) = self.stepped.pop_first() {
            match self.step(&node, notifications) {
                Ok(true) => {}
                Ok(false) => {
                    self.stepped.insert(node);
                    self.compose();
                    return;
                }
                Err(error) => {
                    debug!(%node, error = %chain(&error), "can't take one node by itself; comparing everything");
                    self.cause.expected = true;
                    self.check();
                }
            }
        }
        self.settled();
    }

    /// Whether what is known is believed and made so, for all nodes.
    fn is_steady(&self) -> bool {
        !self.cause.expected
            && !self.report.is_troubled()
            && !self.report.is_misfit()
            && !self.report.has_refused()
            && self.membership.purge() == Purge::Confirmed
    }

    /// Makes it so what a node has become. `false` where everything has to be composed anew.
    fn step(&mut self, node: &NodeId, notifications: &mut Notifications) -> Result<bool, Error> {
        let Some(live) = &mut self.live else { return Ok(false) };
        let after = self.membership.get(node);
        if !kernel::carries_the_same(live.view().underlay(), after)? {
            return Ok(false);
        }
        if let Some(listed) = after {
            let settings = live.view().settings();
            let own = kernel::own_addresses(settings)?;
            let own_name = &live.view().node().node;
            if !occupied(settings, std::slice::from_ref(listed), own_name, &own)?.is_empty() {
                return Ok(false);
            }
        }
        // What has come so far is none of this.
        let before = notifications.drain(self.scope, &[], 0);
        let network = live.view().settings().network.clone();
        let stepped = State::locked(&network, || live.step(node, after));
        // What is told of one's own changes is no news, and all of it is there when they are made.
        let (changes, transactions): (&[Change], usize) = match &stepped {
            Ok(Some(stepped)) => (&stepped.changes, stepped.transactions),
            _ => (&[], 0),
        };
        let after = notifications.drain(self.scope, changes, transactions);
        for noticed in [before, after] {
            let noticed = noticed.map_err(Error::system("listen to the kernel's notifications"))?;
            if noticed != Noticed::default() {
                self.notice(noticed);
            }
        }
        let Some(stepped) = stepped? else { return Ok(false) };
        log(&stepped.step);
        // What is masqueraded may follow from all blocks.
        self.untold = true;
        self.unwritten.add(node.clone());
        Ok(true)
    }

    /// Logs what differs between the view and the next one.
    pub(super) fn log_difference<'v>(&'v self, view: &'v View) {
        let Some(before) = self.view() else {
            info!(node = %view.node().node, blocks = %joined(&view.node().blocks), underlay = %view.underlay().address, mtu = view.mtu(), peers = view.peers().len(), "this node's view");
            return;
        };
        if before.underlay() != view.underlay() {
            info!(from = %before.underlay().address, to = %view.underlay().address, mtu = view.mtu(), "the underlay has changed");
        }
        let names =
            |view: &'v View| view.peers().iter().map(|peer| peer.node.as_str()).collect::<BTreeSet<&str>>();
        let (old, new) = (names(before), names(view));
        for peer in new.difference(&old).take(20) {
            info!(%peer, "joined");
        }
        for peer in old.difference(&new).take(20) {
            info!(%peer, "left");
        }
    }
}

/// The nodes that two lists differ in, with what they are in the second; `None` if there are many of them, if many are missing, or if a list has a node
/// twice.
fn few_differences<'l>(before: &'l [Listed], after: &'l [Listed]) -> Option<Vec<(NodeId, Option<Listed>)>> {
    let by_name = |listed: &'l [Listed]| -> Option<BTreeMap<&'l NodeId, &'l Listed>> {
        let nodes: BTreeMap<_, _> = listed.iter().map(|listed| (&listed.record.node, listed)).collect();
        (nodes.len() == listed.len()).then_some(nodes)
    };
    let (old, new) = (by_name(before)?, by_name(after)?);
    let changed =
        new.iter().filter(|(node, listed)| old.get(*node).is_none_or(|known| known.record != listed.record));
    let gone: Vec<&NodeId> = old.keys().filter(|node| !new.contains_key(*node)).copied().collect();
    if gone.len() * 4 > old.len() {
        return None;
    }
    let differences: Vec<(NodeId, Option<Listed>)> = changed
        .map(|(node, listed)| ((*node).clone(), Some((*listed).clone())))
        .chain(gone.into_iter().map(|node| (node.clone(), None)))
        .collect();
    (differences.len() <= FEW).then_some(differences)
}

fn log(step: &Step) {
    match (&step.before, &step.after) {
        (None, Some(peer)) => info!(peer = %peer.node, "joined"),
        (Some(peer), None) => info!(peer = %peer.node, "left"),
        _ => {}
    }
}
