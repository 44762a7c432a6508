//! What other people's tools say about a namespace.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::netns::{Netns, Ran};

/// Directories of system tools that an unprivileged user's PATH may lack.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Where a tool is, if it is installed.
pub fn have(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Runs a tool in the calling thread's network namespace and returns its standard output.
///
/// # Panics
/// If it is missing or fails.
pub fn tool<S: AsRef<str>>(name: &str, arguments: &[S]) -> String {
    let ran = run_here(name, arguments);
    let words: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    assert!(ran.code == 0, "`{name} {}` ended with {}: {}", words.join(" "), ran.code, ran.stderr.trim());
    ran.stdout
}

pub(crate) fn run_here<S: AsRef<str>>(name: &str, arguments: &[S]) -> Ran {
    let program = have(name).unwrap_or_else(|| panic!("`{name}` is not installed: run tools/install-deps"));
    let output = Command::new(program)
        .args(arguments.iter().map(AsRef::as_ref))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("`{name}` cannot be started: {e}"));
    Ran {
        code: output.status.code().unwrap_or(128),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What `ip -d -j ARGUMENTS` prints (arguments separated by blanks); an empty list where it prints nothing.
pub fn ip_json(arguments: &str) -> Value {
    let words: Vec<&str> = ["-d", "-j"].into_iter().chain(arguments.split_whitespace()).collect();
    json_or_empty("ip", &words)
}

/// The objects of `nft -j list ruleset`, without the `metainfo` one.
pub fn nft_json() -> Vec<Value> {
    let listing = json_or_empty("nft", &["-j", "list", "ruleset"]);
    let objects = listing["nftables"].as_array().cloned().unwrap_or_default();
    objects.into_iter().filter(|object| object.get("metainfo").is_none()).collect()
}

/// What `nft list ruleset` prints, without counters' values.
pub fn nft_text() -> String {
    tool("nft", &["-s", "list", "ruleset"])
}

fn json_or_empty(name: &str, arguments: &[&str]) -> Value {
    let text = tool(name, arguments);
    // `ip -j` prints nothing at all for some empty lists.
    if text.trim().is_empty() {
        return Value::Array(Vec::new());
    }
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("`{name} {}`: {e}: {text}", arguments.join(" ")))
}

/// Reads a sysctl of the calling thread's namespace: `net.ipv4.ip_forward`, or with slashes where an interface name
/// has a dot (`net/ipv4/conf/eth0.100/forwarding`).
pub fn sysctl(key: &str) -> String {
    let path = sysctl_path(key);
    let value = fs::read_to_string(&path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
    value.trim().to_owned()
}

/// Writes a sysctl; the key as for [`sysctl`].
pub fn set_sysctl(key: &str, value: &str) {
    let path = sysctl_path(key);
    fs::write(&path, value).unwrap_or_else(|e| panic!("writing {value} to {}: {e}", path.display()));
}

fn sysctl_path(key: &str) -> PathBuf {
    let key = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    Path::new("/proc/sys").join(key)
}

/// Whether `address` answers an echo request sent from `netns` within three seconds; one lost packet is no verdict, so
/// requests are repeated until one is answered.
pub fn ping(netns: &Netns, address: impl Into<IpAddr>) -> bool {
    let address = address.into();
    let text = address.to_string();
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    netns
        .enter(|| run_here("ping", &[family, "-n", "-q", "-c", "1", "-i", "0.2", "-w", "3", &text]).code == 0)
}
