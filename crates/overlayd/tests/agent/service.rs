//! What the agent says of itself, and how it is called.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Fabric, FabricHost, Snapshot, eventually};

use crate::lab::{Agent, Connected, overlayd, sh, write_hosts};

#[test]
fn an_agent_tells_how_it_is() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let file = write_hosts(&hosts);
    let agent = Agent::start(hosts[0], &format!("--peers-file {} --metrics 127.0.0.1:9475", file.display()));
    agent.settled(1);

    let (code, table, _) = overlayd(hosts[0], "status");
    assert_eq!(code, 0);
    let row = table.lines().last().unwrap();
    for word in ["h2", "192.0.2.2", "10.40.2.0/24", "ago"] {
        assert!(row.contains(word), "{table}");
    }
    assert!(table.contains("network   blue  VNI 100, UDP port 4789, routed, device vx-blue"), "{table}");
    assert!(table.contains("state     works\n"), "{table}");
    assert!(table.contains("node      h1  10.40.1.0/24 at 192.0.2.1 on eth0, MTU 1450"), "{table}");

    let get = |path: &str| {
        hosts[0].enter(|| {
            let mut stream = TcpStream::connect("127.0.0.1:9475").unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: h1\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    };
    let metrics = get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    for line in [
        "ferrule_overlay_peers{network=\"blue\"} 1",
        "ferrule_overlay_ready{network=\"blue\"} 1",
        "ferrule_overlay_source_current{network=\"blue\"} 1",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line}\n{metrics}");
    }
    assert!(get("/healthz").ends_with("\r\n\r\nok\n"));
    assert!(get("/nothing").starts_with("HTTP/1.1 404 "));
}

/// Who reads the log is a program: each line is a document, and what an event is about is in keys of its own.
#[test]
fn the_log_can_be_documents() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let file = write_hosts(&hosts);
    let agent = Agent::start(hosts[0], &format!("--peers-file {} --log-format json", file.display()));
    agent.settled(1);
    sh(hosts[0], "ip route del 10.40.2.0/24");
    eventually("the route to be put right", || (agent.repairs() == 1).then_some(()));
    std::fs::write(&file, "[\n\"two lines\"").unwrap();
    eventually("the list to be refused", || {
        agent.status()["source"]["reason"].as_str().is_some().then_some(())
    });
    let log = agent.log();
    let events: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for event in &events {
        for key in ["timestamp", "level", "message"] {
            assert!(event[key].is_string(), "{key}: {event}");
        }
    }
    let event = |message: &str| {
        let found = events.iter().find(|event| event["message"] == message);
        found.unwrap_or_else(|| panic!("no event {message:?}: {log}"))
    };
    let view = event("this node's view");
    assert_eq!(
        (&view["level"], &view["node"], &view["underlay"]),
        (&json!("INFO"), &json!("h1"), &json!("192.0.2.1"))
    );
    assert_eq!((&view["mtu"], &view["peers"]), (&json!(1450), &json!(1)), "numbers are numbers: {view}");
    let drift = event("repaired what somebody had altered");
    assert_eq!((&drift["level"], &drift["objects"]), (&json!("WARN"), &json!(1)), "{drift}");
    assert!(drift["what"].as_str().unwrap().starts_with("route 10.40.2.0/24"), "{drift}");
    let stale = event("what is known of other nodes may be out of date");
    assert!(stale["reason"].as_str().unwrap().contains("two lines"), "{stale}");
}

/// What an agent writes is root's alone, and nothing that lies in the way leads it elsewhere.
#[test]
fn files_are_roots_alone_and_no_link_is_followed() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let file = write_hosts(&hosts);
    let mut agent = Agent::following(hosts[0], &file);
    agent.settled(1);
    let state = "/run/overlayd-test/h1";
    testkit::eventually("the snapshot", || {
        Path::new(state).join("blue.snapshot.jsonl").exists().then_some(())
    });
    let listed = sh(
        hosts[0],
        &format!("stat -c '%a %F %n' {state} /run/ferrule/overlay {state}/* /run/ferrule/overlay/*"),
    );
    for line in listed.lines() {
        let wanted = if line.contains(" directory ") { "700 " } else { "600 " };
        assert!(line.starts_with(wanted), "{line}");
    }
    assert!(listed.contains("/run/ferrule/overlay/blue.peers.jsonl"), "{listed}");

    agent.stop();
    sh(
        hosts[0],
        "echo precious >/run/ferrule/victim; ln -sf /run/ferrule/victim /run/ferrule/overlay/blue.agent",
    );
    agent.restart();
    let (code, log) = agent.ended();
    assert!(code != Some(0) && log.contains("blue.agent"), "{log}");
    assert_eq!(sh(hosts[0], "cat /run/ferrule/victim"), "precious\n");
}

/// As systemd starts it: the line of the unit, its rights and no others, and a socket to be told on.
#[test]
fn the_service_is_ready_when_the_agent_is() {
    let unit = testkit::workspace_dir().join("crates/overlayd/overlayd@.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let value = |key: &str| {
        unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap().to_owned()
    };
    let rights = value("CapabilityBoundingSet").to_lowercase().replace("cap_", "+").replace(' ', ",");
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let file = write_hosts(&hosts);
    let nodes = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let socket = UnixDatagram::bind("/run/overlayd-test/notify").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();

    let line = value("ExecStart")
        .replace("/usr/local/sbin/overlayd", env!("CARGO_BIN_EXE_overlayd"))
        .replace("%i", "blue")
        .replace(
            "$OVERLAYD_OPTIONS",
            &format!("--vni 100 --peers-file {} --state-dir /run/x", file.display()),
        );
    let mut agent = hosts[0].enter(|| {
        Command::new("setpriv")
            .args(["--inh-caps", "-all", "--bounding-set", &format!("-all,{rights}")])
            .args(line.split(' '))
            .env("NOTIFY_SOCKET", "/run/overlayd-test/notify")
            .spawn()
            .unwrap()
    });
    let mut told = [0; 64];
    assert!(socket.recv(&mut told).is_err(), "not ready before it knows its block");
    crate::lab::write("blue.json", &nodes);
    socket.set_read_timeout(Some(testkit::DEADLINE)).unwrap();
    let length = socket.recv(&mut told).unwrap();
    assert_eq!(&told[..length], b"READY=1");
    assert!(crate::lab::kernel(hosts[0]).contains("10.40.2.0/24"));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn one_agent_a_network_is_enough() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let file = write_hosts(&hosts);
    let first = Agent::following(hosts[0], &file);
    first.settled(1);
    let mut second = Agent::following(hosts[0], &file);
    let (code, log) = second.ended();
    assert_eq!(code, Some(1));
    assert!(log.contains("another overlayd works for network blue on this host"), "{log}");
    // The first one still answers.
    first.settled(1);
    let (code, _, said) = overlayd(hosts[0], "cleanup --network blue");
    assert_eq!(code, 1);
    assert!(said.contains("another overlayd works for network blue"), "{said}");
}

#[test]
fn cleanup_leaves_nothing() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let file = write_hosts(&hosts);
    let before = hosts[0].enter(Snapshot::take);
    let mut agent = Agent::following(hosts[0], &file);
    agent.settled(1);
    eventually("a snapshot on disk", || {
        std::fs::exists("/run/overlayd-test/h1/blue.snapshot.jsonl").unwrap().then_some(())
    });
    agent.stop();
    let (code, _, said) = overlayd(hosts[0], "cleanup --network blue --state-dir /run/overlayd-test/h1");
    assert_eq!(code, 0, "{said}");
    before.assert_same(&hosts[0].enter(Snapshot::take));
    assert!(!std::fs::exists("/run/overlayd-test/h1/blue.snapshot.jsonl").unwrap());
    let left: Vec<_> = hosts[0].enter(|| {
        std::fs::read_dir("/run/ferrule/overlay")
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().file_name())
            .collect()
    });
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn cleanup_tells_of_containers_that_are_still_connected() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let file = write_hosts(&hosts);
    let mut agent = Agent::following(hosts[0], &file);
    agent.settled(1);
    let c1 = Connected::add(&fabric, hosts[0], "c1");
    agent.stop();
    let cleanup = || overlayd(hosts[0], "cleanup --network blue --state-dir /run/overlayd-test/h1");
    let (code, _, said) = cleanup();
    assert!(code == 0 && said.contains("containers are still connected"), "{code} {said}");
    assert!(said.contains("containers=1") && !said.contains("nothing of the network is left"), "{said}");
    c1.del();
    let (code, _, said) = cleanup();
    assert!(code == 0 && said.contains("nothing of the network is left"), "{code} {said}");
}

#[test]
fn a_foreign_device_with_the_same_identifier_is_named() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let file = write_hosts(&hosts);
    crate::lab::sh(hosts[0], "ip link add theirs type vxlan id 100 dstport 4789 local 192.0.2.1");
    let agent = Agent::following(hosts[0], &file);
    let trouble = eventually("the agent to name the other device", || {
        agent.status()["trouble"].as_str().map(str::to_owned)
    });
    assert_eq!(
        trouble,
        "VNI 100 on UDP port 4789 is held by the link theirs, which does not belong to network blue"
    );
    crate::lab::sh(hosts[0], "ip link del theirs");
    agent.settled(1);
}

/// A host that is no node can have everything right but its address: identifier, port, both hardware addresses.
#[test]
fn frames_from_a_host_that_is_no_node_do_not_arrive() {
    for (options, arrives) in [("", false), (" --any-sender", true)] {
        let fabric = Fabric::switched(3);
        let [h1, h2, stranger] = fabric.hosts() else { unreachable!() };
        let file = write_hosts(&[h1, h2]);
        let agents =
            [h1, h2].map(|host| Agent::start(host, &format!("--peers-file {}{options}", file.display())));
        for agent in &agents {
            agent.settled(1);
        }
        let c1 = Connected::add(&fabric, h1, "c1");
        let mac = |host: &FabricHost| {
            let links = host.enter(|| testkit::ip_json("link show vx-blue"));
            links[0]["address"].as_str().unwrap().to_owned()
        };
        crate::lab::sh(
            stranger,
            &format!(
                "ip link add vx type vxlan id 100 dstport 4789 local 192.0.2.3 nolearning; ip link set vx address {} up; \
                 ip addr add 10.40.2.0/32 dev vx; ip route add 10.40.1.0/24 dev vx src 10.40.2.0; \
                 ip neigh add {} lladdr {} dev vx; bridge fdb append {} dev vx dst 192.0.2.1",
                mac(h2),
                c1.address,
                mac(h1),
                mac(h1)
            ),
        );
        let asked = || -> u64 {
            let text = c1.container.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
            let mut lines = text.lines().filter(|line| line.starts_with("Icmp:")).map(str::split_whitespace);
            let (names, mut values) = (lines.next().unwrap(), lines.next().unwrap());
            let at = names.into_iter().position(|name| name == "InEchos").unwrap();
            values.nth(at).unwrap().parse().unwrap()
        };
        let before = asked();
        // The answers go to the node whose address it is.
        let words = ["-n", "-q", "-c", "1", "-W", "0.2", &c1.address.to_string()];
        let dropped = || {
            let rules = h1.run("nft", &["list", "table", "inet", "ferrule_vxlan"]).stdout;
            rules.contains("counter packets ") && !rules.contains("counter packets 0 ")
        };
        eventually(&format!("a packet from the stranger, options:{options}"), || {
            stranger.run("ping", &words);
            (dropped() || asked() > before).then_some(())
        });
        assert_eq!((asked() > before, dropped()), (arrives, !arrives), "options:{options}");
    }
}

#[test]
fn options_that_cannot_be_are_refused_with_a_reason() {
    let fabric = Fabric::switched(1);
    let host = &fabric.hosts()[0];
    for (options, message) in [
        ("--network blue --peers-file x", "--vni: it is required (value: none)"),
        ("--network blue --vni 100", "--peers-file: either it or --etcd says where nodes are known from"),
        ("--network a/b --vni 100 --peers-file x", "--network: it contains '/'"),
        ("--network blue --vni 16777216 --peers-file x", "--vni: 16777216 is not a VXLAN network identifier"),
        ("--network blue --vni 1 --peers-file x --mode bridged", "--subnet: a bridged network has a subnet"),
        (
            "--network blue --vni 1 --peers-file x --cluster-cidr 10.40.1.0/16",
            "--cluster-cidr: it has host bits; the network is 10.40.0.0/16",
        ),
        (
            "--network blue --vni 1 --peers-file x --cluster-cidr 10.40.0.0/16 --block-size 8",
            "--block-size: a block of 10.40.0.0/16 has a length of 16 to 30",
        ),
        (
            "--network blue --vni 1 --peers-file x --check-interval 0",
            "--check-interval: it is 0.1 to 3600 seconds",
        ),
    ] {
        let (code, _, said) = overlayd(host, options);
        assert_eq!(code, 1, "{options}: {said}");
        assert!(said.starts_with(&format!("overlayd: {message}")), "{options}: {said}");
    }
    if !cfg!(feature = "etcd") {
        let words = "--network blue --vni 1 --etcd http://192.0.2.1:2379 --cluster-cidr 10.40.0.0/16";
        let (code, _, said) = overlayd(host, words);
        assert_eq!(code, 1, "{said}");
        assert!(
            said.starts_with("overlayd: --etcd: this overlayd was built without etcd\n  build it with"),
            "{said}"
        );
    }
    let (code, _, said) = overlayd(host, "status --network blue");
    assert_eq!(code, 1);
    assert!(said.contains("no overlayd answers for network blue"), "{said}");
}
