//! Whether containers are connected, on hosts whose forward path belongs to different owners.

use std::net::IpAddr;

use serde_json::json;
use testkit::{
    Attachment, RunningFirewalld, Runtime, SYSTEM_BUS, Snapshot, Uplink, documented_example, nft_text, ping,
    tcp_echo_server, tcp_roundtrip, tool,
};

use crate::lab::{Lab, feed, iptables, network, pings};

/// Connects two containers, and expects them to be reached, to reach, and to be forgotten: nothing on the host differs afterwards.
fn containers_are_connected(lab: &Lab, backend: &str) {
    let net = network(1, &json!({}));
    let other = network(2, &json!({}));
    // Shared things that stay as long as somebody is there.
    let other = lab.start(&other, "other");
    let before = Snapshot::take();
    let one = lab.start(&net, "one");
    let record = std::fs::read_to_string("/run/ferrule/attachments/net1/firewall/one/eth0").unwrap();
    assert!(record.contains(&format!("\"backend\":\"{backend}\"")), "{record}");
    assert!(ping(&one.container, Uplink::OUTSIDE_IPV4), "to the neighbour");
    assert!(ping(&one.container, Uplink::OUTSIDE_IPV6), "to the neighbour");
    assert!(pings(&one.container, &other), "to another network");
    assert!(pings(&other.container, &one), "from another network");
    net.check(&one.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    net.del(&one.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    let ours = ["/var/lib/cni"];
    before.without(&ours).assert_same(&Snapshot::take().without(&ours));
}

#[test]
fn on_a_host_that_forwards_everything() {
    let lab = Lab::new();
    containers_are_connected(&lab, "nftables");
}

/// Docker and ufw: what iptables does not accept is dropped.
#[test]
fn on_a_host_where_iptables_drops() {
    let lab = Lab::new();
    iptables("-P FORWARD DROP");
    containers_are_connected(&lab, "iptables");
}

#[test]
fn on_a_host_with_firewalld() {
    if !RunningFirewalld::is_installed() {
        testkit::skip!("firewalld or dbus-daemon is not installed");
    }
    let lab = Lab::new();
    let _firewalld = RunningFirewalld::start(SYSTEM_BUS, "");
    containers_are_connected(&lab, "firewalld");
    // Another zone, where the configuration says so; and isolation, for which there is no zone.
    let keys = json!({ "backend": "firewalld", "firewalldZone": "internal", "ingressPolicy": "same-bridge" });
    let net = network(3, &keys);
    let zone = || tool("firewall-cmd", &["--zone=internal", "--list-sources"]);
    let one = lab.start(&net, "zoned");
    assert_eq!(zone().trim(), "10.3.0.2/32 fd00:3::2/128");
    assert!(nft_text().contains("table inet ferrule_forward"), "{}", nft_text());
    net.check(&one.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    tool("firewall-cmd", &["--reload"]);
    let failure = net.check(&one.attachment).unwrap_err();
    assert_eq!((failure.plugin.as_str(), failure.code()), ("firewall", 102), "{failure}");
    net.del(&one.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(zone().trim(), "");
}

#[test]
fn on_a_host_with_rules_of_docker() {
    let lab = Lab::new();
    feed(
        "iptables-restore",
        &[],
        "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n:DOCKER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -j DOCKER\n-A DOCKER-USER -j RETURN\nCOMMIT\n",
    );
    tool("ip6tables", &["-P", "FORWARD", "DROP"]);
    containers_are_connected(&lab, "iptables");
}

/// A connection to a published port is neither a reply nor begun by the container.
#[test]
fn a_published_port_is_open_where_iptables_drops() {
    let lab = Lab::new();
    iptables("-P FORWARD DROP");
    let mut list = documented_example("portmap");
    list["plugins"].as_array_mut().unwrap().push(json!({ "type": "firewall" }));
    let chain = Runtime::new().chain(&list);
    let container = lab.host.container("c");
    let ports = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    let attachment = Attachment::new("c", &container, "eth0").capability("portMappings", ports);
    chain.add(&attachment).unwrap_or_else(|failure| panic!("{failure}"));
    let _server = tcp_echo_server(&container, [0; 16], 80);
    for target in [IpAddr::from(Uplink::HOST_IPV4), IpAddr::from(Uplink::HOST_IPV6)] {
        let reply = tcp_roundtrip(&lab.outside, target, 8080);
        assert!(reply.is_ok(), "{target}: {reply:?}");
    }
    // Its other ports are not.
    let _private = tcp_echo_server(&container, [0; 16], 81);
    assert!(tcp_roundtrip(&lab.outside, [10, 90, 0, 2], 81).is_err());
    chain.del(&attachment).unwrap_or_else(|failure| panic!("{failure}"));
}

/// A chain of nftables that is nobody's we know: an administrator has to let the traffic pass, and is told so.
#[test]
fn on_a_host_with_a_firewall_of_its_own() {
    let lab = Lab::new();
    feed(
        "nft",
        &["-f", "-"],
        "table inet mine {\n chain forward {\n type filter hook forward priority 0; policy drop;\n }\n}\n",
    );
    let net = network(1, &json!({}));
    let container = lab.host.container("c");
    let attachment = Attachment::new("c", &container, "eth0");
    let previous = json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.1.0.2/24" }] });
    let output = testkit::Plugin::new("firewall")
        .verb("ADD")
        .attachment("c", container.path(), "eth0")
        .path(&[testkit::plugin_dir()])
        .config(&net.stdin(1, &attachment, Some(&previous)))
        .run();
    output.success();
    assert!(
        output.stderr.contains("nftables chain `inet mine forward` has policy drop"),
        "standard error names the chain: {}",
        output.stderr
    );
}

/// Not even a host without IPv6 needs anything else for an IPv4 container.
#[test]
fn a_container_with_one_family_uses_one() {
    let lab = Lab::new();
    let container = lab.host.container("c");
    for backend in ["nftables", "iptables"] {
        let config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "firewall", "backend": backend,
            "prevResult": { "cniVersion": "1.1.0", "ips": [{ "address": "10.1.0.2/24" }] }
        });
        let call = |verb: &str| {
            testkit::Plugin::new("firewall")
                .verb(verb)
                .attachment("c", container.path(), "eth0")
                .path(&[testkit::plugin_dir()])
                // Nothing but the programs of IPv4.
                .env("PATH", only_ipv4())
                .config(&config)
                .run()
        };
        call("ADD").success();
        assert!(nft_text().contains("10.1.0.2"), "{backend}: {}", nft_text());
        call("CHECK").success();
        call("DEL").success();
        assert!(!nft_text().contains("10.1.0.2"), "{backend}: {}", nft_text());
    }
}

/// The result of another container, or of another time.
#[test]
fn check_asks_for_the_addresses_that_prev_result_lists() {
    let lab = Lab::new();
    let container = lab.host.container("c");
    let call = |verb: &str, address: &str| {
        testkit::Plugin::new("firewall")
            .verb(verb)
            .attachment("c", container.path(), "eth0")
            .path(&[testkit::plugin_dir()])
            .config(&json!({
                "cniVersion": "1.1.0", "name": "net", "type": "firewall",
                "prevResult": { "cniVersion": "1.1.0", "ips": [{ "address": address }] }
            }))
            .run()
    };
    call("ADD", "10.1.0.2/24").success();
    call("CHECK", "10.1.0.2/24").success();
    let error = call("CHECK", "10.1.0.3/24").error();
    assert_eq!(error["code"], 102, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("address 10.1.0.2 of the firewall rules"), "{error}");
}

/// A search path on which `ip6tables` is not.
fn only_ipv4() -> String {
    let directory = "/run/ipv4";
    std::fs::create_dir_all(directory).unwrap();
    for program in ["iptables-save", "iptables-restore"] {
        let link = format!("{directory}/{program}");
        let _ = std::os::unix::fs::symlink(testkit::have(program).unwrap(), link);
    }
    directory.to_owned()
}
