//! What the process may do.

use std::fs;

use cni::{Code, Failure};

/// What changes of a network take.
const CHANGE: &str = "CAP_NET_ADMIN";

/// The capabilities a plugin needs (`capabilities(7)`), by number.
const NEEDED: [(&str, u32); 2] = [(CHANGE, 12), ("CAP_SYS_ADMIN", 21)];

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

/// A failure of ADD, where a capability is missing and the kernel refused something: the capability is what to know then. Programs that are
/// run for the plugin (`iptables-save`) say so in words of their own.
pub(crate) fn explain(failure: Failure) -> Failure {
    let mut missing = missing();
    match failure.code() {
        Code::Netns | Code::NotPermitted => {}
        // A plugin that has no business in the container does not need the other.
        Code::Kernel => missing.retain(|name| *name == CHANGE),
        _ => return failure,
    }
    if missing.is_empty() {
        return failure;
    }
    let hint = format!("{} missing: run the plugin as root, or with these capabilities", missing.join(", "));
    failure.with_code(Code::NotPermitted).hint(hint)
}

/// Fails with code 50 if a capability is missing: what STATUS answers then.
pub fn require() -> Result<(), Failure> {
    lacking(&missing())
}

/// As [`require`], for a plugin that changes the host only and enters no container.
pub fn require_on_host() -> Result<(), Failure> {
    let mut missing = missing();
    missing.retain(|name| *name == CHANGE);
    lacking(&missing)
}

fn lacking(missing: &[&str]) -> Result<(), Failure> {
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Code::NotAvailable, format!("{} missing", missing.join(", ")))
        .hint("run the plugin as root, or with these capabilities"))
}
