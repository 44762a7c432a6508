//! Joining, leaving, moving; lists that are wrong; agents that are killed; hosts that are started again.

use std::fs;
use std::time::{Duration, Instant};

use testkit::{Fabric, FabricHost, eventually};

use crate::lab::{Agent, Connected, Probe, bridged, entries, kernel, sh, write, write_hosts, write_peers};

/// Agents on the first hosts, following one file that names these hosts.
fn start(fabric: &Fabric, count: usize) -> Vec<Agent<'_>> {
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().take(count).collect();
    let file = write_hosts(&hosts);
    let agents: Vec<Agent<'_>> = hosts.iter().map(|host| Agent::following(host, &file)).collect();
    for agent in &agents {
        agent.settled(count - 1);
    }
    agents
}

#[test]
fn a_node_that_is_added_to_the_file_is_reached() {
    let fabric = Fabric::switched(3);
    let [h1, h2, h3] = fabric.hosts() else { unreachable!() };
    let mut agents = start(&fabric, 2);
    let c1 = Connected::add(&fabric, h1, "c1");
    let c2 = Connected::add(&fabric, h2, "c2");
    c1.until_reached(c2.address, Instant::now());

    // The third host is up before the others know of it.
    let alone = write("alone.json", &fs::read_to_string(write_hosts(&[h1, h2, h3])).unwrap());
    write_hosts(&[h1, h2]);
    agents.push(Agent::following(h3, &alone));
    agents[2].settled(2);
    let c3 = Connected::add(&fabric, h3, "c3");
    assert!(!c1.reaches(c3.address, Duration::from_millis(200)), "nobody has told h1 of h3 yet");

    let joining = Probe::start(&c1, c3.address);
    let since = Instant::now();
    write_hosts(&[h1, h2, h3]);
    let took = c1.until_reached(c3.address, since);
    println!("join: reached after {took:?}");
    c3.until_reached(c2.address, since);
    joining.end().assert_brief("join");

    let probe = Probe::start(&c1, c2.address);
    let leaving = Probe::start(&c1, c3.address);
    write_hosts(&[h1, h2]);
    let since = Instant::now();
    eventually("h3 to be forgotten", || (!kernel(h1).contains("10.40.3.0/24")).then_some(()));
    println!("leave: forgotten after {:?}", since.elapsed());
    leaving.end().assert_ends_soon("leave");
    let flow = probe.end();
    assert_eq!(flow.lost, 0, "the others go on undisturbed: {flow:?}");
    assert!(!kernel(h1).contains(&h3.ipv4().to_string()), "{}", kernel(h1));
}

#[test]
fn a_host_with_a_new_address_is_reached_there() {
    let fabric = Fabric::switched(3);
    let [h1, h2, h3] = fabric.hosts() else { unreachable!() };
    let agents = start(&fabric, 3);
    let c1 = Connected::add(&fabric, h1, "c1");
    let c2 = Connected::add(&fabric, h2, "c2");
    c1.until_reached(c2.address, Instant::now());
    let device = sh(h2, "ip -o link show vx-blue | cut -d: -f1");

    let probe = Probe::start(&c1, c2.address);
    sh(h2, "ip addr del 192.0.2.2/24 dev eth0 && ip addr add 192.0.2.77/24 dev eth0");
    write_peers(&[
        ("h1", h1.ipv4().into(), "10.40.1.0/24"),
        ("h2", "192.0.2.77".parse().unwrap(), "10.40.2.0/24"),
        ("h3", h3.ipv4().into(), "10.40.3.0/24"),
    ]);
    let since = Instant::now();
    eventually("the new address everywhere", || {
        [h1, h3].iter().all(|host| kernel(host).contains("192.0.2.77")).then_some(())
    });
    c1.until_reached(c2.address, since);
    let flow = probe.end();
    println!(
        "new underlay address: longest time without an answer {:?}, lost {} of {}",
        flow.gap, flow.lost, flow.sent
    );
    flow.assert_brief("new underlay address");
    assert_eq!(sh(h2, "ip -o link show vx-blue | cut -d: -f1"), device, "the device is the same");
    assert_eq!(agents[1].status()["own"]["underlay"], "192.0.2.77");
}

#[test]
fn killing_and_restarting_an_agent_loses_nothing() {
    let fabric = Fabric::switched(3);
    let [h1, h2, _] = fabric.hosts() else { unreachable!() };
    let mut agents = start(&fabric, 3);
    let c1 = Connected::add(&fabric, h1, "c1");
    let c2 = Connected::add(&fabric, h2, "c2");
    c1.until_reached(c2.address, Instant::now());
    let before = kernel(h1);

    let probe = Probe::start(&c1, c2.address);
    for agent in &mut agents[..2] {
        agent.kill();
    }
    std::thread::sleep(Duration::from_millis(300));
    for agent in &mut agents[..2] {
        agent.restart();
        agent.settled(2);
    }
    // Beyond the time after which a snapshot is used in place of a source.
    std::thread::sleep(Duration::from_millis(2500));
    let flow = probe.end();
    println!(
        "agents killed and restarted: lost {} of {}, longest time without an answer {:?}",
        flow.lost, flow.sent, flow.gap
    );
    assert_eq!(flow.lost, 0, "{flow:?}");
    assert_eq!(kernel(h1), before, "nothing was touched");
    assert_eq!(agents[0].repairs(), 0);
}

#[test]
fn peers_that_left_while_no_agent_ran_are_gone() {
    let fabric = Fabric::switched(3);
    let [h1, h2, h3] = fabric.hosts() else { unreachable!() };
    let mut agents = start(&fabric, 2);
    let of_two = entries(h1);
    let file = write_hosts(&[h1, h2, h3]);
    agents.push(Agent::following(h3, &file));
    for agent in &agents {
        agent.settled(2);
    }
    let c1 = Connected::add(&fabric, h1, "c1");
    let c3 = Connected::add(&fabric, h3, "c3");
    c1.until_reached(c3.address, Instant::now());
    agents[0].stop();
    assert!(kernel(h1).contains("10.40.3.0/24"), "what is in the kernel stays");
    write_hosts(&[h1, h2]);
    let stale = Probe::start(&c1, c3.address);
    let since = Instant::now();
    agents[0].restart();
    eventually("the peer that left to be gone", || {
        let kernel = kernel(h1);
        (!kernel.contains("10.40.3.0/24") && !kernel.contains("192.0.2.3") && kernel.contains("10.40.2.0/24"))
            .then_some(())
    });
    println!("stale peer: gone {:?} after the start", since.elapsed());
    stale.end().assert_ends_soon("stale peer");
    eventually("exactly what it was before there was a third", || (entries(h1) == of_two).then_some(()));
}

#[test]
fn a_file_that_makes_no_sense_takes_nothing_away() {
    let fabric = Fabric::switched(3);
    let [h1, h2, _] = fabric.hosts() else { unreachable!() };
    let agents = start(&fabric, 3);
    let c1 = Connected::add(&fabric, h1, "c1");
    let c2 = Connected::add(&fabric, h2, "c2");
    c1.until_reached(c2.address, Instant::now());
    let before = kernel(h1);
    let good = fs::read_to_string("/run/overlayd-test/blue.json").unwrap();

    let probe = Probe::start(&c1, c2.address);
    let twice = good.replace("10.40.3.0/24", "10.40.2.0/24");
    let stranger = r#"[{"node": "x", "underlay": "203.0.113.9", "blocks": ["10.40.9.0/24"]}]"#;
    for (content, reason) in [
        ("", "not JSON"),
        ("[]", "the list of nodes is empty"),
        ("{\"peers\":\n[", "(value: {\"peers\": [)"),
        (stranger, "this host is not among its peers"),
        // An address of the device's own.
        (
            &good.replace("192.0.2.1\"", "10.40.1.0\""),
            "this host is not among its peers: it has none of these addresses (its own: 192.0.2.1, 2001:db8::1)",
        ),
        (twice.as_str(), "it overlaps 10.40.2.0/24 of node h2"),
        (&good.replace("10.40.3.0/24", "10.40.3.0"), "is not in CIDR notation"),
    ] {
        write("blue.json", content);
        let said = eventually(&format!("the agent to refuse {content:?}"), || {
            let status = agents[0].status();
            let said = status["source"]["reason"].as_str().unwrap_or_default().to_owned();
            said.contains(reason).then_some(said)
        });
        println!("{said}");
        assert_eq!(agents[0].status()["source"]["current"], false);
    }
    fs::remove_file("/run/overlayd-test/blue.json").unwrap();
    eventually("the agent to miss its file", || {
        agents[0].status()["source"]["reason"].as_str()?.contains("No such file").then_some(())
    });
    let flow = probe.end();
    assert_eq!(flow.lost, 0, "{flow:?}");
    assert_eq!(kernel(h1), before);

    write("blue.json", &good);
    eventually("the agent to be content again", || {
        (agents[0].status()["source"]["current"] == true).then_some(())
    });
}

#[test]
fn a_block_that_another_network_of_this_host_has_is_refused() {
    let fabric = Fabric::switched(2);
    let [h1, h2] = fabric.hosts() else { unreachable!() };
    let agents = start(&fabric, 2);
    sh(h1, "ip link add docker0 type bridge; ip link set docker0 up; ip addr add 203.0.113.1/24 dev docker0");
    write_peers(&[
        ("h1", h1.ipv4().into(), "10.40.1.0/24"),
        ("h2", h2.ipv4().into(), "10.40.2.0/24"),
        ("h3", "192.0.2.3".parse().unwrap(), "203.0.113.0/24"),
    ]);
    let reason = eventually("the agent to refuse the list", || {
        agents[0].status()["source"]["reason"].as_str().map(str::to_owned)
    });
    assert!(
        reason.contains("[2].blocks[0]: it contains 203.0.113.1, which the link docker0 of this host has"),
        "{reason}"
    );
    assert!(sh(h1, "ip route show 203.0.113.0/24").contains("dev docker0"));
    agents[1].settled(2);
}

/// Whatever the list says, a route that an administrator has made is not replaced; once it is gone, the list is as good as any.
#[test]
fn a_block_that_this_host_has_a_route_to_is_refused() {
    let fabric = Fabric::switched(2);
    let [h1, h2] = fabric.hosts() else { unreachable!() };
    let mut agents = start(&fabric, 2);
    sh(h1, "ip route add 10.60.0.0/24 via 192.0.2.254");
    let h3 = "192.0.2.3".parse().unwrap();
    write_peers(&[
        ("h1", h1.ipv4().into(), "10.40.1.0/24"),
        ("h2", h2.ipv4().into(), "10.40.2.0/24"),
        ("h3", h3, "10.60.0.0/24"),
    ]);
    let refused = |agent: &Agent<'_>| {
        eventually("the agent to refuse the list", || {
            let reason = agent.status()["source"]["reason"].as_str()?.to_owned();
            reason.contains("[2].blocks[0]: this host has a route to it that is not of this network: via 192.0.2.254 dev eth0").then_some(())
        });
    };
    refused(&agents[0]);
    agents[1].settled(2);
    // One that is started beside it sees it as well, and the last good list goes on being used.
    agents[0].kill();
    agents[0].restart();
    refused(&agents[0]);
    let route = sh(h1, "ip route show 10.60.0.0/24");
    assert!(route.contains("via 192.0.2.254"), "{route}");
    sh(h1, "ip route del 10.60.0.0/24");
    agents[0].settled(2);
    // What somebody puts in the place of a route of ours is damage, also while nobody looks.
    for while_it_runs in [true, false] {
        if !while_it_runs {
            agents[0].kill();
        }
        sh(h1, "ip route replace 10.60.0.0/24 via 192.0.2.254");
        if !while_it_runs {
            agents[0].restart();
        }
        eventually("the route to be put right", || {
            sh(h1, "ip route show 10.60.0.0/24").contains("dev vx-blue").then_some(())
        });
    }
    agents[0].settled(2);
}

#[test]
fn a_list_without_anybody_else_is_asked_for_twice() {
    let fabric = Fabric::switched(3);
    let [h1, ..] = fabric.hosts() else { unreachable!() };
    let agents = start(&fabric, 3);
    write_hosts(&[h1]);
    eventually("the peers to go after a second look", || (!kernel(h1).contains("192.0.2.2")).then_some(()));
    let log = agents[0].log();
    assert!(log.contains("the list lacks almost all nodes; asking again"), "{log}");
    assert_eq!(agents[0].status()["withheld"], 0);
}

#[test]
fn a_host_that_starts_while_its_file_is_away_works_from_what_it_knew() {
    let fabric = Fabric::switched(3);
    let [h1, h2, _] = fabric.hosts() else { unreachable!() };
    let mut agents = start(&fabric, 3);
    let good = fs::read_to_string("/run/overlayd-test/blue.json").unwrap();
    // A snapshot is on disk a moment after the nodes are known.
    eventually("a snapshot", || {
        fs::exists("/run/overlayd-test/h1/blue.snapshot.jsonl").unwrap().then_some(())
    });
    agents[0].kill();
    // What a reboot does: nothing is left of the kernel's state, nor of /run.
    sh(
        h1,
        "ip link del vx-blue; ip nexthop flush proto 70; ip route flush proto 70; nft flush ruleset; rm -rf /run/ferrule/*",
    );
    fs::remove_file("/run/overlayd-test/blue.json").unwrap();

    let since = Instant::now();
    agents[0].restart();
    agents[0].settled(2);
    println!("start without a source: ready after {:?}", since.elapsed());
    let c1 = Connected::add(&fabric, h1, "c1");
    let c2 = Connected::add(&fabric, h2, "c2");
    c1.until_reached(c2.address, since);
    assert_eq!(agents[0].status()["source"]["current"], false);
    write("blue.json", &good);
    eventually("the source to be current", || {
        (agents[0].status()["source"]["current"] == true).then_some(())
    });
}

/// At boot, an agent may run before the host has its address.
#[test]
fn a_host_whose_address_comes_late() {
    let fabric = Fabric::switched(2);
    let [h1, h2] = fabric.hosts() else { unreachable!() };
    let file = write_hosts(&[h1, h2]);
    sh(h1, "ip addr del 192.0.2.1/24 dev eth0");
    let agent = Agent::following(h1, &file);
    let reason = eventually("the agent to miss its address", || {
        agent.status()["source"]["reason"].as_str().map(str::to_owned)
    });
    assert!(reason.contains("this host is not among its peers"), "{reason}");
    sh(h1, "ip addr add 192.0.2.1/24 dev eth0");
    agent.settled(1);
    assert_eq!(agent.status()["source"]["current"], true);
}

#[test]
fn a_subnet_is_stretched_over_hosts_and_repaired() {
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    // Repair has to come from what the kernel tells: the comparison by the clock is out of reach.
    let agents = bridged(&hosts, "--check-interval 3600");
    let [c1, c2] = Connected::pair(&fabric, hosts[0], hosts[1]);
    // One hop: the other host is not a router between them.
    let ran = c1.container.run("ping", &["-n", "-c", "1", "-t", "1", "-W", "2", &c2.address.to_string()]);
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    for line in [
        "ip link del vx-blue",
        "ip neigh flush dev vb-blue nud permanent",
        "ip link set vx-blue nomaster",
        "ip addr del 10.50.0.1/16 dev vb-blue",
        "ip link set vx-blue down",
        "ip link set vx-blue address 02:00:00:00:00:01",
        "ip link set vx-blue type vxlan learning",
        "bridge fdb show dev vx-blue | grep self | while read mac rest; do bridge fdb del $mac dev vx-blue self; done",
        "ip nexthop flush proto 70",
        "nft flush ruleset",
        "ip link set vb-blue down",
        "ip link set vb-blue address 02:00:00:00:00:01",
        "bridge link set dev vx-blue learning on",
        "bridge link set dev vx-blue flood on mcast_flood on bcast_flood on",
        "bridge link set dev vx-blue neigh_suppress off",
    ] {
        let repairs = agents[0].repairs();
        sh(hosts[0], line);
        eventually(&format!("a repair after: {line}"), || (agents[0].repairs() > repairs).then_some(()));
        c1.until_reached(c2.address, Instant::now());
    }
}

/// The kernel takes all IPv4 neighbours of a link away together with its last IPv4 address: the gateway's must not go with the last container, or the
/// next one reaches nobody until an agent looks.
#[test]
fn a_bridged_network_outlives_its_last_container_while_no_agent_runs() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let mut agents = bridged(&hosts, "");
    let [c1, c2] = Connected::pair(&fabric, hosts[0], hosts[1]);
    agents[0].kill();
    c1.del();
    let next = Connected::add(&fabric, hosts[0], "next");
    assert!(
        next.reaches(c2.address, Duration::from_secs(2)),
        "{}",
        sh(hosts[0], "ip addr show vb-blue; ip neigh")
    );
}
