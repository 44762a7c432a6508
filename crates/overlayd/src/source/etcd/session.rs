//! A connection to one member of etcd, and what can go wrong with it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni::Cidr;
use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, Identity, KeyValue, TlsOptions};
use ferrule_overlay::{Family, NodeId};
use thiserror::Error;

use crate::config::EtcdOptions;

/// How long a request may take. A cluster that is electing a leader answers within a second or two.
const PATIENCE: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(2);
/// Between signs of life on an idle connection. Servers refuse clients that send them more often than every 5 s.
const PING: Duration = Duration::from_secs(10);
const PING_PATIENCE: Duration = Duration::from_secs(3);
/// How many keys are asked for at once.
const PAGE: i64 = 2000;

/// Why following etcd came to an end, to be begun again.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    #[error("can't {operation}: {}", said(source))]
    Request { operation: &'static str, source: etcd_client::Error },
    #[error("can't {operation}: no answer within {} s", PATIENCE.as_secs())]
    Timeout { operation: &'static str },
    #[error("can't read {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the server has ended the {what}")]
    Ended { what: &'static str },
    #[error("the server has thrown away what was to be watched next (compaction at revision {revision})")]
    Compacted { revision: i64 },
    #[error(
        "another node has the name {node}; give this one another with --node, or wait until that one's silence is noticed"
    )]
    NameTaken { node: NodeId },
    #[error("the nodes of this network have agreed on {agreed}, and this one was started with {own}")]
    OtherNetwork { agreed: String, own: String },
    #[error(
        "the tunnels of this network go by {family}, which this node has no address of; the first node has chosen (its --underlay-address, or IPv4)"
    )]
    OtherFamily { family: Family },
    #[error("no block of {network} is free: {taken} of {total} are taken, or were given back a moment ago")]
    NoBlock { network: Cidr, taken: usize, total: u64 },
    #[error("others were faster {attempts} times in taking a block of {network}")]
    Contended { network: Cidr, attempts: usize },
    #[error("this node has other addresses than the connection began with")]
    Moved,
    #[error("this node was taken for silent: its lease has expired")]
    LeaseLost,
}

/// What went wrong, without what every layer in between says of it: the server's words, or what the system said in the end.
fn said(error: &etcd_client::Error) -> String {
    let etcd_client::Error::GRpcStatus(status) = error else { return error.to_string() };
    let mut last: Option<&dyn std::error::Error> = std::error::Error::source(status);
    while let Some(cause) = last.and_then(std::error::Error::source) {
        last = Some(cause);
    }
    match last {
        Some(last) => format!("{}: {last}", status.message()),
        None => status.message().to_owned(),
    }
}

/// Waits for an answer, not for ever.
pub(super) async fn ask<T>(
    operation: &'static str,
    request: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(|source| Trouble::Request { operation, source }),
        Err(_) => Err(Trouble::Timeout { operation }),
    }
}

/// Connects to one member. Members are taken in turn by the caller: a balancer inside one connection would hide which of them answers, and
/// a watch stays where it began anyway.
pub(super) async fn connect(options: &EtcdOptions, endpoint: &str) -> Result<Client, Trouble> {
    let mut connection = ConnectOptions::new()
        .with_connect_timeout(CONNECT)
        .with_keep_alive(PING, PING_PATIENCE)
        .with_keep_alive_while_idle(true)
        // A member that has lost the others is left for one that has not.
        .with_require_leader(true);
    if endpoint.starts_with("https://") {
        connection = connection.with_tls(tls(options)?);
    }
    if let Some((user, password)) = &options.user {
        let password = String::from_utf8_lossy(&read(password)?).trim_end_matches(['\r', '\n']).to_owned();
        connection = connection.with_user(user, password).with_auto_token_refresh(true);
    }
    ask("connect to etcd", Client::connect([endpoint], Some(connection))).await
}

fn tls(options: &EtcdOptions) -> Result<TlsOptions, Trouble> {
    let mut tls = TlsOptions::new();
    if let Some(path) = &options.ca {
        tls = tls.ca_certificate(Certificate::from_pem(read(path)?));
    }
    if let Some((certificate, key)) = &options.identity {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}

/// Read at every connection: certificates and passwords are renewed while the agent runs.
fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    std::fs::read(path).map_err(|source| Trouble::File { path: path.to_owned(), source })
}

/// What was there at one moment.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) kvs: Vec<KeyValue>,
    /// The moment.
    pub(super) revision: i64,
    /// Which cluster: revisions of another mean nothing.
    pub(super) cluster: u64,
}

/// Everything below a directory, as of one revision, in pages.
pub(super) async fn list(client: &mut Client, directory: &str, keys_only: bool) -> Result<Range, Trouble> {
    let mut range = Range { kvs: Vec::new(), revision: 0, cluster: 0 };
    let end = end_of(directory.as_bytes());
    let mut from = directory.as_bytes().to_vec();
    loop {
        let mut options =
            GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(range.revision);
        if keys_only {
            options = options.with_keys_only();
        }
        let mut page = ask("list keys", client.get(from.clone(), Some(options))).await?;
        if let (0, Some(header)) = (range.revision, page.header()) {
            range.revision = header.revision();
            range.cluster = header.cluster_id();
        }
        let more = page.more();
        range.kvs.extend(page.take_kvs());
        match range.kvs.last() {
            // The next key after this one.
            Some(last) if more => from = [last.key(), &[0]].concat(),
            _ => return Ok(range),
        }
    }
}

/// The first key behind a directory.
fn end_of(directory: &[u8]) -> Vec<u8> {
    let mut end = directory.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1; // a slash
    }
    end
}

/// A number of no consequence, different at every node and every time.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::hash::RandomState::new().build_hasher().finish()
}

/// A part of a time, at random.
pub(super) fn part_of(time: Duration) -> Duration {
    let part = u32::try_from(random() % 1000).unwrap_or_default();
    time * part / 1000
}
