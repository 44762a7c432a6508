//! A network that this host keeps, so that what one node changes costs what one node has.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrule_core::netlink::{Change, Tables};

use crate::desired::Desired;
use crate::diff::diff;
use crate::error::Error;
use crate::names::NodeId;
use crate::node::{Listed, NodeRecord};
use crate::program::{Purge, Report, Seen, apply, bring_about, guard_of, look, look_at_ports, senders};
use crate::view::{Step, View};

/// A view, what the kernel should have for it, and what a difference has to know of what it has.
#[derive(Debug)]
pub struct Live {
    view: View,
    desired: Desired,
    senders: BTreeSet<IpAddr>,
    /// `None` until the kernel was as it should be, and after something failed.
    seen: Option<Seen>,
}

/// What a change of one node has changed.
#[derive(Debug)]
pub struct Stepped {
    /// The node.
    pub step: Step,
    /// The changes of forwarding tables, in order.
    pub changes: Vec<Change>,
    /// How many transactions of the firewall there were.
    pub transactions: usize,
}

impl Live {
    /// Works out what the kernel should have. Nothing has been looked at yet.
    pub fn new(view: View) -> Self {
        Self { desired: Desired::of(&view), senders: senders(&view), view, seen: None }
    }

    /// The network as this node sees it.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// As [`program`](crate::program).
    pub fn program(&mut self, purge: Purge) -> Result<Report, Error> {
        self.seen = None;
        let (report, seen) = bring_about(&self.view, &self.desired, &self.senders, purge)?;
        self.seen = Some(seen);
        Ok(report)
    }

    /// As [`survey`](crate::survey).
    pub fn survey(&mut self) -> Result<usize, Error> {
        self.seen = None;
        let (surplus, seen) = look(&self.view, &self.desired, &self.senders)?;
        look_at_ports(&self.view, &seen.links)?;
        self.seen = Some(seen);
        Ok(surplus)
    }

    /// Takes one node's change into the view and makes it so, without a look at the others. `None` where that can't be ([`View::step`]), or where
    /// nobody knows how the kernel is: then nothing has changed. What somebody has altered meanwhile is for the next comparison to find.
    ///
    /// # Errors
    /// The view has changed, and the kernel may have in part: it has to be programmed as a whole.
    pub fn step(&mut self, node: &NodeId, after: Option<&Listed>) -> Result<Option<Stepped>, Error> {
        let Some(mut seen) = self.seen.take() else { return Ok(None) };
        let Some(step) = self.view.step(node, after) else {
            self.seen = Some(seen);
            return Ok(None);
        };
        let part = |record: &Option<NodeRecord>| {
            record.as_ref().map(|record| Desired::of_peer(&self.view, record)).unwrap_or_default()
        };
        let (before, after) = (part(&step.before), part(&step.after));
        let changes = diff(&after, &seen.nexthops.actual_of(&before, &seen.links), &seen.links);
        self.desired.subtract(&before);
        self.desired.extend(after);
        let sender = |record: &Option<NodeRecord>| record.as_ref()?.underlay(self.view.family());
        let (out, into) = (sender(&step.before), sender(&step.after));
        let (expelled, admitted): (Vec<IpAddr>, Vec<IpAddr>) = if out == into {
            Default::default()
        } else {
            (out.into_iter().collect(), into.into_iter().collect())
        };
        self.senders.retain(|sender| !expelled.contains(sender));
        self.senders.extend(&admitted);

        let guard = guard_of(&self.view);
        let mut transactions = 0;
        let mut change = |admitted: &[IpAddr], expelled: &[IpAddr]| -> Result<(), Error> {
            if let Some(guard) = guard.as_ref().filter(|_| !(admitted.is_empty() && expelled.is_empty())) {
                guard.change(admitted, expelled).map_err(ferrule_core::Error::from)?;
                transactions += 1;
            }
            Ok(())
        };
        // Who may send is settled before anybody can.
        change(&admitted, &[])?;
        apply(&mut Tables::open()?, &changes, Purge::Confirmed)?;
        change(&[], &expelled)?;
        let changes = [changes.set, changes.remove].concat();
        seen.nexthops.learn(&changes);
        self.seen = Some(seen);
        Ok(Some(Stepped { step, changes, transactions }))
    }
}
