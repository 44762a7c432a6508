//! Packets do what the rules say: a published port, a masqueraded source, a guarded bridge port.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ferrule_core::conntrack::{self, Match};
use ferrule_core::nft::{
    AddressType, Chain, ChainType, DataType, Element, Field, Hook, Protocol, Set, Verdict, ct_status,
    priority,
};

use crate::support::{
    Background, TABLE, attempt, commit, connect, deadline, in_namespace, ip, rule, run, v4,
};

const PORTS: Set = Set::map(
    "ports",
    &[DataType::InetProto, DataType::InetService],
    &[DataType::Ipv4Addr, DataType::InetService],
);

/// A network namespace that lives as long as the process which holds it.
struct Peer {
    holder: Child,
}

impl Peer {
    /// Creates the namespace and a veth link to it: `ours` gets `our_address` here, `eth0` gets `their_address` there.
    fn new(ours: &str, our_address: &str, their_address: &str) -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec sleep 1000"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let peer = Self { holder };
        let pid = peer.holder.id().to_string();
        run("ip", &["link", "add", ours, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        run("ip", &["address", "add", our_address, "dev", ours]);
        run("ip", &["link", "set", ours, "up"]);
        peer.run("ip", &["link", "set", "lo", "up"]);
        peer.run("ip", &["address", "add", their_address, "dev", "eth0"]);
        peer.run("ip", &["link", "set", "eth0", "up"]);
        let gateway = our_address.split('/').next().unwrap();
        peer.run("ip", &["route", "add", "default", "via", gateway]);
        peer
    }

    fn wrapped<'a>(pid: &'a str, program: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
        [["-t", pid, "-n", program].as_slice(), arguments].concat()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        run("nsenter", &Self::wrapped(&self.holder.id().to_string(), program, arguments))
    }

    /// What a program in the namespace prints, whether it succeeds or not.
    fn output(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let pid = self.holder.id().to_string();
        let output = attempt("nsenter", &Self::wrapped(&pid, program, arguments), input);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Serves `answer` to everyone who connects to the TCP port.
    fn serve(&self, port: u16, answer: &str) -> Background {
        let pid = self.holder.id().to_string();
        let script = format!("while true; do echo {answer} | nc -N -l {port}; done");
        let server = Background::start("nsenter", &Self::wrapped(&pid, "sh", &["-c", &script]));
        let listening = || self.run("ss", &["-Hltn", &format!("sport = :{port}")]).contains("LISTEN");
        wait_for("the server", listening);
        server
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come up");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The host between a client outside and two containers.
fn host() -> (Peer, Peer, Peer) {
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let client = Peer::new("outside", "192.0.2.1/24", "192.0.2.9/24");
    let first = Peer::new("first", "10.9.1.1/24", "10.9.1.2/24");
    let second = Peer::new("second", "10.9.2.1/24", "10.9.2.2/24");
    (client, first, second)
}

fn publish() {
    commit(|transaction| {
        transaction.add_table(&TABLE);
        transaction.add_set(&TABLE, &PORTS);
        let chain = Chain::base("prerouting", ChainType::Nat, Hook::Prerouting, priority::DSTNAT);
        transaction.add_chain(&TABLE, &chain);
        let rule =
            rule().fib_daddr_type(AddressType::Local).dnat_map(&[Field::L4PROTO, Field::TH_DPORT], &PORTS);
        transaction.add_rule(&TABLE, "prerouting", &rule);
    });
}

fn mapping(protocol: Protocol, host_port: u16, container: &str, port: u16) -> Element {
    Element::new([protocol.into(), host_port.into()]).data([v4(container).into(), port.into()])
}

#[test]
fn a_published_port_reaches_the_container_and_nothing_else_does() {
    in_namespace(|| {
        let (client, first, _second) = host();
        let _server = first.serve(80, "first");
        let ask = |address: &str, port: &str| client.output("nc", &["-w", "1", address, port], "");
        publish();
        assert_eq!(ask("192.0.2.1", "8080"), "", "not published yet");

        commit(|transaction| {
            transaction.create_element(&TABLE, &PORTS, &mapping(Protocol::TCP, 8080, "10.9.1.2", 80));
        });
        let mut answer = String::new();
        wait_for("the answer", || {
            answer = ask("192.0.2.1", "8080");
            !answer.is_empty()
        });
        assert_eq!(answer, "first\n");
        assert_eq!(ask("192.0.2.1", "8081"), "", "another port");
        assert_eq!(ask("10.9.2.2", "8080"), "", "the port of another machine, through this one");

        commit(|transaction| {
            transaction.delete_element(&TABLE, &PORTS, &Element::new([Protocol::TCP.into(), 8080.into()]));
        });
        assert_eq!(ask("192.0.2.1", "8080"), "", "no longer published");
    });
}

#[test]
fn masquerading_follows_the_map() {
    const SOURCES: Set = Set::verdict_map("sources", &[DataType::Ipv4Addr]);
    in_namespace(|| {
        let (client, first, second) = host();
        // Without masquerading no answer finds the way back.
        client.run("ip", &["route", "del", "default"]);
        commit(|transaction| {
            transaction.add_table(&TABLE);
            transaction.add_set(&TABLE, &SOURCES);
            transaction.add_chain(&TABLE, &Chain::regular("masquerade"));
            let postrouting = Chain::base("postrouting", ChainType::Nat, Hook::Postrouting, priority::SRCNAT);
            transaction.add_chain(&TABLE, &postrouting);
            let outside = rule().outside(Field::IP_DADDR, ip("10.9.0.0"), 16);
            transaction.add_rule(&TABLE, "masquerade", &outside.masquerade(true));
            transaction.add_rule(&TABLE, "postrouting", &rule().vmap(&[Field::IP_SADDR], &SOURCES));
            let element = Element::new([v4("10.9.1.2").into()]).verdict(Verdict::goto("masquerade"));
            transaction.add_element(&TABLE, &SOURCES, &element);
        });
        let ping =
            |from: &Peer| from.output("ping", &["-c1", "-W1", "192.0.2.9"], "").contains(" 0% packet loss");
        assert!(ping(&first), "the masqueraded container");
        assert!(!ping(&second), "the other one");
    });
}

/// The scenario conntrack is flushed for: a peer that keeps sending while the port moves to another container.
#[test]
fn a_moved_udp_port_reaches_its_new_container_once_the_old_entry_is_flushed() {
    in_namespace(|| {
        let (client, first, second) = host();
        publish();
        commit(|transaction| {
            transaction.add_element(&TABLE, &PORTS, &mapping(Protocol::UDP, 5353, "10.9.1.2", 53));
        });
        let send = || {
            client.output("nc", &["-u", "-p", "4000", "-w", "0", "-q", "0", "192.0.2.1", "5353"], "question");
        };
        let received = |peer: &Peer| -> u64 {
            let counters = peer.run("nstat", &["-asz", "UdpNoPorts"]);
            let value = counters.lines().find(|line| line.starts_with("UdpNoPorts")).unwrap();
            value.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        send();
        assert_eq!((received(&first), received(&second)), (1, 0));

        let mut connection = connect();
        let mut transaction = ferrule_core::nft::Transaction::new();
        transaction.delete_element(&TABLE, &PORTS, &mapping(Protocol::UDP, 5353, "10.9.1.2", 53));
        transaction.add_element(&TABLE, &PORTS, &mapping(Protocol::UDP, 5353, "10.9.2.2", 53));
        connection.commit(&transaction).unwrap();
        send();
        assert_eq!((received(&first), received(&second)), (2, 0), "the kernel remembers the old one");

        let stale = Match {
            destination_port: Some(5353),
            except_reply_source: Some(ip("10.9.2.2")),
            ..Match::new(conntrack::Family::Ipv4, 17)
        };
        assert_eq!(conntrack::flush(std::slice::from_ref(&stale), deadline()).unwrap(), 1);
        send();
        assert_eq!((received(&first), received(&second)), (2, 1));
        assert_eq!(conntrack::flush(&[stale], deadline()).unwrap(), 0, "the new entry is spared");
    });
}

#[test]
fn translated_connections_can_be_told_by_their_status() {
    in_namespace(|| {
        let (client, first, _second) = host();
        let _server = first.serve(80, "first");
        publish();
        commit(|transaction| {
            transaction.add_element(&TABLE, &PORTS, &mapping(Protocol::TCP, 8080, "10.9.1.2", 80));
            let forward = Chain::base("forward", ChainType::Filter, Hook::Forward, priority::FILTER);
            transaction.add_chain(&TABLE, &forward.policy(ferrule_core::nft::Policy::Drop));
            transaction.add_rule(&TABLE, "forward", &rule().ct_status(ct_status::DNAT).accept());
        });
        assert_eq!(client.output("nc", &["-w", "1", "10.9.1.2", "80"], ""), "", "straight to the container");
        assert_eq!(
            client.output("nc", &["-w", "1", "192.0.2.1", "8080"], ""),
            "first\n",
            "through the published port"
        );
    });
}
