//! What the kernel remembers about datagrams when a port comes and goes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::json;
use testkit::{Netns, Plugin, Uplink, eventually, plugin_dir, tool, udp_echo_server};

use crate::lab::{Lab, network, port, port_at};

/// A client that keeps its source port, as resolvers and media streams do.
struct Client(UdpSocket);

impl Client {
    fn new(netns: &Netns, target: impl Into<IpAddr>, port: u16) -> Self {
        let target = SocketAddr::new(target.into(), port);
        let here: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = netns.enter(|| UdpSocket::bind((here, 0))).unwrap();
        netns.enter(|| socket.connect(target)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self(socket)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Who answers a datagram now; `None` for nobody (also if that is said: port unreachable).
    fn ask(&self) -> Option<String> {
        let mut buffer = [0; 512];
        // What an earlier datagram has caused is not an answer to this one.
        self.0.set_nonblocking(true).unwrap();
        while self.0.recv(&mut buffer).is_ok() {}
        self.0.set_nonblocking(false).unwrap();
        self.0.send(b"who").ok()?;
        let length = self.0.recv(&mut buffer).ok()?;
        String::from_utf8_lossy(&buffer[..length]).split_whitespace().last().map(ToOwned::to_owned)
    }
}

/// The tracked UDP connections of a client, as `conntrack` lists them.
fn tracked(client: &Client) -> Vec<String> {
    let port = client.port().to_string();
    ["ipv4", "ipv6"]
        .iter()
        .flat_map(|family| {
            let listing = tool("conntrack", &["-L", "-f", family, "-p", "udp", "--orig-port-src", &port]);
            listing.lines().map(ToOwned::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

fn flows_follow_the_mapping(backend: &str, target: IpAddr) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend }));
    // Somebody has published something, so connections are tracked at all.
    let neighbour = net.start(&lab, "neighbour", &json!([port("udp", 5354, 53)]));
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let _neighbour_server = udp_echo_server(&neighbour.container, any, 53);
    let client = Client::new(&lab.outside, target, 5353);
    assert_eq!(client.ask(), None, "nobody is there");
    assert_eq!(tracked(&client).len(), 1, "but the kernel remembers where the port led to");

    let first = net.start(&lab, "first", &json!([port("udp", 5353, 53)]));
    let first_server = udp_echo_server(&first.container, any, 53);
    eventually("the first container to answer", || (client.ask().as_deref() == Some("first")).then_some(()));

    let bystander = Client::new(&lab.outside, target, 5354);
    assert_eq!(bystander.ask().as_deref(), Some("neighbour"));
    let kept = tracked(&bystander);

    drop(first_server);
    net.stop(&first);
    assert_eq!(tracked(&client), Vec::<String>::new(), "forgotten with the mapping");
    assert_eq!(tracked(&bystander).len(), kept.len(), "another mapping's connection is not");

    let second = net.start(&lab, "second", &json!([port("udp", 5353, 53)]));
    let _second_server = udp_echo_server(&second.container, any, 53);
    eventually("the second container to answer", || {
        (client.ask().as_deref() == Some("second")).then_some(())
    });
}

#[test]
fn flows_follow_the_mapping_with_nftables() {
    flows_follow_the_mapping("nftables", Uplink::HOST_IPV4.into());
}

#[test]
fn flows_follow_the_mapping_with_iptables() {
    flows_follow_the_mapping("iptables", Uplink::HOST_IPV4.into());
}

#[test]
fn flows_follow_the_mapping_in_ipv6() {
    flows_follow_the_mapping("nftables", Uplink::HOST_IPV6.into());
}

/// A host with DNS published must not break the DNS of its containers, whose queries go to the same port of somebody else.
#[test]
fn flows_to_the_same_port_elsewhere_are_left_alone() {
    let lab = Lab::new();
    let net = network(1, &json!({}));
    let asking = net.start(&lab, "asking", &json!([port("udp", 1, 1)]));
    // The neighbour knows no way back, unless it is told.
    lab.outside.enter(|| tool("ip", &["route", "add", "10.1.0.0/24", "via", "192.0.2.1"]));
    let _resolver = udp_echo_server(&lab.outside, Ipv4Addr::UNSPECIFIED, 53);
    let query = Client::new(&asking.container, Uplink::OUTSIDE_IPV4, 53);
    assert_eq!(query.ask().as_deref(), Some("outside"));
    assert_eq!(tracked(&query).len(), 1);
    let other = network(2, &json!({})).start(&lab, "other", &json!([]));
    let dns = net.start(&lab, "dns", &json!([port("udp", 53, 53)]));
    assert_eq!(tracked(&query).len(), 1, "on ADD");
    // Straight to the container's port, which happens to have the number of the host's.
    let _server = udp_echo_server(&dns.container, Ipv4Addr::UNSPECIFIED, 53);
    let direct = Client::new(&other.container, dns.address(true), 53);
    assert_eq!(direct.ask().as_deref(), Some("dns"));
    let published = Client::new(&other.container, Uplink::HOST_IPV4, 53);
    assert_eq!(published.ask().as_deref(), Some("dns"));
    // Only this plugin's DEL: `bridge` would take the container's link away.
    let config = net.0.stdin(1, &dns.attachment, Some(&dns.result));
    let del = Plugin::new("portmap").verb("DEL").attachment("dns", dns.container.path(), "eth0");
    del.path(&[plugin_dir()]).config(&config).run().success();
    assert_eq!(tracked(&query).len(), 1, "on DEL");
    assert_eq!(tracked(&direct).len(), 1, "on DEL");
    assert_eq!(tracked(&published).len(), 0, "on DEL");
}

/// A port at one address has nothing to do with the same port at another.
#[test]
fn a_host_address_has_its_own_flows() {
    let lab = Lab::new();
    tool("ip", &["address", "add", "192.0.2.10/24", "dev", "uplink0"]);
    let net = network(1, &json!({}));
    let one = net.start(&lab, "one", &json!([port_at("192.0.2.10", "udp", 5353, 53)]));
    let _server = udp_echo_server(&one.container, Ipv4Addr::UNSPECIFIED, 53);
    let client = Client::new(&lab.outside, [192, 0, 2, 10], 5353);
    assert_eq!(client.ask().as_deref(), Some("one"));
    let two = net.start(&lab, "two", &json!([port_at("192.0.2.1", "udp", 5353, 53)]));
    assert_eq!(tracked(&client).len(), 1);
    net.stop(&two);
    assert_eq!(tracked(&client).len(), 1);
}
