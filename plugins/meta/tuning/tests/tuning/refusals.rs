//! What is refused, with nothing changed.

use std::fs;

use serde_json::{Value, json};
use testkit::Snapshot;

use crate::lab::{Lab, config};

fn refused(lab: &Lab, text: &str, code: u64) -> String {
    let (host, inside) = (Snapshot::take(), lab.container.enter(Snapshot::take));
    let output = testkit::Plugin::new("tuning")
        .verb("ADD")
        .attachment("c1", lab.container.path(), "eth0")
        .stdin(text)
        .run();
    let error = output.error();
    assert_eq!(error["code"], code, "{error}");
    inside.assert_same(&lab.container.enter(Snapshot::take));
    host.assert_same(&Snapshot::take());
    format!("{} {}", error["msg"].as_str().unwrap(), error["details"].as_str().unwrap_or_default())
}

fn refusal(lab: &Lab, keys: &Value, code: u64) -> String {
    refused(lab, &config(keys).to_string(), code)
}

#[test]
fn a_sysctl_outside_net() {
    let lab = Lab::new();
    for key in ["kernel.hostname", "vm/swappiness", "net/../kernel/hostname", "../../etc/passwd", "net"] {
        let message = refusal(&lab, &json!({ "mtu": 1400, "sysctl": { key: "x" } }), 7);
        assert!(message.contains("invalid net sysctl key"), "{message}");
    }
}

#[test]
fn a_sysctl_that_does_not_exist() {
    let lab = Lab::new();
    let keys = json!({ "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.no_such_thing": "1" } });
    let message = refusal(&lab, &keys, 100);
    assert!(message.contains("net/ipv4/no_such_thing"), "{message}");
}

/// CVE-2025-52881: whoever can mount over a part of `/proc`, or put a link there, must not choose what root writes into.
#[test]
fn what_is_not_the_kernels_is_not_written_to() {
    let lab = Lab::new();
    fs::write("/run/victim", "precious").unwrap();
    fs::set_permissions("/run/victim", std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let parameter = "/proc/sys/net/ipv4/ip_local_port_range";
    let write =
        || lab.call("ADD", &config(&json!({ "sysctl": { "net.ipv4.ip_local_port_range": "20000 30000" } })));
    // What is mounted on a file of the container's network is there only for who has entered it.
    lab.container.enter(|| testkit::tool("mount", &["--bind", "/run/victim", parameter]));
    let error = write().error();
    assert!(error["msg"].as_str().unwrap().contains(parameter), "{error}");
    assert_eq!(fs::read_to_string("/run/victim").unwrap(), "precious", "mounted over the parameter");
    lab.container.enter(|| testkit::tool("umount", &[parameter]));

    testkit::tool("mount", &["-t", "tmpfs", "none", "/proc/sys"]);
    fs::create_dir_all("/proc/sys/net/ipv4").unwrap();
    std::os::unix::fs::symlink("/run/victim", parameter).unwrap();
    let error = write().error();
    assert!(error["msg"].as_str().unwrap().contains(parameter), "{error}");
    assert_eq!(fs::read_to_string("/run/victim").unwrap(), "precious", "a link in place of the parameter");
    testkit::tool("umount", &["/proc/sys"]);
    assert_ne!(lab.sysctl("net/ipv4/ip_local_port_range"), "20000\t30000");
    write().success();
}

#[test]
fn a_value_that_the_kernel_refuses() {
    let lab = Lab::new();
    // The first two are taken, and taken back.
    let keys = json!({
        "mtu": 1400,
        "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.ip_local_port_range": "30000 20000" }
    });
    let message = refusal(&lab, &keys, 100);
    assert!(
        message.contains("can't set sysctl net/ipv4/ip_local_port_range to \"30000 20000\""),
        "{message}"
    );
    let message = refusal(&lab, &json!({ "promisc": true, "mtu": 10 }), 100);
    assert!(message.contains("change link eth0 (mtu 10)"), "{message}");
}

#[test]
fn duplicate_sysctls() {
    let lab = Lab::new();
    for pair in [
        r#""net.ipv4.conf.eth0.arp_filter": "1", "net.ipv4.conf.eth0.arp_filter": "0""#,
        r#""net.ipv4.conf.eth0.arp_filter": "1", "net/ipv4/conf/eth0/arp_filter": "0""#,
        r#""net.ipv4.conf.eth0.arp_filter": "1", "net.ipv4.conf.IFNAME.arp_filter": "0""#,
    ] {
        let mut text = config(&json!({})).to_string();
        text.pop();
        let message = refused(&lab, &format!("{text}, \"sysctl\": {{ {pair} }} }}"), 7);
        assert!(message.contains("duplicated sysctl keys are not allowed"), "{message}");
    }
}

#[test]
fn a_mac_address_that_is_none() {
    let lab = Lab::new();
    let message = refusal(&lab, &json!({ "mtu": 1400, "mac": "c2:11:22:33:44" }), 7);
    assert!(message.contains("mac: invalid args c2:11:22:33:44 for MAC addr"), "{message}");
}

#[test]
fn a_call_without_prev_result() {
    let lab = Lab::new();
    let message = refusal(&lab, &json!({ "mtu": 1400, "prevResult": null }), 7);
    assert!(message.contains("Required prevResult missing"), "{message}");
}

#[test]
fn an_interface_that_is_not_there() {
    let lab = Lab::new();
    let output = testkit::Plugin::new("tuning")
        .verb("ADD")
        .attachment("c1", lab.container.path(), "eth7")
        .config(&config(&json!({ "mtu": 1400 })))
        .run();
    let message = output.error()["msg"].to_string();
    assert!(message.contains("eth7"), "{message}");
    assert_eq!(Snapshot::take().section("files").len(), 0);
}

#[test]
fn the_allowlist_decides_about_sysctls() {
    let lab = Lab::new();
    fs::create_dir_all("/etc/cni/tuning").unwrap();
    fs::write("/etc/cni/tuning/allowlist.conf", "^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$\n\n").unwrap();
    let message = refusal(&lab, &json!({ "mtu": 1400, "sysctl": { "net.core.somaxconn": "500" } }), 7);
    assert!(
        message.contains("Sysctl net.core.somaxconn is not allowed. Only the following sysctls are allowed"),
        "{message}"
    );
    let args = json!({ "args": { "cni": { "sysctl": { "net.core.somaxconn": "500" } } } });
    assert!(refusal(&lab, &args, 7).contains("is not allowed"));
    let allowed = config(&json!({ "mtu": 1400, "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1" } }));
    lab.call("ADD", &allowed).success();
    assert_eq!(lab.sysctl("net/ipv4/conf/eth0/arp_filter"), "1");
    lab.call("DEL", &allowed).success();

    fs::write("/etc/cni/tuning/allowlist.conf", "(\n").unwrap();
    assert!(refusal(&lab, &json!({ "mtu": 1400 }), 7).contains("allowlist.conf line 1"));
    fs::remove_file("/etc/cni/tuning/allowlist.conf").unwrap();
    fs::create_dir("/etc/cni/tuning/allowlist.conf").unwrap();
    assert!(refusal(&lab, &json!({ "mtu": 1400 }), 5).contains("can't read the sysctl allowlist"));
}
