//! A host's state in a few milliseconds: enough to notice any difference between two moments of one world.
//!
//! [`testkit::Snapshot`] asks `ip`, `nft`, `tc` and `bridge`, which is what a person believes, and takes a tenth of a second; it judges each
//! prepared world at its end, and puts into words what this finds different. In between, this reads the kernel's lists itself. It compares
//! moments of one world only, so interface indexes count; counters, timers and what follows the carrier do not.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use nix::sys::socket::SockProtocol;
use testkit::Netns;

use crate::netlink::{attributes, dump, text, value};

/// Directories whose content is state. Directories count, too.
const STATE_DIRECTORIES: [&str; 4] = ["/run/ferrule", "/run/cni", "/var/lib/cni", "/var/lib/ferrule"];

/// Sysctls of each interface that plugins of this suite, or any, set.
const INTERFACE_SYSCTLS: [&str; 11] = [
    "accept_dad",
    "accept_ra",
    "addr_gen_mode",
    "arp_ignore",
    "arp_notify",
    "disable_ipv6",
    "forwarding",
    "proxy_arp",
    "route_localnet",
    "rp_filter",
    "send_redirects",
];

const SYSCTLS: [&str; 5] = [
    "net/core/somaxconn",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
];

const IFF_UP: u32 = 0x1;
const IFF_PROMISC: u32 = 0x100;
const NUD_LASTING: u16 = 0x40 | 0x80; // NUD_NOARP, NUD_PERMANENT
const NFT: u16 = 10 << 8;
const LOCAL_TABLE: u8 = 255; // RT_TABLE_LOCAL
const KERNEL: u8 = 2; // RTPROT_KERNEL

/// What there is, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look(BTreeSet<String>);

impl Look {
    /// The host, and the namespaces of containers.
    pub(crate) fn take(containers: &[&Netns]) -> Self {
        let mut all = BTreeSet::new();
        namespace("", &mut all);
        for container in containers {
            let name = format!("{}: ", container.name());
            all.extend(container.enter(|| {
                let mut inside = BTreeSet::new();
                namespace(&name, &mut inside);
                inside
            }));
        }
        for directory in STATE_DIRECTORIES {
            files(Path::new(directory), &mut all);
        }
        // Where the machine has the legacy tables of iptables.
        for list in ["ip_tables_names", "ip6_tables_names"] {
            let names = fs::read_to_string(format!("/proc/net/{list}")).unwrap_or_default();
            all.extend(names.lines().map(|name| format!("{list} {name}")));
        }
        Self(all)
    }

    /// What changed until `after`: `-` gone, `+` new.
    pub(crate) fn difference(&self, after: &Self) -> Vec<String> {
        let gone = self.0.difference(&after.0).map(|line| format!("- {line}"));
        gone.chain(after.0.difference(&self.0).map(|line| format!("+ {line}"))).collect()
    }
}

/// Everything about the calling thread's network namespace.
fn namespace(name: &str, all: &mut BTreeSet<String>) {
    let mut say = |line: String| {
        // Two alike are two: a rule that is there twice is a mistake.
        let mut line = format!("{name}{line}");
        while !all.insert(line.clone()) {
            line.push_str(" (again)");
        }
    };
    links(&mut say);
    addresses_and_routes(&mut say);
    neighbours(&mut say);
    nftables(&mut say);
    sysctls(&mut say);
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |part| u32::from_ne_bytes([part[0], part[1], part[2], part[3]]))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |part| u16::from_ne_bytes([part[0], part[1]]))
}

/// Attributes in words, but for some.
fn list(bytes: &[u8], without: &[u16]) -> String {
    let kept = attributes(bytes).into_iter().filter(|(number, _)| !without.contains(number));
    let words: Vec<String> = kept.map(|(number, value)| format!("{number}={}", text(value))).collect();
    words.join(" ")
}

fn links(say: &mut impl FnMut(String)) {
    for body in dump(SockProtocol::NetlinkRoute, 18, &[0; 16]) {
        let Some(rest) = body.get(16..) else { continue };
        let all = attributes(rest);
        let kind = text(value(&attributes(value(&all, 18)), 1));
        let flags = word(&body, 8) & (IFF_UP | IFF_PROMISC);
        // Name, address, MTU, master, queue length, alias, group.
        let parts: Vec<String> =
            [3, 1, 4, 10, 13, 20, 27].map(|number| format!("{number}={}", text(value(&all, number)))).into();
        say(format!("link {} {kind} flags {flags:x} {}", word(&body, 4), parts.join(" ")));
    }
    for body in dump(SockProtocol::NetlinkRoute, 38, &[0; 20]) {
        let Some(rest) = body.get(20..) else { continue };
        say(format!(
            "qdisc of {} parent {:x} {}",
            word(&body, 4),
            word(&body, 12),
            text(value(&attributes(rest), 1))
        ));
    }
}

fn addresses_and_routes(say: &mut impl FnMut(String)) {
    for body in dump(SockProtocol::NetlinkRoute, 22, &[0; 8]) {
        let Some(rest) = body.get(8..) else { continue };
        let all = attributes(rest);
        // Link-local ones come a moment after their link.
        if !value(&all, 1).starts_with(&[0xfe, 0x80]) {
            say(format!(
                "address {}/{} of {} {}",
                text(value(&all, 1)),
                body[1],
                word(&body, 4),
                list(rest, &[1, 6, 8])
            ));
        }
    }
    for body in dump(SockProtocol::NetlinkRoute, 26, &[0; 12]) {
        let Some(rest) = body.get(12..) else { continue };
        let to = value(&attributes(rest), 1).to_vec();
        if body[0] == 10 && (to.starts_with(&[0xfe, 0x80]) || to.starts_with(&[0xff])) {
            continue;
        }
        // An IPv6 address is followed, a moment later, by the kernel's routes to itself and to its subnet's anycast address.
        if (body[0], body[4], body[5]) == (10, LOCAL_TABLE, KERNEL) {
            continue;
        }
        // Without cache information, expiry, and flags that follow the carrier.
        say(format!(
            "route family {} to {}/{} table {} protocol {} type {} {}",
            body[0],
            text(&to),
            body[1],
            body[4],
            body[5],
            body[7],
            list(rest, &[1, 12, 23])
        ));
    }
    for (kind, name, header) in [(34, "rule", 12), (106, "nexthop", 8)] {
        for body in dump(SockProtocol::NetlinkRoute, kind, &vec![0; header]) {
            let Some(rest) = body.get(header..) else { continue };
            say(format!("{name} {} {}", text(&body[..header]), list(rest, &[])));
        }
    }
}

fn neighbours(say: &mut impl FnMut(String)) {
    for family in [0, 7] {
        let mut header = [0; 12];
        header[0] = family;
        for body in dump(SockProtocol::NetlinkRoute, 30, &header) {
            let Some(rest) = body.get(12..) else { continue };
            let lasting = half(&body, 8) & NUD_LASTING != 0;
            // Groups that links have joined are entries of bridges, too.
            let group = value(&attributes(rest), 2).first().is_some_and(|byte| byte & 1 == 1);
            let made = if family == 7 { lasting && !group } else { half(&body, 8) & 0x80 != 0 };
            if made {
                say(format!(
                    "neighbour family {} of {} state {:x} {}",
                    body[0],
                    word(&body, 4),
                    half(&body, 8),
                    list(rest, &[3, 4])
                ));
            }
        }
    }
}

/// Tables, chains, rules, sets with their elements, objects, flow tables: without handles and numbers of users.
fn nftables(say: &mut impl FnMut(String)) {
    let mut say_all = |kind: u16, name: &str, without: &[u16]| {
        for body in dump(SockProtocol::NetlinkNetFilter, NFT | kind, &[0; 4]) {
            let Some(rest) = body.get(4..) else { continue };
            say(format!("nft {name} family {} {}", body[0], list(rest, without)));
        }
    };
    say_all(1, "table", &[3, 4]);
    say_all(4, "chain", &[2, 6, 8]);
    say_all(19, "object", &[5, 6]);
    say_all(23, "flowtable", &[5]);
    for body in dump(SockProtocol::NetlinkNetFilter, NFT | 7, &[0; 4]) {
        let Some(rest) = body.get(4..) else { continue };
        let expressions = expressions(value(&attributes(rest), 4));
        say(format!("nft rule family {} {}{expressions}", body[0], list(rest, &[3, 4, 6])));
    }
    for body in dump(SockProtocol::NetlinkNetFilter, NFT | 0x0a, &[0; 4]) {
        let Some(rest) = body.get(4..) else { continue };
        let all = attributes(rest);
        let (table, set) = (value(&all, 1), value(&all, 2));
        say(format!("nft set family {} {}", body[0], list(rest, &[16])));
        let mut header = vec![body[0], 0, 0, 0];
        for (number, name) in [(1_u16, table), (2, set)] {
            header.extend(u16::try_from(4 + name.len()).unwrap_or(4).to_ne_bytes());
            header.extend(number.to_ne_bytes());
            header.extend(name);
            header.resize(header.len().next_multiple_of(4), 0);
        }
        for elements in dump(SockProtocol::NetlinkNetFilter, NFT | 0x0d, &header) {
            let Some(rest) = elements.get(4..) else { continue };
            for (_, element) in attributes(value(&attributes(rest), 3)) {
                // Without expiry.
                say(format!("nft element of {} {}: {}", text(table), text(set), list(element, &[5])));
            }
        }
    }
}

/// The expressions of a rule. What a counter of `iptables` has counted is not what the rule says.
fn expressions(bytes: &[u8]) -> String {
    let mut words = String::new();
    for (_, expression) in attributes(bytes) {
        let all = attributes(expression);
        let (name, data) = (text(value(&all, 1)), value(&all, 2));
        let data = if name == "counter" { String::new() } else { text(data) };
        let _ = write!(words, " {name}({data})");
    }
    words
}

fn sysctls(say: &mut impl FnMut(String)) {
    let mut keys: Vec<String> = SYSCTLS.map(str::to_owned).into();
    for family in ["ipv4", "ipv6"] {
        let directory = format!("net/{family}/conf");
        for interface in fs::read_dir(Path::new("/proc/sys").join(&directory)).into_iter().flatten().flatten()
        {
            let interface = interface.file_name();
            keys.extend(
                INTERFACE_SYSCTLS.iter().map(|key| format!("{directory}/{}/{key}", interface.display())),
            );
        }
    }
    for key in keys {
        // Those of a thread's own namespace are behind its own entry.
        let path = Path::new("/proc/sys").join(&key);
        if let Ok(content) = fs::read_to_string(path) {
            say(format!("sysctl {key} = {}", content.trim()));
        }
    }
}

/// Files with their content, and directories, but for what `host-local` keeps beside leases by the format: its lock, the last address it
/// gave, and its index.
fn files(directory: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let shown = path.display().to_string();
        if let Some(lease) = shown.strip_prefix("/var/lib/cni/networks/") {
            let name = lease.rsplit('/').next().unwrap_or(lease);
            let bookkeeping =
                name == "lock" || name.starts_with("last_reserved_ip.") || lease.starts_with(".ferrule");
            if bookkeeping {
                continue;
            }
        }
        if path.is_dir() && !path.is_symlink() {
            // A network's directory of leases stays for its lock; that of backups is the Go suite's, which expects it to stay.
            if !shown.starts_with("/var/lib/cni/networks") && shown != "/run/cni/tuning" {
                all.insert(format!("directory {shown}"));
            }
            files(&path, all);
        } else {
            let content = fs::read(&path).unwrap_or_default();
            all.insert(format!("file {shown} {:?}", String::from_utf8_lossy(&content)));
        }
    }
}
