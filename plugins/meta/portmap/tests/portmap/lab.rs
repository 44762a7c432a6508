//! A host with networks of our own plugins, and a neighbour outside.

use serde_json::{Value, json};
use testkit::{Attachment, Chain, Container, Host, Netns, PluginFailure, Runtime, Uplink, set_sysctl};

/// A host between containers and a neighbour.
pub(crate) struct Lab {
    pub(crate) host: Host,
    pub(crate) outside: Uplink,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let host = Host::new();
        let outside = host.uplink();
        two_stacks(&outside);
        Self { host, outside }
    }

    /// A container that `bridge` and `portmap` know nothing about yet.
    pub(crate) fn container(&self, id: &str) -> Container {
        let container = self.host.container(id);
        two_stacks(&container);
        container
    }
}

/// A dual-stack network on a bridge of its own, `10.NUMBER.0.0/24` and `fd00:NUMBER::/64`, with `portmap` behind it.
pub(crate) fn network(number: u8, keys: &Value) -> Network {
    let mut portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    portmap.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let list = json!({
        "cniVersion": "1.1.0",
        "name": format!("net{number}"),
        "plugins": [
            {
                "type": "bridge", "bridge": format!("br{number}"), "isGateway": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [
                        [{ "subnet": format!("10.{number}.0.0/24") }],
                        [{ "subnet": format!("fd00:{number}::/64") }]
                    ],
                    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]
                }
            },
            portmap
        ]
    });
    Network(Runtime::new().chain(&list))
}

/// A network to connect containers to.
pub(crate) struct Network(pub(crate) Chain);

impl Network {
    /// A container on the network with these ports published.
    pub(crate) fn start(&self, lab: &Lab, id: &str, mappings: &Value) -> Running {
        self.try_start(lab, id, mappings).unwrap_or_else(|failure| panic!("{failure}"))
    }

    pub(crate) fn try_start(&self, lab: &Lab, id: &str, mappings: &Value) -> Result<Running, PluginFailure> {
        let container = lab.container(id);
        let attachment = Attachment::new(id, &container, "eth0").capability("portMappings", mappings.clone());
        let result = self.0.add(&attachment)?;
        Ok(Running { container, attachment, result })
    }

    pub(crate) fn stop(&self, running: &Running) {
        self.0.del(&running.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// Lets a server on `::` leave IPv4 to another.
fn two_stacks(netns: &Netns) {
    netns.enter(|| set_sysctl("net/ipv6/bindv6only", "1"));
}

/// A connected container.
pub(crate) struct Running {
    pub(crate) container: Container,
    pub(crate) attachment: Attachment,
    pub(crate) result: Value,
}

impl Running {
    /// Its address of a family, without prefix length.
    pub(crate) fn address(&self, ipv4: bool) -> std::net::IpAddr {
        let ips = self.result["ips"].as_array().unwrap().iter();
        let addresses = ips.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap());
        addresses
            .map(|text| text.parse().unwrap())
            .find(|ip: &std::net::IpAddr| ip.is_ipv4() == ipv4)
            .unwrap()
    }
}

/// A port to publish.
pub(crate) fn port(protocol: &str, host: u16, container: u16) -> Value {
    json!({ "hostPort": host, "containerPort": container, "protocol": protocol })
}

/// A port to publish at one address.
pub(crate) fn port_at(host_ip: &str, protocol: &str, host: u16, container: u16) -> Value {
    json!({ "hostPort": host, "containerPort": container, "protocol": protocol, "hostIP": host_ip })
}
