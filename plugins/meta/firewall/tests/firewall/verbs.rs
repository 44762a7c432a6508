//! The verbs, and what each leaves behind.

use std::fs;

use serde_json::{Value, json};
use testkit::{Output, Plugin, Snapshot, nft_text, plugin_dir, tool};

use crate::lab::{Lab, network};

const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn config(keys: &Value) -> Value {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "net1", "type": "firewall" });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    config
}

fn call(verb: &str, id: &str, netns: &str, config: &Value) -> Output {
    Plugin::new("firewall")
        .verb(verb)
        .attachment(id, netns, "eth0")
        .path(&[plugin_dir()])
        .env("PATH", SERVICE_PATH)
        .config(config)
        .run()
}

#[test]
fn the_result_is_prev_result_in_every_version() {
    let lab = Lab::new();
    let container = lab.host.container("c1");
    let netns = container.path().to_str().unwrap();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let mut previous = json!({
            "cniVersion": version,
            "interfaces": [{ "name": "eth0", "sandbox": netns, "org.example": 1 }],
            "ips": [{ "address": "10.1.0.2/24", "interface": 0, "gateway": "10.1.0.1" }],
            "org.example/top": [true]
        });
        if version < "1.0.0" {
            previous["ips"][0]["version"] = "4".into();
            previous["dns"] = json!({});
        }
        let mut config = config(&json!({ "prevResult": previous }));
        config["cniVersion"] = version.into();
        assert_eq!(call("ADD", "c1", netns, &config).success(), previous, "{version}");
        assert_eq!(call("ADD", "c1", netns, &config).success(), previous, "{version}, again");
        assert_eq!(nft_text().matches("10.1.0.2").count(), 1);
        call("DEL", "c1", netns, &config).success();
        assert_eq!(nft_text(), "");
    }
}

#[test]
fn what_is_wrong_is_said_before_anything_is_changed() {
    let lab = Lab::new();
    let container = lab.host.container("c1");
    let netns = container.path().to_str().unwrap();
    let previous = json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.1.0.2/24" }] });
    let before = Snapshot::take();
    for (keys, words) in [
        (json!({}), "Required prevResult missing"),
        (json!({ "prevResult": previous, "backend": "nftable" }), "unknown firewall backend \"nftable\""),
        (json!({ "prevResult": previous, "ingressPolicy": "closed" }), "unknown ingress policy: \"closed\""),
        (json!({ "prevResult": previous, "iptablesAdminChainName": "a b" }), "iptablesAdminChainName"),
    ] {
        for verb in ["ADD", "CHECK"] {
            let error = call(verb, "c1", netns, &config(&keys)).error();
            assert_eq!(error["code"], 7, "{error}");
            assert!(error["msg"].as_str().unwrap().contains(words), "{error}\n  lacks: {words}");
        }
    }
    before.assert_same(&Snapshot::take());
}

fn del_needs_nothing_and_leaves_nothing(backend: &str) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend, "ingressPolicy": "same-bridge" }));
    let before = Snapshot::take();
    let one = lab.start(&net, "one");
    let broken = config(&json!({ "backend": "nonsense", "ingressPolicy": [], "prevResult": "x" }));
    assert_eq!(call("DEL", "one", "", &broken).success(), Value::Null);
    assert_eq!(call("DEL", "one", "", &broken).success(), Value::Null, "and again");
    net.del(&one.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    let ours = ["/var/lib/cni"];
    before.without(&ours).assert_same(&Snapshot::take().without(&ours));
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
fn del_finds_rules_without_a_record() {
    let lab = Lab::new();
    for backend in ["nftables", "iptables"] {
        let net = network(1, &json!({ "backend": backend }));
        let (one, two) = (lab.start(&net, "one"), lab.start(&net, "two"));
        fs::remove_dir_all("/run/ferrule/attachments/net1/firewall/one").unwrap();
        net.del(&one.attachment).unwrap_or_else(|failure| panic!("{failure}"));
        let (gone, kept) = (one.address(true).to_string(), two.address(true).to_string());
        let rules = nft_text();
        assert!(!rules.contains(&gone) && rules.contains(&kept), "{backend}: {gone} and {kept} in {rules}");
        net.del(&two.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

fn gc_removes_what_is_not_listed(backend: &str) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend }));
    let kept = lab.start(&net, "kept");
    let foreign = lab.start(&network(2, &json!({ "backend": backend })), "foreign");
    let stale = lab.start(&net, "stale");
    let (gone, kept, foreign) = (stale.address(true), kept.address(true), foreign.address(true));
    net.forget();
    drop(stale);
    net.gc(&[("kept", "eth0")]).unwrap();
    let rules = nft_text();
    let has = |address: std::net::IpAddr| {
        let (element, rule) = (format!("{address} comment"), format!("{address} "));
        rules.contains(&element) || rules.contains(&rule)
    };
    assert!(!has(gone) && has(kept) && has(foreign), "{rules}");
}

#[test]
fn gc_removes_what_is_not_listed_with_nftables() {
    gc_removes_what_is_not_listed("nftables");
}

#[test]
fn gc_removes_what_is_not_listed_with_iptables() {
    gc_removes_what_is_not_listed("iptables");
}

#[test]
fn check_sees_what_is_missing_and_changes_nothing() {
    let lab = Lab::new();
    for (backend, flush, missing) in [
        ("nftables", "flush set inet ferrule_forward forward4", "10.1.0."),
        ("iptables", "flush chain ip filter CNI-FORWARD", "CNI-FORWARD"),
    ] {
        let net = network(1, &json!({ "backend": backend }));
        let one = lab.start(&net, "one");
        net.check(&one.attachment).unwrap_or_else(|failure| panic!("{failure}"));
        tool("nft", &flush.split(' ').collect::<Vec<_>>());
        let before = nft_text();
        let failure = net.check(&one.attachment).unwrap_err();
        assert_eq!((failure.plugin.as_str(), failure.code()), ("firewall", 102), "{failure}");
        assert!(failure.text().contains(missing), "{failure}");
        assert_eq!(nft_text(), before);
        net.del(&one.attachment).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn the_admins_chain_is_asked_first() {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": "iptables", "iptablesAdminChainName": "OPERATORS" }));
    let one = lab.start(&net, "one");
    assert!(testkit::ping(&one.container, testkit::Uplink::OUTSIDE_IPV4));
    tool("iptables", &["-A", "OPERATORS", "-j", "DROP"]);
    assert!(!testkit::ping(&one.container, testkit::Uplink::OUTSIDE_IPV4));
    net.check(&one.attachment).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn status_says_what_add_would_lack() {
    let _lab = Lab::new();
    let status = |keys: Value, path: &str| {
        Plugin::new("firewall")
            .verb("STATUS")
            .path(&[plugin_dir()])
            .env("PATH", path)
            .config(&config(&keys))
            .run()
    };
    for backend in ["", "nftables", "iptables"] {
        status(json!({ "backend": backend }), SERVICE_PATH).success();
    }
    assert_eq!(status(json!({ "backend": "nope" }), SERVICE_PATH).error()["code"], 7);
    let error = status(json!({ "backend": "firewalld" }), SERVICE_PATH).error();
    assert_eq!(error["code"], 50, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("firewalld"), "{error}");
}
