//! Networks to write down, and the questions the tests ask of a namespace.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use testkit::{Attachment, Chain, Container, Netns, PluginFailure, Runtime, Snapshot, ip_json, plugin_dir};

/// Every version of the specification.
pub const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Whether a version has what came with another.
pub fn at_least(version: &str, since: &str) -> bool {
    let place = |wanted: &str| VERSIONS.iter().position(|version| *version == wanted).unwrap();
    place(version) >= place(since)
}

/// A network called `net` of one bridge plugin with these keys, in the newest version.
pub fn net(keys: Value) -> Chain {
    net_of("1.1.0", "net", keys)
}

/// A network of one bridge plugin.
pub fn net_of(version: &str, name: &str, keys: Value) -> Chain {
    runtime().chain(&list_of(version, name, keys))
}

/// The configuration list of such a network.
pub fn list_of(version: &str, name: &str, keys: Value) -> Value {
    let mut plugin = json!({ "type": "bridge" });
    plugin.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    json!({ "cniVersion": version, "name": name, "plugins": [plugin] })
}

/// A runtime that finds our plugins, and stubs.
pub fn runtime() -> Runtime {
    Runtime::with_directories([plugin_dir(), STUBS.into()])
}

/// host-local with a subnet a family, and a default route for each.
pub fn host_local(subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
    let routes: Vec<Value> = subnets
        .iter()
        .map(|subnet| json!({ "dst": if subnet.contains(':') { "::/0" } else { "0.0.0.0/0" } }))
        .collect();
    json!({ "type": "host-local", "ranges": ranges, "routes": routes })
}

pub const SUBNET_4: &str = "10.77.0.0/24";
pub const SUBNET_6: &str = "fd00:77::/64";

pub fn v4() -> Value {
    host_local(&[SUBNET_4])
}

pub fn v6() -> Value {
    host_local(&[SUBNET_6])
}

pub fn dual() -> Value {
    host_local(&[SUBNET_4, SUBNET_6])
}

const STUBS: &str = "/run/stubs";

/// Installs an IPAM plugin that runs a script on ADD, and logs every verb.
pub fn stub(kind: &str, on_add: &str) {
    fs::create_dir_all(STUBS).unwrap();
    let path = Path::new(STUBS).join(kind);
    let script = format!(
        "#!/bin/sh\necho $CNI_COMMAND >> {STUBS}/{kind}.log\nconfig=$(cat)\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\n{on_add}\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Installs an IPAM plugin, `stub`, that always gives the same.
pub fn fixed(result: Value) -> Value {
    let mut result = result;
    result["cniVersion"] = json!("1.1.0");
    stub("stub", &format!("cat <<'END'\n{result}\nEND"));
    json!({ "type": "stub" })
}

/// The verbs that a stub was run with so far.
pub fn verbs(kind: &str) -> Vec<String> {
    let log = fs::read_to_string(format!("{STUBS}/{kind}.log")).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

/// The attachment of a container's `eth0`, with the container's name as its ID.
pub fn eth0(container: &Container) -> Attachment {
    Attachment::new(container.name(), container, "eth0")
}

/// The state of the host, without what host-local remembers beside its leases: where to go on, and an index.
pub fn state() -> Snapshot {
    Snapshot::take().without(&["/last_reserved_ip", "/networks/.ferrule/", "/lock "])
}

/// The failure of something that must fail.
#[track_caller]
pub fn failure<T: std::fmt::Debug>(result: Result<T, PluginFailure>) -> PluginFailure {
    result.unwrap_err()
}

/// Code and message of a failure.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(result: Result<T, PluginFailure>) -> (u64, String) {
    let failure = failure(result);
    (failure.code(), failure.output.error()["msg"].as_str().unwrap().to_owned())
}

/// A link as `ip -d -j link` shows it; `null` if there is none.
pub fn link(netns: &Netns, name: &str) -> Value {
    let links = netns.enter(|| ip_json("link show"));
    links.as_array().unwrap().iter().find(|link| link["ifname"] == name).cloned().unwrap_or(Value::Null)
}

/// The names of all links, sorted.
pub fn links(netns: &Netns) -> Vec<String> {
    let links = netns.enter(|| ip_json("link show"));
    let mut names: Vec<String> =
        links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Whether a link is administratively up.
pub fn is_up(link: &Value) -> bool {
    link["flags"].as_array().unwrap().iter().any(|flag| flag == "UP")
}

/// The addresses of a link, sorted, link-local ones last and only if asked for.
pub fn addresses(netns: &Netns, name: &str, link_local: bool) -> Vec<String> {
    let links = netns.enter(|| ip_json("addr show"));
    let link = links.as_array().unwrap().iter().find(|link| link["ifname"] == name).cloned().unwrap();
    let mut all: Vec<String> = link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|address| link_local || !address["local"].as_str().unwrap().starts_with("fe80:"))
        .map(|address| format!("{}/{}", address["local"].as_str().unwrap(), address["prefixlen"]))
        .collect();
    all.sort();
    all
}

/// Routes as `ip route` prints them (`-6` among the words for IPv6), without what the kernel makes by itself.
pub fn routes(netns: &Netns, words: &str) -> Vec<String> {
    let text = netns.run("ip", &words.split_whitespace().collect::<Vec<_>>());
    assert_eq!(text.code, 0, "{}", text.stderr);
    let of_kernel = |line: &str| {
        line.contains("proto kernel") || line.starts_with("fe80::") || line.starts_with("ff00::")
    };
    let mut lines: Vec<String> =
        text.stdout.lines().map(|line| line.trim().to_owned()).filter(|line| !of_kernel(line)).collect();
    lines.sort();
    lines
}

/// The host's end of a container's interface, by its index.
pub fn host_end(host: &Netns, container: &Netns, ifname: &str) -> Value {
    let index = link(container, ifname)["link_index"].clone();
    let links = host.enter(|| ip_json("link show"));
    links.as_array().unwrap().iter().find(|link| link["ifindex"] == index).cloned().unwrap_or(Value::Null)
}

/// The name of the host's end.
pub fn host_end_name(host: &Netns, container: &Netns, ifname: &str) -> String {
    host_end(host, container, ifname)["ifname"].as_str().unwrap().to_owned()
}

/// Runs `ip` with these words, which must succeed.
#[track_caller]
pub fn ip(netns: &Netns, words: &str) {
    let ran = netns.run("ip", &words.split_whitespace().collect::<Vec<_>>());
    assert_eq!(ran.code, 0, "ip {words}: {}", ran.stderr);
}

/// The address of a result's first `ips` entry of a family, without its prefix length.
pub fn address_of(result: &Value, ipv4: bool) -> String {
    let ips = result["ips"].as_array().unwrap();
    let addresses = ips.iter().map(|ip| ip["address"].as_str().unwrap());
    let address = addresses.into_iter().find(|address| address.contains('.') == ipv4).unwrap();
    address.split('/').next().unwrap().to_owned()
}
