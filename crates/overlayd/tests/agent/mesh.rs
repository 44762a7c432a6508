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
/// MTU that must not be fragmented.
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

    let from_each = |work: &(dyn Fn(&Connected) -> Vec<String> + Sync)| {
        let failures = at_once(connected.len(), |index| work(&connected[index])).concat();
        assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    };
    from_each(&|one| talk(one, &connected));
    println!("everybody has had answers from everybody after {:?}", since.elapsed());
    from_each(&|one| whole_packets(one, &connected, 1500 - overhead));
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

/// To whom packets of the whole MTU did not get through.
fn whole_packets(one: &Connected, all: &[Connected], mtu: u64) -> Vec<String> {
    let name = one.container.name();
    let links = one.container.enter(|| testkit::ip_json("link show eth0"));
    if links[0]["mtu"] != mtu {
        return vec![format!("the MTU of {name} is {}, not {mtu}", links[0]["mtu"])];
    }
    let mut failures = Vec::new();
    for address in
        all.iter().filter(|other| other.container.name() != name).flat_map(|other| &other.addresses)
    {
        // Enough to tell what is wrong, and each takes its time.
        if failures.len() == 3 {
            break;
        }
        let payload = (mtu - if address.is_ipv4() { 28 } else { 48 }).to_string();
        let words = ["-n", "-q", "-c", "1", "-W", "5", "-M", "do", "-s", &payload, &address.to_string()];
        let ran = one.container.run("ping", &words);
        if ran.code != 0 {
            failures.push(format!("{mtu} bytes from {name} to {address}: {}{}", ran.stdout, ran.stderr));
        }
    }
    failures
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

#[test]
fn both_families_in_one_subnet_over_ipv6() {
    let fabric = Fabric::routed(HOSTS);
    let blocks = |number| vec![format!("10.50.{number}.0/28"), format!("fd00:50::{number}:0/124")];
    let file = write_nodes(&fabric, |host| host.ipv6().into(), blocks);
    let options = format!("--peers-file {file} --mode bridged --subnet 10.50.0.0/16,fd00:50::/64");
    everybody_talks(&fabric, &options, 70);
}
