//! Networks to write down, and the questions the tests ask of hosts and containers.

use std::net::IpAddr;

use serde_json::{Value, json};
use testkit::{
    Attachment, Chain, Container, Fabric, FabricHost, Netns, PluginFailure, Snapshot, ping, tcp_echo_server,
    tcp_roundtrip, udp_echo_server, udp_roundtrip,
};

/// Which families a network has inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    V4,
    V6,
    Dual,
}

impl Inside {
    /// The block of a host in a routed network.
    pub(crate) fn blocks(self, number: usize) -> Vec<String> {
        let (four, six) = (format!("10.40.{number}.0/24"), format!("fd00:40:{number}::/64"));
        self.pick(four, six)
    }

    /// The block of a host in a bridged network.
    pub(crate) fn slices(self, number: usize) -> Vec<String> {
        self.pick(format!("10.50.{number}.0/26"), format!("fd00:50::{number}:0/122"))
    }

    fn pick(self, four: String, six: String) -> Vec<String> {
        match self {
            Self::V4 => vec![four],
            Self::V6 => vec![six],
            Self::Dual => vec![four, six],
        }
    }

    /// The subnets that a bridged network stretches.
    pub(crate) fn subnets(self) -> Vec<String> {
        self.pick("10.50.0.0/16".to_owned(), "fd00:50::/64".to_owned())
    }
}

/// The peers of a routed network on all hosts of a fabric.
pub(crate) fn peers(fabric: &Fabric, inside: Inside, ipv4_underneath: bool) -> Value {
    peers_with(fabric, ipv4_underneath, |number| inside.blocks(number))
}

pub(crate) fn peers_with(
    fabric: &Fabric,
    ipv4_underneath: bool,
    blocks: impl Fn(usize) -> Vec<String>,
) -> Value {
    let hosts = fabric.hosts().iter().enumerate();
    let peer = |(index, host): (usize, &FabricHost)| {
        let underlay: IpAddr = if ipv4_underneath { host.ipv4().into() } else { host.ipv6().into() };
        json!({ "node": host.name(), "underlay": underlay, "blocks": blocks(index + 1) })
    };
    hosts.map(peer).collect()
}

/// The list of a network called `blue` with these keys of the plugin.
pub(crate) fn list(keys: &Value) -> Value {
    named("blue", keys)
}

pub(crate) fn named(name: &str, keys: &Value) -> Value {
    let mut plugin = json!({ "type": "vxlan" });
    plugin.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    json!({ "cniVersion": "1.1.0", "name": name, "plugins": [plugin] })
}

/// A container, the host it is on, and the network it is in.
pub(crate) struct Connected<'f> {
    pub(crate) host: &'f FabricHost,
    pub(crate) container: Container,
    pub(crate) attachment: Attachment,
    pub(crate) chain: Chain,
    pub(crate) result: Value,
}

impl Connected<'_> {
    /// Its addresses.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let ips = self.result["ips"].as_array().unwrap();
        let address =
            |ip: &Value| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
        ips.iter().map(address).collect()
    }

    pub(crate) fn check(&self) -> Result<(), PluginFailure> {
        self.chain.check(&self.attachment)
    }

    #[track_caller]
    pub(crate) fn del(&self) {
        self.chain.del(&self.attachment).unwrap();
    }
}

/// Connects a container on a host.
#[track_caller]
pub(crate) fn connect<'f>(fabric: &'f Fabric, number: usize, list: &Value, name: &str) -> Connected<'f> {
    let host = &fabric.hosts()[number - 1];
    let container = fabric.container(name);
    let attachment = Attachment::new(name, &container, "eth0");
    let chain = host.runtime().chain(list);
    let result = chain.add(&attachment).unwrap();
    Connected { host, container, attachment, chain, result }
}

/// One container on each host.
#[track_caller]
pub(crate) fn connect_all<'f>(fabric: &'f Fabric, list: &Value) -> Vec<Connected<'f>> {
    (1..=fabric.hosts().len()).map(|number| connect(fabric, number, list, &format!("c{number}"))).collect()
}

/// CHECK and STATUS succeed everywhere, and after a DEL, and another, the hosts are as before.
#[track_caller]
pub(crate) fn check_and_leave(fabric: &Fabric, connected: &[Connected<'_>], before: Vec<Snapshot>) {
    for one in connected {
        one.check().unwrap();
        one.chain.status().unwrap();
    }
    for one in connected {
        one.del();
        one.del();
    }
    for (host, before) in fabric.hosts().iter().zip(before) {
        before.assert_same(&state(host));
    }
}

/// Everybody reaches everybody: echo requests, TCP and UDP with the sender's own address seen at the other end, and packets of the interface's whole
/// MTU that must not be fragmented.
#[track_caller]
pub(crate) fn all_reach_all(connected: &[Connected<'_>]) {
    for one in connected {
        for other in connected.iter().filter(|other| other.attachment_name() != one.attachment_name()) {
            for address in other.addresses() {
                let from: IpAddr =
                    one.addresses().into_iter().find(|own| own.is_ipv4() == address.is_ipv4()).unwrap();
                let what =
                    format!("{} ({from}) to {} ({address})", one.attachment_name(), other.attachment_name());
                assert!(ping(&one.container, address), "no answer: {what}\n{}", explain(one.host));
                let servers = [
                    tcp_echo_server(&other.container, address, 0),
                    udp_echo_server(&other.container, address, 0),
                ];
                let [tcp, udp] = servers.each_ref().map(|server| server.address().port());
                for (how, reply) in [
                    ("TCP", tcp_roundtrip(&one.container, address, tcp)),
                    ("UDP", udp_roundtrip(&one.container, address, udp)),
                ] {
                    let reply = reply.unwrap_or_else(|error| panic!("{how}: {what}: {error}"));
                    assert_eq!(reply.server, other.container.name(), "{how}: {what}");
                    assert_eq!(reply.seen_from.ip(), from, "{how}: {what}: the sender's own address is seen");
                }
                assert_eq!(
                    large_ping(&one.container, address, mtu(&one.container)),
                    0,
                    "{what}: a packet of the MTU"
                );
            }
        }
    }
}

impl Connected<'_> {
    pub(crate) fn attachment_name(&self) -> &str {
        self.container.name()
    }
}

/// `ping` with packets of this many bytes that must not be fragmented: its exit code.
pub(crate) fn large_ping(netns: &Netns, address: IpAddr, bytes: u64) -> i32 {
    let payload = (bytes - if address.is_ipv4() { 28 } else { 48 }).to_string();
    let address = address.to_string();
    netns.run("ping", &["-n", "-q", "-c", "1", "-W", "1", "-M", "do", "-s", &payload, &address]).code
}

/// The MTU of a container's `eth0`.
pub(crate) fn mtu(netns: &Netns) -> u64 {
    link(netns, "eth0")["mtu"].as_u64().unwrap()
}

/// A link as `ip -d -j link` shows it; `null` if there is none.
pub(crate) fn link(netns: &Netns, name: &str) -> Value {
    let links = netns.enter(|| testkit::ip_json("link show"));
    links.as_array().unwrap().iter().find(|link| link["ifname"] == name).cloned().unwrap_or(Value::Null)
}

/// What a person would look at on a host whose packets do not arrive.
pub(crate) fn explain(host: &Netns) -> String {
    let show = |line: &str| {
        let mut words = line.split(' ');
        let program = words.next().unwrap();
        let ran = host.run(program, &words.collect::<Vec<_>>());
        format!("$ {line}\n{}{}", ran.stdout, ran.stderr)
    };
    [
        "ip -br addr",
        "ip route",
        "ip -6 route",
        "ip nexthop",
        "ip neigh",
        "/sbin/bridge fdb",
        "nft list ruleset",
    ]
    .map(show)
    .join("")
}

/// The state of a host, without what host-local remembers beside its leases.
pub(crate) fn state(host: &Netns) -> Snapshot {
    host.enter(|| Snapshot::take().without(&["/last_reserved_ip", "/networks/.ferrule/", "/lock "]))
}

/// Code and message of a failure.
#[track_caller]
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, PluginFailure>) -> (u64, String) {
    let failure = result.unwrap_err();
    (failure.code(), failure.output.error()["msg"].as_str().unwrap().to_owned())
}

/// Runs a program with these words on a host, which must succeed; gives what it printed.
#[track_caller]
pub(crate) fn run(netns: &Netns, line: &str) -> String {
    let mut words = line.split_whitespace();
    let ran = netns.run(words.next().unwrap(), &words.collect::<Vec<_>>());
    assert_eq!(ran.code, 0, "{line}: {}", ran.stderr);
    ran.stdout
}
