//! Next to the Go suite on one host.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde_json::{Value, json};
use testkit::{
    Attachment, Chain, Runtime, Snapshot, Uplink, plugin_dir, reference_dir, tcp_echo_server, tcp_roundtrip,
};

use crate::lab::{Lab, Running, port};

/// The same network by this suite and by the other. `bridge` is always ours, so that only `portmap` differs.
fn network(portmap: Option<PathBuf>) -> Chain {
    let directories =
        portmap.map(|reference| link_only(&reference, "portmap")).into_iter().chain([plugin_dir()]);
    Runtime::with_directories(directories).chain(&json!({
        "cniVersion": "1.0.0",
        "name": "net1",
        "plugins": [
            {
                "type": "bridge", "bridge": "br1", "isGateway": true,
                "ipam": { "type": "host-local", "subnet": "10.1.0.0/24", "routes": [{ "dst": "0.0.0.0/0" }] }
            },
            { "type": "portmap", "backend": "iptables", "capabilities": { "portMappings": true } }
        ]
    }))
}

/// A directory with one plugin of another.
fn link_only(directory: &std::path::Path, plugin: &str) -> PathBuf {
    let only = PathBuf::from("/run/reference");
    std::fs::create_dir_all(&only).unwrap();
    let _ = std::os::unix::fs::symlink(directory.join(plugin), only.join(plugin));
    only
}

fn start(lab: &Lab, chain: &Chain, id: &str, ports: &Value) -> Running {
    let container = lab.host.container(id);
    let attachment = Attachment::new(id, &container, "eth0").capability("portMappings", ports.clone());
    let result = chain.add(&attachment).unwrap_or_else(|failure| panic!("{failure}"));
    Running { container, attachment, result }
}

/// Without the chains that the Go suite leaves for the next, and what it does to a sysctl.
fn without_leftovers(snapshot: &Snapshot) -> Snapshot {
    snapshot.without(&["CNI-HOSTPORT", "route_localnet", "nftables: ", "/var/lib/cni"])
}

#[test]
fn ours_checks_and_removes_what_the_other_suite_made() {
    let Some(reference) = reference_dir(&["portmap"]) else {
        testkit::skip!("the Go suite is not installed (package containernetworking-plugins)");
    };
    let lab = Lab::new();
    let (ours, theirs) = (network(None), network(Some(reference)));
    let idle = start(&lab, &ours, "idle", &json!([]));
    let before = Snapshot::take();
    let web = start(&lab, &theirs, "web", &json!([port("tcp", 8080, 80), port("udp", 5353, 53)]));
    let server = tcp_echo_server(&web.container, Ipv4Addr::UNSPECIFIED, 80);
    assert_eq!(tcp_roundtrip(&lab.outside, Uplink::HOST_IPV4, 8080).unwrap().server, "web");
    drop(server);
    // A runtime keeps results by itself; the double keeps them by chain.
    let with_result = |verb: &str| {
        let config = theirs.stdin(1, &web.attachment, Some(&web.result));
        testkit::Plugin::new("portmap")
            .verb(verb)
            .attachment("web", web.container.path(), "eth0")
            .path(&[plugin_dir()])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .config(&config)
            .run()
    };
    with_result("CHECK").success();
    with_result("DEL").success();
    assert!(tcp_roundtrip(&lab.outside, Uplink::HOST_IPV4, 8080).is_err());
    assert_ne!(with_result("CHECK").code, Some(0), "and CHECK sees that it is gone");
    theirs.del(&web.attachment).unwrap();
    without_leftovers(&before).assert_same(&without_leftovers(&Snapshot::take()));
    ours.del(&idle.attachment).unwrap();
}

#[test]
fn the_other_suite_removes_what_ours_made_with_iptables() {
    let Some(reference) = reference_dir(&["portmap"]) else {
        testkit::skip!("the Go suite is not installed (package containernetworking-plugins)");
    };
    let lab = Lab::new();
    let (ours, theirs) = (network(None), network(Some(reference)));
    let idle = start(&lab, &ours, "idle", &json!([]));
    let before = Snapshot::take();
    let web = start(&lab, &ours, "web", &json!([port("tcp", 8080, 80)]));
    let server = tcp_echo_server(&web.container, Ipv4Addr::UNSPECIFIED, 80);
    assert_eq!(tcp_roundtrip(&lab.outside, Uplink::HOST_IPV4, 8080).unwrap().server, "web");
    drop(server);
    theirs.del(&web.attachment).unwrap();
    assert!(tcp_roundtrip(&lab.outside, Uplink::HOST_IPV4, 8080).is_err());
    // What is ours alone goes with our own DEL, which finds nothing else to do.
    ours.del(&web.attachment).unwrap();
    without_leftovers(&before).assert_same(&without_leftovers(&Snapshot::take()));
    ours.del(&idle.attachment).unwrap();
}

/// The rules of the Go suite's nftables backend (1.6 and later) have the container's id for a comment.
#[test]
fn ours_removes_what_the_other_suite_made_with_nftables() {
    let lab = Lab::new();
    let container = lab.host.container("web");
    let rules = "table ip cni_hostport {
        chain hostports {
            tcp dport 8080 dnat to 10.1.0.2:80 comment \"web\"
            tcp dport 8081 dnat to 10.1.0.3:80 comment \"another\"
        }
        chain masquerading {
            type nat hook postrouting priority srcnat;
            ip saddr 10.1.0.2 ip daddr 10.1.0.2 masquerade comment \"web\"
        }
    }";
    std::fs::write("/run/rules", rules).unwrap();
    testkit::tool("nft", &["-f", "/run/rules"]);
    let config = json!({ "cniVersion": "1.0.0", "name": "net1", "type": "portmap" });
    let del = testkit::Plugin::new("portmap").verb("DEL").attachment("web", container.path(), "eth0");
    del.path(&[plugin_dir()]).config(&config).run().success();
    let left = testkit::nft_text();
    assert!(!left.contains("\"web\"") && left.contains("\"another\""), "{left}");
}
