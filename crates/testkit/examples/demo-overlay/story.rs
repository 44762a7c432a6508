//! What the demonstration does, in order.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{Attachment, Chain, Container, Fabric, FabricHost, Snapshot, ping};

use crate::agents::{Agent, Outcome, Stream, write_peers};

/// A container, where it is, and what it was given.
struct Connected<'f> {
    host: &'f FabricHost,
    container: Container,
    chain: Chain,
    attachment: Attachment,
    address: IpAddr,
}

/// Tells the whole story with the binaries of this directory.
pub(crate) fn tell(binaries: &Path) -> Outcome {
    let started = Instant::now();
    println!("Ferrule: one container network over three hosts, by VXLAN.");
    println!("The hosts are made of namespaces; your machine's network is not touched.");
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let before: Vec<Snapshot> = hosts.iter().map(|host| host.enter(Snapshot::take_anywhere)).collect();

    title("AGENTS", "each host reads one list of nodes, the same everywhere");
    let blocks: Vec<String> = (1..=hosts.len()).map(|number| format!("10.40.{number}.0/24")).collect();
    let mut peers: Vec<(&str, IpAddr, &str)> = hosts
        .iter()
        .zip(&blocks)
        .map(|(host, block)| (host.name(), host.ipv4().into(), block.as_str()))
        .collect();
    write_peers(&peers)?;
    let mut agents = Vec::new();
    for host in &hosts {
        agents.push(Agent::start(binaries, host)?);
    }
    for agent in &agents {
        agent.settled(2);
    }
    indent(&agents[0].ask(&["status"])?);

    title("ADD", "containers on every host; the configuration is the same, too");
    let list =
        json!({ "cniVersion": "1.1.0", "name": "blue", "plugins": [{ "type": "vxlan", "source": "agent" }] });
    let mut connected = Vec::new();
    for (name, host) in [("web", 0), ("cache", 0), ("api", 1), ("db", 2)] {
        connected.push(connect(&fabric, binaries, hosts[host], &list, name)?);
    }
    draw(&hosts, &blocks, &connected);

    title("TRAFFIC", "who reaches whom (real packets, each way)");
    matrix(&connected)?;
    whole_packet(&connected[0], &connected[3])?;

    title("CRASH", "the agents of two hosts are killed while web talks to db, and started again");
    let (web, db) = (&connected[0], &connected[3]);
    let stream = Stream::start(&web.container, db.address)?;
    for agent in [0, 2] {
        agents[agent].kill()?;
    }
    std::thread::sleep(Duration::from_millis(300));
    for agent in [0, 2] {
        agents[agent].again()?;
        agents[agent].settled(2);
    }
    let flow = stream.end()?;
    println!("  web -> db     {flow}");
    if flow.lost > 0 {
        return Err("packets were lost while no agent ran: what is in the kernel should have stayed".into());
    }

    title("DAMAGE", "somebody deletes the VXLAN device of h1 by hand");
    let stream = Stream::start(&web.container, db.address)?;
    shell(hosts[0], "ip link del vx-blue")?;
    println!("  web -> db     {}", stream.end()?);
    said(&agents[0], "repaired");

    title("RENUMBERING", "h3 gets another address on the underlay, and the list says so");
    let stream = Stream::start(&web.container, db.address)?;
    shell(hosts[2], "ip addr del 192.0.2.3/24 dev eth0; ip addr add 192.0.2.33/24 dev eth0")?;
    peers[2].1 = "192.0.2.33".parse()?;
    write_peers(&peers)?;
    println!("  web -> db     {}", stream.end()?);
    said(&agents[2], "the underlay has changed");
    matrix(&connected)?;

    title("DEL", "the containers go, then the network");
    for one in &connected {
        one.chain.del(&one.attachment)?;
    }
    drop(connected);
    shell(hosts[2], "ip addr del 192.0.2.33/24 dev eth0; ip addr add 192.0.2.3/24 dev eth0")?;
    for agent in &mut agents {
        agent.kill()?;
        agent.cleanup()?;
    }

    title("PROOF", "are the hosts as they were before?");
    for (host, before) in hosts.iter().zip(&before) {
        as_before(host, before)?;
        println!("  {}  {} objects compared, no difference", host.name(), before.len());
    }
    println!(
        "\nAll of it in {:.1} s. Next: docs/overlay.md says how to run it, with a file or with etcd.",
        started.elapsed().as_secs_f32()
    );
    Ok(())
}

fn connect<'f>(
    fabric: &Fabric,
    binaries: &Path,
    host: &'f FabricHost,
    list: &serde_json::Value,
    name: &str,
) -> Outcome<Connected<'f>> {
    let container = fabric.container(name);
    let attachment = Attachment::new(name, &container, "eth0");
    let chain = testkit::Runtime::with_directories([binaries]).on(host).chain(list);
    let since = Instant::now();
    let result = chain.add(&attachment)?;
    let elapsed = since.elapsed();
    let text = result["ips"][0]["address"].as_str().ok_or("ADD gave no address")?;
    let address = text.split('/').next().unwrap_or_default().parse()?;
    println!("  {name:6} on {}   {:5.1} ms   eth0 {text}", host.name(), elapsed.as_secs_f64() * 1000.0);
    Ok(Connected { host, container, chain, attachment, address })
}

fn draw(hosts: &[&FabricHost], blocks: &[String], connected: &[Connected<'_>]) {
    const WIDTH: usize = 26;
    let line = |cells: Vec<String>| println!("  {}", cells.join("  ").trim_end());
    let boxed = |text: &str| format!("| {text:<width$} |", width = WIDTH - 4);
    let edge = || hosts.iter().map(|_| format!("+{}+", "-".repeat(WIDTH - 2))).collect::<Vec<_>>();
    println!();
    line(edge());
    line(hosts.iter().map(|host| boxed(&format!("{}  {}", host.name(), host.ipv4()))).collect());
    line(blocks.iter().map(|block| boxed(&format!("vx-blue  {block}"))).collect());
    let of = |host: &FabricHost| -> Vec<&Connected<'_>> {
        connected.iter().filter(|one| one.host.name() == host.name()).collect()
    };
    let most = hosts.iter().map(|host| of(host).len()).max().unwrap_or_default();
    for row in 0..most {
        let cell = |host: &&FabricHost| match of(host).get(row) {
            Some(one) => boxed(&format!("  {:6} {}", one.container.name(), one.address)),
            None => boxed(""),
        };
        line(hosts.iter().map(cell).collect());
    }
    line(edge());
    line(hosts.iter().map(|_| format!("{:^WIDTH$}", "|")).collect());
    println!(
        "  {:=^width$}",
        " underlay 192.0.2.0/24, UDP port 4789 ",
        width = hosts.len() * (WIDTH + 2) - 2
    );
}

fn matrix(connected: &[Connected<'_>]) -> Outcome {
    let names = connected.iter().map(|one| one.container.name().to_owned());
    let row = |first: &str, cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>8}")).collect();
        println!("  {first:8}{}", cells.concat());
    };
    row("", &names.collect::<Vec<_>>());
    let mut silent = Vec::new();
    for from in connected {
        let mut cells = Vec::new();
        for to in connected {
            if from.container.name() == to.container.name() {
                cells.push(".".to_owned());
            } else if ping(&from.container, to.address) {
                cells.push("yes".to_owned());
            } else {
                cells.push("NO".to_owned());
                silent.push(format!("{} -> {}", from.container.name(), to.container.name()));
            }
        }
        row(from.container.name(), &cells);
    }
    if silent.is_empty() { Ok(()) } else { Err(format!("no answer: {}", silent.join(", ")).into()) }
}

/// A packet as large as the interface takes, which nobody on the way may cut in pieces.
fn whole_packet(from: &Connected<'_>, to: &Connected<'_>) -> Outcome {
    const MTU: u32 = 1450;
    let (payload, address) = ((MTU - 28).to_string(), to.address.to_string());
    let ran =
        from.container.run("ping", &["-n", "-q", "-c", "1", "-W", "2", "-M", "do", "-s", &payload, &address]);
    let (from, to) = (from.container.name(), to.container.name());
    if ran.code != 0 {
        return Err(
            format!("a packet of {MTU} bytes from {from} to {to} did not arrive: {}", ran.stdout).into()
        );
    }
    println!("  {from} -> {to}     a packet of the whole MTU ({MTU} bytes) arrives in one piece");
    Ok(())
}

/// The last line of an agent's log with these words.
fn said(agent: &Agent<'_>, words: &str) {
    let log = agent.log();
    if let Some(line) = log.lines().rfind(|line| line.contains(words)) {
        println!(
            "  overlayd says: {}",
            line.split_once(words).map_or(line.to_owned(), |(_, rest)| format!("{words}{rest}"))
        );
    }
}

fn shell(host: &FabricHost, line: &str) -> Outcome {
    let ran = host.run("sh", &["-c", line]);
    if ran.code == 0 { Ok(()) } else { Err(format!("{line}: {}", ran.stderr).into()) }
}

fn as_before(host: &FabricHost, before: &Snapshot) -> Outcome {
    // The kernel takes links down in its own time.
    let patience = Instant::now();
    loop {
        let after = host.enter(Snapshot::take_anywhere).without_lease_bookkeeping();
        let difference = before.difference(&after);
        if difference.is_empty() {
            return Ok(());
        }
        if patience.elapsed() > Duration::from_secs(3) {
            return Err(format!("something was left behind on {}:\n{difference}", host.name()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn indent(text: &str) {
    for line in text.lines() {
        println!("  {line}");
    }
}

fn title(verb: &str, what: &str) {
    println!("\n{verb}: {what}");
}
