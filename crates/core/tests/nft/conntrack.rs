//! Exactly the entries of a mapping are forgotten.

use std::fmt::Write as _;
use std::net::IpAddr;

use ferrule_core::conntrack::{Family, Match, flush};

use testkit::tool;

use crate::support::{deadline, in_namespace, ip};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// An entry of a peer that talks to `destination`, answered by `container`.
struct Entry {
    protocol: &'static str,
    peer: &'static str,
    source_port: u16,
    destination: &'static str,
    port: u16,
    container: &'static str,
}

impl Entry {
    /// Makes the kernel track it.
    fn insert(&self) {
        let Self { protocol, peer, source_port, destination, port, container } = self;
        let (source_port, port) = (source_port.to_string(), port.to_string());
        let mut arguments = vec!["-I", "-p", protocol, "-t", "600", "-s", peer, "-d", destination];
        arguments.extend(["--sport", &source_port, "--dport", &port]);
        arguments.extend([
            "-r",
            container,
            "-q",
            peer,
            "--reply-port-src",
            &port,
            "--reply-port-dst",
            &source_port,
        ]);
        arguments.extend(["-u", "SEEN_REPLY"]);
        if *protocol != "udp" {
            arguments.extend(["--state", "ESTABLISHED"]);
        }
        if *protocol == "sctp" {
            arguments.extend(["--orig-vtag", "1", "--reply-vtag", "2"]);
        }
        tool("conntrack", &arguments);
    }
}

/// What is tracked: for each entry its protocol, its peer's port, and the container, sorted.
fn tracked() -> Vec<String> {
    let mut found = Vec::new();
    for family in ["ipv4", "ipv6"] {
        for line in tool("conntrack", &["-L", "-f", family]).lines() {
            let protocol = line.split_whitespace().next().unwrap();
            let values = |key: &str| -> Vec<&str> {
                line.split_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')).collect()
            };
            let mut entry = format!("{protocol} {} ", values("sport")[0]);
            write!(entry, "{}->{}", values("dst")[0], values("src")[1]).unwrap();
            found.push(entry);
        }
    }
    found.sort();
    found
}

fn insert(entries: &[(&'static str, u16, &'static str, u16, &'static str)]) {
    for (protocol, source_port, destination, port, container) in entries {
        let peer = if destination.contains(':') { "2001:db8::9" } else { "198.51.100.9" };
        let (source_port, port) = (*source_port, *port);
        Entry { protocol, peer, source_port, destination, port, container }.insert();
    }
}

fn udp(port: u16) -> Match {
    Match { destination_port: Some(port), ..Match::new(Family::Ipv4, UDP) }
}

#[test]
fn only_entries_of_the_mapping_are_deleted() {
    insert(&[
        ("udp", 1, "192.0.2.1", 53, "10.0.0.2"),
        ("udp", 2, "192.0.2.1", 53, "10.0.0.3"),
        ("udp", 3, "192.0.2.2", 53, "10.0.0.2"),
        ("udp", 4, "192.0.2.1", 54, "10.0.0.2"),
        ("tcp", 5, "192.0.2.1", 53, "10.0.0.2"),
        ("udp", 6, "2001:db8::1", 53, "fd00::2"),
    ]);
    assert_eq!(tracked().len(), 6);

    let mapping = Match { destination: Some(ip("192.0.2.1")), reply_source: Some(ip("10.0.0.2")), ..udp(53) };
    assert_eq!(flush(&[mapping], deadline()).unwrap(), 1);
    let left = [
        "tcp 5 192.0.2.1->10.0.0.2",
        "udp 2 192.0.2.1->10.0.0.3",
        "udp 3 192.0.2.2->10.0.0.2",
        "udp 4 192.0.2.1->10.0.0.2",
        "udp 6 2001:db8::1->fd00::2",
    ];
    assert_eq!(tracked(), left);

    assert_eq!(flush(&[udp(53)], deadline()).unwrap(), 2, "any address");
    assert_eq!(tracked(), [left[0], left[3], left[4]]);
    assert_eq!(flush(&[udp(53)], deadline()).unwrap(), 0, "again");
    assert_eq!(flush(&[], deadline()).unwrap(), 0);
    assert_eq!(tracked().len(), 3);
}

#[test]
fn each_field_narrows_by_itself() {
    let entries = [
        ("udp", 1, "192.0.2.1", 53, "10.0.0.2"),
        ("udp", 2, "192.0.2.1", 54, "10.0.0.3"),
        ("tcp", 3, "192.0.2.2", 53, "10.0.0.2"),
        ("udp", 4, "2001:db8::1", 53, "fd00::2"),
        ("udp", 5, "2001:db8::2", 53, "fd00::3"),
        ("sctp", 6, "192.0.2.1", 53, "10.0.0.2"),
        ("sctp", 7, "192.0.2.1", 54, "10.0.0.2"),
    ];
    let v4 = |protocol| Match::new(Family::Ipv4, protocol);
    let v6 = || Match::new(Family::Ipv6, UDP);
    let address = |text: &str| -> Option<IpAddr> { Some(ip(text)) };
    let cases = [
        (v4(UDP), vec![1, 2]),
        (v4(TCP), vec![3]),
        (Match { destination_port: Some(54), ..v4(UDP) }, vec![2]),
        (Match { destination: address("192.0.2.2"), ..v4(TCP) }, vec![3]),
        (Match { destination: address("192.0.2.2"), ..v4(UDP) }, vec![]),
        (Match { reply_source: address("10.0.0.3"), ..v4(UDP) }, vec![2]),
        (Match { except_reply_source: address("10.0.0.3"), ..v4(UDP) }, vec![1]),
        (v6(), vec![4, 5]),
        (Match { destination: address("2001:db8::2"), ..v6() }, vec![5]),
        (Match { reply_source: address("fd00::2"), ..v6() }, vec![4]),
        (Match { destination_port: Some(53), ..v6() }, vec![4, 5]),
        (Match { destination_port: Some(54), ..v4(SCTP) }, vec![7]),
        (Match { reply_source: address("10.0.0.2"), ..v6() }, vec![]),
    ];
    for (wanted, expected) in cases {
        in_namespace(|| {
            insert(&entries);
            let before = tracked();
            assert_eq!(
                flush(std::slice::from_ref(&wanted), deadline()).unwrap(),
                expected.len(),
                "{wanted:?}"
            );
            let left = tracked();
            let gone = before.iter().filter(|entry| !left.contains(entry));
            let mut gone: Vec<u16> =
                gone.map(|entry| entry.split(' ').nth(1).unwrap().parse().unwrap()).collect();
            gone.sort_unstable();
            assert_eq!(gone, expected, "{wanted:?}");
        });
    }
}

#[test]
fn several_mappings_of_both_families_are_flushed_together() {
    insert(&[
        ("udp", 1, "192.0.2.1", 53, "10.0.0.2"),
        ("tcp", 2, "192.0.2.1", 80, "10.0.0.2"),
        ("udp", 3, "192.0.2.1", 80, "10.0.0.2"),
        ("udp", 4, "2001:db8::1", 53, "fd00::2"),
    ]);
    let matches = [
        udp(53),
        Match { destination_port: Some(80), ..Match::new(Family::Ipv4, TCP) },
        Match { destination_port: Some(53), ..Match::new(Family::Ipv6, UDP) },
    ];
    assert_eq!(flush(&matches, deadline()).unwrap(), 3);
    assert_eq!(tracked(), ["udp 3 192.0.2.1->10.0.0.2"]);
}

/// More entries than one answer of the kernel holds, and than one batch of deletions.
#[test]
fn a_long_table_is_read_and_emptied_whole() {
    let file = std::env::temp_dir().join(format!("ferrule-conntrack-{}", std::process::id()));
    let mut commands = String::new();
    for port in 1..=3000 {
        let destination = if port % 3 == 0 { 54 } else { 53 };
        writeln!(
            commands,
            "-I -p udp -t 600 -s 198.51.100.9 -d 192.0.2.1 --sport {port} --dport {destination} -r 10.0.0.2 -q 198.51.100.9 \
             --reply-port-src {destination} --reply-port-dst {port}"
        )
        .unwrap();
    }
    std::fs::write(&file, commands).unwrap();
    tool("conntrack", &["-R", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(tracked().len(), 3000);
    assert_eq!(flush(&[udp(53)], deadline()).unwrap(), 2000);
    assert_eq!(tracked().len(), 1000);
}

#[test]
fn an_entry_of_a_zone_is_deleted_and_its_twin_in_another_zone_is_not() {
    for (zone, container) in [("0", "10.0.0.2"), ("7", "10.0.0.3")] {
        let arguments =
            ["-I", "-p", "udp", "-t", "600", "-s", "198.51.100.9", "-d", "192.0.2.1", "--sport", "1"];
        let reply = ["--dport", "53", "-r", container, "-q", "198.51.100.9"];
        let ports = ["--reply-port-src", "53", "--reply-port-dst", "1", "-w", zone];
        tool("conntrack", &[arguments.as_slice(), &reply, &ports].concat());
    }
    assert_eq!(tracked().len(), 2);
    let in_zone = Match { reply_source: Some(ip("10.0.0.3")), ..udp(53) };
    assert_eq!(flush(&[in_zone], deadline()).unwrap(), 1);
    assert_eq!(tracked(), ["udp 1 192.0.2.1->10.0.0.2"]);
}
