//! Everything about a host that networking plugins change, as text that can be compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use crate::kernel;
use crate::normal;
use crate::oracle::{have, ip_json, nft_json, run_here, tool};

/// The tool of iproute2, and not the CNI plugin of the same name that may come first in PATH.
const BRIDGE: &str = "/sbin/bridge";

/// Directories whose files are part of a host's state.
const STATE_DIRECTORIES: [&str; 4] = ["/run/ferrule", "/run/cni", "/var/lib/cni", "/etc/cni"];

/// Sysctls of the whole namespace. Those a kernel lacks are left out.
const GLOBAL_SYSCTLS: [&str; 6] = [
    "net/ipv4/ip_forward",
    "net/ipv4/ip_nonlocal_bind",
    "net/ipv6/ip_nonlocal_bind",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-arptables",
];

/// Sysctls of each interface, `all` and `default`.
const INTERFACE_SYSCTLS: [&str; 17] = [
    "accept_dad",
    "accept_ra",
    "accept_redirects",
    "arp_announce",
    "arp_ignore",
    "arp_notify",
    "autoconf",
    "disable_ipv6",
    "forwarding",
    "keep_addr_on_down",
    "ndisc_notify",
    "proxy_arp",
    "proxy_ndp",
    "route_localnet",
    "rp_filter",
    "send_redirects",
    "src_valid_mark",
];

/// The state of the calling thread's network namespace and of the state directories: links, addresses, routes of all
/// tables, nexthop objects, rules, permanent neighbours, forwarding entries of bridges and tunnels, bridge VLANs, qdiscs, the nftables ruleset, both kinds of iptables rules,
/// sysctls, files.
///
/// Left out is what differs between two looks at the same state: interface indexes, counters, handles, timers,
/// carrier and DAD progress, link-local addresses, what bridges have learnt, multicast groups that links have joined; and the
/// empty tables the `iptables` commands leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Section name to its lines.
    sections: BTreeMap<&'static str, Vec<String>>,
}

impl Snapshot {
    /// Looks at the host.
    ///
    /// # Panics
    /// If `ip`, `nft` or `tc` is missing or fails.
    pub fn take() -> Self {
        let routes = |family| lines(&ip_json(&format!("-{family} route show table all")), normal::keep_route);
        let rules = |family| lines(&ip_json(&format!("-{family} rule show")), |_| true);
        let sections = BTreeMap::from([
            ("links", lines(&ip_json("link show"), |_| true)),
            ("addresses", addresses(&ip_json("addr show"))),
            ("routes", [routes(4), routes(6)].concat()),
            ("rules", [rules(4), rules(6)].concat()),
            ("neighbours", lines(&ip_json("neigh show nud permanent"), |_| true)),
            ("nexthops", lines(&ip_json("nexthop show"), |_| true)),
            ("forwarding entries", tool_lines(BRIDGE, &["-j", "fdb", "show"], normal::keep_forwarding)),
            ("bridge vlans", tool_lines(BRIDGE, &["-j", "vlan", "show"], |_| true)),
            ("qdiscs", tool_lines("tc", &["-j", "qdisc", "show"], |_| true)),
            ("nftables", normal::ruleset(nft_json()).iter().map(normal::line).collect()),
            ("iptables", iptables()),
            ("sysctls", sysctls()),
            ("files", files()),
        ]);
        Self { sections }
    }

    /// Like [`Snapshot::take`] where the tools are installed, else [`Snapshot::take_from_kernel`].
    pub fn take_anywhere() -> Self {
        let tools = ["ip", BRIDGE, "tc", "nft"];
        if tools.iter().all(|name| have(name).is_some()) { Self::take() } else { Self::take_from_kernel() }
    }

    /// Looks at the host (never at another namespace) through the kernel's own lists, with less detail than
    /// [`Snapshot::take`]: for the demonstration, which needs nothing installed.
    pub fn take_from_kernel() -> Self {
        let sections = BTreeMap::from([
            ("links", kernel::links()),
            ("addresses", kernel::addresses()),
            ("routes", kernel::routes()),
            ("nftables", kernel::nftables()),
            ("sysctls", sysctls()),
            ("files", files()),
        ]);
        Self { sections }
    }

    /// The names of the sections.
    pub fn names(&self) -> Vec<&'static str> {
        self.sections.keys().copied().collect()
    }

    /// How many lines there are in all.
    #[expect(clippy::len_without_is_empty, reason = "a host always has something to list")]
    pub fn len(&self) -> usize {
        self.sections.values().map(Vec::len).sum()
    }

    /// The same without what two correct suites may do differently: MAC addresses, and the random part of veth names.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        let mut sections = self.sections.clone();
        for lines in sections.values_mut() {
            for line in lines.iter_mut() {
                *line = normal::anonymous(line);
            }
            lines.sort();
        }
        Self { sections }
    }

    /// The same without the lines (as `difference` prints them, `section: content`) that contain one of `texts`.
    #[must_use]
    pub fn without(&self, texts: &[&str]) -> Self {
        let mut kept = self.clone();
        for (section, lines) in &mut kept.sections {
            lines.retain(|line| {
                let line = format!("{section}: {line}");
                !texts.iter().any(|text| line.contains(text))
            });
        }
        kept
    }

    /// The same without what `host-local` keeps beside leases, on purpose, when the last lease is gone: its lock, its
    /// index, and the last address it gave, so that the next container gets another one.
    #[must_use]
    pub fn without_lease_bookkeeping(&self) -> Self {
        let mut kept = self.clone();
        if let Some(files) = kept.sections.get_mut("files") {
            files.retain(|line| {
                let path = line.split(' ').next().unwrap_or(line);
                let name = path.rsplit('/').next().unwrap_or(path);
                let bookkeeping = name == "lock"
                    || name.starts_with("last_reserved_ip.")
                    || path.starts_with("/var/lib/cni/networks/.ferrule/");
                !(path.starts_with("/var/lib/cni/networks/") && bookkeeping)
            });
        }
        kept
    }

    /// The lines of a section, such as `links` or `files`.
    ///
    /// # Panics
    /// If there is no such section.
    pub fn section(&self, name: &str) -> &[String] {
        self.sections.get(name).unwrap_or_else(|| panic!("a snapshot has no section {name}"))
    }

    /// What changed from `self` to `after`: a line per object, `-` gone, `+` new; empty if nothing did.
    pub fn difference(&self, after: &Self) -> String {
        let mut text = String::new();
        for (section, old) in &self.sections {
            let new = &after.sections[section];
            for line in missing_from(new, old) {
                let _ = writeln!(text, "- {section}: {line}");
            }
            for line in missing_from(old, new) {
                let _ = writeln!(text, "+ {section}: {line}");
            }
        }
        text
    }

    /// Demands that nothing changed.
    ///
    /// # Panics
    /// With the difference, if something did.
    #[track_caller]
    pub fn assert_same(&self, after: &Self) {
        let difference = self.difference(after);
        assert!(difference.is_empty(), "the host is not as it was before:\n{difference}");
    }
}

/// The lines of `from` that `other` lacks, counting repetitions.
fn missing_from<'a>(other: &[String], from: &'a [String]) -> Vec<&'a String> {
    let mut rest: Vec<&String> = other.iter().collect();
    from.iter()
        .filter(|line| match rest.iter().position(|candidate| candidate == line) {
            Some(at) => {
                rest.swap_remove(at);
                false
            }
            None => true,
        })
        .collect()
}

fn lines(list: &Value, keep: impl Fn(&Value) -> bool) -> Vec<String> {
    list.as_array().into_iter().flatten().filter(|item| keep(item)).map(normal::line).collect()
}

fn tool_lines(name: &str, arguments: &[&str], keep: impl Fn(&Value) -> bool) -> Vec<String> {
    let text = tool(name, arguments);
    if text.trim().is_empty() {
        return Vec::new();
    }
    let list = serde_json::from_str(&text).unwrap_or_else(|e| panic!("`{name}`: {e}: {text}"));
    lines(&list, keep)
}

/// One line per address, so that a difference names the address rather than the whole link.
fn addresses(links: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for link in links.as_array().into_iter().flatten() {
        for address in link["addr_info"].as_array().into_iter().flatten() {
            if !normal::is_link_local(address["local"].as_str().unwrap_or_default()) {
                all.push(format!("{} {}", link["ifname"].as_str().unwrap_or("?"), normal::line(address)));
            }
        }
    }
    all
}

fn iptables() -> Vec<String> {
    let mut all = Vec::new();
    for program in
        ["iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"]
    {
        if have(program).is_some() {
            // A kernel without legacy tables makes the command fail; then there are no rules to see.
            let listing = run_here::<&str>(program, &[]).stdout;
            all.extend(normal::iptables(&listing).into_iter().map(|line| format!("{program} {line}")));
        }
    }
    all
}

fn sysctls() -> Vec<String> {
    let root = Path::new("/proc/sys");
    let mut keys: Vec<String> = GLOBAL_SYSCTLS.map(String::from).to_vec();
    for family in ["ipv4", "ipv6"] {
        let directory = format!("net/{family}/conf");
        for interface in fs::read_dir(root.join(&directory)).into_iter().flatten().flatten() {
            let interface = interface.file_name();
            let interface = interface.to_string_lossy();
            keys.extend(INTERFACE_SYSCTLS.iter().map(|key| format!("{directory}/{interface}/{key}")));
        }
    }
    keys.sort();
    let read = |key: String| Some(format!("{key} = {}", fs::read_to_string(root.join(&key)).ok()?.trim()));
    keys.into_iter().filter_map(read).collect()
}

fn files() -> Vec<String> {
    let mut all = Vec::new();
    for directory in STATE_DIRECTORIES {
        list_files(Path::new(directory), &mut all);
    }
    all.sort();
    all
}

/// Files with mode and content. Directories count only by what is in them: an empty one is nothing a user would miss.
fn list_files(directory: &Path, all: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            list_files(&path, all);
            continue;
        }
        let mode = entry.metadata().map_or(0, |metadata| metadata.mode() & 0o7777);
        let content = fs::read(&path).unwrap_or_default();
        all.push(format!("{} {mode:04o} {:?}", path.display(), String::from_utf8_lossy(&content)));
    }
}
