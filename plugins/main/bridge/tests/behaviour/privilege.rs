//! What the plugins need to be allowed, as SECURITY.md has it, and what they let others read.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use serde_json::{Value, json};
use testkit::{Chain, Container, Host, Plugin, Runtime, plugin_dir};

use crate::support::*;

/// The table of SECURITY.md. (What `host-local` is run with is its caller's; by itself it needs none.)
const NEEDS: [(&str, &[&str]); 6] = [
    ("bridge", &["net_admin", "sys_admin"]),
    ("tuning", &["net_admin", "sys_admin"]),
    ("portmap", &["net_admin"]),
    ("firewall", &["net_admin"]),
    ("loopback", &["net_admin", "sys_admin"]),
    ("vxlan", &["net_admin", "sys_admin"]),
];

/// A directory of plugins of which some run with these capabilities and no others.
fn limited(name: &str, plugins: &[(&str, &[&str])]) -> PathBuf {
    let directory = Path::new("/run").join(name);
    fs::create_dir_all(&directory).unwrap();
    for plugin in ["bridge", "tuning", "portmap", "firewall", "loopback", "vxlan", "host-local"] {
        let (path, real) = (directory.join(plugin), plugin_dir().join(plugin));
        let Some((_, capabilities)) = plugins.iter().find(|(limited, _)| *limited == plugin) else {
            symlink(real, path).unwrap();
            continue;
        };
        let allowed = [&["-all"], *capabilities].concat().join(",+");
        let words = format!("--bounding-set={allowed} --inh-caps=-all --ambient-caps=-all");
        fs::write(&path, format!("#!/bin/sh\nexec setpriv {words} -- {}\n", real.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

/// A network with everything that needs a right of its own.
fn network(directory: &Path) -> Chain {
    let bridge = json!({
        "type": "bridge", "isDefaultGateway": true, "ipMasq": true, "macspoofchk": true, "promiscMode": true, "mtu": 1400, "ipam": dual()
    });
    let tuning = json!({
        "type": "tuning", "mtu": 1300, "txQLen": 77, "promisc": true,
        "sysctl": { "net.ipv4.conf.IFNAME.arp_notify": "1", "net.core.somaxconn": "500" }
    });
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    let firewall = json!({ "type": "firewall", "ingressPolicy": "same-bridge" });
    Runtime::with_directories([directory]).chain(&json!({
        "cniVersion": "1.1.0", "name": "net", "plugins": [bridge, tuning, portmap, firewall]
    }))
}

fn attachment(container: &Container) -> testkit::Attachment {
    let ports = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    eth0(container).capability("portMappings", ports)
}

fn loopback(directory: &Path) -> Chain {
    Runtime::with_directories([directory])
        .chain(&json!({ "cniVersion": "1.1.0", "name": "lo", "plugins": [{ "type": "loopback" }] }))
}

/// An overlay of two nodes, of which this host is one.
fn overlay(directory: &Path) -> Chain {
    let peers = json!([
        { "node": "a", "underlay": "192.0.2.1", "blocks": ["10.40.1.0/24", "fd00:40:1::/64"] },
        { "node": "b", "underlay": "192.0.2.2", "blocks": ["10.40.2.0/24", "fd00:40:2::/64"] }
    ]);
    Runtime::with_directories([directory]).chain(&json!({
        "cniVersion": "1.1.0", "name": "over",
        "plugins": [{ "type": "vxlan", "vni": 100, "mode": "routed", "ipMasq": true, "peers": peers }]
    }))
}

/// The network that a plugin is tried in, and the attachment.
fn tried(plugin: &str, directory: &Path, container: &Container) -> (Chain, testkit::Attachment) {
    match plugin {
        "loopback" => (loopback(directory), testkit::Attachment::new("c1", container, "lo")),
        "vxlan" => (overlay(directory), eth0(container)),
        _ => (network(directory), attachment(container)),
    }
}

/// This host's end of an underlay.
fn underlay(host: &Host) {
    for words in [
        "link add under type veth peer name wire",
        "link set wire up",
        "link set under up",
        "address add 192.0.2.1/24 dev under",
    ] {
        ip(host.netns(), words);
    }
}

fn life(chain: &Chain, attachment: &testkit::Attachment) {
    chain.status().unwrap();
    chain.add(attachment).unwrap();
    chain.check(attachment).unwrap();
    chain.del(attachment).unwrap();
    chain.gc(&[]).unwrap();
}

#[test]
fn the_documented_capabilities_are_enough() {
    let host = Host::new();
    let container = host.container("c1");
    underlay(&host);
    let before = state();
    let directory = limited("exact", &NEEDS);
    for plugin in ["bridge", "loopback", "vxlan"] {
        let (chain, attachment) = tried(plugin, &directory, &container);
        life(&chain, &attachment);
    }
    before.without(&["/run/cni"]).assert_same(&state().without(&["/run/cni"]));
}

#[test]
fn a_capability_that_is_missing_is_named() {
    let host = Host::new();
    let container = host.container("c1");
    underlay(&host);
    for (plugin, needs) in NEEDS {
        for lacking in needs {
            let left: Vec<&str> = needs.iter().filter(|needed| *needed != lacking).copied().collect();
            let directory = limited(&format!("{plugin}-without-{lacking}"), &[(plugin, &left)]);
            let name = format!("CAP_{}", lacking.to_uppercase());
            let (chain, attachment) = tried(plugin, &directory, &container);
            let failure = failure(chain.add(&attachment));
            let text = failure.text();
            assert_eq!((failure.plugin.as_str(), failure.code()), (plugin, 106), "without {name}: {text}");
            assert!(text.contains(&name), "{plugin} without {name}: {text}");
            let (code, text) = failure_of_status(&chain);
            assert_eq!(code, 50, "{plugin} without {name}: {text}");
            assert!(text.contains(&name), "{plugin}: {text}");
            // With all rights again, what plugins before it have made goes.
            let whole = limited(&format!("{plugin}-with-{lacking}"), &[]);
            tried(plugin, &whole, &container).0.del(&attachment).unwrap();
        }
    }
}

fn failure_of_status(chain: &Chain) -> (u64, String) {
    let failure = failure(chain.status());
    (failure.code(), failure.text())
}

#[test]
fn host_local_needs_no_capability() {
    let host = Host::new();
    let container = host.container("c1");
    let plugin = limited("none", &[("host-local", &[])]).join("host-local");
    let config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": dual() });
    let run = |verb: &str, config: &Value| {
        let call = Plugin::at(&plugin).verb(verb).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        call.attachment("c1", container.path(), "eth0").config(config).run()
    };
    run("STATUS", &config).success();
    let result = run("ADD", &config).success();
    let mut later = config.clone();
    later["prevResult"] = result;
    run("CHECK", &later).success();
    run("DEL", &later).success();
}

/// Every file and directory of a tree that others than root can use, with its mode.
fn open_to_others(directory: &Path, found: &mut Vec<String>, files: &mut usize) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        let (mode, wanted) = (metadata.mode() & 0o7777, if metadata.is_dir() { 0o700 } else { 0o600 });
        *files += usize::from(metadata.is_file());
        if mode != wanted || metadata.uid() != 0 {
            found.push(format!("{mode:o} {}", entry.path().display()));
        }
        if metadata.is_dir() {
            open_to_others(&entry.path(), found, files);
        }
    }
}

#[test]
fn state_is_roots_alone() {
    let host = Host::new();
    let container = host.container("c1");
    // Not a matter of what the runtime's mask happens to be.
    umask(Mode::empty());
    let chain = network(&plugin_dir());
    let other = host.container("c2");
    chain.add(&attachment(&container)).unwrap();
    chain.add(&eth0(&other)).unwrap();
    chain.check(&attachment(&container)).unwrap();
    chain.del(&eth0(&other)).unwrap();
    let (mut found, mut files) = (Vec::new(), 0);
    for directory in ["/run/ferrule", "/run/cni", "/var/lib/cni"] {
        open_to_others(Path::new(directory), &mut found, &mut files);
    }
    found.sort();
    // As the Go suite makes them, which shares the store: names of addresses, and a lock without content.
    let shared =
        ["750 /var/lib/cni/networks/net/lock", "755 /var/lib/cni/networks", "755 /var/lib/cni/networks/net"];
    assert_eq!(found, shared);
    assert!(files > 20, "{files} files were looked at");
    let directory = fs::metadata("/run/ferrule").unwrap();
    assert_eq!(directory.mode() & 0o777, 0o700);
}
