//! Nodes from etcd, which is also who hands out blocks: every agent takes one by a transaction that only one can win.
//!
//! An agent has one connection, to one member; any trouble ends all that goes on over it, and begins it again with the next member, from the
//! revision that was seen last.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ferrule_overlay::{NodeId, Settings};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{Notify, watch};
use tracing::debug;

use super::{Event, Presence, QUEUE, Source};
use crate::config::EtcdOptions;
use crate::error::Error;

mod claim;
mod cleaner;
mod follow;
mod keys;
mod member;
mod session;

use keys::Keys;
use session::{Trouble, part_of};

/// After trouble: at first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A first list is put off by at most this, where there are so many nodes that it takes a server some time.
const FIRST_LIST: (Duration, usize) = (Duration::from_secs(2), 5000);

/// A network's part of an etcd cluster.
pub struct EtcdSource {
    shared: Arc<Shared>,
}

/// What the tasks of a source have in common.
struct Shared {
    options: EtcdOptions,
    settings: Settings,
    keys: Keys,
    instance: String,
    presence: watch::Sender<Option<Presence>>,
    relist: Notify,
    /// This node's record has been deleted by somebody.
    missing: Notify,
    /// This node's record was written, by this agent.
    published: AtomicBool,
}

impl fmt::Debug for EtcdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdSource")
            .field("endpoints", &self.shared.options.endpoints)
            .finish_non_exhaustive()
    }
}

impl EtcdSource {
    /// Nodes of the network with these settings. What this host is known as is remembered in `state_dir`.
    pub fn new(options: &EtcdOptions, settings: &Settings, state_dir: &Path) -> Result<Self, Error> {
        let shared = Shared {
            options: options.clone(),
            settings: settings.clone(),
            keys: Keys::new(&options.prefix, &settings.network),
            instance: member::instance(state_dir)?,
            presence: watch::Sender::new(None),
            relist: Notify::new(),
            missing: Notify::new(),
            published: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Source for EtcdSource {
    fn describe(&self) -> String {
        format!("etcd {}", self.shared.options.endpoints.join(","))
    }

    fn watch(&mut self, known: usize) -> Receiver<Event> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let part = FIRST_LIST.0 * u32::try_from(known.min(FIRST_LIST.1)).unwrap_or_default()
            / u32::try_from(FIRST_LIST.1).unwrap_or(1);
        tokio::spawn(run(Arc::clone(&self.shared), sender, part_of(part)));
        receiver
    }

    fn publish(&self, presence: Presence) {
        self.shared.presence.send_replace(Some(presence));
    }

    fn relist(&self) {
        self.shared.relist.notify_one();
    }

    fn withdraw(&self, node: NodeId) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let mut last = None;
            for endpoint in &self.shared.options.endpoints {
                match Box::pin(claim::withdraw(&self.shared, endpoint, &node)).await {
                    Ok(()) => return Ok(()),
                    Err(trouble) => last = Some(trouble),
                }
            }
            let reason = last.map(|trouble| trouble.to_string()).unwrap_or_default();
            Err(Error::Withdraw { node: node.to_string(), from: self.describe(), reason })
        }
        .boxed()
    }

    fn is_written_by_hand(&self) -> bool {
        false
    }
}

/// Follows etcd until nobody listens any more.
async fn run(shared: Arc<Shared>, sender: Sender<Event>, first: Duration) {
    tokio::time::sleep(first).await;
    let mut place = follow::Place::default();
    let mut standing = member::Standing::default();
    let endpoints = &shared.options.endpoints;
    // Not all agents at the same member.
    let mut turn = usize::try_from(session::random() % 64).unwrap_or_default();
    let mut pause = BACK_OFF.0;
    loop {
        let Some(endpoint) = endpoints.get(turn % endpoints.len().max(1)) else { return };
        let began = tokio::time::Instant::now();
        let trouble = tokio::select! {
            trouble = attend(&shared, endpoint, &sender, &mut place, &mut standing) => trouble,
            () = sender.closed() => return,
        };
        // What worked for a while is not punished for what was before.
        if began.elapsed() > BACK_OFF.1 {
            pause = BACK_OFF.0;
        }
        if matches!(trouble, Trouble::Moved) {
            debug!("beginning again from another address");
            continue;
        }
        let again = matches!(trouble, Trouble::Compacted { .. } | Trouble::Contended { .. });
        debug!(%endpoint, %trouble, ?pause, "beginning again");
        if !again && sender.send(Event::Stale { reason: format!("{endpoint}: {trouble}") }).await.is_err() {
            return;
        }
        tokio::time::sleep(pause / 2 + part_of(pause / 2)).await;
        pause = (pause * 2).min(BACK_OFF.1);
        turn += usize::from(!again);
    }
}

/// All that goes on over one connection. Returns when any of it fails.
async fn attend(
    shared: &Shared,
    endpoint: &str,
    sender: &Sender<Event>,
    place: &mut follow::Place,
    standing: &mut member::Standing,
) -> Trouble {
    let begin = async {
        let mut client = session::connect(&shared.options, endpoint).await?;
        let mut presence = shared.presence.subscribe();
        // Until the agent knows how this node is reached, there is nothing to say.
        let presence = presence.wait_for(Option::is_some).await.ok().and_then(|presence| presence.clone());
        let presence = presence.ok_or(Trouble::Ended { what: "agent" })?;
        // The first question: nothing of a network that means something else is listened to.
        if let Some(family) = claim::agree(shared, &mut client, &presence).await? {
            follow::tell(sender, Event::Agreed(family)).await?;
        }
        Ok::<_, Trouble>(client)
    };
    let client = match Box::pin(begin).await {
        Ok(client) => client,
        Err(trouble) => return trouble,
    };
    // Who is not let in has nobody to follow; and a list that comes later than this node's own record has it.
    let admitted = Notify::new();
    let follow = async {
        admitted.notified().await;
        follow::follow(shared, client.clone(), sender, place).await
    };
    tokio::select! {
        trouble = follow => trouble,
        trouble = member::belong(shared, client.clone(), sender, standing, &admitted) => trouble,
    }
}
