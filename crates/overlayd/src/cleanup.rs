//! Taking a network off this host.

use ferrule_core::attachment;
use ferrule_overlay::{NodeId, PLUGIN, Settings, State, Vni, remove};
use tracing::{info, warn};

use crate::cli::RunOptions;
use crate::config::{self, Config};
use crate::control::Claim;
use crate::error::Error;
use crate::snapshot::Snapshot;

/// Removes device, entries, firewall table and files of a network; where the options name etcd, this node's record and blocks as well. Does
/// so only while no agent runs, which would put everything back.
pub(crate) async fn run(options: &RunOptions) -> Result<(), Error> {
    let network = config::network(&options.network)?;
    let claim = Claim::take(&network)?;
    if options.etcd.is_empty() {
        remove(&settings(options)?)?;
    } else {
        let config = Config::new(options)?;
        remove(&config.settings)?;
        withdraw(&config).await?;
    }
    State::remove(&network)?;
    Snapshot::remove(&options.state_dir, &network)?;
    claim.forget();
    match attachment::recorded(&network, PLUGIN) {
        Ok(connected) if !connected.is_empty() => warn!(
            %network,
            containers = connected.len(),
            "containers are still connected to the network and reach no other host any more; DEL takes away what they have"
        ),
        // Records that can't be read are for GC to complain of.
        _ => info!(%network, "nothing of the network is left on this host"),
    }
    Ok(())
}

async fn withdraw(config: &Config) -> Result<(), Error> {
    let source = crate::agent::source(config)?;
    let Some(node) = config.node.clone() else { return Ok(()) };
    source.withdraw(NodeId::clone(&node)).await?;
    info!(%node, source = %source.describe(), "this node's record and blocks are given back");
    Ok(())
}

/// What the agent wrote, or else what the options say: names follow from the network's.
fn settings(options: &RunOptions) -> Result<Settings, Error> {
    let network = config::network(&options.network)?;
    if let Ok(state) = State::read(&network) {
        return Ok(state.settings);
    }
    let vni = Vni::new(options.vni.unwrap_or(1))
        .map_err(|error| Error::option("--vni", options.vni.unwrap_or(1), error.to_string()))?;
    config::settings(options, vni, &[])
}
