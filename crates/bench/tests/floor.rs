//! The floor makes what a chain of plugins makes: its time is only worth something if its attachments work.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has to fail")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Command;

use bench::floor::RULESET;
use bench::job::{DUAL, Job, container};
use testkit::{
    Attachment, Host, Runtime, Snapshot, Uplink, eventually, ip_json, set_sysctl, tcp_echo_server,
    tcp_roundtrip, udp_echo_server, udp_roundtrip,
};

fn floor(verb: &str, job: &Job, number: u16) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-floor"));
    let output = command.arg(verb).args(job.request(number).arguments()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn ruleset() {
    std::fs::write("/run/floor.nft", RULESET).unwrap();
    testkit::tool("nft", &["-f", "/run/floor.nft"]);
    std::fs::remove_file("/run/floor.nft").unwrap();
    set_sysctl("net/ipv4/ip_forward", "1");
    set_sysctl("net/ipv6/conf/all/forwarding", "1");
}

#[test]
fn its_ports_lead_into_the_container_and_out_of_it_one_is_masqueraded() {
    let host = Host::new();
    let outside = host.uplink();
    ruleset();
    let job = Job::chain(DUAL);
    let first = host.container(&container(0));
    let second = host.container(&container(1));
    floor("add", &job, 0);
    floor("add", &job, 1);
    for (number, namespace) in [(0, &first), (1, &second)] {
        let servers = (
            tcp_echo_server(namespace, Ipv4Addr::UNSPECIFIED, 80),
            udp_echo_server(namespace, Ipv4Addr::UNSPECIFIED, 81),
        );
        let port = job.ports(number)[0].host;
        assert_eq!(tcp_roundtrip(&outside, Uplink::HOST_IPV4, port).unwrap().server, container(number));
        assert_eq!(udp_roundtrip(&outside, Uplink::HOST_IPV4, port + 1).unwrap().server, container(number));
        drop(servers);
    }
    let _server = tcp_echo_server(&outside, Ipv4Addr::UNSPECIFIED, 7);
    let reply = tcp_roundtrip(&first, Uplink::OUTSIDE_IPV4, 7).unwrap();
    assert_eq!(reply.seen_from.ip(), Uplink::HOST_IPV4);
    let links = second.enter(|| ip_json("addr show eth0"));
    let addresses: Vec<_> = links[0]["addr_info"].as_array().unwrap().iter().map(|a| &a["local"]).collect();
    assert!(addresses.contains(&&"10.93.1.1".into()) && addresses.contains(&&"fd93::1:1".into()), "{links}");
}

#[test]
fn it_takes_away_what_it_made_for_a_container() {
    let host = Host::new();
    ruleset();
    let job = Job::chain(DUAL);
    let _containers = [0, 1].map(|number| host.container(&container(number)));
    floor("add", &job, 0);
    let before = Snapshot::take();
    floor("add", &job, 1);
    floor("del", &job, 1);
    before.assert_same(&Snapshot::take());
}

/// Every sysctl of an interface in the calling thread's namespace.
fn sysctls(interface: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for family in ["ipv4", "ipv6"] {
        let directory = format!("/proc/sys/net/{family}/conf/{interface}");
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            // Some can only be written, or have no value yet.
            if let Ok(value) = std::fs::read_to_string(&path) {
                found.insert(format!("{family}/{}", path.file_name().unwrap().display()), value);
            }
        }
    }
    found
}

/// What `ip` says of a link, its addresses and its routes; without what is a link's own, and what names an address.
fn described(interface: &str) -> Vec<String> {
    let link = ip_json(&format!("-d addr show {interface}"));
    let addresses = link[0]["addr_info"].as_array().unwrap().iter();
    let mut addresses: Vec<String> = addresses
        .filter(|address| address["scope"] == "global")
        .map(|address| format!("{} /{} nodad {}", address["family"], address["prefixlen"], address["nodad"]))
        .collect();
    addresses.sort();
    let routes = ["-4", "-6"].map(|family| ip_json(&format!("{family} route show dev {interface}")));
    let mut routes: Vec<String> = routes
        .iter()
        .flat_map(|routes| routes.as_array().unwrap())
        .filter(|route| route["dst"] != "fe80::/64")
        .map(|route| {
            let is_default = route["dst"] == "default";
            format!(
                "default {is_default}, gateway {}, metric {}",
                route["gateway"].is_string(),
                route["metric"]
            )
        })
        .collect();
    routes.sort();
    let keys = ["flags", "mtu", "operstate", "linkmode", "group", "txqlen", "link_type", "num_tx_queues"];
    let mut all: Vec<String> = keys.iter().map(|key| format!("{key} {}", link[0][*key])).collect();
    all.push(format!("addrgenmode {}", link[0]["inet6_addr_gen_mode"]));
    all.push(format!("kind {}", link[0]["linkinfo"]["info_kind"]));
    all.push(format!("port of a {}", link[0]["linkinfo"]["info_slave_kind"]));
    all.push(format!("alias {}", link[0]["ifalias"].is_string()));
    all.extend(addresses);
    all.extend(routes);
    all
}

/// Else the ratio of the two would be that of different things.
#[test]
fn it_leaves_in_the_kernel_what_the_plugin_leaves() {
    let host = Host::new();
    ruleset();
    let job = Job::bridge(DUAL);
    let (ours, floors) = (host.container("ours"), host.container(&container(1)));
    let list = serde_json::json!({
        "cniVersion": "1.1.0", "name": "net",
        "plugins": [{
            "type": "bridge", "bridge": "cni0", "isGateway": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": "10.77.0.0/16" }], [{ "subnet": "fd77::/64" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        }],
    });
    let attachment = Attachment::new("ours", &ours, "eth0");
    let result = Runtime::new().chain(&list).add(&attachment).unwrap();
    floor("add", &job, 1);
    let look = |interface: &str| (sysctls(interface), described(interface));
    assert_eq!(floors.enter(|| look("eth0")), ours.enter(|| look("eth0")), "in the container");
    let port = result["interfaces"][1]["name"].as_str().unwrap();
    // Both are ports already, but the kernel says so in its own time.
    let is_up = |port: &str| described(port).contains(&"operstate \"UP\"".to_owned());
    eventually("both ports are up", || (is_up(port) && is_up("floor0001")).then_some(()));
    assert_eq!(look("floor0001"), look(port), "on the host");
}
