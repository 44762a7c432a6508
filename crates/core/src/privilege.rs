//! What the process may do.

use std::fs;

use cni::{Code, Failure};

/// The capabilities a plugin needs (`capabilities(7)`), by number.
const NEEDED: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];

/// The names of the capabilities that are needed to change networks and enter namespaces, and that this process lacks.
pub fn missing() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        // Unknown counts as allowed: the kernel decides in the end, and says so.
        .unwrap_or(u64::MAX);
    NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect()
}

/// Fails with code 50 if a capability is missing: what STATUS answers then.
pub fn require() -> Result<(), Failure> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Code::NotAvailable, format!("{} missing", missing.join(", ")))
        .hint("run the plugin as root, or with these capabilities"))
}
