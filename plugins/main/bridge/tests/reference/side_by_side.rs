//! Runs a network with one suite, then with the other, on a host that is the same before each.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::{
    Attachment, Container, Host, Plugin, Runtime, Snapshot, Uplink, ping, plugin_dir, skip, tcp_echo_server,
    tcp_roundtrip,
};

use crate::differences::{Among, DIFFERENCES, Difference};
use crate::networks::{self, Network, Since};
use crate::support::{ip, links};

/// The plugins that the networks are made of.
const PLUGINS: [&str; 5] = ["bridge", "host-local", "portmap", "firewall", "tuning"];

/// The Go suite: one that is named, the newest from the cache of the end-to-end tests, or the distribution's.
fn reference() -> Option<PathBuf> {
    let home = std::env::var("HOME").unwrap_or_default();
    let cache = std::env::var("FERRULE_CACHE").unwrap_or_else(|_| format!("{home}/.cache/ferrule"));
    let cached = Path::new(&cache).join("plugins-v1.9.1");
    let named = std::env::var_os("FERRULE_REFERENCE_BIN").map(PathBuf::from);
    let candidates = named.into_iter().chain([cached, PathBuf::from("/usr/lib/cni")]);
    candidates.into_iter().find(|directory| PLUGINS.iter().all(|kind| directory.join(kind).is_file()))
}

fn is_new(directory: &Path) -> bool {
    let versions = Plugin::at(directory.join("bridge")).verb("VERSION").stdin("{}").run().success();
    versions["supportedVersions"].as_array().unwrap().iter().any(|version| version == "1.1.0")
}

/// What can be seen of a network: sections of lines.
type State = BTreeMap<String, Vec<String>>;

/// Keys of links that number things or that are made up anew each time.
const MADE_UP: [&str; 9] = [
    "address",
    "bridge_id",
    "root_id",
    "designated_port",
    "no",
    "id",
    "group_addr",
    "permaddr",
    "master_index",
];

fn observe(netns: &str, snapshot: &Snapshot, state: &mut State) {
    let snapshot = snapshot.anonymous();
    // The files are the host's, whoever looks.
    for section in snapshot.names().into_iter().filter(|section| netns == "host" || *section != "files") {
        let lines = snapshot.section(section).iter();
        let lines = if section == "links" {
            lines.flat_map(|line| attributes(&serde_json::from_str(line).unwrap())).collect()
        } else {
            lines.cloned().collect()
        };
        state.insert(format!("{netns} {section}"), lines);
    }
}

/// A link as a line an attribute, without those that are made up.
fn attributes(link: &Value) -> Vec<String> {
    fn collect(path: &str, value: &Value, lines: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter().filter(|(key, _)| !MADE_UP.contains(&key.as_str())) {
                    collect(&format!("{path}.{key}"), value, lines);
                }
            }
            other => lines.push(format!("{path} = {other}")),
        }
    }
    let mut lines = Vec::new();
    collect(link["ifname"].as_str().unwrap(), link, &mut lines);
    lines
}

/// A result as its parts, a line each: the order of keys does not count, that of lists does.
fn parts(result: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for key in ["interfaces", "ips", "routes"] {
        for item in result[key].as_array().into_iter().flatten() {
            lines.push(format!("{key} {}", sorted(item)));
        }
    }
    lines.push(format!("dns {}", sorted(&result["dns"])));
    lines
}

fn sorted(value: &Value) -> String {
    let Some(map) = value.as_object() else { return value.to_string() };
    let mut pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    let text = pairs.join(" ");
    // As in a snapshot: hardware addresses and names of pairs are made up.
    text.split(' ').map(made_up).collect::<Vec<_>>().join(" ")
}

fn made_up(word: &str) -> String {
    if word.starts_with("mac=") && !word.contains("02:00:00:00:00:") {
        "mac=MAC".to_owned()
    } else if word.starts_with("name=\"veth") {
        "name=VETH".to_owned()
    } else {
        word.to_owned()
    }
}

/// Runs a network with the plugins of a directory.
fn run(host: &Host, uplink: &Uplink, directory: &Path, network: &Network) -> State {
    let list = json!({ "cniVersion": "1.0.0", "name": "mynet", "plugins": network.plugins });
    let chain = Runtime::with_directories([directory]).chain(&list);
    let container = host.container("c1");
    let attachment = |container: &Container| {
        let asked = network.capabilities.as_object().unwrap().iter();
        let plain = Attachment::new(container.name(), container, "eth0").args(network.args);
        asked.fold(plain, |attachment, (name, value)| attachment.capability(name, value.clone()))
    };
    let mut added = State::new();
    let result = chain.add(&attachment(&container)).unwrap();
    added.insert("result".to_owned(), parts(&result));
    observe("host", &Snapshot::take(), &mut added);
    observe("container", &container.enter(Snapshot::take), &mut added);
    added.insert("traffic".to_owned(), traffic(host, uplink, &container, network, &result));
    let check = chain.check(&attachment(&container));
    added.insert(
        "check".to_owned(),
        vec![check.map_or_else(|failure| failure.text(), |()| "content".to_owned())],
    );
    chain.del(&attachment(&container)).unwrap();
    drop(container);
    added
}

/// Who reaches whom, and under whose address, as far as the network promises it.
fn traffic(
    host: &Host,
    uplink: &Uplink,
    container: &Container,
    network: &Network,
    result: &Value,
) -> Vec<String> {
    let mut lines = Vec::new();
    let gateway = &network.plugins[0];
    if gateway["isGateway"] == true || gateway["isDefaultGateway"] == true {
        for ip in result["ips"].as_array().unwrap() {
            let address: IpAddr = ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
            lines.push(format!("host reaches {address}: {}", ping(host.netns(), address)));
            let gateway: IpAddr = ip["gateway"].as_str().unwrap().parse().unwrap();
            lines.push(format!("container reaches {gateway}: {}", ping(container, gateway)));
        }
        let server = tcp_echo_server(uplink, Uplink::OUTSIDE_IPV4, 0);
        let outside = tcp_roundtrip(container, Uplink::OUTSIDE_IPV4, server.address().port());
        let seen = outside.map(|reply| reply.seen_from.ip()).map_err(|error| error.kind());
        lines.push(format!("outside sees the container as {seen:?}"));
    }
    if network.capabilities.get("portMappings").is_some() {
        let server = tcp_echo_server(container, [0, 0, 0, 0], 80);
        let published = tcp_roundtrip(uplink, Uplink::HOST_IPV4, 8080);
        let answer =
            published.map(|reply| (reply.server, reply.seen_from.ip())).map_err(|error| error.kind());
        lines.push(format!("port 8080 leads outside to {answer:?}"));
        drop(server);
    }
    lines
}

/// Makes the host what it was: what the Go suite leaves behind is the Go suite's.
fn reset(host: &Host) {
    for link in links(host.netns()) {
        if link != "lo" && link != "uplink0" {
            let _ = host.netns().run("ip", &["link", "del", &link]);
        }
    }
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        if testkit::have(program).is_some() {
            for table in ["nat", "filter"] {
                let _ = host.netns().run(program, &["-t", table, "-F"]);
                let _ = host.netns().run(program, &["-t", table, "-X"]);
            }
        }
    }
    assert_eq!(host.netns().run("nft", &["flush", "ruleset"]).code, 0);
    testkit::set_sysctl("net.ipv4.ip_forward", "0");
    testkit::set_sysctl("net.ipv6.conf.all.forwarding", "0");
    for directory in ["/var/lib/cni", "/run/cni", "/run/ferrule"] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

/// The lines that one side has and the other has not.
fn compare(theirs: &State, ours: &State) -> Vec<String> {
    let mut all = Vec::new();
    for (section, lines) in theirs {
        let mut rest = ours[section].clone();
        for line in lines {
            match rest.iter().position(|other| other == line) {
                Some(at) => drop(rest.swap_remove(at)),
                None => all.push(format!("{section}: theirs: {line}")),
            }
        }
        all.extend(rest.into_iter().map(|line| format!("{section}: ours: {line}")));
    }
    all
}

/// Runs networks with the Go suite and with ours, and demands that they differ as the list says.
fn compare_all(reference: &Path, among: Among, networks: &[Network]) {
    let host = Host::new();
    let new = is_new(reference);
    fs::write("/run/resolv.conf", "nameserver 192.0.2.53\nsearch example.org\n").unwrap();
    let uplink = host.uplink();
    // So that a container is seen by its own address where nothing masquerades it.
    ip(&uplink, &format!("route add 10.0.0.0/8 via {}", Uplink::HOST_IPV4));
    let mut unexpected = Vec::new();
    let mut used = vec![false; DIFFERENCES.len()];
    reset(&host);
    let before = Snapshot::take();
    for network in networks.iter().filter(|network| new || network.since == Since::Old) {
        let theirs = run(&host, &uplink, reference, network);
        reset(&host);
        before.assert_same(&Snapshot::take());
        let ours = run(&host, &uplink, &plugin_dir(), network);
        before.assert_same(&Snapshot::take().without(&["/var/lib/cni/networks/"]));
        reset(&host);
        for line in compare(&theirs, &ours) {
            let known = |known: &Difference| {
                (known.among != Among::Old || !new)
                    && line.starts_with(known.section)
                    && line.contains(known.text)
            };
            match DIFFERENCES.iter().position(known) {
                Some(index) => used[index] = true,
                None => unexpected.push(format!("[{}] {line}", network.name)),
            }
        }
    }
    assert!(unexpected.is_empty(), "{} differences:\n{}", unexpected.len(), unexpected.join("\n"));
    let idle = DIFFERENCES
        .iter()
        .zip(used)
        .filter(|(known, used)| !used && [Among::All, among].contains(&known.among));
    let idle: Vec<&str> = idle.map(|(known, _)| known.text).collect();
    assert!(!new || idle.is_empty(), "these differences do not occur: {idle:?}");
}

/// Why there is nothing to compare with.
const NO_REFERENCE: &str = "no Go suite: neither the package containernetworking-plugins nor the build of v1.9.1 that `make e2e` makes";

#[test]
fn networks_of_the_bridge_plugin_are_the_same() {
    let Some(reference) = reference() else { skip!("{NO_REFERENCE}") };
    compare_all(&reference, Among::Bridge, &networks::of_bridge());
}

#[test]
fn addresses_of_host_local_are_the_same() {
    let Some(reference) = reference() else { skip!("{NO_REFERENCE}") };
    compare_all(&reference, Among::Ipam, &networks::of_ipam());
}

#[test]
fn chains_with_published_ports_firewall_and_tuning_are_the_same() {
    let Some(reference) = reference() else { skip!("{NO_REFERENCE}") };
    compare_all(&reference, Among::Chained, &networks::chained());
}
