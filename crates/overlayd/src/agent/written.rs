//! What the agent writes down: for the plugin, and for its own next start.

use std::time::Duration;

use ferrule_overlay::{NodeId, NodeRecord, State, ledger};
use tokio::time::Instant;
use tracing::{error, info};

use super::Agent;
use crate::error::{Error, chain};
use crate::snapshot::{Snapshot, Unwritten};
use crate::systemd;

/// How long nodes wait to be written to disk after the last time: so long for each of them, and at most this.
const PERSIST_INTERVAL: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));
/// How many lines are added to a file before it is written anew, beside as many as it has nodes.
const SURPLUS: usize = 64;

impl Agent {
    /// Tells the plugin and the disk, once the kernel agrees.
    pub(super) fn settled(&mut self) {
        let Some(view) = self.view() else { return };
        let peers = view.peers().len();
        if self.untold {
            let state = State::of(view);
            let written = if self.state.as_ref() == Some(&state) { Ok(()) } else { state.write() };
            match written {
                Ok(()) => (self.state, self.untold) = (Some(state), false),
                Err(error) => self.report.trouble(chain(&error)),
            }
        }
        if self.persist_at.is_none() && self.unwritten != Unwritten::Nothing {
            let nodes = u32::try_from(peers).unwrap_or(u32::MAX);
            let interval = PERSIST_INTERVAL.0.saturating_mul(nodes).min(PERSIST_INTERVAL.1);
            let earliest = self.persisted.map_or_else(Instant::now, |last| last + interval);
            self.persist_at = Some(earliest);
        }
        if !self.ready && self.state.is_some() {
            self.ready = true;
            systemd::notify("READY=1");
            info!(device = %self.config.settings.device, "ready");
        }
    }

    /// Writes the nodes down: for the plugin, which may have to make the device again, and on disk for the next start. Where a few have changed, they
    /// are added.
    pub(super) fn persist(&mut self) {
        self.persist_at = None;
        let Some(peers) = self.view().map(|view| view.peers().len()) else { return };
        let written = match std::mem::take(&mut self.unwritten) {
            Unwritten::Nothing => return,
            Unwritten::Nodes(nodes) if self.appended + nodes.len() < peers + SURPLUS => {
                self.appended += nodes.len();
                self.append(&nodes)
            }
            _ => {
                self.appended = 0;
                self.write_all()
            }
        };
        self.persisted = Some(Instant::now());
        if let Err(error) = written {
            error!(error = %chain(&error), "can't write the nodes down");
            self.unwritten = Unwritten::All;
        }
    }

    fn append(&self, nodes: &[NodeId]) -> Result<(), Error> {
        let Some(view) = self.view() else { return Ok(()) };
        let record = |node: &NodeId| {
            let place = view.peers().binary_search_by(|peer| peer.node.cmp(node)).ok()?;
            view.peers().get(place)
        };
        let changes = || nodes.iter().map(|node| (node, record(node)));
        let settings = view.settings();
        ledger::append(&State::peers_path(&settings.network), changes())?;
        ledger::append(&Snapshot::path(&self.config.state_dir, &settings.network), changes())?;
        Ok(())
    }

    fn write_all(&self) -> Result<(), Error> {
        let Some(view) = self.view() else { return Ok(()) };
        let settings = view.settings();
        let all = std::iter::once(view.node()).chain(view.peers());
        ledger::write(&State::peers_path(&settings.network), None, all)?;
        let head = Snapshot::head(settings.vni, view.node(), self.config.settings.transport);
        let peers: std::slice::Iter<'_, NodeRecord> = view.peers().iter();
        ledger::write(&Snapshot::path(&self.config.state_dir, &settings.network), Some(&head), peers)?;
        Ok(())
    }
}
