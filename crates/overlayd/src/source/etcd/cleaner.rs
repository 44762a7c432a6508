//! The one agent, elected by etcd, that removes nodes which have been silent for long. The others learn of a dead node only then: until it is
//! gone for good, routes to it harm nobody, and a server's bad minute must not look like the death of a thousand nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use etcd_client::{Client, Compare, CompareOp, EventType, WatchOptions};
use ferrule_overlay::NodeId;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::keys::node_of;
use super::session::{Trouble, ask, list};
use super::{Shared, claim};

/// Waits to be elected, and then cleans until something goes wrong.
pub(super) async fn serve(shared: &Shared, mut client: Client, node: &NodeId, lease: i64) -> Trouble {
    // Answered when this agent has been elected, which may be never.
    let campaign = client.campaign(shared.keys.cleaner(), node.as_str(), lease).await;
    let trouble = match campaign {
        Ok(_) => {
            info!("elected to remove nodes that have been silent for {} s", shared.options.grace.as_secs());
            clean(shared, &mut client).await
        }
        Err(source) => Err(Trouble::Request { operation: "stand for election", source }),
    };
    match trouble {
        Ok(never) => match never {},
        Err(trouble) => trouble,
    }
}

async fn clean(shared: &Shared, client: &mut Client) -> Result<Infallible, Trouble> {
    let living = list(client, &shared.keys.living(), true).await?;
    let known = list(client, &shared.keys.nodes(), true).await?;
    let names = |kvs: &[etcd_client::KeyValue], directory: &str| -> BTreeSet<NodeId> {
        kvs.iter().filter_map(|kv| node_of(kv.key(), directory)).collect()
    };
    let alive = names(&living.kvs, &shared.keys.living());
    // Counted from now: how long they have been silent before, nobody has seen.
    let until = Instant::now() + shared.options.grace;
    let mut silent: BTreeMap<NodeId, Instant> = BTreeMap::new();
    silent.extend(
        names(&known.kvs, &shared.keys.nodes())
            .into_iter()
            .filter(|node| !alive.contains(node))
            .map(|node| (node, until)),
    );
    let options = WatchOptions::new().with_prefix().with_start_revision(living.revision + 1);
    let mut watch = ask("watch signs of life", client.watch(shared.keys.living(), Some(options))).await?;
    loop {
        let next = silent.values().min().copied();
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = watch.message() => {
                let answer = answer.map_err(|source| Trouble::Request { operation: "watch signs of life", source })?;
                let answer = answer.ok_or(Trouble::Ended { what: "watch of signs of life" })?;
                if answer.canceled() {
                    return Err(Trouble::Ended { what: "watch of signs of life" });
                }
                for event in answer.events() {
                    let Some(node) = event.kv().and_then(|kv| node_of(kv.key(), &shared.keys.living())) else { continue };
                    match event.event_type() {
                        EventType::Put => {
                            silent.remove(&node);
                        }
                        EventType::Delete => {
                            debug!(%node, "silent");
                            silent.insert(node, Instant::now() + shared.options.grace);
                        }
                    }
                }
            }
            () = due => {
                let now = Instant::now();
                let due: Vec<NodeId> = silent.iter().filter(|(_, at)| **at <= now).map(|(node, _)| node.clone()).collect();
                for node in due {
                    silent.remove(&node);
                    let still = Compare::version(shared.keys.alive(&node), CompareOp::Equal, 0);
                    if claim::release(shared, client, &node, vec![still]).await? {
                        warn!(%node, "removed: it has been silent for {} s", shared.options.grace.as_secs());
                    }
                }
            }
        }
    }
}
