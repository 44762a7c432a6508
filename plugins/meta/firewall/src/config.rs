//! The configuration of `firewall`, decoded and validated before anything is changed.

use std::fmt::Display;

use cni::{Code, Failure};
use ferrule_core::firewall::{self, Backend, IsolationPolicy};
use serde::Deserialize;

/// The chain in which operators overrule the plugin (iptables).
const ADMIN_CHAIN: &str = "CNI-ADMIN";

/// The zone of firewalld that lets everything through.
const ZONE: &str = "trusted";

/// The keys as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    backend: String,
    iptables_admin_chain_name: String,
    firewalld_zone: String,
    ingress_policy: String,
}

/// A valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The firewall; `None` for the one that is found to own the host's forward path.
    pub backend: Option<Backend>,
    /// The operators' chain (iptables).
    pub admin_chain: String,
    /// The zone (firewalld).
    pub zone: String,
    /// How far the bridge is isolated; `None` for not at all.
    pub isolation: Option<IsolationPolicy>,
}

/// An invalid value, with its path.
fn refused(path: impl Display, reason: impl Display) -> Failure {
    Failure::new(Code::InvalidConfig, format!("invalid configuration: {path}: {reason}"))
}

impl Config {
    /// Decodes and validates. Error 7 with key and value.
    pub fn load(config: &cni::Config) -> Result<Self, Failure> {
        let wire: Wire = config.decode()?;
        let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
        let admin_chain = or(wire.iptables_admin_chain_name, ADMIN_CHAIN);
        if !firewall::is_chain_name(&admin_chain) {
            let reason = format!("{admin_chain:?} is not the name of an iptables chain");
            return Err(refused("iptablesAdminChainName", reason).hint(format!(
                "a chain's name has at most {} characters, no blanks, and no `-` in front",
                firewall::CHAIN_NAME_LIMIT
            )));
        }
        Ok(Self {
            backend: backend(&wire.backend)?,
            admin_chain,
            zone: or(wire.firewalld_zone, ZONE),
            isolation: isolation(&wire.ingress_policy)?,
        })
    }
}

/// The Go suite takes a name that it does not know for none, and a misspelt one goes unnoticed.
fn backend(name: &str) -> Result<Option<Backend>, Failure> {
    if name.is_empty() {
        return Ok(None);
    }
    let known = [Backend::Nftables, Backend::Iptables, Backend::Firewalld];
    let found = known.into_iter().find(|backend| backend.as_str() == name);
    found.map(Some).ok_or_else(|| {
        refused("backend", format!("unknown firewall backend {name:?}")).hint(
            "backend is nftables, iptables or firewalld; without it the right one for the host is found",
        )
    })
}

fn isolation(policy: &str) -> Result<Option<IsolationPolicy>, Failure> {
    match policy {
        "" | "open" => Ok(None),
        "same-bridge" => Ok(Some(IsolationPolicy::SameBridge)),
        "isolated" => Ok(Some(IsolationPolicy::Isolated)),
        other => Err(refused("ingressPolicy", format!("unknown ingress policy: {other:?}"))
            .hint("ingressPolicy is open, same-bridge or isolated")),
    }
}

#[cfg(test)]
mod tests;
