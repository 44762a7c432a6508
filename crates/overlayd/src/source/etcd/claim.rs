//! Taking blocks, and giving them back. Every change is one transaction that compares what it was decided on, so that of two agents that want
//! the same block one gets it, and nobody is ever left with a block and no record.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use cni::Cidr;
use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp};
use ferrule_overlay::{Family, NodeId, NodeRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::{debug, info};

use super::session::{Trouble, ask, connect, list, part_of, random};
use super::{Presence, Shared};
use crate::config::Pool;
use crate::status::joined;

/// How often another block is tried when somebody else was faster.
const ATTEMPTS: usize = 100;
/// How long a block rests that was given back: longer than any agent needs to hear of it, so that no packet for its old owner reaches the new.
const REST: Duration = Duration::from_secs(60);

/// Whose a block is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    node: NodeId,
    /// It was given back, and is nobody's until its lease ends; its last owner may have it again at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    resting: bool,
}

impl Owner {
    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A key as it was read: what a transaction depends on.
struct Seen {
    key: String,
    revision: i64,
}

impl Seen {
    fn unchanged(&self) -> Compare {
        // 0 for a key that is not there.
        Compare::mod_revision(self.key.clone(), CompareOp::Equal, self.revision)
    }
}

/// Makes sure that all nodes of this network mean the same by it. Gives the family that carries the tunnels, which is the first node's: were it to
/// depend on who is there, one node without IPv4 that joins would change the way of all packets of all others.
pub(super) async fn agree(
    shared: &Shared,
    client: &mut Client,
    presence: &Presence,
) -> Result<Option<Family>, Trouble> {
    let settings = &shared.settings;
    let usual = Family::of(presence.underlay.iter().any(IpAddr::is_ipv4));
    let pools: Vec<_> = shared
        .options
        .pools
        .iter()
        .map(|pool| json!({"network": pool.network, "block": pool.block}))
        .collect();
    let mut own = json!({
        "v": 1, "vni": settings.vni, "port": settings.port, "mode": settings.mode, "subnets": settings.subnets, "pools": pools,
        "transport": settings.transport.unwrap_or(usual),
    });
    let key = shared.keys.network();
    let txn = Txn::new()
        .when([Compare::version(key.clone(), CompareOp::Equal, 0)])
        .and_then([TxnOp::put(key.clone(), own.to_string(), None)])
        .or_else([TxnOp::get(key, None)]);
    let answer = ask("agree on the network", client.txn(txn)).await?;
    for operation in answer.op_responses() {
        if let etcd_client::TxnOpResponse::Get(get) = operation
            && let Some(kv) = get.kvs().first()
        {
            let agreed: Value = serde_json::from_slice(kv.value()).unwrap_or_default();
            if settings.transport.is_none() {
                own["transport"] = agreed["transport"].clone();
            }
            if agreed != own {
                let agreed = String::from_utf8_lossy(kv.value()).into_owned();
                return Err(Trouble::OtherNetwork { agreed, own: own.to_string() });
            }
        }
    }
    let family: Option<Family> = serde_json::from_value(own["transport"].clone()).ok();
    match family {
        Some(family) if !presence.underlay.iter().any(|own| Family::of(own.is_ipv4()) == family) => {
            Err(Trouble::OtherFamily { family })
        }
        _ => Ok(family),
    }
}

/// Gives this node a block of each pool, and writes its record, if either is not so yet. Returns the record.
pub(super) async fn publish(
    shared: &Shared,
    client: &mut Client,
    presence: &Presence,
) -> Result<NodeRecord, Trouble> {
    for attempt in 0..ATTEMPTS {
        if let Some(record) = attempt_publish(shared, client, presence).await? {
            if attempt > 0 {
                debug!(attempts = attempt + 1, "got a block");
            }
            return Ok(record);
        }
        tokio::time::sleep(part_of(Duration::from_millis(5) * u32::try_from(attempt.min(10)).unwrap_or(1)))
            .await;
    }
    let network = shared.options.pools.first().map_or_else(|| Cidr::host([0; 4].into()), |pool| pool.network);
    Err(Trouble::Contended { network, attempts: ATTEMPTS })
}

/// `None` if something has changed between looking and taking.
async fn attempt_publish(
    shared: &Shared,
    client: &mut Client,
    presence: &Presence,
) -> Result<Option<NodeRecord>, Trouble> {
    let key = shared.keys.node(&presence.node);
    let answer = ask("read this node's record", client.get(key.clone(), None)).await?;
    let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
    let kv = answer.kvs().first();
    let published = kv.and_then(|kv| NodeRecord::from_json(kv.value(), &key).ok());
    let seen = Seen { key: key.clone(), revision: kv.map_or(0, etcd_client::KeyValue::mod_revision) };
    let before = published.as_ref().map_or(&presence.blocks, |record| &record.blocks);

    let mut compares = vec![seen.unchanged()];
    let mut operations = Vec::new();
    let mut blocks = Vec::new();
    let mut taken = None;
    for pool in &shared.options.pools {
        let own = before
            .iter()
            .find(|block| block.prefix() == pool.block && pool.network.contains(block.address()));
        if let Some(own) = own
            && let Some((seen, is_free)) = look(shared, client, &presence.node, own).await?
        {
            if is_free {
                operations.push(take(&seen, &presence.node));
            }
            compares.push(seen.unchanged());
            blocks.push(*own);
            continue;
        }
        if taken.is_none() {
            taken = Some(list(client, &shared.keys.blocks(), true).await?);
        }
        let range = taken.as_ref().map(|range| range.kvs.as_slice()).unwrap_or_default();
        let keys: BTreeSet<&[u8]> = range.iter().map(etcd_client::KeyValue::key).collect();
        let block = choose(shared, pool, &keys)?;
        let seen = Seen { key: shared.keys.block(&block), revision: 0 };
        compares.push(seen.unchanged());
        operations.push(take(&seen, &presence.node));
        blocks.push(block);
    }
    let record =
        NodeRecord::new(presence.node.clone(), &presence.underlay, presence.port, &[presence.vni], &blocks);
    if let Some(published) = published
        && operations.is_empty()
        && record.clone().with_epoch(published.epoch) == published
    {
        return Ok(Some(published));
    }
    // A later claim has a larger number, whoever made it.
    let record = record.with_epoch(u64::try_from(revision).unwrap_or_default());
    operations.push(TxnOp::put(key, record.to_json(), None));
    let txn = Txn::new().when(compares).and_then(operations);
    let answer = ask("publish this node's record", client.txn(txn)).await?;
    if answer.succeeded() {
        info!(blocks = %joined(&record.blocks), underlay = %joined(&record.underlays().collect::<Vec<_>>()), "this node's record is published");
    }
    Ok(answer.succeeded().then_some(record))
}

/// Whether a block that this node had can be had: its own still, or free. `None` if it is somebody else's.
async fn look(
    shared: &Shared,
    client: &mut Client,
    node: &NodeId,
    block: &Cidr,
) -> Result<Option<(Seen, bool)>, Trouble> {
    let key = shared.keys.block(block);
    let answer = ask("read a block's owner", client.get(key.clone(), None)).await?;
    let Some(kv) = answer.kvs().first() else { return Ok(Some((Seen { key, revision: 0 }, true))) };
    let seen = Seen { key, revision: kv.mod_revision() };
    match serde_json::from_slice::<Owner>(kv.value()) {
        Ok(owner) if owner.node == *node => Ok(Some((seen, owner.resting))),
        _ => Ok(None),
    }
}

fn take(seen: &Seen, node: &NodeId) -> TxnOp {
    let owner = Owner { node: node.clone(), resting: false };
    TxnOp::put(seen.key.clone(), owner.to_json(), None)
}

/// A free block, at random: agents that start together rarely want the same.
fn choose(shared: &Shared, pool: &Pool, taken: &BTreeSet<&[u8]>) -> Result<Cidr, Trouble> {
    let size = pool.size();
    let start = random() % size;
    // The first block of a network of many is left out, as flannel does: its first address is the network's own.
    let spare = u64::from(size > 1);
    let candidates = (0..size).map(|step| (start + step) % size).filter(|number| *number >= spare);
    let free = candidates
        .filter_map(|number| pool.block(number))
        .find(|block| !taken.contains(shared.keys.block(block).as_bytes()));
    free.ok_or_else(|| Trouble::NoBlock { network: pool.network, taken: taken.len(), total: size - spare })
}

/// Takes a node's record away and gives its blocks back, if `compares` hold and its record is as it was read. Says whether it did.
pub(super) async fn release(
    shared: &Shared,
    client: &mut Client,
    node: &NodeId,
    mut compares: Vec<Compare>,
) -> Result<bool, Trouble> {
    let key = shared.keys.node(node);
    let answer = ask("read a node's record", client.get(key.clone(), None)).await?;
    let Some(kv) = answer.kvs().first() else { return Ok(false) };
    compares.push(Seen { key: key.clone(), revision: kv.mod_revision() }.unchanged());
    let mut operations = vec![TxnOp::delete(key.clone(), None)];
    // One that can't be read has no blocks that are known of.
    let blocks = NodeRecord::from_json(kv.value(), &key).map(|record| record.blocks).unwrap_or_default();
    let rest = REST.min(shared.options.grace).as_secs().max(1);
    let lease =
        ask("get a lease", client.lease_grant(i64::try_from(rest).unwrap_or(i64::MAX), None)).await?.id();
    let owner = Owner { node: node.clone(), resting: true }.to_json();
    for block in blocks {
        // One that is somebody else's by now is left to them.
        let Some((seen, _)) = look(shared, client, node, &block).await? else { continue };
        compares.push(seen.unchanged());
        operations.push(TxnOp::put(seen.key, owner.clone(), Some(PutOptions::new().with_lease(lease))));
    }
    let txn = Txn::new().when(compares).and_then(operations);
    Ok(ask("give a node's blocks back", client.txn(txn)).await?.succeeded())
}

/// Takes this node's record away for good.
pub(super) async fn withdraw(shared: &Shared, endpoint: &str, node: &NodeId) -> Result<(), Trouble> {
    let mut client = connect(&shared.options, endpoint).await?;
    release(shared, &mut client, node, Vec::new()).await?;
    ask("remove this node's sign of life", client.delete(shared.keys.alive(node), None)).await?;
    Ok(())
}
