//! The agent: one loop that takes what the source tells, what the kernel notices and what time brings, and makes the kernel agree.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ferrule_overlay::{Invalid, Listed, Live, NodeId, NodeRecord, State, Underlay, View, identity, occupied};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::config::{Config, Origin};
use crate::control::{self, Claim, Question};
use crate::error::{Error, chain};
use crate::kernel::Occasion;
use crate::membership::Membership;
use crate::notify::{Noticed, Notifications, Scope};
use crate::report::Reporter;
use crate::snapshot::{Snapshot, Unwritten};
use crate::source::{Event, FileSource, Presence, Source};
use crate::status::joined;
use crate::{kernel, underlay};

mod step;
mod written;

/// What comes together is looked at together: a flush is many notifications.
const SETTLE: Duration = Duration::from_millis(10);
/// The longest time that notifications wait after a comparison that took long.
const REST: Duration = Duration::from_millis(250);
/// After a start beside a running device, how long the source is waited for before the snapshot is used: the kernel is right, and may know
/// more than the snapshot.
const DEFERENCE: Duration = Duration::from_secs(2);
/// Before a list that would take almost everything away is asked for again.
const SECOND_LOOK: Duration = Duration::from_millis(300);
/// The same where the list comes from a server, whose nodes have to be given time to write themselves down again.
const SECOND_LOOK_SERVER: Duration = Duration::from_secs(10);

/// Runs the agent until it is told to end.
pub(crate) async fn run(config: Config) -> Result<(), Error> {
    let claim = Claim::take(&config.settings.network)?;
    let (sender, questions) = mpsc::channel(16);
    claim.listen(sender.clone())?;
    if let Some(address) = config.metrics {
        control::listen_tcp(address, sender).await?;
    }
    let notifications =
        Notifications::open().map_err(Error::system("listen to the kernel's notifications"))?;
    let source = source(&config)?;
    Agent::new(config, source).run(notifications, questions).await
}

/// The source that the options name.
pub(crate) fn source(config: &Config) -> Result<Box<dyn Source>, Error> {
    let settings = &config.settings;
    match &config.origin {
        Origin::File(path) => Ok(Box::new(FileSource::new(path.clone(), settings.vni, settings.port))),
        #[cfg(feature = "etcd")]
        Origin::Etcd(options) => {
            Ok(Box::new(crate::source::etcd::EtcdSource::new(options, settings, &config.state_dir)?))
        }
        #[cfg(not(feature = "etcd"))]
        Origin::Etcd(_) => Err(Error::WithoutEtcd { option: "--etcd" }),
    }
}

struct Agent {
    config: Config,
    source: Box<dyn Source>,
    /// Nodes as an operator has written them, which may be wrong as a whole; the last good ones are in the view.
    written: Option<Vec<Listed>>,
    membership: Membership,
    /// This node's record, from the source or from disk.
    own: Option<NodeRecord>,
    presence: Option<Presence>,
    live: Option<Live>,
    /// Nodes that the source has told of since, where that is all that it has told.
    stepped: BTreeSet<NodeId>,
    scope: Scope,
    /// What the plugin was told last, and whether that may be out of date.
    state: Option<State>,
    untold: bool,
    unwritten: Unwritten,
    /// How many lines the files of nodes have more than they would need.
    appended: usize,
    /// What time brings; `None` for never.
    compose_at: Option<Instant>,
    check_at: Instant,
    /// What the kernel notices is not looked at before: about a tenth of the time is spent comparing, whatever happens.
    rest_until: Instant,
    relist_at: Option<Instant>,
    persist_at: Option<Instant>,
    persisted: Option<Instant>,
    cause: Cause,
    /// Whether the source has given a list: what is remembered from disk takes nothing away.
    heard: bool,
    ready: bool,
    report: Reporter,
}

/// Why something is looked at next.
struct Cause {
    /// A change was asked for: what the next comparison finds is no drift.
    expected: bool,
    /// The kernel has noticed something: the next comparison is before its time.
    hasty: bool,
    /// The source has told something that has not been looked at.
    told: bool,
}

impl Agent {
    fn new(mut config: Config, source: Box<dyn Source>) -> Self {
        let mut membership = Membership::default();
        let mut own = None;
        let by_hand = source.is_written_by_hand();
        let mut written = None;
        let (network, vni) = (&config.settings.network, config.settings.vni);
        if let Some(snapshot) = Snapshot::read(&config.state_dir, network, vni) {
            info!(peers = snapshot.peers.len(), "last known nodes read from disk");
            let listed = snapshot.listed();
            written = by_hand.then(|| listed.clone());
            membership = Membership::remembered(listed);
            if !by_hand {
                config.settings.transport = config.settings.transport.or(snapshot.transport);
                own = Some(snapshot.node);
            }
        }
        let now = Instant::now();
        // After a reboot there is nothing, and anything is better.
        let settings = &config.settings;
        let wait = if kernel::is_running(settings) { DEFERENCE } else { Duration::ZERO };
        let report = Reporter::new(settings, source.describe(), by_hand);
        Self {
            scope: Scope::default(),
            check_at: now + config.check_interval,
            rest_until: now,
            compose_at: (!membership.is_empty()).then_some(now + wait),
            config,
            source,
            written,
            membership,
            own,
            presence: None,
            live: None,
            stepped: BTreeSet::new(),
            state: None,
            untold: true,
            unwritten: Unwritten::All,
            appended: 0,
            relist_at: None,
            persist_at: None,
            persisted: None,
            cause: Cause { expected: true, hasty: false, told: true },
            heard: false,
            ready: false,
            report,
        }
    }

    async fn run(
        mut self,
        mut notifications: Notifications,
        mut questions: Receiver<Question>,
    ) -> Result<(), Error> {
        let mut end = Ends::new()?;
        self.announce();
        let mut events = self.source.watch(self.membership.len());
        info!(network = %self.config.settings.network, source = %self.source.describe(), "running");
        loop {
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else {
                        return Err(Error::Source { operation: format!("follow {}", self.source.describe()), reason: "it ended".to_owned() });
                    };
                    self.take(event);
                    // What has come meanwhile is taken with it, and looked at once.
                    while let Ok(event) = events.try_recv() {
                        self.take(event);
                    }
                }
                noticed = notifications.next(self.scope) => {
                    let noticed = noticed.map_err(Error::system("listen to the kernel's notifications"))?;
                    self.notice(noticed);
                }
                () = at(self.compose_at) => self.advance(&mut notifications),
                () = sleep_until(self.check_at) => self.check(),
                () = at(self.relist_at) => {
                    self.relist_at = None;
                    self.source.relist();
                }
                () = at(self.persist_at) => self.persist(),
                Some(question) = questions.recv() => {
                    let _ = question.send(Box::new(self.report.status(self.view(), &self.membership)));
                }
                () = end.next() => {
                    info!("ending; what is in the kernel stays");
                    self.persist();
                    return Ok(());
                }
            }
        }
    }

    /// Takes note of what the source tells.
    fn take(&mut self, event: Event) {
        match event {
            // The first node of a network finds an empty list at a server, and is right to believe it.
            Event::Snapshot(listed)
                if listed.is_empty() && (self.source.is_written_by_hand() || !self.membership.is_empty()) =>
            {
                let reason = "the list of nodes is empty; the last one goes on being used".to_owned();
                self.report.stale(reason);
                self.relist_at = Some(Instant::now() + self.second_look());
                return;
            }
            Event::Snapshot(listed) => {
                debug!(nodes = listed.len(), "a complete list");
                self.report.listed();
                self.heard = true;
                if self.source.is_written_by_hand() {
                    let stepped = self.note_list(&listed);
                    self.written = Some(listed);
                    if stepped {
                        return;
                    }
                } else {
                    self.membership.list(listed);
                }
            }
            Event::Upsert(listed) => {
                self.report.changed();
                let node = listed.record.node.clone();
                if self.membership.upsert(*listed) {
                    self.note_step(node);
                }
                return;
            }
            Event::Delete(node) => {
                self.report.changed();
                if self.membership.delete(&node) {
                    self.note_step(node);
                }
                return;
            }
            Event::Agreed(family) => {
                if self.config.settings.transport.replace(family) == Some(family) {
                    return;
                }
                self.unwritten = Unwritten::All;
            }
            Event::Published(record) => {
                self.warn_of_new_blocks(&record);
                self.own = Some(*record);
            }
            Event::Refused(invalid) => return self.report.refused_by_source(&invalid),
            Event::Resumed => return self.report.resumed(),
            Event::Stale { reason } => return self.report.stale(reason),
        }
        self.cause.told = true;
        self.compose_at = Some(Instant::now());
    }

    fn warn_of_new_blocks(&self, record: &NodeRecord) {
        let Some(before) = self.own.as_ref().filter(|before| before.blocks != record.blocks) else { return };
        let (before, now) = (joined(&before.blocks), joined(&record.blocks));
        warn!(
            %before,
            %now,
            "this node has other blocks than before; containers with addresses of the old ones are cut off"
        );
    }

    /// Takes note of what the kernel has noticed.
    fn notice(&mut self, noticed: Noticed) {
        let soon = (Instant::now() + SETTLE).max(self.rest_until);
        if noticed.overflow {
            debug!("notifications were lost; comparing everything");
        }
        // What is in the way may have gone.
        if noticed.concerns || noticed.overflow || (noticed.addresses && self.report.is_troubled()) {
            self.cause.hasty |= soon < self.check_at;
            self.check_at = self.check_at.min(soon);
        }
        // Before the first list there is nothing to compose, and after a start beside a running device it is not yet time. What could not be
        // composed may have lacked this address.
        let composable = self.live.is_some() || self.report.is_misfit();
        // A route that was in the way is of interest only while something is refused.
        let freed = noticed.freed && (self.report.is_misfit() || self.report.has_refused());
        if (noticed.addresses || noticed.overflow || freed) && composable {
            self.compose_at = Some(self.compose_at.map_or(soon, |due| due.min(soon)));
        }
        if noticed.addresses && self.live.is_none() {
            self.announce();
        }
    }

    /// Tells the source how this node is reached, when that has changed.
    fn announce(&mut self) {
        let Origin::Etcd(_) = self.config.origin else { return };
        let Some(node) = self.config.node.clone() else { return };
        let located = kernel::own_addresses(&self.config.settings)
            .map_err(Error::from)
            .and_then(|own| self.located(&own));
        let located = match located {
            Ok(located) => located,
            Err(error) => {
                // While an address is replaced by another, there is none for a moment.
                return self.report.misfit(Some(chain(&error)));
            }
        };
        if self.own.is_none() {
            self.report.misfit(None);
        }
        let presence = Presence {
            node,
            underlay: located.iter().map(|own| own.address).collect(),
            port: self.config.settings.port,
            vni: self.config.settings.vni,
            blocks: self.own.as_ref().map(|own| own.blocks.clone()).unwrap_or_default(),
        };
        let known = self.presence.as_ref();
        if known.is_none_or(|known| known.underlay != presence.underlay) {
            info!(underlay = %joined(&presence.underlay), "this node is reached at");
            self.presence = Some(presence.clone());
            self.source.publish(presence);
        }
    }

    /// Where this node is reached. A family that the others know it by is not given up for an address that is away: they would all have to send
    /// by the other one.
    fn located(&self, own: &[identity::OwnAddress]) -> Result<Vec<identity::OwnAddress>, Error> {
        let located = underlay::locate(&self.config.hint, own, self.server())?;
        let published = self.presence.iter().flat_map(|presence| presence.underlay.iter().copied());
        let known = self.own.iter().flat_map(NodeRecord::underlays).chain(published);
        let lost =
            |known: &std::net::IpAddr| !located.iter().any(|own| own.address.is_ipv4() == known.is_ipv4());
        match known.into_iter().find(lost).filter(|_| self.config.hint.address.is_none()) {
            Some(lost) => {
                Err(Invalid::new("--underlay-address", lost, ferrule_overlay::Reason::NotLocal).into())
            }
            None => Ok(located),
        }
    }

    fn server(&self) -> Option<SocketAddr> {
        let Origin::Etcd(options) = &self.config.origin else { return None };
        options.endpoints.iter().find_map(|url| url.split("://").nth(1)?.trim_end_matches('/').parse().ok())
    }

    fn view(&self) -> Option<&View> {
        self.live.as_ref().map(Live::view)
    }

    /// Works out the view from what is known, and makes it so.
    fn compose(&mut self) {
        self.compose_at = None;
        self.announce();
        let composed = kernel::own_addresses(&self.config.settings)
            .map_err(Error::from)
            .and_then(|own| self.composed(&own));
        let (view, refused) = match composed {
            Ok(Some(composed)) => composed,
            // How this node is reached is all there is to know so far, and `announce` has found it.
            Ok(None) => return,
            Err(error) => {
                let mut reason = chain(&error);
                if self.source.is_written_by_hand() && self.live.is_some() {
                    reason += "; the last good list goes on being used";
                }
                return self.report.misfit(Some(reason));
            }
        };
        self.report.misfit(None);
        let stepped = !std::mem::take(&mut self.stepped).is_empty();
        let told = std::mem::take(&mut self.cause.told) || stepped;
        if !told && self.view() == Some(&view) {
            return;
        }
        self.report.refused(&refused);
        if told && self.heard && self.source.is_written_by_hand() {
            // Only now is it known to be a list that can be.
            self.membership.list(self.written.clone().unwrap_or_default());
        }
        self.cause.expected = true;
        self.log_difference(&view);
        if self.view() != Some(&view) {
            self.live = Some(Live::new(view));
            self.untold = true;
            self.unwritten = Unwritten::All;
        }
        self.check();
    }

    /// The view, and what had to be left out of it. `None` where there is nothing to compose yet.
    fn composed(&self, own: &[identity::OwnAddress]) -> Result<Option<(View, Vec<Invalid>)>, Error> {
        let settings = self.config.settings.clone();
        if self.source.is_written_by_hand() {
            let Some(nodes) = self.written.clone() else { return Ok(None) };
            let transport = View::transport(&settings, &nodes);
            let named =
                |listed: &&Listed| self.config.node.as_ref().is_none_or(|name| *name == listed.record.node);
            let candidates: Vec<Listed> = nodes.iter().filter(named).cloned().collect();
            let (node, underlay) = identity::recognise(&candidates, transport, &self.config.hint, own)?;
            if let Some((_, invalid)) = occupied(&settings, &nodes, &node, own)?.into_iter().next() {
                return Err(invalid.into());
            }
            let underlay = kernel::along_paths(underlay, &nodes)?;
            let view = View::new(settings, underlay, &node, nodes)?;
            return Ok(Some((view, Vec::new())));
        }
        let Some(record) = &self.own else { return Ok(None) };
        let located = self.located(own)?;
        let addresses: Vec<_> = located.iter().map(|own| own.address).collect();
        let record =
            NodeRecord::new(record.node.clone(), &addresses, settings.port, &[settings.vni], &record.blocks)
                .with_epoch(record.epoch);
        let node = record.node.clone();
        let mut nodes = vec![Listed { path: "this node".to_owned(), record }];
        nodes.extend(self.membership.listed().filter(|listed| listed.record.node != node).cloned());
        let mut refused = Vec::new();
        // From behind, so that the places of the others stay what they are.
        for (place, invalid) in occupied(&settings, &nodes, &node, own)?.into_iter().rev() {
            nodes.remove(place);
            refused.insert(0, invalid);
        }
        let family = View::transport(&settings, &nodes);
        let missing =
            || Invalid::new("--underlay-address", family, ferrule_overlay::Reason::NoUnderlay { family });
        let underlay: Underlay = underlay::of_family(&located, family).ok_or_else(missing)?;
        let underlay = kernel::along_paths(underlay, &nodes)?;
        let (view, others) = View::screened(settings, underlay, &node, nodes)?;
        refused.extend(others);
        Ok(Some((view, refused)))
    }

    /// Compares everything with the kernel, and puts right what differs.
    fn check(&mut self) {
        let started = Instant::now();
        let Some(live) = &mut self.live else {
            self.check_at = started + self.config.check_interval;
            return;
        };
        let expected = std::mem::take(&mut self.cause.expected);
        let hasty = std::mem::take(&mut self.cause.hasty);
        let occasion = match (expected, hasty) {
            (true, _) => Occasion::News,
            (false, true) => Occasion::Notice,
            (false, false) => Occasion::Clock,
        };
        let checked = kernel::check(live, self.membership.purge(), occasion);
        self.scope = kernel::scope(live.view());
        match checked {
            Ok((report, found)) => self.agree(report.as_ref(), found),
            Err(error) => {
                self.cause.expected = expected;
                self.report.trouble(chain(&error));
            }
        }
        let ended = Instant::now();
        self.report.checked(ended - started);
        self.rest_until = ended + (9 * (ended - started)).min(REST);
        // Of a network so large that a comparison takes long, no more than a twentieth of the time is spent on it.
        self.check_at = ended + self.config.check_interval.max(19 * (ended - started));
    }

    /// Draws the conclusions of a comparison after which the kernel is as it should be.
    fn agree(&mut self, report: Option<&ferrule_overlay::Report>, drift: Option<kernel::Found>) {
        if let Some(found) = drift {
            self.report.drift(found);
        }
        self.report.clear_trouble();
        if let Some(report) = report {
            self.report.withheld(report.withheld);
            // One question at a time: comparing again is no reason to put it off.
            if self.membership.withheld(report.withheld) && self.relist_at.is_none() {
                let entries = report.withheld;
                warn!(entries, "the list lacks almost all nodes; asking again before they are taken away");
                self.relist_at = Some(Instant::now() + self.second_look());
            }
        }
        self.settled();
    }

    fn second_look(&self) -> Duration {
        if self.source.is_written_by_hand() { SECOND_LOOK } else { SECOND_LOOK_SERVER }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The signals that end the agent.
struct Ends(Signal, Signal);

impl Ends {
    fn new() -> Result<Self, Error> {
        let of = |kind| signal(kind).map_err(Error::system("wait for signals"));
        Ok(Self(of(SignalKind::terminate())?, of(SignalKind::interrupt())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}
