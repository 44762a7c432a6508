//! Joining and leaving; what it costs the others; who is refused.

use std::time::{Duration, Instant};

use testkit::{Fabric, FabricHost, eventually};

use crate::lab::{Connected, Probe, kernel, overlayd, sh};
use crate::server::{Etcd, follow, follow_all, need_etcd};

fn changes(agent: &crate::lab::Agent<'_>) -> u64 {
    agent.status()["source"]["changes"].as_u64().unwrap()
}

#[test]
fn a_node_that_joins_or_leaves_costs_the_others_one_event() {
    need_etcd!();
    let fabric = Fabric::switched(4);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[3..]);
    let mut agents = follow_all(&etcd, &hosts[..2], "");
    let c1 = Connected::add(&fabric, hosts[0], "c1");
    let before = changes(&agents[0]);

    let since = Instant::now();
    agents.push(follow(&etcd, hosts[2], ""));
    // Its address inside is the first of its block.
    let address = eventually("the node's record", || {
        let text = etcd.ctl("get --print-value-only /ferrule/blue/nodes/h3");
        let record: serde_json::Value = serde_json::from_str(&text).ok()?;
        record["blocks"][0].as_str()?.split('/').next()?.parse().ok()
    });
    let joining = Probe::start(&c1, address);
    agents[0].settled(2);
    println!("join: seen {:?} after the agent was started", since.elapsed());
    c1.until_reached(address, since);
    joining.end().assert_brief("join");
    agents[2].settled(2);
    let c3 = Connected::add(&fabric, hosts[2], "c3");
    println!("join: reached {:?} after the agent was started", c1.until_reached(c3.address, since));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(changes(&agents[0]), before + 1, "one event for a node that joins\n{}", agents[0].log());

    agents[2].stop();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(changes(&agents[0]), before + 1, "none for an agent that stops");
    let since = Instant::now();
    let options = format!(
        "cleanup --network blue --vni 100 --node h3 --etcd {} --cluster-cidr 10.40.0.0/16 --state-dir /run/overlayd-test/h3",
        etcd.urls()
    );
    let (code, _, said) = overlayd(hosts[2], &options);
    assert_eq!(code, 0, "{said}");
    agents[0].settled(1);
    println!("leave: seen {:?} after cleanup was started", since.elapsed());
    assert_eq!(changes(&agents[0]), before + 2, "one event for a node that leaves");
    assert!(!kernel(hosts[0]).contains("192.0.2.3"), "{}", kernel(hosts[0]));
    assert_eq!(etcd.keys("alive/").len(), 2);
}

/// What a node changes is made so, and written down, by itself: no comparison of everything, neither for the change nor for the notifications that it
/// causes. What somebody else changes is noticed as before.
#[test]
fn a_change_of_one_node_looks_at_no_other() {
    need_etcd!();
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[2..]);
    let agents = follow_all(&etcd, &hosts[..2], "--check-interval 300");
    let agent = &agents[0];
    let checks = || agent.status()["checks"].as_u64().unwrap();
    let mut last = 0;
    eventually("the agent to be at rest", || {
        std::thread::sleep(Duration::from_millis(700));
        let now = checks();
        (std::mem::replace(&mut last, now) == now).then_some(())
    });
    let put = |number: u8, underlay: u8| {
        let record = format!(
            r#"{{"v":1,"node":"n{number}","epoch":1,"underlay4":"192.0.2.{underlay}","port":4789,"vnis":[100],"blocks":["10.41.{}.0/24"]}}"#,
            200 + number
        );
        etcd.ctl(&format!("put /ferrule/blue/nodes/n{number} {record}"));
    };
    let has = |text: &'static str, count: usize| {
        eventually(text, || (kernel(hosts[0]).matches(text).count() == count).then_some(()));
    };
    for number in 1..=5 {
        put(number, 100 + number);
    }
    // Of each: a forwarding entry, and an element of the firewall's set.
    has("192.0.2.105", 2);
    agent.settled(6);
    put(3, 133);
    has("192.0.2.133", 2);
    has("192.0.2.103", 0);
    etcd.ctl("del /ferrule/blue/nodes/n4");
    has("192.0.2.104", 0);
    has("10.41.204.0", 0);
    agent.settled(5);
    let file = "/run/ferrule/overlay/blue.peers.jsonl";
    let lines = eventually("the nodes to be written down", || {
        let text = sh(hosts[0], &format!("cat {file}"));
        (text.contains(r#""n3","epoch":1,"underlay4":"192.0.2.133""#) && text.contains(r#"{"left":"n4"}"#))
            .then_some(text)
    });
    let all_of =
        |name: &str| lines.lines().filter(|line| line.contains(&format!("\"node\":\"{name}\""))).count();
    assert_eq!((all_of("h1"), all_of("h2")), (1, 1), "what has not changed is not written again:\n{lines}");
    assert_eq!(checks(), last, "{}", agent.log());
    assert_eq!(agent.repairs(), 0, "{}", agent.log());

    sh(hosts[0], "ip route del 10.41.205.0/24");
    eventually("a repair", || (agent.repairs() == 1).then_some(()));
    assert!(sh(hosts[0], "ip route").contains("10.41.205.0/24"));
}

#[test]
fn a_node_with_a_new_address_publishes_it() {
    need_etcd!();
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[2..]);
    let _agents = follow_all(&etcd, &hosts[..2], "");
    let [c1, c2] = Connected::pair(&fabric, hosts[0], hosts[1]);
    let probe = Probe::start(&c1, c2.address);
    sh(hosts[1], "ip addr del 192.0.2.2/24 dev eth0; ip addr add 192.0.2.77/24 dev eth0");
    let since = Instant::now();
    eventually("the new address at the other node", || kernel(hosts[0]).contains("192.0.2.77").then_some(()));
    c1.until_reached(c2.address, since);
    let flow = probe.end();
    println!(
        "new underlay address: known after {:?}, longest time without an answer {:?}, lost {} of {}",
        since.elapsed(),
        flow.gap,
        flow.lost,
        flow.sent
    );
    flow.assert_brief("new underlay address");
}

#[test]
fn records_that_make_no_sense_are_left_out() {
    need_etcd!();
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[2..]);
    let agents: Vec<_> = hosts[..2].iter().map(|host| follow(&etcd, host, "")).collect();
    let status = agents[1].settled(1);
    let block = status["own"]["blocks"][0].as_str().unwrap().to_owned();
    agents[0].settled(1);

    sh(hosts[0], "ip route add 10.60.0.0/24 via 192.0.2.254");
    etcd.ctl("put /ferrule/blue/nodes/bad nonsense");
    let thief = format!(
        r#"{{"v":1,"node":"thief","epoch":0,"underlay4":"192.0.2.99","port":4789,"vnis":[100],"blocks":["{block}"]}}"#
    );
    etcd.ctl(&format!("put /ferrule/blue/nodes/thief {thief}"));
    for (name, port, vni) in [("other-vni", 4789, 7), ("other-port", 8472, 100)] {
        let stranger = format!(
            r#"{{"v":1,"node":"{name}","epoch":0,"underlay4":"192.0.2.99","port":{port},"vnis":[{vni}],"blocks":["10.41.250.0/24"]}}"#
        );
        etcd.ctl(&format!("put /ferrule/blue/nodes/{name} {stranger}"));
    }
    let flood = r#"{"v":1,"node":"flood","epoch":0,"underlay4":"198.51.100.9","port":4789,"vnis":[100],"blocks":["192.0.2.0/24"]}"#;
    etcd.ctl(&format!("put /ferrule/blue/nodes/flood {flood}"));
    let routed = r#"{"v":1,"node":"routed","epoch":0,"underlay4":"198.51.100.10","port":4789,"vnis":[100],"blocks":["10.60.0.0/24"]}"#;
    etcd.ctl(&format!("put /ferrule/blue/nodes/routed {routed}"));
    let refused = eventually("all to be refused", || {
        let refused = agents[0].status()["refused"].clone();
        (refused.as_array().unwrap().len() == 6).then_some(refused.to_string())
    });
    let route = "/ferrule/blue/nodes/routed.blocks[0]: this host has a route to it that is not of this network: via 192.0.2.254 dev eth0";
    assert!(refused.contains(route), "{refused}");
    assert!(sh(hosts[0], "ip route show 10.60.0.0/24").contains("via 192.0.2.254"));
    assert!(refused.contains("it contains 192.0.2.1, which the link eth0 of this host has"), "{refused}");
    assert!(refused.contains("other-vni.vnis: the network's VNI 100 is not among its own"), "{refused}");
    assert!(refused.contains("other-port.port: the network's port is 4789"), "{refused}");
    assert!(refused.contains("/ferrule/blue/nodes/bad: not JSON"), "{refused}");
    assert!(refused.contains(&format!("it overlaps {block} of node h2")), "{refused}");
    assert_eq!(agents[0].status()["peers"].as_array().unwrap().len(), 1);
    assert!(!kernel(hosts[0]).contains("192.0.2.99"));
    // What was in the way is gone.
    sh(hosts[0], "ip route del 10.60.0.0/24");
    agents[0].settled(2);
    assert!(sh(hosts[0], "ip route show 10.60.0.0/24").contains("dev vx-blue"));
}

#[test]
fn a_node_that_disagrees_or_has_a_name_that_is_taken_is_refused() {
    need_etcd!();
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[2..]);
    let first = follow(&etcd, hosts[0], "");
    first.settled(0);
    for (options, reason) in [
        ("--port 8472", "the nodes of this network have agreed on"),
        ("--block-size 25", "the nodes of this network have agreed on"),
        ("--node h1", "another node has the name h1"),
    ] {
        let options = format!(
            "--etcd {} --cluster-cidr 10.40.0.0/16 --underlay-interface eth0 {} {options}",
            etcd.urls(),
            if options.contains("--node") { "" } else { "--node h2" }
        );
        let second = crate::lab::Agent::start(hosts[1], &options);
        let said = eventually(&format!("{options} to be refused"), || {
            let status = second.status();
            let said = status["source"]["reason"].as_str().unwrap_or_default().to_owned();
            said.contains(reason).then_some(said)
        });
        println!("{said}");
        assert!(second.status()["own"].is_null(), "it has no block");
        // It tries again and again, and that is no news.
        eventually("another attempt", || (second.log().matches("beginning again").count() > 3).then_some(()));
        assert_eq!(second.log().matches("WARN").count(), 1, "{}", second.log());
        std::fs::remove_file("/run/overlayd-test/h2.log").unwrap();
    }
    assert_eq!(etcd.keys("nodes/"), ["/ferrule/blue/nodes/h1"]);
}

#[test]
fn a_node_that_is_silent_for_long_is_removed() {
    need_etcd!();
    let fabric = Fabric::switched(4);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[3..]);
    let options = "--alive 2 --grace 2";
    let mut agents = follow_all(&etcd, &hosts[..3], options);
    // The first of them may be the one that was elected: then another is.
    agents[0].kill();
    let since = Instant::now();
    agents[1].settled(1);
    println!("a dead node was removed after {:?}", since.elapsed());
    assert!(since.elapsed() > Duration::from_secs(2), "not before its time");
    agents[2].settled(1);
    // Nobody else is given its block for a while, and it gets the same again.
    let block = agents[0].log();
    agents[0].restart();
    agents[1].settled(2);
    let status = agents[0].settled(2);
    let again = status["own"]["blocks"][0].as_str().unwrap();
    let dashed = again.replace('/', "-");
    assert!(etcd.keys("blocks/").contains(&format!("/ferrule/blue/blocks/{dashed}")));
    assert!(!agents[0].log()[block.len()..].contains("other blocks than before"), "{}", agents[0].log());
}

#[test]
fn a_node_gets_a_block_of_each_family() {
    need_etcd!();
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[2..]);
    let options = |name: &str| {
        format!(
            "--etcd {} --node {name} --cluster-cidr 10.40.0.0/16,fd00:40::/48 --underlay-interface eth0",
            etcd.urls()
        )
    };
    let agents = [
        crate::lab::Agent::start(hosts[0], &options("h1")),
        crate::lab::Agent::start(hosts[1], &options("h2")),
    ];
    let lengths = |agent: &crate::lab::Agent<'_>| {
        let status = agent.settled(1);
        let blocks = status["own"]["blocks"].as_array().unwrap().clone();
        blocks
            .iter()
            .map(|block| block.as_str().unwrap().split('/').nth(1).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for agent in &agents {
        assert_eq!(lengths(agent), ["24", "64"]);
    }
    let [c1, c2] = Connected::pair(&fabric, hosts[0], hosts[1]);
    let addresses = c2.container.enter(|| testkit::ip_json("-6 addr show dev eth0 scope global"));
    let v6 = addresses[0]["addr_info"][0]["local"].as_str().unwrap().parse().unwrap();
    c1.until_reached(v6, Instant::now());
}

/// One that changed the way of everybody's packets would be a node too many.
#[test]
fn a_node_without_the_family_of_the_tunnels_is_refused() {
    need_etcd!();
    let fabric = Fabric::switched(4);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[3..]);
    let agents = follow_all(&etcd, &hosts[..2], "");
    let [c1, c2] = Connected::pair(&fabric, hosts[0], hosts[1]);
    let probe = Probe::start(&c1, c2.address);
    // It gets to etcd with an address that is not its underlay's.
    sh(
        hosts[2],
        "ip addr del 192.0.2.3/24 dev eth0; ip addr add 192.0.2.3/32 dev lo; ip route add 192.0.2.0/24 dev eth0 src 192.0.2.3",
    );
    let third = follow(&etcd, hosts[2], "");
    let reason = eventually("the third to be refused", || {
        third.status()["source"]["reason"].as_str().map(str::to_owned)
    });
    assert!(
        reason.contains("the tunnels of this network go by IPv4, which this node has no address of"),
        "{reason}"
    );
    assert_eq!(etcd.keys("nodes/").len(), 2);
    assert_eq!(agents[0].status()["own"]["underlay"], "192.0.2.1");
    let flow = probe.end();
    assert_eq!(flow.lost, 0, "{flow:?}");
}

#[test]
fn the_first_node_chooses_the_family_of_the_tunnels() {
    need_etcd!();
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let mut etcd = Etcd::start(&hosts[2..]);
    let options = |host: &FabricHost, more: &str| {
        format!("--etcd {} --node {} --cluster-cidr 10.40.0.0/16 {more}", etcd.urls(), host.name())
    };
    let first = crate::lab::Agent::start(hosts[0], &options(hosts[0], "--underlay-address 2001:db8::1"));
    first.settled(0);
    let mut second = crate::lab::Agent::start(hosts[1], &options(hosts[1], "--underlay-interface eth0"));
    let status = second.settled(1);
    assert_eq!(
        (status["own"]["underlay"].as_str(), status["own"]["mtu"].as_u64()),
        (Some("2001:db8::2"), Some(1430))
    );
    let [_c1, _c2] = Connected::pair(&fabric, hosts[0], hosts[1]);
    // Nor does an outage change it.
    etcd.members[0].kill();
    second.kill();
    second.restart();
    assert_eq!(second.settled(1)["own"]["underlay"], "2001:db8::2");
}
