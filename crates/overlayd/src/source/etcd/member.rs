//! Being one of the nodes: a lease that says this agent lives, its record, and standing for the election of the cleaner.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};
use ferrule_overlay::{NodeId, NodeRecord};
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;
use tracing::{debug, info};

use super::follow::tell;
use super::session::{Trouble, ask, random};
use super::{Event, Shared, claim, cleaner};
use crate::error::Error;

/// What this agent has at etcd, whatever the connection.
#[derive(Debug, Default)]
pub(super) struct Standing {
    lease: i64,
    /// Its record, as it was written last.
    record: Option<NodeRecord>,
}

/// What tells this host from another with the same name: made up the first time, and on disk, so that a host that has been started again is
/// the one it was.
pub(super) fn instance(directory: &Path) -> Result<String, Error> {
    let path = directory.join("instance");
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(Error::File { operation: "read", path, source });
        }
        _ => {}
    }
    let instance = format!("{:016x}{:016x}", random(), random());
    ferrule_core::state::replace(&path, instance.as_bytes()).map_err(ferrule_overlay::Error::from)?;
    Ok(instance)
}

/// Is a node until something goes wrong. Tells when it has become one.
pub(super) async fn belong(
    shared: &Shared,
    mut client: Client,
    sender: &Sender<Event>,
    standing: &mut Standing,
    admitted: &Notify,
) -> Trouble {
    match Box::pin(attempt(shared, &mut client, sender, standing, admitted)).await {
        Ok(never) => match never {},
        Err(trouble) => {
            if matches!(trouble, Trouble::LeaseLost) {
                standing.lease = 0;
            }
            trouble
        }
    }
}

async fn attempt(
    shared: &Shared,
    client: &mut Client,
    sender: &Sender<Event>,
    standing: &mut Standing,
    admitted: &Notify,
) -> Result<std::convert::Infallible, Trouble> {
    let mut presence = shared.presence.subscribe();
    // Until the agent knows how this node is reached, there is nothing to say.
    let wanted =
        presence.wait_for(Option::is_some).await.map_err(|_closed| Trouble::Ended { what: "agent" })?.clone();
    let Some(mut wanted) = wanted else { return Err(Trouble::Ended { what: "agent" }) };
    presence.mark_unchanged();
    if let Some(record) = &standing.record {
        // The agent need not know the blocks, if it has just been given them.
        wanted.blocks.clone_from(&record.blocks);
    }
    let node = wanted.node.clone();
    let (mut keeper, mut answers) = live(shared, client, &node, standing).await?;
    let mut record = claim::publish(shared, client, &wanted).await?;
    standing.record = Some(record.clone());
    shared.published.store(true, Ordering::Relaxed);
    tell(sender, Event::Published(Box::new(record.clone()))).await?;
    admitted.notify_one();

    let mut beat = tokio::time::interval(shared.options.alive / 3);
    let clean = cleaner::serve(shared, client.clone(), &node, standing.lease);
    tokio::pin!(clean);
    loop {
        tokio::select! {
            _ = beat.tick() => {
                keeper.keep_alive().await.map_err(|source| Trouble::Request { operation: "keep the lease", source })?;
            }
            answer = answers.message() => {
                let answer = answer.map_err(|source| Trouble::Request { operation: "keep the lease", source })?;
                if answer.ok_or(Trouble::Ended { what: "stream of the lease" })?.ttl() <= 0 {
                    return Err(Trouble::LeaseLost);
                }
            }
            changed = presence.changed() => {
                changed.map_err(|_closed| Trouble::Ended { what: "agent" })?;
                // Answers to the old address would not come: begin again from the new one rather than wait for them.
                return Err(Trouble::Moved);
            }
            () = shared.missing.notified() => {
                info!("this node's record is missing; writing it again");
                wanted.blocks.clone_from(&record.blocks);
                record = claim::publish(shared, client, &wanted).await?;
                tell(sender, Event::Published(Box::new(record.clone()))).await?;
            }
            trouble = &mut clean => return Err(trouble),
        }
    }
}

/// Takes the node's name, under a lease that is kept from here on.
async fn live(
    shared: &Shared,
    client: &mut Client,
    node: &NodeId,
    standing: &mut Standing,
) -> Result<(etcd_client::LeaseKeeper, etcd_client::LeaseKeepAliveStream), Trouble> {
    if standing.lease != 0 {
        match ask("keep the lease", client.lease_keep_alive(standing.lease)).await {
            Ok(kept) => return Ok(kept),
            Err(Trouble::Request { source: etcd_client::Error::LeaseKeepAliveError(reason), .. }) => {
                debug!(reason, "the lease has ended meanwhile");
                standing.lease = 0;
            }
            Err(trouble) => return Err(trouble),
        }
    }
    let ttl = i64::try_from(shared.options.alive.max(Duration::from_secs(1)).as_secs()).unwrap_or(i64::MAX);
    let lease = ask("get a lease", client.lease_grant(ttl, None)).await?.id();
    let key = shared.keys.alive(node);
    let put = || TxnOp::put(key.clone(), shared.instance.clone(), Some(PutOptions::new().with_lease(lease)));
    let txn = Txn::new()
        .when([Compare::version(key.clone(), CompareOp::Equal, 0)])
        .and_then([put()])
        .or_else([TxnOp::get(key.clone(), None)]);
    let answer = ask("take the node's name", client.txn(txn)).await?;
    if !answer.succeeded() {
        // An agent of this host before, whose lease has not ended yet, or another host.
        let mine = answer.op_responses().iter().any(|operation| match operation {
            TxnOpResponse::Get(get) => get.kvs().iter().all(|kv| kv.value() == shared.instance.as_bytes()),
            _ => false,
        });
        let txn = Txn::new()
            .when([Compare::value(key.clone(), CompareOp::Equal, shared.instance.clone())])
            .and_then([put()]);
        if !mine || !ask("take the node's name", client.txn(txn)).await?.succeeded() {
            let _ = ask("end a lease", client.lease_revoke(lease)).await;
            return Err(Trouble::NameTaken { node: node.clone() });
        }
    }
    standing.lease = lease;
    ask("keep the lease", client.lease_keep_alive(lease)).await
}
