//! Listing nodes once, and watching them from there.

use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{Client, EventType, GetOptions, KeyValue, WatchOptions, WatchResponse};
use ferrule_overlay::{Listed, NodeRecord};
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use tracing::{debug, info};

use super::keys::node_of;
use super::session::{Trouble, ask, list};
use super::{Event, Shared};

/// How long nodes are given to write themselves down again.
const SECOND_LOOK: Duration = Duration::from_secs(10);

/// How far this agent has come: everything up to `revision` has been told.
#[derive(Debug, Default)]
pub(super) struct Place {
    cluster: u64,
    revision: i64,
}

/// Tells what happens to nodes until something goes wrong.
pub(super) async fn follow(
    shared: &Shared,
    mut client: Client,
    sender: &Sender<Event>,
    place: &mut Place,
) -> Trouble {
    match attempt(shared, &mut client, sender, place).await {
        Ok(never) => match never {},
        Err(trouble) => {
            if let Trouble::Compacted { revision } = trouble {
                info!(revision, "etcd was compacted beyond what was seen last; listing again");
                *place = Place::default();
            }
            trouble
        }
    }
}

async fn attempt(
    shared: &Shared,
    client: &mut Client,
    sender: &Sender<Event>,
    place: &mut Place,
) -> Result<std::convert::Infallible, Trouble> {
    let mut again = None;
    if can_resume(shared, client, place).await? {
        debug!(revision = place.revision, "watching on from what was seen last");
        tell(sender, Event::Resumed).await?;
    } else {
        again = relist(shared, client, sender, place).await?;
    }
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(place.revision + 1)
        .with_progress_notify()
        .with_fragment();
    let mut watch = ask("watch nodes", client.watch(shared.keys.nodes(), Some(options))).await?;
    loop {
        tokio::select! {
            answer = watch.message() => {
                let answer = answer.map_err(|source| Trouble::Request { operation: "watch nodes", source })?;
                let answer = answer.ok_or(Trouble::Ended { what: "watch of nodes" })?;
                take(shared, &answer, sender, place).await?;
            }
            () = shared.relist.notified() => again = relist(shared, client, sender, place).await?,
            () = at(again) => again = relist(shared, client, sender, place).await?,
        }
    }
}

/// Whether what was seen last is of this cluster's past: one that was restored from a backup, or from nothing, has another.
async fn can_resume(shared: &Shared, client: &mut Client, place: &Place) -> Result<bool, Trouble> {
    if place.revision == 0 {
        return Ok(false);
    }
    let options = GetOptions::new().with_count_only();
    let answer = ask("read the revision", client.get(shared.keys.network(), Some(options))).await?;
    let same = |header: &etcd_client::ResponseHeader| {
        header.cluster_id() == place.cluster && header.revision() >= place.revision
    };
    Ok(answer.header().is_some_and(same))
}

/// Tells what is there. Says when to do so again, if it is not to be believed: a list that lacks this node, which has written itself down, is
/// that of a server which has lost its data. The others are writing themselves down again, too.
async fn relist(
    shared: &Shared,
    client: &mut Client,
    sender: &Sender<Event>,
    place: &mut Place,
) -> Result<Option<Instant>, Trouble> {
    // Before the list: a record that is written meanwhile need not be in it.
    let published = shared.published.load(Ordering::Relaxed);
    let range = list(client, &shared.keys.nodes(), false).await?;
    let mut nodes = Vec::with_capacity(range.kvs.len());
    let mut refused = Vec::new();
    for kv in &range.kvs {
        match read(kv) {
            Ok(listed) => nodes.push(listed),
            Err(invalid) => refused.push(invalid),
        }
    }
    *place = Place { cluster: range.cluster, revision: range.revision };
    let presence = shared.presence.borrow().clone();
    let missing = presence.filter(|own| !nodes.iter().any(|listed| listed.record.node == own.node));
    if let Some(own) = missing {
        if published {
            shared.missing.notify_one();
        }
        if published || !own.blocks.is_empty() {
            let reason =
                format!("the list of {} nodes lacks this one, which is written down again", nodes.len());
            tell(sender, Event::Stale { reason }).await?;
            return Ok(Some(Instant::now() + SECOND_LOOK));
        }
    }
    tell(sender, Event::Snapshot(nodes)).await?;
    for invalid in refused {
        tell(sender, Event::Refused(invalid)).await?;
    }
    Ok(None)
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn take(
    shared: &Shared,
    answer: &WatchResponse,
    sender: &Sender<Event>,
    place: &mut Place,
) -> Result<(), Trouble> {
    if answer.canceled() {
        return Err(match answer.compact_revision() {
            0 => Trouble::Ended { what: "watch of nodes" },
            revision => Trouble::Compacted { revision },
        });
    }
    let own = shared.presence.borrow().as_ref().map(|presence| presence.node.clone());
    for event in answer.events() {
        let Some(kv) = event.kv() else { continue };
        // A list that was asked for meanwhile knows more.
        if kv.mod_revision() <= place.revision {
            continue;
        }
        match event.event_type() {
            EventType::Put => {
                let event = match read(kv) {
                    Ok(listed) => Event::Upsert(Box::new(listed)),
                    Err(invalid) => Event::Refused(invalid),
                };
                tell(sender, event).await?;
            }
            EventType::Delete => {
                let Some(node) = node_of(kv.key(), &shared.keys.nodes()) else { continue };
                if own.as_ref() == Some(&node) {
                    shared.missing.notify_one();
                }
                tell(sender, Event::Delete(node)).await?;
            }
        }
    }
    // A sign of progress says that everything before has been told. The answer that a watch begins with says nothing of the kind: its revision
    // is the present one, and what has happened since the list is still to come.
    if let Some(header) = answer.header()
        && answer.events().is_empty()
        && !answer.created()
    {
        place.revision = place.revision.max(header.revision());
    } else if let Some(last) =
        answer.events().iter().filter_map(|event| event.kv()).map(KeyValue::mod_revision).max()
    {
        // Not beyond the event itself: one transaction may come in two parts.
        place.revision = place.revision.max(last - 1);
    }
    Ok(())
}

fn read(kv: &KeyValue) -> Result<Listed, Box<ferrule_overlay::Invalid>> {
    let path = String::from_utf8_lossy(kv.key()).into_owned();
    let record = NodeRecord::from_json(kv.value(), &path).map_err(Box::new)?;
    // The key is what is unique, so the name has to be the key's.
    if !path.ends_with(&format!("/{}", record.node)) {
        let reason = ferrule_overlay::Reason::Shape { text: "it is not the name in the key".to_owned() };
        return Err(Box::new(ferrule_overlay::Invalid::new(&format!("{path}.node"), &record.node, reason)));
    }
    Ok(Listed { path, record })
}

pub(super) async fn tell(sender: &Sender<Event>, event: Event) -> Result<(), Trouble> {
    sender.send(event).await.map_err(|_closed| Trouble::Ended { what: "agent" })
}
