//! GC and STATUS.

use serde_json::{Value, json};
use testkit::{Attachment, Chain, Container, Host, Plugin, Runtime, plugin_dir};

use crate::support::*;

fn network(name: &str) -> Chain {
    let ipam = host_local(&[if name == "net" { SUBNET_4 } else { "10.78.0.0/24" }]);
    let keys = json!({
        "bridge": format!("br-{name}"), "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "macspoofchk": true,
        "ipam": ipam
    });
    net_of("1.1.0", name, keys)
}

fn eth1(container: &Container) -> Attachment {
    Attachment::new(container.name(), container, "eth1")
}

/// Runs GC with these keys in the configuration, as no runtime but a test would write them.
fn gc_with(chain: &Chain, attachment: &Attachment, keys: Value) -> testkit::Output {
    let mut config = chain.stdin(0, attachment, None);
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    Plugin::new("bridge").verb("GC").path(&[plugin_dir()]).config(&config).run()
}

#[test]
fn gc_removes_what_is_not_listed_and_nothing_else() {
    let host = Host::new();
    let (kept, dropped) = (host.container("kept"), host.container("dropped"));
    let chain = network("net");
    chain.add(&eth0(&kept)).unwrap();
    let before = state();
    // The same container under another name, another container, and one whose namespace is gone.
    chain.add(&eth1(&kept)).unwrap();
    chain.add(&eth0(&dropped)).unwrap();
    let vanished = host.container("vanished");
    chain.add(&eth0(&vanished)).unwrap();
    vanished.destroy();
    chain.forget();
    chain.gc(&[("kept", "eth0"), ("unknown", "eth0")]).unwrap();
    before.assert_same(&state());
    assert_eq!(links(&dropped), ["lo"]);
    assert_eq!(links(&kept), ["eth0", "lo"]);
    chain.gc(&[("kept", "eth0")]).unwrap();
    before.assert_same(&state());
}

#[test]
fn gc_makes_firewall_entries_again_that_somebody_else_took() {
    let host = Host::new();
    let before = state();
    let (one, two) = (host.container("c1"), host.container("c2"));
    let chain = network("net");
    chain.add(&eth0(&one)).unwrap();
    chain.add(&eth0(&two)).unwrap();
    let well = state();
    testkit::tool("nft", &["flush", "ruleset"]);
    chain.check(&eth0(&one)).unwrap_err();
    // Of what is not listed, nothing is made again.
    chain.gc(&[("c1", "eth0"), ("c2", "eth0")]).unwrap();
    well.assert_same(&state());
    chain.check(&eth0(&one)).unwrap();
    chain.check(&eth0(&two)).unwrap();
    testkit::tool("nft", &["flush", "ruleset"]);
    chain.gc(&[]).unwrap();
    chain.forget();
    drop((one, two));
    before.assert_same(&state());
}

#[test]
fn gc_leaves_other_networks_alone_even_on_the_same_bridge() {
    let host = Host::new();
    let (one, two) = (host.container("c1"), host.container("c2"));
    let on_shared = |name: &str, subnet: &str| {
        let keys = json!({
            "bridge": "shared0", "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "macspoofchk": true,
            "ipam": host_local(&[subnet])
        });
        net_of("1.1.0", name, keys)
    };
    // The name of one is the beginning of the other's.
    let (red, redder) = (on_shared("red", "fd00:1::/64"), on_shared("red.1", "fd00:2::/64"));
    redder.add(&eth0(&two)).unwrap();
    let before = state();
    red.add(&eth0(&one)).unwrap();
    red.forget();
    red.gc(&[]).unwrap();
    before.assert_same(&state());
    redder.check(&eth0(&two)).unwrap();
}

#[test]
fn gc_takes_null_for_nothing_is_valid_and_absent_for_nothing_is_known() {
    let host = Host::new();
    let before = state();
    let container = host.container("c1");
    let chain = network("net");
    for (keys, removes) in [
        (json!({}), false),
        (json!({ "cni.dev/valid-attachments": [{ "containerID": "c1", "ifname": "eth0" }] }), false),
        (json!({ "cni.dev/attachments": [{ "containerID": "c1", "ifname": "eth0" }] }), false),
        (json!({ "cni.dev/valid-attachments": [] }), true),
        (json!({ "cni.dev/valid-attachments": null }), true),
        (json!({ "cni.dev/valid-attachments": [{ "containerID": "c1", "ifname": "eth1" }] }), true),
        (json!({ "cni.dev/attachments": null }), true),
    ] {
        chain.add(&eth0(&container)).unwrap();
        let attached = state();
        let output = gc_with(&chain, &eth0(&container), keys.clone());
        assert!(output.succeeded() && output.stdout.is_empty(), "{keys}: {}", output.describe());
        if removes {
            assert_eq!(links(&container), ["lo"], "{keys}");
        } else {
            attached.assert_same(&state());
        }
        chain.del(&eth0(&container)).unwrap();
    }
    let output = gc_with(&chain, &eth0(&container), json!({ "cni.dev/valid-attachments": "c1" }));
    assert_eq!(output.error()["code"], 7);
    drop(container);
    before.assert_same(&state());
}

#[test]
fn gc_finds_what_has_lost_its_record() {
    let host = Host::new();
    let before = state();
    let container = host.container("c1");
    for lost in ["/run/ferrule/attachments", "/run/ferrule"] {
        let chain = network("net");
        chain.add(&eth0(&container)).unwrap();
        std::fs::remove_dir_all(lost).unwrap();
        chain.forget();
        chain.gc(&[]).unwrap();
        assert_eq!(links(&container), ["lo"], "without {lost}");
        if lost == "/run/ferrule" {
            testkit::set_sysctl("net.ipv4.ip_forward", "0");
        }
    }
    drop(container);
    before.assert_same(&state());
}

#[test]
fn gc_of_an_attachment_with_a_long_name() {
    let host = Host::new();
    let before = state();
    let container = host.container("c1");
    let chain = network("net");
    let long = "c".repeat(200);
    chain.add(&Attachment::new(&long, &container, "eth0")).unwrap();
    std::fs::remove_dir_all("/run/ferrule/attachments").unwrap();
    let attached = state();
    chain.forget();
    chain.gc(&[(&long, "eth0")]).unwrap();
    attached.assert_same(&state());
    chain.gc(&[]).unwrap();
    drop(container);
    before.assert_same(&state());
}

#[test]
fn gc_asks_the_ipam_plugin_and_passes_its_failure_on() {
    let host = Host::new();
    let container = host.container("c1");
    let ipam = fixed(json!({ "ips": [{ "address": "10.77.0.5/24" }] }));
    let chain = net(json!({ "isGateway": true, "ipam": ipam }));
    chain.add(&eth0(&container)).unwrap();
    chain.forget();
    chain.gc(&[]).unwrap();
    assert_eq!(verbs("stub"), ["ADD", "DEL", "GC"]);
    assert_eq!(links(&container), ["lo"]);

    chain.add(&eth0(&container)).unwrap();
    chain.forget();
    std::fs::write(
        "/run/stubs/stub",
        "#!/bin/sh\necho '{\"cniVersion\":\"1.1.0\",\"code\":77,\"msg\":\"no\"}'\nexit 1\n",
    )
    .unwrap();
    let failures = chain.gc(&[]).unwrap_err();
    assert_eq!(failures[0].code(), 77);
    assert_eq!(links(&container), ["lo"], "what could be removed is");
}

#[test]
fn status_is_ready_on_a_host_that_can_serve() {
    let host = Host::new();
    let before = state();
    network("net").status().unwrap();
    net(json!({})).status().unwrap();
    before.assert_same(&state());
    ip(host.netns(), "link add br-net type bridge");
    network("net").status().unwrap();
}

#[test]
fn status_names_what_add_would_stumble_over() {
    let host = Host::new();
    ip(host.netns(), "link add br-net type veth peer name other");
    let failed = failure(network("net").status());
    assert_eq!((failed.code(), failed.text().contains("link br-net exists but is not a bridge")), (50, true));

    assert_eq!(refusal(net(json!({ "vlan": 5000 })).status()).0, 7);
    assert_eq!(refusal(net(json!({ "ipam": { "type": "nowhere" } })).status()).0, 105);

    stub("empty", "");
    std::fs::write(
        "/run/stubs/empty",
        "#!/bin/sh\necho '{\"cniVersion\":\"1.1.0\",\"code\":50,\"msg\":\"no address left\"}'\nexit 1\n",
    )
    .unwrap();
    assert_eq!(
        refusal(net(json!({ "ipam": { "type": "empty" } })).status()),
        (50, "no address left".to_owned())
    );
}

#[test]
fn status_is_unready_once_the_range_is_exhausted_and_ready_again_after_a_del() {
    let host = Host::new();
    let chain = net(json!({ "isGateway": true, "ipam": host_local(&["10.77.0.0/30"]) }));
    let container = host.container("c1");
    chain.status().unwrap();
    chain.add(&eth0(&container)).unwrap();
    assert_eq!(refusal(chain.status()).0, 50);
    chain.del(&eth0(&container)).unwrap();
    chain.status().unwrap();
}

#[test]
fn status_needs_no_plugin_path_without_ipam() {
    let _host = Host::new();
    let config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "bridge" });
    let output = Plugin::new("bridge").verb("STATUS").config(&config).run();
    assert!(output.succeeded(), "{}", output.describe());
    let _ = Runtime::new();
}
