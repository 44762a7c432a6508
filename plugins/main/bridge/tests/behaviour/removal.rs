//! DEL: whatever has happened meanwhile, nothing is left, and nothing of anybody else's is touched.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::{
    Chain, Container, Host, Runtime, Snapshot, failing, may_trace, plugin_dir, set_sysctl, skip, sysctl,
};

use crate::support::*;

/// A network with everything that leaves traces on the host.
fn everything() -> Value {
    json!({
        "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "macspoofchk": true, "ipam": dual()
    })
}

/// A host, its state before, and a container with everything.
fn attached() -> (Host, Snapshot, Container, Chain) {
    let host = Host::new();
    let before = state();
    let container = host.container("c1");
    let chain = net(everything());
    chain.add(&eth0(&container)).unwrap();
    (host, before, container, chain)
}

/// The record of the attachment of `c1`.
fn record() -> PathBuf {
    "/run/ferrule/attachments/net/bridge/c1/eth0".into()
}

#[test]
fn del_can_be_repeated() {
    let (_host, before, container, chain) = attached();
    for _ in 0..3 {
        chain.del(&eth0(&container)).unwrap();
        assert_eq!(links(&container), ["lo"]);
    }
    drop(container);
    before.assert_same(&state());
}

/// Nobody else may be given it before.
#[test]
fn an_address_is_leased_as_long_as_the_container_has_it() {
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let (_host, before, container, chain) = attached();
    chain.del(&eth0(&container)).unwrap();
    let (mut failed, mut kept) = (0, 0);
    for answer in 1..40 {
        chain.add(&eth0(&container)).unwrap();
        let injected = format!("inject=recvfrom:error=ENOBUFS:when={answer}");
        failing("bridge", &["-e", &injected]);
        let directories = [PathBuf::from("/run/failing"), plugin_dir()];
        if Runtime::with_directories(directories)
            .chain(&list_of("1.1.0", "net", everything()))
            .del(&eth0(&container))
            .is_err()
        {
            failed += 1;
            let store = Path::new("/var/lib/cni/networks/net");
            let leased = store
                .read_dir()
                .unwrap()
                .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("10."));
            if links(&container).iter().any(|link| link == "eth0") {
                assert!(leased, "answer {answer}: the link is there, and the lease is not");
                kept += 1;
            }
        }
        fs::remove_dir_all("/run/failing").unwrap();
        chain.del(&eth0(&container)).unwrap();
        assert_eq!(links(&container), ["lo"], "answer {answer}");
    }
    assert!(failed > 3 && kept > 0, "{failed} failed, {kept} of them with the link in place");
    drop(container);
    before.assert_same(&state());
}

#[test]
fn del_of_what_was_never_added_succeeds_and_touches_nothing() {
    let (host, _, container, chain) = attached();
    let stranger = host.container("stranger");
    let before = state();
    chain.del(&eth0(&stranger)).unwrap();
    chain.del(&testkit::Attachment::new("c1", &container, "eth1")).unwrap();
    before.assert_same(&state());
    chain.check(&eth0(&container)).unwrap();
}

#[test]
fn del_needs_no_namespace() {
    for how in ["empty", "gone", "plain file", "directory", "our own", "another container's"] {
        let (host, before, container, chain) = attached();
        let other = host.container("other");
        ip(&other, "link add eth0 type veth peer name eth9");
        let own = format!("/proc/{}/ns/net", std::process::id());
        fs::write("/run/plain", "").unwrap();
        let path = match how {
            "empty" => "",
            "gone" => "/run/netns/c1",
            "plain file" => "/run/plain",
            "directory" => "/run",
            "our own" => own.as_str(),
            _ => other.path().to_str().unwrap(),
        };
        if how == "gone" {
            container.destroy();
        } else {
            drop(container);
        }
        // A repeated Host::new() empties what was mounted; the namespaces stay.
        let attachment = testkit::Attachment::new("c1", &other, "eth0").netns(path);
        chain.del(&attachment).unwrap();
        assert_eq!(links(&other), ["eth0", "eth9", "lo"], "{how}");
        drop(other);
        before.assert_same(&state());
        chain.del(&attachment).unwrap();
    }
}

#[test]
fn del_after_somebody_deleted_the_link() {
    for end in ["container", "host"] {
        let (host, before, container, chain) = attached();
        if end == "container" {
            ip(&container, "link del eth0");
        } else {
            ip(host.netns(), &format!("link del {}", host_end_name(host.netns(), &container, "eth0")));
        }
        chain.del(&eth0(&container)).unwrap();
        drop(container);
        before.assert_same(&state());
    }
}

#[test]
fn del_after_somebody_renamed_the_hosts_end() {
    let (host, before, container, chain) = attached();
    let port = host_end_name(host.netns(), &container, "eth0");
    ip(host.netns(), &format!("link set {port} down"));
    ip(host.netns(), &format!("link set {port} name mine"));
    chain.del(&eth0(&container)).unwrap();
    assert_eq!(links(&container), ["lo"]);
    drop(container);
    before.assert_same(&state());
}

#[test]
fn del_after_somebody_flushed_the_firewall() {
    let (host, before, container, chain) = attached();
    assert_eq!(host.netns().run("nft", &["flush", "ruleset"]).code, 0);
    chain.del(&eth0(&container)).unwrap();
    drop(container);
    before.assert_same(&state());
}

#[test]
fn del_after_the_configuration_was_changed() {
    for keys in [
        json!({ "bridge": "other0", "ipam": v4() }),
        json!({ "ipam": dual() }),
        json!({ "vlan": 9999, "mtu": "huge", "ipam": dual() }),
        json!({}),
    ] {
        let (_host, before, container, chain) = attached();
        // With `ipam` changed or gone, the record still knows who gave the address.
        let changed = net(keys.clone());
        changed.del(&eth0(&container)).unwrap();
        assert_eq!(links(&container), ["lo"], "{keys}");
        drop((container, chain));
        before.assert_same(&state());
    }
}

#[test]
fn del_with_a_record_that_is_lost_empty_cut_short_or_garbage() {
    let damages: [(&str, fn()); 5] = [
        ("lost", || fs::remove_file(record()).unwrap()),
        ("empty", || fs::write(record(), "").unwrap()),
        ("garbage", || fs::write(record(), "\u{0}\u{1}\u{2}").unwrap()),
        ("cut after two lines", || {
            let text = fs::read_to_string(record()).unwrap();
            let kept: Vec<&str> = text.lines().take(3).collect();
            fs::write(record(), format!("{}\n{{\"resource\":", kept.join("\n"))).unwrap();
        }),
        ("of a later version", || {
            let text = fs::read_to_string(record()).unwrap();
            fs::write(record(), text.replacen("\"format\":1", "\"format\":2", 1)).unwrap();
        }),
    ];
    for (name, damage) in damages {
        let (_host, before, container, chain) = attached();
        damage();
        chain.del(&eth0(&container)).unwrap();
        assert_eq!(links(&container), ["lo"], "{name}");
        drop(container);
        before.assert_same(&state());
    }
}

#[test]
fn del_with_a_note_of_the_bridge_that_is_lost_empty_or_garbage() {
    let note = || {
        let mut registers = fs::read_dir("/run/ferrule/shared/bridge").unwrap();
        registers.next().unwrap().unwrap().path().join("note")
    };
    let damages: [(&str, &dyn Fn()); 3] = [
        ("lost", &|| fs::remove_file(note()).unwrap()),
        ("empty", &|| fs::write(note(), "").unwrap()),
        ("garbage", &|| fs::write(note(), "\u{0}\u{1}\n").unwrap()),
    ];
    for (name, damage) in damages {
        let (host, before, container, chain) = attached();
        damage();
        chain.del(&eth0(&container)).unwrap();
        assert_eq!(links(host.netns()), ["lo"], "{name}: the bridge bears a mark");
        drop(container);
        before.assert_same(&state());
    }
}

#[test]
fn del_with_a_lost_record_and_no_namespace() {
    let (_host, before, container, chain) = attached();
    fs::remove_file(record()).unwrap();
    chain.forget();
    chain.del(&eth0(&container).netns("")).unwrap();
    assert_eq!(links(&container), ["lo"], "the pair is found by its alias");
    drop(container);
    before.assert_same(&state());
}

#[test]
fn del_without_any_state_leaves_only_what_nobody_can_tell() {
    let (host, before, container, chain) = attached();
    fs::remove_dir_all("/run/ferrule").unwrap();
    chain.del(&eth0(&container)).unwrap();
    assert_eq!(links(&container), ["lo"]);
    assert_eq!(links(host.netns()), ["lo"], "the bridge bears a mark, and was empty");
    drop(container);
    // What forwarding was before is known to nobody any more.
    set_sysctl("net.ipv4.ip_forward", "0");
    set_sysctl("net.ipv6.conf.all.forwarding", "0");
    let forwarding = [".forwarding", "/forwarding"];
    before.without(&forwarding).assert_same(&state().without(&forwarding));
}

#[test]
fn others_on_the_bridge_survive_a_del_without_any_state() {
    let host = Host::new();
    let (one, two) = (host.container("c1"), host.container("c2"));
    let chain = net(everything());
    chain.add(&eth0(&one)).unwrap();
    chain.add(&eth0(&two)).unwrap();
    fs::remove_dir_all("/run/ferrule").unwrap();
    chain.del(&eth0(&one)).unwrap();
    assert_eq!(links(&one), ["lo"]);
    assert!(testkit::ping(&two, [10, 77, 0, 1]));
    chain.check(&eth0(&two)).unwrap();
    assert_eq!(sysctl("net.ipv4.ip_forward"), "1");
}

#[test]
fn del_goes_on_past_errors_and_reports_them() {
    let host = Host::new();
    let container = host.container("c1");
    let before = state();
    let ipam = fixed(json!({ "ips": [{ "address": "10.77.0.5/24" }] }));
    let chain = net(json!({ "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "ipam": ipam }));
    chain.add(&eth0(&container)).unwrap();
    fs::write(
        "/run/stubs/stub",
        "#!/bin/sh\necho '{\"cniVersion\":\"1.1.0\",\"code\":99,\"msg\":\"store on fire\"}'\nexit 1\n",
    )
    .unwrap();
    assert_eq!(refusal(chain.del(&eth0(&container))), (99, "store on fire".to_owned()));
    assert_eq!(links(&container), ["lo"], "everything else is gone");
    before
        .without(&["/run/ferrule/attachments/"])
        .assert_same(&state().without(&["/run/ferrule/attachments/"]));
    fixed(json!({}));
    chain.del(&eth0(&container)).unwrap();
    before.assert_same(&state());
}

#[test]
fn del_gives_the_address_back_when_nobody_has_it_any_more() {
    let host = Host::new();
    let container = host.container("c1");
    let result = r#"{"cniVersion":"1.1.0","ips":[{"address":"10.77.0.5/24"}]}"#;
    stub("watching", &format!("echo '{result}'"));
    // What the container still has when its address is given back.
    let script = fs::read_to_string("/run/stubs/watching").unwrap();
    let watch = script.replacen(
        "config=$(cat)",
        "config=$(cat); ls /sys/class/net > /run/stubs/links-$CNI_COMMAND",
        1,
    );
    fs::write("/run/stubs/watching", watch).unwrap();
    let chain = net(json!({ "ipam": { "type": "watching" } }));
    chain.add(&eth0(&container)).unwrap();
    chain.del(&eth0(&container)).unwrap();
    let links = |verb: &str| fs::read_to_string(format!("/run/stubs/links-{verb}")).unwrap();
    assert!(links("ADD").contains("veth"), "an IPAM plugin may need the interface");
    assert!(!links("DEL").contains("veth"));
}
