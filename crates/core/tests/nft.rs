//! The `nf_tables` transport against `nft` as the oracle: what we make must print as what one would have typed.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where it fails")]

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ferrule_core::nft::{
    AddressType, Chain, ChainType, Connection, DataType, Element, Family, Field, Hook, Protocol, Rule, Set,
    Table, Transaction, priority,
};
use nix::sched::{CloneFlags, unshare};

const TABLE: Table = Table::new(Family::Inet, "ferrule");
const PORTS: Set = Set::map(
    "ports4",
    &[DataType::InetProto, DataType::Ipv4Addr, DataType::InetService],
    &[DataType::Ipv4Addr, DataType::InetService],
);
const ANY_PORTS: Set = Set::map(
    "anyports4",
    &[DataType::InetProto, DataType::InetService],
    &[DataType::Ipv4Addr, DataType::InetService],
);

/// Moves the calling thread to a network namespace of its own, so that tests can share a process.
fn fresh_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("run the tests inside `unshare -rnm --propagation private`");
}

fn connect() -> Connection {
    Connection::open(Instant::now() + Duration::from_secs(20)).unwrap()
}

fn commit(transaction: &Transaction) {
    connect().commit(transaction).unwrap();
}

/// Runs a program, gives its standard output, and fails with what it said if it failed.
fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} < {input}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn listing() -> String {
    run("nft", &["list", "ruleset"], "")
}

/// The ruleset with the expressions of every rule, as `nft` reads them from the kernel.
fn bytecode() -> String {
    run("nft", &["--debug=netlink", "list", "ruleset"], "")
}

/// Commits ours, types theirs into another namespace, and compares how both print.
fn assert_prints_as(transaction: &Transaction, typed: &str) {
    let (ours, ours_bytecode) = in_namespace(|| {
        commit(transaction);
        (listing(), bytecode())
    });
    let (theirs, theirs_bytecode) = in_namespace(|| {
        run("nft", &["-f", "-"], typed);
        (listing(), bytecode())
    });
    assert_eq!(ours, theirs);
    assert_eq!(ours_bytecode, theirs_bytecode);
}

fn in_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            fresh_namespace();
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn rule() -> Rule {
    Rule::new(Family::Inet)
}

#[test]
fn published_ports_print_as_typed() {
    let mut transaction = Transaction::new();
    transaction.add_table_with_comment(&TABLE, Some("made by ferrule"));
    transaction.add_set(&TABLE, &PORTS);
    transaction.add_set(&TABLE, &ANY_PORTS.comment("any host address"));
    transaction
        .add_chain(&TABLE, &Chain::base("prerouting", ChainType::Nat, Hook::Prerouting, priority::DSTNAT));
    transaction.add_rule(
        &TABLE,
        "prerouting",
        &rule().dnat_map(&[Field::L4PROTO, Field::IP_DADDR, Field::TH_DPORT], &PORTS),
    );
    transaction.add_rule(
        &TABLE,
        "prerouting",
        &rule()
            .fib_daddr_type(AddressType::Local)
            .dnat_map(&[Field::L4PROTO, Field::TH_DPORT], &ANY_PORTS)
            .comment("published"),
    );
    let any = Element::new([Protocol::TCP.into(), 8080.into()])
        .data([v4("10.88.0.2").into(), 80.into()])
        .comment("podman-0123456789ab-eth0");
    transaction.add_element(&TABLE, &ANY_PORTS, &any);
    let one = Element::new([Protocol::UDP.into(), v4("192.0.2.1").into(), 53.into()])
        .data([v4("10.88.0.3").into(), 5353.into()]);
    transaction.add_element(&TABLE, &PORTS, &one);

    assert_prints_as(
        &transaction,
        r#"table inet ferrule {
            comment "made by ferrule"
            map ports4 {
                type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service
                elements = { udp . 192.0.2.1 . 53 : 10.88.0.3 . 5353 }
            }
            map anyports4 {
                type inet_proto . inet_service : ipv4_addr . inet_service
                comment "any host address"
                elements = { tcp . 8080 comment "podman-0123456789ab-eth0" : 10.88.0.2 . 80 }
            }
            chain prerouting {
                type nat hook prerouting priority dstnat; policy accept;
                dnat ip to meta l4proto . ip daddr . th dport map @ports4
                fib daddr type local dnat ip to meta l4proto . th dport map @anyports4 comment "published"
            }
        }"#,
    );
}
