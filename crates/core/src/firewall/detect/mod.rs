//! Who owns the host's forward path: in which backend an accept lets packets pass.
//!
//! A packet passes only if every chain at the forward hook lets it. An accept in a table of our own overrules nobody's drop, so it has to
//! be said where the drop is: to firewalld, or in the chains of iptables. Looking costs a few netlink messages and no process: tables of
//! `iptables-nft` are tables of `nf_tables`, and those of `iptables-legacy` are read as iptables itself reads them.

use std::fmt;
use std::time::{Duration, Instant};

use super::{Backend, FirewallError, Firewalld, Iptables};
use crate::nft::{self, Connection};

mod legacy;
mod nf_tables;

/// How long the kernel may take to list what there is.
const DEADLINE: Duration = Duration::from_secs(10);

/// Chains by which one knows that iptables decides what is forwarded, though no rule drops anything yet: their owners let through what is
/// theirs and drop the rest, some of them as soon as they have something of their own to protect.
const OWNERS: [&str; 7] =
    ["DOCKER", "ufw-", "ufw6-", "KUBE-", "cali-", super::iptables::FORWARD_CHAIN, "CNI-ISOLATION-STAGE-"];

/// Which tables iptables works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Tables of `nf_tables`.
    Nft,
    /// Tables of their own.
    Legacy,
}

/// Why iptables is thought to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// `FORWARD` drops what no rule accepts.
    Policy,
    /// A chain of this name, known to be made by somebody who filters.
    Chain(String),
    /// A rule of this chain, which `FORWARD` leads to, drops or rejects.
    Drop(String),
}

/// Something found that decides about forwarded packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// firewalld is running.
    Firewalld,
    /// iptables filters.
    Iptables {
        /// In which tables.
        variant: Variant,
        /// Whether in those of IPv6.
        ipv6: bool,
        /// What shows it.
        sign: Sign,
    },
    /// A chain of nftables that is nobody's whose backend we have. Nothing we accept overrules it.
    ForeignNftables {
        /// Its table, with the family: `inet filter`.
        table: String,
        /// Its name.
        chain: String,
        /// Whether it drops what no rule accepts; else a rule drops or may drop.
        by_policy: bool,
    },
}

impl Evidence {
    fn drops_in_iptables(&self) -> bool {
        matches!(self, Self::Iptables { sign: Sign::Policy | Sign::Drop(_), .. })
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firewalld => f.write_str("firewalld is running"),
            Self::Iptables { variant, ipv6, sign } => {
                let program = if *ipv6 { "ip6tables" } else { "iptables" };
                let variant = match variant {
                    Variant::Nft => "nft",
                    Variant::Legacy => "legacy",
                };
                match sign {
                    Sign::Policy => write!(f, "{program} ({variant}) has policy DROP in FORWARD"),
                    Sign::Chain(chain) => write!(f, "{program} ({variant}) has chain {chain}"),
                    Sign::Drop(chain) => write!(f, "{program} ({variant}) has a rule in {chain} that drops"),
                }
            }
            Self::ForeignNftables { table, chain, by_policy: true } => {
                write!(f, "nftables chain `{table} {chain}` has policy drop")
            }
            Self::ForeignNftables { table, chain, by_policy: false } => {
                write!(f, "nftables chain `{table} {chain}` has a rule that drops")
            }
        }
    }
}

/// What was found, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// The backends in which packets must be accepted to pass; one at least. More than one where, say, firewalld and Docker are on one
    /// host.
    pub backends: Vec<Backend>,
    /// What was found.
    pub evidence: Vec<Evidence>,
}

impl Detection {
    /// The first of the backends.
    pub fn backend(&self) -> Backend {
        self.backends.first().copied().unwrap_or(Backend::Nftables)
    }

    /// What no backend can overrule: its administrator has to let the containers' packets pass.
    pub fn obstacles(&self) -> impl Iterator<Item = &Evidence> {
        self.evidence.iter().filter(|evidence| matches!(evidence, Evidence::ForeignNftables { .. }))
    }
}

/// Looks at the host. Changes nothing, and starts no process.
pub fn detect() -> Result<Detection, FirewallError> {
    let mut evidence = Vec::new();
    // A bus that does not answer tells nothing about the packets' way, and must not stop everything.
    let firewalld = Firewalld::is_running().unwrap_or(false);
    if firewalld {
        evidence.push(Evidence::Firewalld);
    }
    let nftables = match Connection::open(Instant::now() + DEADLINE).map(|mut c| nf_tables::look(&mut c)) {
        Ok(Ok(found)) => {
            evidence.extend(found);
            true
        }
        // A kernel without nf_tables has no tables there.
        Ok(Err(error)) | Err(error) if is_absent(&error) => false,
        Ok(Err(error)) | Err(error) => return Err(error.into()),
    };
    evidence.extend(legacy::look()?);
    if firewalld {
        evidence.retain(|found| !is_firewallds(found));
    }
    let iptables = evidence.iter().any(|found| matches!(found, Evidence::Iptables { .. }));
    // Where iptables drops, only it can accept, and who chooses it is told that its programs are missing. A chain of somebody's who filters (kube-proxy, whose
    // image has programs of its own) need not drop.
    let usable = || evidence.iter().any(Evidence::drops_in_iptables) || Iptables::new("").probe().is_ok();
    let mut backends = Vec::new();
    backends.extend(firewalld.then_some(Backend::Firewalld));
    backends.extend((iptables && usable()).then_some(Backend::Iptables));
    if backends.is_empty() {
        backends.push(if nftables { Backend::Nftables } else { Backend::Iptables });
    }
    Ok(Detection { backends, evidence })
}

fn is_absent(error: &nft::Error) -> bool {
    error.is_unsupported()
}

/// firewalld's own rules, which it is asked about instead: a table of nftables, or chains of iptables where it is configured to use those.
fn is_firewallds(found: &Evidence) -> bool {
    match found {
        Evidence::ForeignNftables { table, .. } => table.ends_with(" firewalld"),
        Evidence::Iptables { sign: Sign::Drop(chain), .. } => {
            chain == "FORWARD" || chain.starts_with("FWD_") || chain.starts_with("FORWARD_")
        }
        _ => false,
    }
}

/// Whether a chain's name is that of somebody who filters.
fn is_of_an_owner(chain: &str) -> bool {
    OWNERS.iter().any(|owner| chain.starts_with(owner))
}
