//! What is to be done: one description for plugins and for the floor.

use serde_json::{Map, Value, json};

use crate::floor::{Family, Port, Request};
use crate::host::netns_path;

/// The network that containers are connected to.
#[derive(Debug, Clone)]
pub struct Job {
    /// IPv4, IPv6 or both.
    pub families: &'static [Family],
    /// Whether `portmap`, `firewall` and `tuning` follow, and the bridge masquerades.
    pub chain: bool,
    /// Further keys of the bridge's configuration.
    pub bridge: Map<String, Value>,
}

/// IPv4 alone.
pub const V4: &[Family] = &[Family::V4];
/// IPv6 alone.
pub const V6: &[Family] = &[Family::V6];
/// Both.
pub const DUAL: &[Family] = &[Family::V4, Family::V6];

/// Published by each container of a chain: TCP and UDP.
pub const PORTS: u16 = 2;
const FIRST_PORT: u16 = 20_000;
const TCP: u8 = 6;
const UDP: u8 = 17;

impl Job {
    /// A bridge with `host-local` and nothing else.
    pub fn bridge(families: &'static [Family]) -> Self {
        Self { families, chain: false, bridge: Map::new() }
    }

    /// A bridge that masquerades, `portmap` with two ports, `firewall` and `tuning`.
    pub fn chain(families: &'static [Family]) -> Self {
        Self { families, chain: true, bridge: Map::new() }
    }

    /// With one more key in the bridge's configuration.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.bridge.insert(key.into(), value.into());
        self
    }

    /// The plugins' configurations, in order, without what a runtime puts in.
    pub fn plugins(&self) -> Vec<Value> {
        let mut ranges = Vec::new();
        let mut routes = Vec::new();
        for family in self.families {
            let (subnet, all) = match family {
                Family::V4 => ("10.93.0.0/16", "0.0.0.0/0"),
                Family::V6 => ("fd93::/64", "::/0"),
            };
            ranges.push(json!([{"subnet": subnet}]));
            routes.push(json!({"dst": all}));
        }
        let mut bridge = json!({
            "type": "bridge", "bridge": Request::BRIDGE, "isGateway": true, "ipMasq": self.chain,
            "ipam": {"type": "host-local", "ranges": ranges, "routes": routes}
        });
        for (key, value) in &self.bridge {
            bridge[key] = value.clone();
        }
        let mut plugins = vec![bridge];
        if self.chain {
            plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
            plugins.push(json!({"type": "firewall"}));
            plugins.push(json!({"type": "tuning", "sysctl": {"net.ipv4.ip_unprivileged_port_start": "80"}}));
        }
        plugins
    }

    /// The ports of container number `number`.
    pub fn ports(&self, number: u16) -> Vec<Port> {
        if !self.chain {
            return Vec::new();
        }
        let first = FIRST_PORT + PORTS * number;
        vec![
            Port { protocol: TCP, host: first, container: 80 },
            Port { protocol: UDP, host: first + 1, container: 81 },
        ]
    }

    /// The same, as a runtime gives them to `portmap`.
    pub fn port_mappings(&self, number: u16) -> Value {
        let mapping = |port: &Port| {
            let protocol = if port.protocol == TCP { "tcp" } else { "udp" };
            json!({"hostPort": port.host, "containerPort": port.container, "protocol": protocol})
        };
        self.ports(number).iter().map(mapping).collect()
    }

    /// What the floor is to make of it.
    pub fn request(&self, number: u16) -> Request {
        Request {
            netns: netns_path(&container(number)),
            number,
            families: self.families.to_vec(),
            firewall: self.chain,
            ports: self.ports(number),
        }
    }
}

/// The name of container number `number`, which is its ID too.
pub fn container(number: u16) -> String {
    format!("c{number}")
}
