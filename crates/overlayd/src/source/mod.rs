//! Where the nodes of a network are known from: one trait, and the engines behind it.
//!
//! A source runs as tasks of its own and tells what it learns through a channel; the agent never waits for a server. That nothing is known,
//! or that what is known is old, is an event like any other: it changes nothing in the kernel.

use std::fmt;
use std::net::IpAddr;

use cni::Cidr;
use ferrule_overlay::{Family, Invalid, Listed, NodeId, NodeRecord, Port, Vni};
use futures::future::BoxFuture;
use tokio::sync::mpsc::Receiver;

use crate::error::Error;

#[cfg(feature = "etcd")]
pub mod etcd;
mod file;

pub use file::FileSource;

/// How many events wait for the agent; a source that is faster is slowed down.
pub(crate) const QUEUE: usize = 1024;

/// What a source tells.
#[derive(Debug)]
pub enum Event {
    /// The complete list of nodes.
    Snapshot(Vec<Listed>),
    /// A node that is new or has changed.
    Upsert(Box<Listed>),
    /// A node that has left.
    Delete(NodeId),
    /// The family that carries the tunnels, as the nodes have agreed.
    Agreed(Family),
    /// This node's own record, as others see it from now on.
    Published(Box<NodeRecord>),
    /// A record that can't be read. The others count.
    Refused(Box<Invalid>),
    /// What has been told so far is the present again, and nothing has changed.
    Resumed,
    /// What has been told so far may be out of date; what was known stays.
    Stale {
        /// Why, in a sentence.
        reason: String,
    },
}

/// What a node tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Its name.
    pub node: NodeId,
    /// Where it is reached.
    pub underlay: Vec<IpAddr>,
    /// The port it listens on.
    pub port: Port,
    /// The network identifier.
    pub vni: Vni,
    /// The blocks it had when it was here last.
    pub blocks: Vec<Cidr>,
}

/// A source of nodes.
pub trait Source: fmt::Debug + Send {
    /// What it is, for people: `file /etc/ferrule/blue.json`.
    fn describe(&self) -> String;

    /// Begins to tell. To be called once. `known` is how many nodes are known from before: with many, the first list can wait a moment, so
    /// that a thousand nodes that start together do not ask together.
    fn watch(&mut self, known: usize) -> Receiver<Event>;

    /// Says, now and whenever this changes, how this node is reached; where the source hands out blocks, it gets one.
    /// [`Event::Published`] tells the outcome. Does nothing where an operator writes the list.
    fn publish(&self, presence: Presence);

    /// Asks for another complete list.
    fn relist(&self);

    /// Takes this node's record and blocks back.
    fn withdraw(&self, node: NodeId) -> BoxFuture<'_, Result<(), Error>>;

    /// Whether an operator writes the list. Then it is right as a whole or not at all, and names this node's blocks.
    fn is_written_by_hand(&self) -> bool;
}
