//! The state of the world as lines that can be compared: `host/link/br0` → `bridge up mtu 1500 …`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::netlink::{self, View};
use super::sysctl::Settings;

/// A comparable picture of namespaces and files. Keys are paths (`host/link/eth0`, `c1/route/…`, `file/run/…`), values say
/// what is there. Indexes, counters, timers, handles and what the kernel makes by itself for IPv6 are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Key to value.
    lines: BTreeMap<String, String>,
    /// By the label of their namespace: hundreds, of which next to none ever differs.
    settings: BTreeMap<String, Settings>,
}

/// Before the number of a second thing with the same key.
const SAME: &str = " (again ";

/// What differs between two snapshots: a line each, beginning with `+`, `-` or `~`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Key, and the line that says how it differs.
    pub lines: Vec<(String, String)>,
}

impl Difference {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Without the keys that match one of `patterns` (`*` stands for any text).
    #[must_use]
    pub fn without(mut self, patterns: &[String]) -> Self {
        self.lines.retain(|(key, _)| !patterns.iter().any(|pattern| crate::glob(pattern, key)));
        self
    }

    /// Only what is there later and was not before.
    #[must_use]
    pub fn added(mut self) -> Self {
        self.lines.retain(|(_, line)| line.starts_with('+'));
        self
    }

    /// Only the keys that match `pattern`.
    #[must_use]
    pub fn only(mut self, pattern: &str) -> Self {
        self.lines.retain(|(key, _)| crate::glob(pattern, key));
        self
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 12;
        for (index, (_, line)) in self.lines.iter().take(SHOWN).enumerate() {
            write!(f, "{}{line}", if index == 0 { "" } else { "; " })?;
        }
        if self.lines.len() > SHOWN {
            write!(f, "; and {} more", self.lines.len() - SHOWN)?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// What must be done to `self` to get `later`.
    pub fn difference(&self, later: &Self) -> Difference {
        let mut lines = Vec::new();
        for (key, value) in &self.lines {
            match later.lines.get(key) {
                None => lines.push((key.clone(), format!("- {key}: {value}"))),
                Some(now) if now != value => {
                    lines.push((key.clone(), format!("~ {key}: {value} -> {now}")));
                }
                Some(_) => {}
            }
        }
        for (key, value) in &later.lines {
            if !self.lines.contains_key(key) {
                lines.push((key.clone(), format!("+ {key}: {value}")));
            }
        }
        let none = Settings::default();
        let labels: BTreeSet<&String> = self.settings.keys().chain(later.settings.keys()).collect();
        for label in labels {
            let before = self.settings.get(label).unwrap_or(&none);
            for (name, before, now) in before.difference(later.settings.get(label).unwrap_or(&none)) {
                let key = format!("{label}/sysctl/{name}");
                let line = match (before, now) {
                    (Some(before), Some(now)) => format!("~ {key}: {before} -> {now}"),
                    (Some(before), None) => format!("- {key}: {before}"),
                    (None, now) => format!("+ {key}: {}", now.unwrap_or_default()),
                };
                lines.push((key, line));
            }
        }
        lines.sort();
        Difference { lines }
    }

    /// Adds the calling thread's network namespace below `label`.
    ///
    /// # Errors
    /// What the kernel said to a dump. A tool that is missing is not an error: there is nothing to read with it.
    pub fn add_namespace(&mut self, label: &str) -> io::Result<()> {
        let view = View::read()?;
        self.add_view(label, &view);
        self.settings.insert(label.to_owned(), Settings::read(&view));
        self.add_firewall(label);
        Ok(())
    }

    /// Without the files whose keys begin with one of `prefixes`.
    pub fn forget(&mut self, prefixes: &[&str]) {
        self.lines.retain(|key, _| !prefixes.iter().any(|prefix| key.starts_with(prefix)));
    }

    fn put(&mut self, mut key: String, value: String) {
        // Two things with one key (a neighbour twice) must not hide each other.
        let mut number = 2;
        while self.lines.contains_key(&key) {
            key.truncate(key.find(SAME).unwrap_or(key.len()));
            key = format!("{key}{SAME}{number})");
            number += 1;
        }
        self.lines.insert(key, value);
    }

    fn add_view(&mut self, label: &str, view: &View) {
        for link in &view.links {
            let controller = link.controller.map(|index| view.link_name(index)).unwrap_or_default();
            let flags = [
                (link.up, " up"),
                (link.promiscuous, " promisc"),
                (link.all_multicast, " allmulti"),
                (link.peer_elsewhere, " peer-elsewhere"),
            ];
            let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, text)| *text).collect();
            // A bridge without an address of its own takes that of a port, so its MAC follows what joins and leaves.
            let mac = if link.kind == "bridge" { "" } else { link.mac.as_str() };
            let value = format!(
                "{} mtu {} qlen {}{flags} mac {mac} controller {controller:?} alias {:?}",
                link.kind, link.mtu, link.tx_queue, link.alias
            );
            self.put(format!("{label}/link/{}", link.name), value);
        }
        for address in &view.addresses {
            let name = view.link_name(address.link);
            self.put(
                format!("{label}/address/{name}/{}", address.network),
                format!("scope {}", address.scope),
            );
        }
        for route in &view.routes {
            let link = route.link.map(|index| view.link_name(index)).unwrap_or_default();
            let gateway = route.gateway.map(|ip| format!(" via {ip}")).unwrap_or_default();
            let key = format!("{label}/route/{}/{}{gateway} dev {link}", route.table, route.destination);
            let value = format!(
                "scope {} priority {:?} source {:?} mtu {:?} advmss {:?} protocol {} type {}",
                route.scope,
                route.priority,
                route.source,
                route.mtu,
                route.advmss,
                route.protocol,
                route.kind
            );
            self.put(key, value);
        }
        for rule in &view.rules {
            self.put(format!("{label}/rule/{}", rule.text), String::new());
        }
        for neighbour in &view.neighbours {
            let name = view.link_name(neighbour.link);
            self.put(format!("{label}/neighbour/{name}/{}", neighbour.text), String::new());
        }
        for entry in &view.forwarding {
            // The kernel lists the addresses of the bridge itself and of its ports among the permanent ones.
            if view.links.iter().any(|link| !link.mac.is_empty() && entry.text.starts_with(&link.mac)) {
                continue;
            }
            let name = view.link_name(entry.link);
            self.put(format!("{label}/fdb/{name}/{}", entry.text), String::new());
        }
    }

    fn add_firewall(&mut self, label: &str) {
        // Asking is far cheaper than starting a program, and most namespaces have none. Where the kernel cannot tell, the program can.
        if netlink::has_nft_tables().unwrap_or(true)
            && let Some(text) = output("nft", &["-j", "list", "ruleset"])
        {
            for (key, value) in nft_lines(&text) {
                self.put(format!("{label}/nft/{key}"), value);
            }
        }
        // The nft variant of iptables shows in the ruleset above; the old one is asked only where its tables exist.
        for (names, command) in [
            ("/proc/net/ip_tables_names", "iptables-legacy-save"),
            ("/proc/net/ip6_tables_names", "ip6tables-legacy-save"),
        ] {
            if fs::read_to_string(names).is_ok_and(|tables| !tables.trim().is_empty())
                && let Some(text) = output(command, &[])
            {
                self.add_saved_rules(&format!("{label}/{command}"), &text);
            }
        }
    }

    fn add_saved_rules(&mut self, label: &str, text: &str) {
        let mut table = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(chain) = line.strip_prefix(':') {
                let chain = chain.split('[').next().unwrap_or(chain).trim();
                self.put(format!("{label}/{table}/{chain}"), String::new());
            } else if line.starts_with("-A") {
                self.put(format!("{label}/{table}/{line}"), String::new());
            }
        }
    }

    /// Adds every file below `root` as `file/…`, named as if `root` were `named`.
    pub fn add_files(&mut self, root: &Path, named: &str) {
        let Ok(entries) = fs::read_dir(root) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = format!("{named}/{}", entry.file_name().to_string_lossy());
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let mode = metadata.permissions().mode() & 0o7777;
            let kind = metadata.file_type();
            if kind.is_dir() {
                self.put(format!("file{name}/"), format!("directory {mode:o}"));
                self.add_files(&path, &name);
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap_or_default();
                self.put(format!("file{name}"), format!("link to {}", target.display()));
            } else if kind.is_file() {
                let bytes = fs::read(&path).unwrap_or_default();
                self.put(
                    format!("file{name}"),
                    format!("{mode:o} {} bytes {:016x}", bytes.len(), digest(&bytes)),
                );
            } else {
                let what = if kind.is_char_device() { "removed" } else { "special" };
                self.put(format!("file{name}"), format!("{what} {mode:o}"));
            }
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// FNV-1a: enough to see that a file's content differs.
fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn nft_lines(text: &str) -> Vec<(String, String)> {
    let Ok(Value::Object(document)) = serde_json::from_str(text) else { return Vec::new() };
    let Some(Value::Array(objects)) = document.get("nftables") else { return Vec::new() };
    let mut lines = Vec::new();
    for object in objects {
        let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next()) else { continue };
        if kind == "metainfo" {
            continue;
        }
        let mut body = body.clone();
        without_volatile(&mut body);
        let elements = body.as_object_mut().and_then(|object| object.remove("elem"));
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let table = if kind == "table" { text("name") } else { text("table") };
        let place = format!("{kind}/{}/{table}", text("family"));
        if kind == "rule" {
            let rule = format!("{} {}", body.get("comment").unwrap_or(&Value::Null), body["expr"]);
            lines.push((format!("{place}/{}/{rule}", text("chain")), String::new()));
        } else {
            let name = text("name");
            lines.push((format!("{place}/{name}"), body.to_string()));
            for element in elements.iter().filter_map(Value::as_array).flatten() {
                lines.push((format!("element/{table}/{name}/{element}"), String::new()));
            }
        }
    }
    lines
}

fn without_volatile(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for key in ["handle", "packets", "bytes", "expires", "index"] {
                object.remove(key);
            }
            object.values_mut().for_each(without_volatile);
        }
        Value::Array(array) => array.iter_mut().for_each(without_volatile),
        _ => {}
    }
}
