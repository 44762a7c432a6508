//! Where the suites differ on purpose.

/// A difference: lines of a section (or of those that begin so) that contain `text` may be on one side only.
pub struct Difference {
    /// Where it is to occur, so that nothing stands here that is not so any more.
    pub among: Among,
    pub section: &'static str,
    pub text: &'static str,
    pub reason: &'static str,
}

/// A part of the networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// In each of the parts.
    All,
    Bridge,
    Ipam,
    Chained,
    /// Anywhere, with a Go suite that does not speak CNI 1.1.0 yet.
    Old,
}

use Among::{All, Bridge, Chained, Ipam, Old};

const fn difference(
    among: Among,
    section: &'static str,
    text: &'static str,
    reason: &'static str,
) -> Difference {
    Difference { among, section, text, reason }
}

pub const DIFFERENCES: &[Difference] = &[
    difference(
        All,
        "container sysctls",
        "net/ipv6/conf/eth0/accept_ra",
        "addresses come from IPAM; a neighbour gives no others (CVE-2020-10749)",
    ),
    difference(
        All,
        "host sysctls",
        "net/ipv6/conf/mynet0/accept_dad",
        "the address of a bridge made here is made up here: nothing to detect, nothing to wait for",
    ),
    difference(
        Bridge,
        "container addresses",
        "fd00:10::2",
        "usable at once, without duplicate address detection",
    ),
    difference(Bridge, "host addresses", "fd00:10::1", "usable at once, without duplicate address detection"),
    difference(All, "host links: ours", ".ifalias = \"ferrule", "what is ours bears the name of its owner"),
    difference(
        All,
        "host links",
        "veth*.inet6_addr_gen_mode",
        "nobody reaches a port's own link-local address, and where IPv6 is forwarded a DEL waits for its end",
    ),
    difference(All, "host links: ours", ".txqlen = 1000", "the kernel's default, instead of 0"),
    difference(All, "host files: ours", "/run/ferrule/", "records and registers of ours"),
    difference(
        All,
        "host files: ours",
        "/var/lib/cni/networks/.ferrule/",
        "an index of the leases, beside the format of the Go suite",
    ),
    difference(Chained, "host files", "/run/cni/tuning/", "the same backup, written without blanks"),
    difference(
        Ipam,
        "result: theirs",
        "routes dst=\"10.99.0.0/16\" priority=7",
        "CNI 1.0.0 has no attributes of routes",
    ),
    difference(Ipam, "result: ours", "routes dst=\"10.99.0.0/16\"", "CNI 1.0.0 has no attributes of routes"),
    difference(
        Bridge,
        "check: theirs",
        "no plugin name provided",
        "the Go plugin's CHECK fails without IPAM",
    ),
    difference(
        Ipam,
        "check: theirs",
        "Expected Route",
        "the Go plugin's CHECK looks into the main table only",
    ),
    difference(Ipam, "check: ours", "content", "there is nothing wrong"),
    difference(
        Bridge,
        "host nftables: theirs",
        "cni_plugins_masquerade",
        "the nftables backend of masquerade has tables of its own",
    ),
    difference(
        Bridge,
        "host nftables: ours",
        "ferrule_masquerade",
        "the nftables backend of masquerade has tables of its own",
    ),
    difference(
        Bridge,
        "host nftables: theirs",
        "\"family\":\"bridge\"",
        "the spoof check has a table of its own, with sets instead of two chains a container",
    ),
    difference(
        Bridge,
        "host nftables: ours",
        "ferrule_spoof",
        "the spoof check has a table of its own, with sets instead of two chains a container",
    ),
    difference(
        Chained,
        "host nftables: ours",
        "ferrule_ports",
        "127.0.0.0/8 is guarded where published ports are routed to it (CVE-2020-8558)",
    ),
    difference(
        Chained,
        "host nftables: ours",
        "\"chain\":\"CNI-FORWARD\"",
        "connections to published ports pass hosts that drop what is forwarded",
    ),
    difference(
        Chained,
        "host iptables: ours",
        "--ctstate DNAT -j ACCEPT",
        "connections to published ports pass hosts that drop what is forwarded",
    ),
    difference(Old, "container links: ours", "eth0.txqlen = 1000", "the kernel's default, instead of 0"),
    difference(
        Old,
        "container sysctls",
        "eth0/keep_addr_on_down",
        "newer ones keep IPv6 addresses while an interface is down, too",
    ),
    difference(
        Old,
        "host files",
        "/var/lib/cni/networks/mynet/",
        "newer ones write leases for root only, too",
    ),
    difference(
        Old,
        "result",
        "dns ",
        "newer ones take IPAM's name service where none is configured, too, and leave out an empty one",
    ),
    difference(Old, "check: theirs", "arp_filter: no such file", "CHECK of IFNAME in sysctls"),
    difference(
        Old,
        "check: theirs",
        "could not check ipv6 dnat",
        "CHECK of ports of a container with both families",
    ),
];
