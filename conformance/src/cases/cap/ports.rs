//! `portMappings`: what is published is reached, and nothing else is.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::asking;
use crate::cases::protocol::ready;
use crate::kernel::{View, inside};
use crate::lab::{Container, Lab};
use crate::profile::{Kind, Profile};
use crate::verdict::{Outcome, Stop};

/// It publishes ports of a container that another plugin has connected.
pub(super) fn publishes(profile: &Profile) -> bool {
    profile.kind == Kind::Meta && profile.capabilities.contains_key("portMappings")
}

/// The addresses of the fake host on the client's side: one to publish at, and one more.
const HOST: [&str; 2] = ["198.51.100.1", "198.51.100.3"];

/// How long an answer may take. A packet that is dropped costs this much.
const PATIENCE: Duration = Duration::from_millis(700);

/// A port that nobody listens at.
const CLOSED: u16 = 9;

/// A container, and a client beyond the host, which forwards.
fn scene(lab: &mut Lab) -> Outcome<(Container, Container)> {
    let container = ready(lab, "c1")?;
    let client = lab.container("client")?;
    lab.sh(&format!(
        "ip link add uplink type veth peer name eth0 netns client && ip link set uplink up \
         && ip addr add {}/24 dev uplink && ip addr add {}/24 dev uplink && echo 1 >/proc/sys/net/ipv4/ip_forward",
        HOST[0], HOST[1]
    ))?;
    lab.sh_in(&client, "ip addr add 198.51.100.2/24 dev eth0 && ip link set eth0 up && ip route add default via 198.51.100.1")?;
    let path = container.path();
    let address =
        inside(&path, View::read)??.addresses_of(&container.ifname).into_iter().find(IpNetwork::is_ipv4);
    if let Some(address) = address {
        answers(&client, SocketAddr::new(address.ip(), CLOSED))?;
    }
    Ok((container, client))
}

/// Waits until the container tells the client that nobody listens there: the kernel drops what is sent over a pair that it has just made, and
/// on a busy machine for longer than [`PATIENCE`].
fn answers(client: &Container, nobody: SocketAddr) -> Outcome {
    const PAIR: Duration = Duration::from_secs(5);
    let started = Instant::now();
    while started.elapsed() < PAIR {
        let refused = inside(&client.path(), || TcpStream::connect_timeout(&nobody, PATIENCE / 10))?;
        if refused.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
            return Ok(());
        }
    }
    Err(Stop::Broken(format!("{nobody} cannot be reached from the client")))
}

/// Whether what is sent from `client` to this port of the host comes to `port` of the container and is answered.
fn reaches(
    lab: &mut Lab,
    container: &Container,
    client: &Container,
    protocol: &str,
    host: (&str, u16),
    port: u16,
) -> Outcome<bool> {
    let address: IpAddr = host.0.parse().map_err(|error| Stop::Broken(format!("{}: {error}", host.0)))?;
    let target = SocketAddr::new(address, host.1);
    let reached = if protocol == "udp" {
        let socket = inside(&container.path(), || UdpSocket::bind(("0.0.0.0", port)))??;
        over_udp(&socket, client, target)?
    } else {
        let listener = inside(&container.path(), || TcpListener::bind(("0.0.0.0", port)))??;
        over_tcp(&listener, client, target)?
    };
    let option = if protocol == "udp" { "-u " } else { "" };
    lab.note(&format!(
        "`nc {option}-l {port}` in {}, `nc {option}{} {}` in {}: {}",
        container.name,
        host.0,
        host.1,
        client.name,
        if reached { "answered" } else { "no answer" }
    ));
    Ok(reached)
}

fn over_tcp(listener: &TcpListener, client: &Container, target: SocketAddr) -> Outcome<bool> {
    listener.set_nonblocking(true)?;
    let stream = inside(&client.path(), || TcpStream::connect_timeout(&target, PATIENCE))?;
    // Somebody else may have answered: only what comes to the container's socket counts.
    let Ok(mut stream) = stream else { return Ok(false) };
    let Some(mut server) = accepted(listener) else { return Ok(false) };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut word = [0; 3];
    Ok(server.write_all(b"cnf").is_ok() && stream.read_exact(&mut word).is_ok() && &word == b"cnf")
}

/// The client is connected before the packet that says so has come to the server: on a busy machine, long before.
fn accepted(listener: &TcpListener) -> Option<TcpStream> {
    let started = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Some(stream),
            Err(_) if started.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
            Err(_) => return None,
        }
    }
}

fn over_udp(server: &UdpSocket, client: &Container, target: SocketAddr) -> Outcome<bool> {
    server.set_read_timeout(Some(PATIENCE))?;
    let socket = inside(&client.path(), || UdpSocket::bind(("0.0.0.0", 0)))??;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(thread::scope(|scope| {
        scope.spawn(|| {
            let mut word = [0; 16];
            if let Ok((length, from)) = server.recv_from(&mut word) {
                let _ = server.send_to(&word[..length], from);
            }
        });
        let mut word = [0; 16];
        // An ICMP error of an earlier packet would come out of `send_to`.
        socket.send_to(b"cnf", target).is_ok()
            && socket
                .recv_from(&mut word)
                .is_ok_and(|(length, from)| &word[..length] == b"cnf" && from == target)
    }))
}

/// ADD with these mappings, then whether each row (protocol, host address, host port, container port, whether it is reached) is so.
fn mapped(lab: &mut Lab, mappings: &Value, rows: &[(&str, &str, u16, u16, bool)]) -> Outcome {
    let (container, client) = scene(lab)?;
    let call = asking(lab, &container, &json!({ "portMappings": mappings }));
    let reply = lab.run(&call)?;
    if !lab.accepted(&reply, &format!("ADD with portMappings {mappings}")) {
        return Ok(());
    }
    for (protocol, host, host_port, port, wanted) in rows {
        let reached = reaches(lab, &container, &client, protocol, (host, *host_port), *port)?;
        lab.check(reached == *wanted, Some(&reply), || {
            let (how, should) = if reached { ("reaches", "should not") } else { ("does not reach", "should") };
            format!("portMappings {mappings}: {protocol} to {host}:{host_port} {how} the container's {port}, and {should}")
        });
    }
    Ok(())
}

pub(super) fn published(lab: &mut Lab) -> Outcome {
    let mapping = lab.profile.capabilities["portMappings"][0].clone();
    let number =
        |key: &str| mapping[key].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
    let protocol = mapping["protocol"].as_str().unwrap_or("tcp").to_owned();
    let (host, port) = (number("hostPort"), number("containerPort"));
    mapped(
        lab,
        &json!([mapping]),
        &[
            (&protocol, HOST[0], host, port, true),
            (&protocol, HOST[1], host, port, true),
            (&protocol, HOST[0], host + 1, port, false),
        ],
    )
}

pub(super) fn protocols(lab: &mut Lab) -> Outcome {
    let mappings = json!([
        { "hostPort": 18090, "containerPort": 8091, "protocol": "tcp" },
        { "hostPort": 18090, "containerPort": 8092, "protocol": "udp" },
    ]);
    mapped(
        lab,
        &mappings,
        &[
            ("tcp", HOST[0], 18090, 8091, true),
            ("udp", HOST[0], 18090, 8092, true),
            ("tcp", HOST[0], 18090, 8092, false),
        ],
    )
}

pub(super) fn host_ip(lab: &mut Lab) -> Outcome {
    let mappings =
        json!([{ "hostPort": 18091, "containerPort": 8091, "protocol": "tcp", "hostIP": HOST[1] }]);
    mapped(lab, &mappings, &[("tcp", HOST[1], 18091, 8091, true), ("tcp", HOST[0], 18091, 8091, false)])
}

/// containerd's structures have no tags, so its keys begin with capitals.
pub(super) fn capital_keys(lab: &mut Lab) -> Outcome {
    let mappings = json!([
        { "HostPort": 18092, "ContainerPort": 8092, "Protocol": "tcp", "HostIP": "" },
        { "HostPort": 18093, "ContainerPort": 8093, "Protocol": "udp", "HostIP": HOST[0] },
    ]);
    mapped(
        lab,
        &mappings,
        &[
            ("tcp", HOST[0], 18092, 8092, true),
            ("udp", HOST[0], 18093, 8093, true),
            ("udp", HOST[1], 18093, 8093, false),
        ],
    )
}

pub(super) fn odd_values(lab: &mut Lab) -> Outcome {
    let mappings = json!([
        { "hostPort": 18094, "containerPort": 8094, "protocol": "tcp", "hostIP": "" },
        { "hostPort": 18095, "containerPort": 8095, "protocol": "tcp", "hostIP": "0.0.0.0" },
        { "hostPort": 18096, "containerPort": 8096, "protocol": "tcp", "name": "web", "x": null },
    ]);
    mapped(
        lab,
        &mappings,
        &[
            ("tcp", HOST[0], 18094, 8094, true),
            ("tcp", HOST[0], 18095, 8095, true),
            ("tcp", HOST[0], 18096, 8096, true),
        ],
    )
}
