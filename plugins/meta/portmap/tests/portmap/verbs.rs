//! The verbs, and what each leaves behind.

use std::fs;
use std::net::Ipv4Addr;

use cni::{NetworkName, ValidAttachments};
use ferrule_core::attachment::Collection;
use ferrule_core::firewall;
use serde_json::{Value, json};
use testkit::{
    Attachment, Plugin, Snapshot, Uplink, nft_text, plugin_dir, set_sysctl, tcp_echo_server, tcp_roundtrip,
};

use crate::lab::{Lab, network, port, port_at};

const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn config(keys: &Value) -> Value {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "portmap" });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    config
}

/// One call of the plugin by itself.
fn call(verb: &str, netns: &str, config: &Value) -> testkit::Output {
    Plugin::new("portmap")
        .verb(verb)
        .attachment("c1", netns, "eth0")
        .path(&[plugin_dir()])
        .env("PATH", SERVICE_PATH)
        .config(config)
        .run()
}

fn previous() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [{ "name": "eth0", "sandbox": "/run/netns/c1", "org.example": 1 }],
        "ips": [{ "address": "10.9.0.2/24", "interface": 0, "org.example": [2] }],
        "routes": [{ "dst": "0.0.0.0/0", "org.example": {} }],
        "org.example/top": { "kept": true }
    })
}

#[test]
fn the_result_is_prev_result_whatever_is_in_it() {
    let lab = Lab::new();
    let container = lab.host.container("c1");
    let netns = container.path().to_str().unwrap();
    for mappings in [json!([]), json!([port("tcp", 8080, 80)])] {
        let config =
            config(&json!({ "prevResult": previous(), "runtimeConfig": { "portMappings": mappings } }));
        assert_eq!(call("ADD", netns, &config).success(), previous());
        call("CHECK", netns, &config).success();
        call("DEL", netns, &config).success();
    }
}

#[test]
fn check_asks_for_the_addresses_that_prev_result_lists() {
    let lab = Lab::new();
    let container = lab.host.container("c1");
    let netns = container.path().to_str().unwrap();
    let mut config = config(
        &json!({ "prevResult": previous(), "runtimeConfig": { "portMappings": [port("tcp", 8080, 80)] } }),
    );
    call("ADD", netns, &config).success();
    config["prevResult"]["ips"][0]["address"] = "10.9.0.3/24".into();
    let error = call("CHECK", netns, &config).error();
    assert_eq!(error["code"], 102, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("address 10.9.0.2 of the firewall rules"), "{error}");
}

#[test]
fn every_version_is_served() {
    let lab = Lab::new();
    let container = lab.host.container("c1");
    let netns = container.path().to_str().unwrap();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let legacy = version.starts_with("0.1") || version.starts_with("0.2");
        let previous = match version {
            _ if legacy => json!({ "cniVersion": version, "ip4": { "ip": "10.9.0.2/24" }, "dns": {} }),
            "1.0.0" | "1.1.0" => json!({ "cniVersion": version, "ips": [{ "address": "10.9.0.2/24" }] }),
            _ => {
                json!({ "cniVersion": version, "ips": [{ "version": "4", "address": "10.9.0.2/24" }], "dns": {} })
            }
        };
        let mut config = config(&json!({
            "prevResult": previous, "runtimeConfig": { "portMappings": [port("tcp", 8080, 80)] }
        }));
        config["cniVersion"] = version.into();
        assert_eq!(call("ADD", netns, &config).success(), previous, "{version}");
        assert!(nft_text().contains("tcp . 8080 comment \"net/c1/eth0\" : 10.9.0.2 . 80"), "{version}");
        call("DEL", netns, &config).success();
        assert_eq!(nft_text(), "", "{version}");
    }
}

#[test]
fn what_is_wrong_is_said_before_anything_is_changed() {
    let lab = Lab::new();
    let container = lab.host.container("c1");
    let netns = container.path().to_str().unwrap();
    let before = Snapshot::take();
    let mapped =
        |mapping: Value| json!({ "prevResult": previous(), "runtimeConfig": { "portMappings": [mapping] } });
    for (keys, words) in [
        (json!({ "runtimeConfig": { "portMappings": [port("tcp", 8080, 80)] } }), "prevResult"),
        (mapped(port("tcp", 0, 80)), "runtimeConfig.portMappings[0].hostPort"),
        (mapped(port("icmp", 1, 1)), "runtimeConfig.portMappings[0].protocol"),
        (mapped(port_at("::g", "tcp", 1, 1)), "runtimeConfig.portMappings[0].hostIP"),
        (json!({ "prevResult": previous(), "backend": "pf" }), "backend"),
        (json!({ "prevResult": previous(), "markMasqBit": 32 }), "markMasqBit"),
        (
            json!({ "prevResult": { "cniVersion": "1.1.0", "ips": [{ "address": "10.9.0.2" }] } }),
            "prevResult.ips[0].address",
        ),
    ] {
        let error = call("ADD", netns, &config(&keys)).error();
        assert_eq!(error["code"], 7, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(words), "{error}\n  lacks: {words}");
    }
    before.assert_same(&Snapshot::take());
}

#[test]
fn a_mapping_that_no_address_serves_is_noted() {
    let lab = Lab::new();
    let container = lab.host.container("c1");
    let mappings = json!([port_at("::", "tcp", 8080, 80), port_at("0.0.0.0", "tcp", 8080, 80)]);
    let config = config(&json!({ "prevResult": previous(), "runtimeConfig": { "portMappings": mappings } }));
    let output = call("ADD", container.path().to_str().unwrap(), &config);
    output.success();
    assert_eq!(
        output.stderr.trim(),
        "portmap: tcp [::]:8080 is not published: the container has no address of that family"
    );
}

fn del_needs_nothing_and_leaves_nothing(backend: &str) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend }));
    let ports = json!([port("tcp", 8080, 80), port("udp", 5353, 53)]);
    let idle = net.start(&lab, "idle", &json!([]));
    let before = Snapshot::take();
    let web = net.start(&lab, "web", &ports);
    assert!(!before.difference(&Snapshot::take()).is_empty());
    // Broken, and without anything: the record knows.
    let broken = json!({
        "cniVersion": "1.1.0", "name": "net1", "type": "portmap", "backend": "nonsense", "markMasqBit": "x",
        "runtimeConfig": { "portMappings": "none" }
    });
    let del = |config: &Value| {
        let plugin = Plugin::new("portmap").verb("DEL").attachment("web", "", "eth0").path(&[plugin_dir()]);
        plugin.env("PATH", SERVICE_PATH).config(config).run()
    };
    assert_eq!(del(&broken).success(), Value::Null);
    assert_eq!(del(&broken).success(), Value::Null, "and again");
    net.stop(&web);
    // The allocator remembers what it gave last.
    let after = Snapshot::take().without(&["/var/lib/cni"]);
    before.without(&["/var/lib/cni"]).assert_same(&after);
    net.stop(&idle);
}

#[test]
fn del_needs_nothing_and_leaves_nothing_with_nftables() {
    del_needs_nothing_and_leaves_nothing("nftables");
}

#[test]
fn del_needs_nothing_and_leaves_nothing_with_iptables() {
    del_needs_nothing_and_leaves_nothing("iptables");
}

#[test]
fn del_finds_ports_without_a_record_by_their_owner() {
    let lab = Lab::new();
    let net = network(1, &json!({}));
    let web = net.start(&lab, "web", &json!([port("tcp", 8080, 80)]));
    let other = net.start(&lab, "other", &json!([port("tcp", 8081, 80)]));
    fs::remove_dir_all("/run/ferrule/attachments/net1/portmap/web").unwrap();
    net.stop(&web);
    let rules = nft_text();
    assert!(!rules.contains("net1/web/eth0") && rules.contains("net1/other/eth0"), "{rules}");
    net.stop(&other);
}

fn a_taken_port_names_its_owner(backend: &str) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend }));
    let first = net.start(&lab, "first", &json!([port("tcp", 8080, 80)]));
    let _server = tcp_echo_server(&first.container, Ipv4Addr::UNSPECIFIED, 80);
    let second = net.try_start(&lab, "second", &json!([port("udp", 8080, 80), port("tcp", 8080, 81)]));
    let failure = second.err().expect("the port is taken");
    assert_eq!((failure.plugin.as_str(), failure.code()), ("portmap", 103));
    let text = failure.text();
    assert!(text.contains("tcp 0.0.0.0:8080") && text.contains("first"), "{text}");
    assert_eq!(tcp_roundtrip(&lab.outside, Uplink::HOST_IPV4, 8080).unwrap().server, "first");
    // Another protocol is free, and so is the port once its owner is gone.
    let third = net.start(&lab, "third", &json!([port("udp", 8080, 80)]));
    net.stop(&first);
    net.stop(&third);
    let last = net.start(&lab, "last", &json!([port("tcp", 8080, 80)]));
    let _server = tcp_echo_server(&last.container, Ipv4Addr::UNSPECIFIED, 80);
    assert_eq!(tcp_roundtrip(&lab.outside, Uplink::HOST_IPV4, 8080).unwrap().server, "last");
}

#[test]
fn a_taken_port_names_its_owner_with_nftables() {
    a_taken_port_names_its_owner("nftables");
}

#[test]
fn a_taken_port_names_its_owner_with_iptables() {
    a_taken_port_names_its_owner("iptables");
}

fn a_container_on_two_networks_has_its_ports_once(backend: &str) {
    let lab = Lab::new();
    let (blue, red) =
        (network(1, &json!({ "backend": backend })), network(2, &json!({ "backend": backend })));
    let ports = json!([port("tcp", 8080, 80)]);
    let first = blue.start(&lab, "both", &ports);
    let _server = tcp_echo_server(&first.container, Ipv4Addr::UNSPECIFIED, 80);
    // podman asks every network of a container for the same ports.
    let second = Attachment::new("both", &first.container, "eth1").capability("portMappings", ports);
    red.0.add(&second).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(tcp_roundtrip(&lab.outside, Uplink::HOST_IPV4, 8080).unwrap().server, "both");
    blue.0.check(&first.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    red.0.check(&second).unwrap_or_else(|failure| panic!("{failure}"));
    red.0.del(&second).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(tcp_roundtrip(&lab.outside, Uplink::HOST_IPV4, 8080).unwrap().server, "both");
    blue.stop(&first);
}

#[test]
fn a_container_on_two_networks_has_its_ports_once_with_nftables() {
    a_container_on_two_networks_has_its_ports_once("nftables");
}

#[test]
fn a_container_on_two_networks_has_its_ports_once_with_iptables() {
    a_container_on_two_networks_has_its_ports_once("iptables");
}

#[test]
fn check_sees_what_is_missing() {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": "nftables" }));
    let web = net.start(&lab, "web", &json!([port("tcp", 8080, 80)]));
    net.0.check(&web.attachment).unwrap();
    set_sysctl("net/ipv4/conf/br1/route_localnet", "0");
    let failure = net.0.check(&web.attachment).unwrap_err();
    assert_eq!(failure.code(), 102);
    assert!(failure.text().contains("route_localnet"), "{failure}");
    set_sysctl("net/ipv4/conf/br1/route_localnet", "1");
    net.0.check(&web.attachment).unwrap();
    testkit::tool("nft", &["delete", "element", "inet", "ferrule_ports", "any4", "{ tcp . 8080 }"]);
    let failure = net.0.check(&web.attachment).unwrap_err();
    assert_eq!((failure.plugin.as_str(), failure.code()), ("portmap", 102));
    assert!(failure.text().contains("8080"), "{failure}");
    testkit::tool("nft", &["flush", "ruleset"]);
    assert_eq!(net.0.check(&web.attachment).unwrap_err().code(), 102);
    // And DEL does not mind.
    net.stop(&web);
}

fn gc_removes_what_is_not_listed(backend: &str) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend }));
    let kept = net.start(&lab, "kept", &json!([port("tcp", 8080, 80)]));
    let foreign =
        network(2, &json!({ "backend": backend })).start(&lab, "foreign", &json!([port("tcp", 8082, 80)]));
    let before = Snapshot::take();
    let stale = net.start(&lab, "stale", &json!([port("tcp", 8081, 80)]));
    net.0.forget();
    drop(stale);
    net.0.gc(&[("kept", "eth0")]).unwrap();
    let difference = before.difference(&Snapshot::take());
    assert!(!difference.contains("8081"), "{difference}");
    for (running, port) in [(&kept, 8080), (&foreign, 8082)] {
        let _server = tcp_echo_server(&running.container, Ipv4Addr::UNSPECIFIED, 80);
        assert!(
            tcp_roundtrip(&lab.outside, Uplink::HOST_IPV4, port).is_ok(),
            "port {port} is still published"
        );
    }
}

#[test]
fn gc_removes_what_is_not_listed_with_nftables() {
    gc_removes_what_is_not_listed("nftables");
}

#[test]
fn gc_removes_what_is_not_listed_with_iptables() {
    gc_removes_what_is_not_listed("iptables");
}

/// What a GC does once it has been through the records, when an ADD comes beside it.
fn collect_by_marks() {
    let (network, nobody) = (NetworkName::new("net1").unwrap(), ValidAttachments::default());
    let failures = firewall::collect(&Collection::new(&network, "portmap", &nobody), firewall::Role::Publish);
    assert!(failures.is_empty(), "{failures:?}");
}

fn gc_leaves_what_is_being_attached_beside_it(backend: &str) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend }));
    // What host-local keeps of a network stays.
    net.stop(&net.start(&lab, "first", &json!([])));
    let before = Snapshot::take();
    let web = net.start(&lab, "web", &json!([port("tcp", 8080, 80)]));
    collect_by_marks();
    net.0.check(&web.attachment).unwrap();
    net.stop(&web);
    drop(web);
    before.without_lease_bookkeeping().assert_same(&Snapshot::take().without_lease_bookkeeping());
    // What nobody remembers goes, whole.
    let _web = net.start(&lab, "web", &json!([port("tcp", 8080, 80)]));
    fs::remove_dir_all("/run/ferrule/attachments/net1/portmap").unwrap();
    collect_by_marks();
    let left = before.difference(&Snapshot::take());
    assert!(!left.contains("8080") && !left.contains("nftables-"), "{left}");
}

#[test]
fn gc_leaves_what_is_being_attached_beside_it_with_nftables() {
    gc_leaves_what_is_being_attached_beside_it("nftables");
}

#[test]
fn gc_leaves_what_is_being_attached_beside_it_with_iptables() {
    gc_leaves_what_is_being_attached_beside_it("iptables");
}

#[test]
fn status_says_what_add_would_lack() {
    let _lab = Lab::new();
    let status = |keys: Value, path: &str| {
        Plugin::new("portmap")
            .verb("STATUS")
            .path(&[plugin_dir()])
            .env("PATH", path)
            .config(&config(&keys))
            .run()
    };
    status(json!({}), SERVICE_PATH).success();
    status(json!({ "backend": "iptables" }), SERVICE_PATH).success();
    assert_eq!(status(json!({ "backend": "nope" }), SERVICE_PATH).error()["code"], 7);
    let capable = std::process::Command::new("setpriv")
        .args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"])
        .arg(plugin_dir().join("portmap"))
        .env_clear()
        .env("CNI_COMMAND", "STATUS")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .map(|mut child| {
            use std::io::Write as _;
            child.stdin.take().unwrap().write_all(config(&json!({})).to_string().as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        })
        .unwrap();
    let error: Value = serde_json::from_slice(&capable.stdout).unwrap();
    assert_eq!(error["code"], 50, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("CAP_NET_ADMIN"), "{error}");
}
