//! The networks that are swept: each plugin in a chain that people use.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// A network configuration list, and what its host has.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// The configuration list.
    pub list: Value,
    /// The interface in the container.
    pub ifname: &'static str,
    /// Whether the host has an uplink.
    pub uplink: bool,
    /// Whether firewalld runs on the host.
    pub firewalld: bool,
    /// Whether it belongs to the short form.
    pub short: bool,
}

/// The names of all networks that are swept.
pub(crate) const NAMES: [&str; 6] = ["chain", "loopback", "leases", "overlay", "dual", "iptables"];

/// A network by its name, or by the path of a configuration list.
pub(crate) fn named(name: &str) -> Network {
    let (plugins, short) = match name {
        "chain" => (chain("nftables", &json!([[{ "subnet": "10.98.0.0/24" }]])), true),
        "dual" => (
            chain("nftables", &json!([[{ "subnet": "10.98.0.0/24" }], [{ "subnet": "fd00:98::/64" }]])),
            false,
        ),
        "iptables" => (chain("iptables", &json!([[{ "subnet": "10.98.0.0/24" }]])), false),
        "loopback" => (json!([{ "type": "loopback" }]), true),
        "leases" => (
            json!([{
                "type": "host-local",
                "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.98.0.0/24" }], [{ "subnet": "fd00:98::/64" }]] }
            }]),
            true,
        ),
        "overlay" => (overlay(), true),
        "firewalld" => {
            let mut plugins = chain("nftables", &json!([[{ "subnet": "10.98.0.0/24" }]]));
            // As it is used: the plugin finds out by itself.
            plugins[2] = json!({ "type": "firewall" });
            (plugins, true)
        }
        path => {
            let text = fs::read_to_string(Path::new(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            let list = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
            return Network { list, ifname: "eth0", uplink: false, firewalld: false, short: true };
        }
    };
    Network {
        list: json!({ "cniVersion": "1.1.0", "name": "net", "plugins": plugins }),
        ifname: if name == "loopback" { "lo" } else { "eth0" },
        uplink: name == "overlay",
        firewalld: name == "firewalld",
        short,
    }
}

fn chain(backend: &str, ranges: &Value) -> Value {
    json!([
        {
            "type": "bridge", "bridge": "cni-net0", "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": backend,
            "ipam": { "type": "host-local", "ranges": ranges }
        },
        { "type": "portmap", "backend": backend, "capabilities": { "portMappings": true } },
        { "type": "firewall", "backend": backend },
        { "type": "tuning", "mtu": 1400, "sysctl": { "net.core.somaxconn": "500", "net.ipv4.conf.IFNAME.arp_notify": "1" } }
    ])
}

fn overlay() -> Value {
    json!([
        {
            "type": "vxlan", "vni": 100, "mode": "routed", "subnet": "10.40.0.0/16", "ipMasq": true, "ipMasqBackend": "nftables",
            "peers": [
                { "node": "a", "underlay": "192.0.2.1", "blocks": ["10.40.1.0/24"] },
                { "node": "b", "underlay": "192.0.2.9", "blocks": ["10.40.2.0/24"] }
            ]
        },
        { "type": "portmap", "backend": "nftables", "capabilities": { "portMappings": true } }
    ])
}

/// The two ports a container publishes; those of different containers differ.
pub(crate) fn ports(number: usize) -> Value {
    json!([
        { "hostPort": 8000 + 2 * number, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 8001 + 2 * number, "containerPort": 53, "protocol": "udp" }
    ])
}
