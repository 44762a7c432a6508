//! What the agent counts, and what it logs when that changes.

use ferrule_overlay::{Invalid, Settings, View};
use tracing::{info, warn};

use crate::kernel::Found;
use crate::membership::Membership;
use crate::status::{Drift, Moment, OwnStatus, PeerStatus, SourceStatus, Status};

/// The most refused records that are told about one by one.
const REFUSALS: usize = 20;

#[derive(Debug)]
pub(crate) struct Reporter {
    settings: Settings,
    started: Moment,
    source: SourceStatus,
    /// The source has told something.
    heard: bool,
    /// Why what the source has told may be out of date, as it says itself.
    away: Option<String>,
    /// Why what is known makes no view of this node: it is not among the peers, say, or its address is gone.
    misfit: Option<String>,
    /// Whether that is to be put right where the nodes are written down, rather than on this host.
    by_hand: bool,
    /// What the kernel refuses.
    refusal: Option<String>,
    trouble: Option<String>,
    withheld: u64,
    checks: u64,
    check_ms: f64,
    drift: Drift,
    /// Refused by the source, by key; and by the view.
    unreadable: Vec<String>,
    refused: Vec<String>,
}

impl Reporter {
    pub(crate) fn new(settings: &Settings, source: String, by_hand: bool) -> Self {
        let now = Moment::now();
        Self {
            settings: settings.clone(),
            started: now,
            source: SourceStatus { name: source, since: now, ..SourceStatus::default() },
            heard: false,
            away: None,
            misfit: None,
            by_hand,
            refusal: None,
            trouble: None,
            withheld: 0,
            checks: 0,
            check_ms: 0.0,
            drift: Drift::default(),
            unreadable: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// A complete list came.
    pub(crate) fn listed(&mut self) {
        self.source.lists += 1;
        self.unreadable.clear();
        self.resumed();
    }

    /// A single change came.
    pub(crate) fn changed(&mut self) {
        self.source.changes += 1;
        self.resumed();
    }

    /// What was heard so far holds again.
    pub(crate) fn resumed(&mut self) {
        self.heard = true;
        self.away = None;
        self.judge_source();
    }

    /// What is known may be out of date.
    pub(crate) fn stale(&mut self, reason: String) {
        self.away = Some(reason);
        self.judge_source();
    }

    /// Whether what is known makes a view of this node, or why not.
    pub(crate) fn misfit(&mut self, reason: Option<String>) {
        self.misfit = reason;
        self.judge_source();
        self.judge_trouble();
    }

    /// Whether there is nothing that could be made so, for a reason that may pass.
    pub(crate) fn is_misfit(&self) -> bool {
        self.misfit.is_some()
    }

    fn judge_source(&mut self) {
        let misfit = self.misfit.as_ref().filter(|_| self.by_hand);
        let reason = self.away.as_ref().or(misfit).cloned();
        let current = self.heard && reason.is_none();
        match (&reason, &self.source.reason) {
            (Some(reason), known) if known.as_ref() != Some(reason) => {
                warn!(source = %self.source.name, %reason, "what is known of other nodes may be out of date");
            }
            (None, Some(was)) => info!(source = %self.source.name, %was, "the source is back"),
            _ => {}
        }
        if (current, reason.is_some()) != (self.source.current, self.source.reason.is_some()) {
            self.source.since = Moment::now();
        }
        self.source.current = current;
        self.source.reason = reason;
    }

    pub(crate) fn refused_by_source(&mut self, invalid: &Invalid) {
        warn!(record = %invalid, "a record is not used");
        self.unreadable.push(invalid.to_string());
        self.unreadable.truncate(REFUSALS);
    }

    pub(crate) fn refused(&mut self, refused: &[Invalid]) {
        let texts: Vec<String> = refused.iter().take(REFUSALS).map(ToString::to_string).collect();
        for record in texts.iter().filter(|text| !self.refused.contains(text)) {
            warn!(%record, "a record is not used");
        }
        self.refused = texts;
    }

    /// The kernel, or this host's disk, refuses something.
    pub(crate) fn trouble(&mut self, reason: String) {
        self.refusal = Some(reason);
        self.judge_trouble();
    }

    pub(crate) fn is_troubled(&self) -> bool {
        self.trouble.is_some()
    }

    pub(crate) fn clear_trouble(&mut self) {
        self.refusal = None;
        self.judge_trouble();
    }

    fn judge_trouble(&mut self) {
        let misfit = self.misfit.as_ref().filter(|_| !self.by_hand);
        let trouble = misfit.or(self.refusal.as_ref()).cloned();
        match (&trouble, &self.trouble) {
            (Some(reason), known) if known.as_ref() != Some(reason) => {
                warn!(%reason, "can't do everything; trying again");
            }
            (None, Some(was)) => info!(%was, "the trouble is over"),
            _ => {}
        }
        self.trouble = trouble;
    }

    pub(crate) fn drift(&mut self, found: Found) {
        warn!(what = %found.what, objects = found.objects, "repaired what somebody had altered");
        self.drift.repairs += 1;
        self.drift.objects += found.objects;
        self.drift.last = Some(found.what);
        self.drift.at = Moment::now();
    }

    pub(crate) fn withheld(&mut self, entries: usize) {
        self.withheld = u64::try_from(entries).unwrap_or(u64::MAX);
    }

    pub(crate) fn checked(&mut self, took: std::time::Duration) {
        self.checks += 1;
        self.check_ms = took.as_secs_f64() * 1000.0;
    }

    /// Whether records are left out of the view.
    pub(crate) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    pub(crate) fn status(&self, view: Option<&View>, membership: &Membership) -> Status {
        let own = view.map(|view| OwnStatus {
            node: view.node().node.clone(),
            underlay: view.underlay().address,
            interface: view.underlay().interface.clone(),
            blocks: view.node().blocks.clone(),
            mtu: view.mtu(),
        });
        let peers = view.map(View::peers).unwrap_or_default().iter().map(|peer| PeerStatus {
            node: peer.node.clone(),
            underlay: peer.underlays().collect(),
            blocks: peer.blocks.clone(),
            changed: membership.since(&peer.node),
        });
        Status {
            network: self.settings.network.clone(),
            vni: self.settings.vni,
            port: self.settings.port,
            mode: self.settings.mode,
            device: self.settings.device.clone(),
            pid: std::process::id(),
            started: self.started,
            own,
            source: self.source.clone(),
            trouble: self.trouble.clone(),
            withheld: self.withheld,
            checks: self.checks,
            check_ms: self.check_ms,
            drift: self.drift.clone(),
            refused: self.unreadable.iter().chain(&self.refused).cloned().collect(),
            peers: peers.collect(),
        }
    }
}
