//! What is to be done: one description for plugins, for the floor and for netavark.

use serde_json::{Map, Value, json};

use crate::floor::{Family, Port, Request};
use crate::host::netns_path;

/// The network that containers are connected to.
#[derive(Debug, Clone)]
pub struct Job {
    /// IPv4, IPv6 or both.
    pub families: &'static [Family],
    shape: Shape,
    /// The first port of container number so-and-so, and how many it publishes.
    ports: fn(u16) -> (u16, u16),
    /// Further keys of the first plugin's configuration.
    extra: Map<String, Value>,
}

/// Which plugins are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `host-local` by itself.
    Leases,
    /// `bridge`, which calls `host-local`.
    Bridge,
    /// A bridge that masquerades, `portmap`, `firewall`.
    Published,
    /// The same and `tuning`.
    Chain,
}

/// IPv4 alone.
pub const V4: &[Family] = &[Family::V4];
/// IPv6 alone.
pub const V6: &[Family] = &[Family::V6];
/// Both.
pub const DUAL: &[Family] = &[Family::V4, Family::V6];

const FIRST_PORT: u16 = 20_000;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Ports of each container in a [crowd](Job::crowd).
pub const CROWD_PORTS: u16 = 100;
/// The number of the first container that is not of the crowd.
pub const AFTER_CROWD: u16 = 100;

impl Job {
    /// A bridge with `host-local` and nothing else.
    pub fn bridge(families: &'static [Family]) -> Self {
        Self { families, shape: Shape::Bridge, ports: |_| (FIRST_PORT, 0), extra: Map::new() }
    }

    /// A bridge that masquerades, `portmap` with two ports, `firewall` and `tuning`.
    pub fn chain(families: &'static [Family]) -> Self {
        Self { shape: Shape::Chain, ports: |number| (FIRST_PORT + 2 * number, 2), ..Self::bridge(families) }
    }

    /// The same without `tuning`: what netavark does for a container.
    pub fn published(families: &'static [Family]) -> Self {
        Self { shape: Shape::Published, ..Self::chain(families) }
    }

    /// The same, in which each of the containers below number [`AFTER_CROWD`] publishes [`CROWD_PORTS`] ports.
    pub fn crowd(families: &'static [Family]) -> Self {
        let ports = |number| match number {
            0..AFTER_CROWD => (FIRST_PORT + CROWD_PORTS * number, CROWD_PORTS),
            _ => (FIRST_PORT + CROWD_PORTS * AFTER_CROWD + 2 * number, 2),
        };
        Self { ports, ..Self::published(families) }
    }

    /// `host-local` by itself, in a network with this many addresses and more.
    pub fn leases() -> Self {
        Self { shape: Shape::Leases, ..Self::bridge(V4) }
    }

    /// With one more key in the first plugin's configuration.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(key.into(), value.into());
        self
    }

    /// Whether the firewall has a part in it.
    pub fn has_firewall(&self) -> bool {
        matches!(self.shape, Shape::Published | Shape::Chain)
    }

    /// The plugins' configurations, in order, without what a runtime puts in.
    pub fn plugins(&self) -> Vec<Value> {
        let mut first = match self.shape {
            Shape::Leases => json!({"type": "host-local"}),
            _ => json!({
                "type": "bridge", "bridge": Request::BRIDGE, "isGateway": true, "ipMasq": self.has_firewall()
            }),
        };
        first["ipam"] = self.ipam();
        for (key, value) in &self.extra {
            first[key] = value.clone();
        }
        let mut plugins = vec![first];
        if self.has_firewall() {
            plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
            plugins.push(json!({"type": "firewall"}));
        }
        if self.shape == Shape::Chain {
            plugins.push(json!({"type": "tuning", "sysctl": {"net.ipv4.ip_unprivileged_port_start": "80"}}));
        }
        plugins
    }

    fn ipam(&self) -> Value {
        let mut ranges = Vec::new();
        let mut routes = Vec::new();
        for family in self.families {
            let (subnet, all) = match family {
                Family::V4 if self.shape == Shape::Leases => ("10.64.0.0/12", "0.0.0.0/0"),
                Family::V4 => ("10.93.0.0/16", "0.0.0.0/0"),
                Family::V6 => ("fd93::/64", "::/0"),
            };
            ranges.push(json!([{"subnet": subnet}]));
            routes.push(json!({"dst": all}));
        }
        json!({"type": "host-local", "ranges": ranges, "routes": routes})
    }

    /// The ports of container number `number`: TCP and UDP by turns.
    pub fn ports(&self, number: u16) -> Vec<Port> {
        let (first, count) = (self.ports)(number);
        (first..first + count)
            .map(|host| match host % 2 {
                0 => Port { protocol: TCP, host, container: 80 },
                _ => Port { protocol: UDP, host, container: 81 },
            })
            .collect()
    }

    /// The same, as a runtime gives them to `portmap`.
    pub fn port_mappings(&self, number: u16) -> Value {
        let mapping = |port: &Port| json!({"hostPort": port.host, "containerPort": port.container, "protocol": protocol(*port)});
        self.ports(number).iter().map(mapping).collect()
    }

    /// What the floor is to make of it.
    pub fn request(&self, number: u16) -> Request {
        Request {
            netns: netns_path(&container(number)),
            number,
            families: self.families.to_vec(),
            firewall: self.has_firewall(),
            ports: self.ports(number),
        }
    }

    /// What podman would tell netavark, which allocates no addresses itself.
    pub fn netavark(&self, number: u16) -> Value {
        let request = self.request(number);
        let addresses = request.addresses();
        let subnets: Value = addresses
            .iter()
            .map(|(address, _, gateway)| {
                let subnet = if address.is_ipv4() { "10.93.0.0/16" } else { "fd93::/64" };
                json!({"subnet": subnet, "gateway": gateway})
            })
            .collect();
        let static_ips: Value = addresses.iter().map(|(address, ..)| address.to_string()).collect();
        let ports: Value = request
            .ports
            .iter()
            .map(|port| {
                json!({
                    "host_ip": "", "host_port": port.host, "container_port": port.container,
                    "protocol": protocol(*port), "range": 1
                })
            })
            .collect();
        json!({
            "container_id": container(number), "container_name": container(number), "port_mappings": ports,
            "networks": {"bench": {"static_ips": static_ips, "interface_name": "eth0"}},
            "network_info": {"bench": {
                "name": "bench", "id": "b".repeat(64), "driver": "bridge", "network_interface": Request::BRIDGE,
                "subnets": subnets, "ipv6_enabled": self.families.contains(&Family::V6), "internal": false,
                "dns_enabled": false, "ipam_options": {"driver": "host-local"}, "options": {}
            }}
        })
    }
}

fn protocol(port: Port) -> &'static str {
    if port.protocol == TCP { "tcp" } else { "udp" }
}

/// The name of container number `number`, which is its ID too.
pub fn container(number: u16) -> String {
    format!("c{number}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{AFTER_CROWD, CROWD_PORTS, DUAL, Job, V4};

    #[test]
    fn no_two_containers_publish_the_same_port() {
        for (job, numbers) in [(Job::chain(DUAL), 0..400), (Job::crowd(V4), 0..400)] {
            let ports: Vec<u16> =
                numbers.flat_map(|number| job.ports(number)).map(|port| port.host).collect();
            assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
        }
        let crowd: usize = (0..AFTER_CROWD).map(|number| Job::crowd(V4).ports(number).len()).sum();
        assert_eq!(crowd, usize::from(AFTER_CROWD * CROWD_PORTS));
    }

    #[test]
    fn each_container_of_a_chain_has_one_port_of_tcp_and_one_of_udp() {
        let mappings = Job::chain(V4).port_mappings(3);
        assert_eq!(
            mappings.to_string(),
            r#"[{"hostPort":20006,"containerPort":80,"protocol":"tcp"},{"hostPort":20007,"containerPort":81,"protocol":"udp"}]"#
        );
    }
}
