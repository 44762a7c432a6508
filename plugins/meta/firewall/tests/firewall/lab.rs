//! A host with networks of our own plugins, and a neighbour outside that knows the way to them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testkit::{Attachment, Chain, Container, Host, Netns, Runtime, Uplink, have, tool};

/// A host between containers and a neighbour.
pub(crate) struct Lab {
    pub(crate) host: Host,
    pub(crate) outside: Uplink,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let host = Host::new();
        let outside = host.uplink();
        for route in ["-4 route add 10.0.0.0/8 via 192.0.2.1", "-6 route add fd00::/16 via 2001:db8::1"] {
            outside.run("ip", &route.split(' ').collect::<Vec<_>>());
        }
        Self { host, outside }
    }

    /// A container on a network.
    pub(crate) fn start(&self, network: &Chain, id: &str) -> Running {
        let container = self.host.container(id);
        let attachment = Attachment::new(id, &container, "eth0");
        let result = network.add(&attachment).unwrap_or_else(|failure| panic!("{failure}"));
        Running { container, attachment, result }
    }
}

/// A dual-stack network on a bridge, with or without a gateway there: `10.NUMBER.0.0/24` and `fd00:NUMBER::/64`, with `firewall` behind it.
pub(crate) fn network_on(bridge: &str, gateway: bool, number: u8, keys: &Value) -> Chain {
    let mut firewall = json!({ "type": "firewall" });
    firewall.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    Runtime::new().chain(&json!({
        "cniVersion": "1.1.0",
        "name": format!("net{number}"),
        "plugins": [
            {
                "type": "bridge", "bridge": bridge, "isGateway": gateway,
                "ipam": {
                    "type": "host-local",
                    "ranges": [
                        [{ "subnet": format!("10.{number}.0.0/24") }],
                        [{ "subnet": format!("fd00:{number}::/64") }]
                    ],
                    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]
                }
            },
            firewall
        ]
    }))
}

/// [`network_on`] a bridge of its own, `brNUMBER`.
pub(crate) fn network(number: u8, keys: &Value) -> Chain {
    network_on(&format!("br{number}"), true, number, keys)
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

/// Whether there is an answer from both addresses of a container, or from neither.
pub(crate) fn pings(from: &Netns, to: &Running) -> bool {
    let answers = [true, false].map(|ipv4| testkit::ping(from, to.address(ipv4)));
    assert_eq!(
        answers[0],
        answers[1],
        "IPv4 and IPv6 differ, from {} to {}",
        from.name(),
        to.container.name()
    );
    answers[0]
}

/// Gives a program text on standard input.
pub(crate) fn feed(program: &str, arguments: &[&str], text: &str) {
    let mut child =
        Command::new(have(program).unwrap()).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} refused\n{text}");
}

/// `iptables` and `ip6tables`.
pub(crate) fn iptables(arguments: &str) {
    for program in ["iptables", "ip6tables"] {
        tool(program, &arguments.split(' ').collect::<Vec<_>>());
    }
}
