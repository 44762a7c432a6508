//! The pure parts of the plugins, to be counted in instructions: `parts NAME TIMES` does one of them so many times; without arguments it names them.
//!
//! `make bench-instructions` runs it under callgrind twice, with different numbers of times: the difference is the part's, whatever it took to start.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what goes wrong here is a mistake in this file"
)]

use std::hint::black_box;
use std::io::Cursor;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use cni::{AddResult, Config, Environment, Request, SpecVersion, respond};
use ferrule_bridge::config::Config as BridgeConfig;
use ferrule_core::nft::{
    AddressType, Chain, ChainType, DataType, Element, Family, Field, Hook, Protocol, Rule, Set, Table,
    Transaction, priority,
};
use ferrule_host_local::HostLocal;
use ferrule_portmap::config::Config as PortmapConfig;
use serde_json::{Value, json};

/// A part's name, and how it is done so many times.
type Part = (&'static str, fn(usize));

const PARTS: [Part; 8] = [
    ("configuration of bridge", bridge_configuration),
    ("configuration of portmap, 2 ports", portmap_configuration),
    ("prevResult 1.0.0, read", read_result),
    ("result 0.2.0 to 1.1.0 and back", convert_result),
    ("result 1.0.0, written", write_result),
    ("nft transaction, 4 elements", elements),
    ("nft transaction, a table with 3 chains", table),
    ("host-local ADD and DEL among 5,000 leases", leases),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [name, times] => {
            let (_, part) = PARTS.iter().find(|(known, _)| known == name).unwrap();
            part(times.parse().unwrap());
        }
        _ => PARTS.iter().for_each(|(name, _)| println!("{name}")),
    }
}

fn result() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "cni-bench", "mac": "0a:00:00:00:00:01"},
            {"name": "veth12345678", "mac": "0a:00:00:00:00:02"},
            {"name": "eth0", "mac": "0a:00:00:00:00:03", "sandbox": "/run/netns/c1"}
        ],
        "ips": [
            {"interface": 2, "address": "10.93.0.2/16", "gateway": "10.93.0.1"},
            {"interface": 2, "address": "fd93::2/64", "gateway": "fd93::1"}
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        "dns": {}
    })
}

fn bridge_configuration(times: usize) {
    let text = json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "cni-bench", "isGateway": true, "ipMasq": true,
        "ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.93.0.0/16"}], [{"subnet": "fd93::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
        }
    })
    .to_string();
    for _ in 0..times {
        let config = Config::read(black_box(&text).clone().into_bytes(), SpecVersion::ALL).unwrap();
        let request = Request::new(config, environment("ADD", 0));
        black_box(BridgeConfig::load(&request).unwrap());
    }
}

fn portmap_configuration(times: usize) {
    let text = json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "portmap", "capabilities": {"portMappings": true},
        "runtimeConfig": {"portMappings": [
            {"hostPort": 20_000, "containerPort": 80, "protocol": "tcp"}, {"hostPort": 20_001, "containerPort": 81, "protocol": "udp"}
        ]},
        "prevResult": result()
    })
    .to_string();
    for _ in 0..times {
        let config = Config::read(black_box(&text).clone().into_bytes(), SpecVersion::ALL).unwrap();
        black_box(PortmapConfig::load(&config).unwrap());
        black_box(config.prev_result().unwrap());
    }
}

fn read_result(times: usize) {
    let text = result().to_string();
    for _ in 0..times {
        let value: Value = serde_json::from_str(black_box(&text)).unwrap();
        black_box(AddResult::read(&value, SpecVersion::V1_0_0).unwrap());
    }
}

fn convert_result(times: usize) {
    let old = json!({
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.93.0.2/16", "gateway": "10.93.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "ip6": {"ip": "fd93::2/64", "gateway": "fd93::1", "routes": [{"dst": "::/0"}]},
        "dns": {"nameservers": ["10.93.0.1"]}
    });
    for _ in 0..times {
        let result = AddResult::read(black_box(&old), SpecVersion::V0_2_0).unwrap();
        let new = result.write(SpecVersion::V1_1_0).unwrap();
        let again = AddResult::read(&new, SpecVersion::V1_1_0).unwrap();
        black_box(again.write(SpecVersion::V0_2_0).unwrap());
    }
}

fn write_result(times: usize) {
    let result = AddResult::read(&result(), SpecVersion::V1_0_0).unwrap();
    for _ in 0..times {
        black_box(black_box(&result).write(SpecVersion::V1_0_0).unwrap().to_string());
    }
}

const TABLE: Table = Table::new(Family::Inet, "bench");
const PORTS: Set = Set::map(
    "ports",
    &[DataType::InetProto, DataType::InetService],
    &[DataType::Ipv4Addr, DataType::InetService],
);
const SOURCES: Set = Set::new("sources", &[DataType::Ipv4Addr]);

fn elements(times: usize) {
    let address = Ipv4Addr::new(10, 93, 0, 2);
    for _ in 0..times {
        let mut transaction = Transaction::new();
        for (protocol, port) in [(Protocol::TCP, 20_000_u16), (Protocol::UDP, 20_001)] {
            let key = [protocol.into(), black_box(port).into()];
            let element = Element::new(key).data([address.into(), 80_u16.into()]).comment("bench c1 eth0");
            transaction.create_element(&TABLE, &PORTS, &element);
        }
        for last in 2..4 {
            let source = IpAddr::from(Ipv4Addr::new(10, 93, 0, last));
            let element = Element::new([source.into()]).comment("bench c1 eth0");
            transaction.create_element(&TABLE, &SOURCES, &element);
        }
        black_box(transaction);
    }
}

fn table(times: usize) {
    for _ in 0..times {
        let mut transaction = Transaction::new();
        transaction.add_table(black_box(&TABLE));
        transaction.add_set(&TABLE, &PORTS);
        transaction.add_set(&TABLE, &SOURCES);
        for (name, hook, priority) in [
            ("prerouting", Hook::Prerouting, priority::DSTNAT),
            ("output", Hook::Output, priority::DSTNAT),
            ("postrouting", Hook::Postrouting, priority::SRCNAT),
        ] {
            transaction.add_chain(&TABLE, &Chain::base(name, ChainType::Nat, hook, priority));
        }
        let publish = Rule::new(Family::Inet)
            .fib_daddr_type(AddressType::Local)
            .dnat_map(&[Field::L4PROTO, Field::TH_DPORT], &PORTS);
        transaction.add_rule(&TABLE, "prerouting", &publish);
        transaction.add_rule(&TABLE, "output", &publish);
        let masquerade = Rule::new(Family::Inet).in_set(&[Field::IP_SADDR], &SOURCES).masquerade(false);
        transaction.add_rule(&TABLE, "postrouting", &masquerade);
        black_box(transaction);
    }
}

/// In-process, with a store in a directory of its own.
fn leases(times: usize) {
    let directory = std::env::temp_dir().join(format!("parts-{}", std::process::id()));
    let store = directory.join("bench");
    std::fs::create_dir_all(&store).unwrap();
    for number in 0..5000 {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 2).to_bits() + number);
        std::fs::write(store.join(address.to_string()), format!("c{number}\r\neth0")).unwrap();
    }
    let config = configuration(&directory);
    for number in 0..=times {
        for verb in ["ADD", "DEL"] {
            let response = respond(&HostLocal, &environment(verb, number), Cursor::new(config.clone()));
            assert!(response.success, "{response:?}");
        }
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

fn configuration(directory: &Path) -> Vec<u8> {
    let ipam = json!({"type": "host-local", "dataDir": directory, "ranges": [[{"subnet": "10.64.0.0/12"}]]});
    let config = json!({"cniVersion": "1.0.0", "name": "bench", "type": "host-local", "ipam": ipam});
    config.to_string().into_bytes()
}

fn environment(verb: &str, number: usize) -> Environment {
    let container = format!("d{number}");
    Environment::from_pairs([
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", &container),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_NETNS_OVERRIDE", "1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/nowhere"),
    ])
}
