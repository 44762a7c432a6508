//! Networks as people write them, most of them from the documentation of the Go suite.

use serde_json::{Value, json};

/// A network, and what the runtime asks for.
pub struct Network {
    pub name: &'static str,
    /// The plugins of the list.
    pub plugins: Value,
    /// `CNI_ARGS`.
    pub args: &'static str,
    /// Arguments of capabilities.
    pub capabilities: Value,
    /// Which Go suites have all of this.
    pub since: Since,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// All in use.
    Old,
    /// Those that speak CNI 1.1.0.
    New,
}

fn host_local() -> Value {
    json!({ "type": "host-local", "ranges": [[{ "subnet": "10.10.0.0/24" }]], "routes": [{ "dst": "0.0.0.0/0" }] })
}

fn dual() -> Value {
    json!({
        "type": "host-local", "ranges": [[{ "subnet": "10.10.0.0/24" }], [{ "subnet": "fd00:10::/64" }]],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]
    })
}

fn bridge(keys: Value) -> Value {
    let mut bridge = json!({ "type": "bridge", "bridge": "mynet0" });
    bridge.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    bridge
}

impl Network {
    fn new(name: &'static str, plugins: Vec<Value>) -> Self {
        Self { name, plugins: plugins.into(), args: "", capabilities: json!({}), since: Since::Old }
    }

    fn args(self, args: &'static str) -> Self {
        Self { args, ..self }
    }

    fn asks(self, capabilities: Value) -> Self {
        Self { capabilities, ..self }
    }

    fn since(self, since: Since) -> Self {
        Self { since, ..self }
    }
}

pub fn of_bridge() -> Vec<Network> {
    let masquerade = json!({ "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "iptables" });
    let with = |ipam: Value| {
        let mut keys = masquerade.clone();
        keys["ipam"] = ipam;
        keys
    };
    let subnet = json!({ "type": "host-local", "subnet": "10.10.0.0/16" });
    let mut documented = with(subnet.clone());
    documented
        .as_object_mut()
        .unwrap()
        .extend(json!({ "forceAddress": false, "hairpinMode": true }).as_object().unwrap().clone());
    vec![
        Network::new("as documented", vec![bridge(documented)]),
        Network::new("layer 2", vec![bridge(json!({ "ipam": {} }))]),
        Network::new("no gateway", vec![bridge(json!({ "ipam": host_local() }))]),
        Network::new("gateway", vec![bridge(json!({ "isGateway": true, "ipam": host_local() }))]),
        Network::new("dual stack", vec![bridge(json!({ "isGateway": true, "ipam": dual() }))]),
        Network::new(
            "dual stack, masquerade",
            vec![bridge(with(
                json!({ "type": "host-local", "ranges": [[{ "subnet": "10.10.0.0/24" }], [{ "subnet": "fd00:10::/64" }]] }),
            ))],
        ),
        Network::new("mtu", vec![bridge(json!({ "isGateway": true, "mtu": 1400, "ipam": host_local() }))]),
        Network::new(
            "promiscuous",
            vec![bridge(json!({ "isGateway": true, "promiscMode": true, "ipam": host_local() }))],
        ),
        Network::new(
            "mac of args",
            vec![bridge(json!({ "args": { "cni": { "mac": "02:00:00:00:00:02" } }, "ipam": host_local() }))],
        )
        .args("IgnoreUnknown=1;MAC=02:00:00:00:00:03"),
        Network::new(
            "mac of the runtime",
            vec![bridge(json!({ "capabilities": { "mac": true }, "ipam": host_local() }))],
        )
        .asks(json!({ "mac": "02:00:00:00:00:01" })),
        Network::new(
            "isolated ports",
            vec![bridge(json!({ "isGateway": true, "portIsolation": true, "ipam": host_local() }))],
        )
        .since(Since::New),
        Network::new(
            "disabled interface",
            vec![bridge(json!({ "disableContainerInterface": true, "ipam": {} }))],
        )
        .since(Since::New),
        Network::new(
            "masquerade in nftables",
            vec![bridge(json!({
                "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "ipam": subnet
            }))],
        )
        .since(Since::New),
        Network::new(
            "spoof check",
            vec![bridge(json!({ "isGateway": true, "macspoofchk": true, "ipam": host_local() }))],
        ),
    ]
}

pub fn of_ipam() -> Vec<Network> {
    let ipam = |mut keys: Value| {
        keys["type"] = json!("host-local");
        bridge(json!({ "isGateway": true, "capabilities": { "ips": true, "ipRanges": true }, "ipam": keys }))
    };
    vec![
        Network::new("range", vec![ipam(json!({
            "subnet": "10.10.0.0/24", "rangeStart": "10.10.0.20", "rangeEnd": "10.10.0.30", "gateway": "10.10.0.254",
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "192.168.0.0/16", "gw": "10.10.0.5" }]
        }))]),
        Network::new("name service", vec![ipam(json!({ "subnet": "10.10.0.0/24", "resolvConf": "/run/resolv.conf" }))]),
        Network::new("address by CNI_ARGS", vec![ipam(json!({ "subnet": "10.10.0.0/24" }))])
            .args("IgnoreUnknown=1;IP=10.10.0.77"),
        Network::new("address by capability", vec![ipam(json!({ "subnet": "10.10.0.0/24" }))])
            .asks(json!({ "ips": ["10.10.0.78/24"] })),
        Network::new("ranges by capability", vec![ipam(json!({}))])
            .asks(json!({ "ipRanges": [[{ "subnet": "10.20.0.0/24" }]] })),
        Network::new("route with attributes", vec![ipam(json!({
            "subnet": "10.10.0.0/24", "routes": [{ "dst": "10.99.0.0/16", "priority": 7, "table": 500, "scope": 0 }]
        }))])
        .since(Since::New),
    ]
}

pub fn chained() -> Vec<Network> {
    let masquerade = json!({ "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "iptables", "ipam": {
        "type": "host-local", "ranges": [[{ "subnet": "10.10.0.0/24" }], [{ "subnet": "fd00:10::/64" }]]
    } });
    let gateway = || bridge(json!({ "isGateway": true, "ipam": host_local() }));
    vec![
        Network::new("published ports", vec![
            bridge(masquerade.clone()),
            json!({ "type": "portmap", "backend": "iptables", "capabilities": { "portMappings": true }, "snat": true }),
        ])
        .asks(json!({ "portMappings": [
            { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
            { "hostPort": 5353, "containerPort": 53, "protocol": "udp" }
        ] })),
        Network::new("firewall", vec![bridge(masquerade), json!({ "type": "firewall", "backend": "iptables" })]),
        Network::new("tuning", vec![gateway(), json!({
            "type": "tuning", "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500" },
            "mtu": 1400, "mac": "02:00:00:00:00:04", "promisc": true
        })]),
        Network::new("everything", vec![
            gateway(),
            json!({ "type": "portmap", "backend": "iptables", "capabilities": { "portMappings": true } }),
            json!({ "type": "firewall", "backend": "iptables", "ingressPolicy": "same-bridge" }),
            json!({ "type": "tuning", "sysctl": { "net.core.somaxconn": "500" } }),
        ])
        .asks(json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] }))
        .since(Since::New),
    ]
}
