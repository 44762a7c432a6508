//! Packets do what the rules say: a published port, a masqueraded source, a port that moved.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use ferrule_core::conntrack::{self, Match};
use ferrule_core::nft::{
    AddressType, Chain, ChainType, DataType, Element, Field, Hook, Policy, Protocol, Set, Transaction,
    Verdict, ct_status, priority,
};
use testkit::{
    Container, Host, Uplink, ping, set_sysctl, tcp_echo_server, tcp_roundtrip, tool, udp_echo_server,
};

use crate::support::{TABLE, commit, connect, deadline, ip, rule, v4};

const PORTS: Set = Set::map(
    "ports",
    &[DataType::InetProto, DataType::InetService],
    &[DataType::Ipv4Addr, DataType::InetService],
);
const FIRST: &str = "10.9.1.2";
const SECOND: &str = "10.9.2.2";

/// A router between a neighbour outside and two containers.
struct Router {
    _host: Host,
    outside: Uplink,
    first: Container,
    second: Container,
}

impl Router {
    fn new() -> Self {
        let host = Host::new();
        set_sysctl("net/ipv4/ip_forward", "1");
        let outside = host.uplink();
        let [first, second] = [("first", "10.9.1.1", FIRST), ("second", "10.9.2.1", SECOND)]
            .map(|(name, gateway, address)| connect_container(&host, name, gateway, address));
        Self { _host: host, outside, first, second }
    }

    /// Lets the neighbour find the containers, which it does not by itself.
    fn route_to_containers(&self) {
        let gateway = Uplink::HOST_IPV4.to_string();
        self.outside.enter(|| tool("ip", &["route", "add", "10.9.0.0/16", "via", &gateway]));
    }

    /// Who answers the neighbour on this TCP port.
    fn answer(&self, address: impl Into<IpAddr>, port: u16) -> Option<String> {
        tcp_roundtrip(&self.outside, address, port).ok().map(|reply| reply.server)
    }
}

fn connect_container(host: &Host, name: &str, gateway: &str, address: &str) -> Container {
    let container = host.container(name);
    tool("ip", &["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name]);
    tool("ip", &["address", "add", &format!("{gateway}/24"), "dev", name]);
    tool("ip", &["link", "set", name, "up"]);
    container.enter(|| {
        tool("ip", &["address", "add", &format!("{address}/24"), "dev", "eth0"]);
        tool("ip", &["link", "set", "eth0", "up"]);
        tool("ip", &["route", "add", "default", "via", gateway]);
    });
    container
}

/// Translates connections to this host's addresses by the map, which is empty.
fn add_ports() {
    commit(|transaction| {
        transaction.add_table(&TABLE);
        transaction.add_set(&TABLE, &PORTS);
        let chain = Chain::base("prerouting", ChainType::Nat, Hook::Prerouting, priority::DSTNAT);
        transaction.add_chain(&TABLE, &chain);
        let local = rule().fib_daddr_type(AddressType::Local);
        transaction.add_rule(
            &TABLE,
            "prerouting",
            &local.dnat_map(&[Field::L4PROTO, Field::TH_DPORT], &PORTS),
        );
    });
}

fn mapping(protocol: Protocol, host_port: u16, container: &str, port: u16) -> Element {
    Element::new([protocol.into(), host_port.into()]).data([v4(container).into(), port.into()])
}

#[test]
fn a_published_port_reaches_the_container_and_nothing_else_does() {
    let router = Router::new();
    router.route_to_containers();
    let _server = tcp_echo_server(&router.first, Ipv4Addr::UNSPECIFIED, 80);
    add_ports();
    assert_eq!(router.answer(Uplink::HOST_IPV4, 8080), None, "not published yet");

    let element = mapping(Protocol::TCP, 8080, FIRST, 80);
    commit(|transaction| transaction.create_element(&TABLE, &PORTS, &element));
    assert_eq!(router.answer(Uplink::HOST_IPV4, 8080).as_deref(), Some("first"));
    assert_eq!(router.answer(Uplink::HOST_IPV4, 8081), None, "another port");
    assert_eq!(router.answer(v4(SECOND), 8080), None, "the port of another machine, through this one");

    commit(|transaction| transaction.delete_element(&TABLE, &PORTS, &element));
    assert_eq!(router.answer(Uplink::HOST_IPV4, 8080), None, "no longer published");
}

#[test]
fn masquerading_follows_the_map() {
    const SOURCES: Set = Set::verdict_map("sources", &[DataType::Ipv4Addr]);
    let router = Router::new();
    commit(|transaction| {
        transaction.add_table(&TABLE);
        transaction.add_set(&TABLE, &SOURCES);
        transaction.add_chain(&TABLE, &Chain::regular("masquerade"));
        let chain = Chain::base("postrouting", ChainType::Nat, Hook::Postrouting, priority::SRCNAT);
        transaction.add_chain(&TABLE, &chain);
        let leaving = rule().outside(Field::IP_DADDR, ip("10.9.0.0"), 16);
        transaction.add_rule(&TABLE, "masquerade", &leaving.masquerade(true));
        transaction.add_rule(&TABLE, "postrouting", &rule().vmap(&[Field::IP_SADDR], &SOURCES));
        let element = Element::new([v4(FIRST).into()]).verdict(Verdict::goto("masquerade"));
        transaction.add_element(&TABLE, &SOURCES, &element);
    });
    let _server = tcp_echo_server(&router.outside, Ipv4Addr::UNSPECIFIED, 80);
    let seen_from = tcp_roundtrip(&router.first, Uplink::OUTSIDE_IPV4, 80).unwrap().seen_from;
    assert_eq!(seen_from.ip(), Uplink::HOST_IPV4);
    // The neighbour cannot answer an address that it knows no way to.
    assert!(!ping(&router.second, Uplink::OUTSIDE_IPV4), "the container that is not in the map");
    // Between the containers addresses stay as they are.
    let _server = tcp_echo_server(&router.second, Ipv4Addr::UNSPECIFIED, 80);
    assert_eq!(tcp_roundtrip(&router.first, v4(SECOND), 80).unwrap().seen_from.ip(), ip(FIRST));
}

/// The scenario conntrack is flushed for: a peer that keeps sending while the port moves to another container.
#[test]
fn a_moved_udp_port_reaches_its_new_container_once_the_old_entry_is_flushed() {
    let router = Router::new();
    add_ports();
    let old = mapping(Protocol::UDP, 5353, FIRST, 53);
    commit(|transaction| transaction.add_element(&TABLE, &PORTS, &old));
    let _servers =
        [&router.first, &router.second].map(|peer| udp_echo_server(peer, Ipv4Addr::UNSPECIFIED, 53));
    let peer = router.outside.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4000)).unwrap();
        socket.connect(SocketAddr::new(Uplink::HOST_IPV4.into(), 5353)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    });
    let answer = || {
        let mut datagram = [0; 256];
        peer.send(b"question").unwrap();
        let length = peer.recv(&mut datagram).unwrap();
        String::from_utf8_lossy(&datagram[..length]).split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(answer(), "first");

    let mut transaction = Transaction::new();
    transaction.delete_element(&TABLE, &PORTS, &old);
    transaction.add_element(&TABLE, &PORTS, &mapping(Protocol::UDP, 5353, SECOND, 53));
    connect().commit(&transaction).unwrap();
    assert_eq!(answer(), "first", "the kernel goes by what it remembers");

    let stale = [Match {
        destination_port: Some(5353),
        except_reply_source: Some(ip(SECOND)),
        ..Match::new(conntrack::Family::Ipv4, 17)
    }];
    assert_eq!(conntrack::flush(&stale, deadline()).unwrap(), 1);
    assert_eq!(answer(), "second");
    assert_eq!(conntrack::flush(&stale, deadline()).unwrap(), 0, "the new entry is spared");
    assert_eq!(answer(), "second");
}

#[test]
fn translated_connections_can_be_told_by_their_status() {
    let router = Router::new();
    router.route_to_containers();
    let _server = tcp_echo_server(&router.first, Ipv4Addr::UNSPECIFIED, 80);
    add_ports();
    commit(|transaction| {
        transaction.add_element(&TABLE, &PORTS, &mapping(Protocol::TCP, 8080, FIRST, 80));
        let forward = Chain::base("forward", ChainType::Filter, Hook::Forward, priority::FILTER);
        transaction.add_chain(&TABLE, &forward.policy(Policy::Drop));
        transaction.add_rule(&TABLE, "forward", &rule().ct_status(ct_status::DNAT).accept());
    });
    assert_eq!(router.answer(v4(FIRST), 80), None, "straight to the container");
    assert_eq!(
        router.answer(Uplink::HOST_IPV4, 8080).as_deref(),
        Some("first"),
        "through the published port"
    );
}
