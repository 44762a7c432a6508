//! Twenty hosts behind a router, and everybody talks with everybody.
//!
//! On one switch, each host would have a neighbour entry for each other one, and the kernel's table, which all namespaces of a machine share, has room for
//! a thousand (`net.ipv4.neigh.default.gc_thresh3`): two such tests at once would be too many.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use serde_json::{Value, json};
use testkit::{
    DEADLINE, EchoServer, Fabric, FabricHost, Reply, tcp_echo_server, tcp_roundtrip, udp_echo_server,
    udp_roundtrip,
};

use crate::lab::{Agent, Connected, write};

const HOSTS: u8 = 20;
const PORT: u16 = 7000;

/// What every host is given, by number from 1.
type Blocks = fn(usize) -> Vec<String>;

fn write_nodes(fabric: &Fabric, underlay: impl Fn(&FabricHost) -> IpAddr, blocks: Blocks) -> String {
    let hosts = fabric.hosts().iter().enumerate();
    let node = |(index, host): (usize, &FabricHost)| json!({"node": host.name(), "underlay": underlay(host), "blocks": blocks(index + 1)});
    let list: Value = hosts.map(node).collect();
    write("blue.json", &list.to_string()).display().to_string()
}

/// Does something for each of many at once.
fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|index| scope.spawn(move || work(index))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// An agent and a container on every host; TCP and UDP from each container to each other one, by all families they have, and packets of the whole
/// MTU around the circle.
fn everybody_talks(fabric: &Fabric, options: &str, overhead: u64) {
    let since = Instant::now();
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let agents: Vec<Agent<'_>> = hosts.iter().map(|host| Agent::start(host, options)).collect();
    for agent in &agents {
        agent.settled(hosts.len() - 1);
    }
    println!("{} agents ready after {:?}", hosts.len(), since.elapsed());
    let connected =
        at_once(hosts.len(), |index| Connected::add(fabric, hosts[index], &format!("c{}", index + 1)));
    let servers: Vec<EchoServer> = connected
        .iter()
        .flat_map(|one| {
            // Of both families.
            let any = Ipv6Addr::UNSPECIFIED;
            [tcp_echo_server(&one.container, any, PORT), udp_echo_server(&one.container, any, PORT)]
        })
        .collect();
    println!("{} containers with {} servers after {:?}", hosts.len(), servers.len(), since.elapsed());

    let failures: Vec<String> =
        at_once(connected.len(), |index| talk(&connected[index], &connected)).into_iter().flatten().collect();
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    let circle = at_once(connected.len(), |index| {
        let (one, next) = (&connected[index], &connected[(index + 1) % connected.len()]);
        whole_packets(one, next, 1500 - overhead)
    });
    assert!(circle.iter().all(Result::is_ok), "packets of the whole MTU: {circle:?}");
    println!("everybody has talked with everybody after {:?}", since.elapsed());
}

/// What went wrong when `one` talked with all others.
fn talk(one: &Connected, all: &[Connected]) -> Vec<String> {
    let mut failures = Vec::new();
    let since = Instant::now();
    // A machine that is busy with something else may take long for an answer, and an answer from another is wrong at once.
    let patiently = |attempt: &dyn Fn() -> io::Result<Reply>| loop {
        let reply = attempt();
        if reply.is_ok() || since.elapsed() > DEADLINE {
            return reply;
        }
    };
    for other in all.iter().filter(|other| other.container.name() != one.container.name()) {
        for (own, far) in one.addresses.iter().zip(&other.addresses) {
            for (how, reply) in [
                ("TCP", patiently(&|| tcp_roundtrip(&one.container, *far, PORT))),
                ("UDP", patiently(&|| udp_roundtrip(&one.container, *far, PORT))),
            ] {
                let right = reply.as_ref().is_ok_and(|reply| {
                    reply.server == other.container.name() && reply.seen_from.ip() == *own
                });
                if !right {
                    failures.push(format!("{how} from {own} to {far}: {reply:?}"));
                }
            }
        }
    }
    failures
}

fn whole_packets(one: &Connected, other: &Connected, mtu: u64) -> Result<(), String> {
    let links = one.container.enter(|| testkit::ip_json("link show eth0"));
    if links[0]["mtu"] != mtu {
        return Err(format!("the MTU of {} is {}, not {mtu}", one.container.name(), links[0]["mtu"]));
    }
    for address in &other.addresses {
        let payload = (mtu - if address.is_ipv4() { 28 } else { 48 }).to_string();
        let words = ["-n", "-q", "-c", "1", "-W", "5", "-M", "do", "-s", &payload, &address.to_string()];
        let ran = one.container.run("ping", &words);
        if ran.code != 0 {
            return Err(format!("to {address}: {}{}", ran.stdout, ran.stderr));
        }
    }
    Ok(())
}

#[test]
fn both_families_routed() {
    let fabric = Fabric::routed(HOSTS);
    let blocks = |number| vec![format!("10.40.{number}.0/24"), format!("fd00:40:{number}::/64")];
    let file = write_nodes(&fabric, |host| host.ipv4().into(), blocks);
    everybody_talks(&fabric, &format!("--peers-file {file}"), 50);
}

#[test]
fn ipv4_routed_over_ipv6() {
    let fabric = Fabric::routed(HOSTS);
    let file = write_nodes(&fabric, |host| host.ipv6().into(), |number| vec![format!("10.40.{number}.0/24")]);
    everybody_talks(&fabric, &format!("--peers-file {file}"), 70);
}

#[test]
fn ipv6_routed_over_ipv6() {
    let fabric = Fabric::routed(HOSTS);
    let blocks = |number| vec![format!("fd00:40:{number}::/64")];
    let file = write_nodes(&fabric, |host| host.ipv6().into(), blocks);
    everybody_talks(&fabric, &format!("--peers-file {file}"), 70);
}

#[test]
fn both_families_in_one_subnet() {
    let fabric = Fabric::routed(HOSTS);
    let blocks = |number| vec![format!("10.50.{number}.0/28"), format!("fd00:50::{number}:0/124")];
    let file = write_nodes(&fabric, |host| host.ipv4().into(), blocks);
    let options = format!("--peers-file {file} --mode bridged --subnet 10.50.0.0/16,fd00:50::/64");
    everybody_talks(&fabric, &options, 50);
}
