//! What is refused, and that nothing is changed then.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use testkit::{Attachment, Container, Host, Plugin, Runtime, plugin_dir};

use crate::support::*;

/// ADD with these keys must fail and leave host and container as they are. Returns code, and message with details.
#[track_caller]
fn refused(container: &Container, keys: Value) -> (u64, String) {
    let before = state();
    let inside = links(container);
    let failure = failure(net(keys).add(&eth0(container)));
    before.assert_same(&state());
    assert_eq!(links(container), inside);
    (failure.code(), failure.text())
}

#[track_caller]
fn assert_refused(container: &Container, keys: Value, code: u64, text: &str) {
    let (found, message) = refused(container, keys.clone());
    assert_eq!(found, code, "{keys}: {message}");
    assert!(message.contains(text), "{keys}: {message}");
}

#[test]
fn a_configuration_that_is_not_valid_changes_nothing() {
    let host = Host::new();
    let container = host.container("c1");
    for (keys, text) in [
        (json!({ "vlan": 5000 }), "invalid VLAN ID 5000 (must be between 0 and 4094)"),
        (json!({ "vlan": -100 }), "invalid VLAN ID -100 (must be between 0 and 4094)"),
        (json!({ "hairpinMode": true, "promiscMode": true }), "cannot set hairpin mode and promiscuous mode"),
        (
            json!({ "disableContainerInterface": true, "ipam": v4() }),
            "cannot use IPAM when DisableContainerInterface",
        ),
        (json!({ "ipMasq": true, "ipMasqBackend": "nope", "ipam": v4() }), "unknown ipmasq backend \"nope\""),
        (json!({ "mtu": "big" }), "mtu"),
        (json!({ "bridge": "a-name-that-is-too-long" }), "a-name-that-is-too-long"),
        (json!({ "args": { "cni": { "mac": "zz" } } }), "args.cni.mac: `zz` is not a MAC address"),
        (json!({ "ipam": { "type": "../host-local" } }), "../host-local"),
    ] {
        assert_refused(&container, keys, 7, text);
    }
}

/// The kernel finds a link by it, but not its sysctls, and one bridge must not have two registers.
#[test]
fn an_alternative_name_of_a_bridge_is_no_name_for_it() {
    let host = Host::new();
    let container = host.container("c1");
    ip(host.netns(), "link add real type bridge");
    ip(host.netns(), "link property add dev real altname cni0");
    assert_refused(
        &container,
        json!({ "isGateway": true, "ipam": v4() }),
        103,
        "cni0 is an alternative name of the link real: use that",
    );
    let failed = failure(net(json!({})).status());
    assert_eq!(failed.code(), 50, "{}", failed.text());
}

#[test]
fn a_name_that_another_kind_of_link_has_is_not_taken() {
    let host = Host::new();
    let container = host.container("c1");
    ip(host.netns(), "link add cni0 type veth peer name other");
    assert_refused(
        &container,
        json!({ "isGateway": true, "ipam": v4() }),
        103,
        "link cni0 exists but is a veth, not a bridge",
    );
    assert_refused(
        &container,
        json!({ "bridge": "lo" }),
        103,
        "link lo exists but is a plain device, not a bridge",
    );
}

#[test]
fn an_interface_that_is_there_is_left_alone() {
    let host = Host::new();
    let container = host.container("c1");
    ip(&container, "link add eth0 address 02:00:00:00:00:07 type bridge");
    ip(&container, "addr add 10.9.0.1/24 dev eth0");
    assert_refused(
        &container,
        json!({ "isGateway": true, "ipam": v4() }),
        103,
        "interface eth0 in the container exists already",
    );
    assert_eq!(link(&container, "eth0")["address"], "02:00:00:00:00:07");
    assert_eq!(addresses(&container, "eth0", false), ["10.9.0.1/24"]);
}

#[test]
fn a_second_add_is_refused_and_the_first_goes_on_working() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = net(json!({ "isGateway": true, "ipMasq": true, "macspoofchk": true, "ipam": v4() }));
    chain.add(&eth0(&container)).unwrap();
    let before = state();
    assert_eq!(
        refusal(chain.add(&eth0(&container))),
        (103, "interface eth0 in the container exists already".to_owned())
    );
    before.assert_same(&state());
    chain.check(&eth0(&container)).unwrap();
}

#[test]
fn the_interface_of_another_network_survives_the_del_after_a_failed_add() {
    let host = Host::new();
    let container = host.container("c1");
    let network = |name: &str, subnet: &str| {
        net_of(
            "1.1.0",
            name,
            json!({ "bridge": format!("br-{name}"), "isGateway": true, "ipam": host_local(&[subnet]) }),
        )
    };
    let (red, blue) = (network("red", "10.1.0.0/24"), network("blue", "10.2.0.0/24"));
    red.add(&eth0(&container)).unwrap();
    let before = state();
    assert_eq!(refusal(blue.add(&eth0(&container))).0, 103);
    blue.del(&eth0(&container)).unwrap();
    before.assert_same(&state());
    red.check(&eth0(&container)).unwrap();
}

#[test]
fn an_ipam_plugin_that_fails_takes_everything_back() {
    let host = Host::new();
    let container = host.container("c1");
    let everything =
        |ipam: Value| json!({ "isGateway": true, "ipMasq": true, "macspoofchk": true, "ipam": ipam });

    assert_refused(
        &container,
        everything(json!({ "type": "nowhere" })),
        105,
        "\"nowhere\" was not found in CNI_PATH",
    );

    stub(
        "failing",
        r#"echo '{"cniVersion":"1.1.0","code":123,"msg":"no addresses today","details":"ask tomorrow"}'; exit 1"#,
    );
    assert_refused(
        &container,
        everything(json!({ "type": "failing" })),
        123,
        "no addresses today ask tomorrow",
    );
    assert_eq!(verbs("failing")[..2], ["ADD", "DEL"], "its own DEL, too");

    stub("garbage", "echo 'Hello, world'");
    assert_refused(
        &container,
        everything(json!({ "type": "garbage" })),
        105,
        "\"garbage\" did not answer with a JSON document",
    );

    stub("crashing", "kill -SEGV $$");
    assert_refused(
        &container,
        everything(json!({ "type": "crashing" })),
        105,
        "\"crashing\" failed without an error document",
    );

    assert_refused(&container, everything(fixed(json!({}))), 7, "IPAM plugin returned missing IP config");
    assert!(verbs("stub").contains(&"DEL".to_owned()), "the lease is given back");
}

#[test]
fn an_ipam_plugin_that_cannot_be_executed_takes_everything_back() {
    let host = Host::new();
    let container = host.container("c1");
    stub("text", "");
    std::fs::set_permissions("/run/stubs/text", std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_refused(
        &container,
        json!({ "isGateway": true, "ipam": { "type": "text" } }),
        105,
        "\"text\" can't be run",
    );
}

#[test]
fn an_ipam_plugin_that_hangs_is_not_waited_for_for_ever() {
    let host = Host::new();
    let container = host.container("c1");
    stub("hanging", "exec sleep 600");
    let before = state();
    let chain = Runtime::with_directories([plugin_dir(), "/run/stubs".into()])
        .env("CNI_DELEGATE_TIMEOUT", "0.3")
        .chain(&list_of("1.1.0", "net", json!({ "isGateway": true, "ipam": { "type": "hanging" } })));
    let failure = failure(chain.add(&eth0(&container)));
    assert_eq!(failure.code(), 11);
    assert!(failure.text().contains("\"hanging\" did not answer in time"), "{}", failure.text());
    before.assert_same(&state());
    assert_eq!(links(&container), ["lo"]);
}

#[test]
fn a_failure_after_ipam_gives_the_address_back() {
    let host = Host::new();
    let container = host.container("c1");
    let unreachable = json!({
        "type": "host-local", "ranges": [[{ "subnet": SUBNET_4 }]], "routes": [{ "dst": "10.0.0.0/8", "gw": "172.31.0.1" }]
    });
    let (code, text) = refused(&container, json!({ "isGateway": true, "ipMasq": true, "ipam": unreachable }));
    assert_eq!(code, 100, "{text}");
    assert!(
        text.contains("can't add route 10.0.0.0/8 via 172.31.0.1 through eth0") && text.contains("kernel:"),
        "{text}"
    );
}

#[test]
fn a_broken_firewall_takes_everything_back() {
    let host = Host::new();
    let container = host.container("c1");
    let before = state();
    // A table of our name in which nothing of ours can be made.
    let ruleset = "table inet ferrule_masquerade {\n set masquerade4 {\n type inet_service\n }\n}\n";
    std::fs::write("/run/ruleset", ruleset).unwrap();
    assert_eq!(host.netns().run("nft", &["-f", "/run/ruleset"]).code, 0);
    let keys = json!({ "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "macspoofchk": true, "ipam": v4() });
    let failure = failure(net(keys).add(&eth0(&container)));
    assert!(failure.text().contains("ferrule_masquerade"), "{}", failure.text());
    before.assert_same(&state());
}

#[test]
fn a_retry_after_a_failure_just_works() {
    let host = Host::new();
    let container = host.container("c1");
    let keys = json!({ "isGateway": true, "ipMasq": true, "ipam": { "type": "late" } });
    refused(&container, keys.clone());
    stub("late", r#"echo '{"cniVersion":"1.1.0","ips":[{"address":"10.77.0.5/24"}]}'"#);
    let chain = net(keys);
    chain.add(&eth0(&container)).unwrap();
    chain.check(&eth0(&container)).unwrap();
}

#[test]
fn a_namespace_that_is_none_or_our_own_is_refused() {
    let host = Host::new();
    let container = host.container("c1");
    let before = state();
    let chain = net(json!({ "isGateway": true, "ipam": v4() }));
    std::fs::write("/run/plain", "").unwrap();
    let own = format!("/proc/{}/ns/net", std::process::id());
    for (path, text) in [
        ("/run/nothing", "there is nothing at this path"),
        ("/run/plain", "it is a plain file, not a network namespace"),
        (own.as_str(), "plugin's netns and netns from CNI_NETNS should not be the same"),
        ("/proc/self/ns/mnt", "not a network namespace"),
    ] {
        let (code, message) = refusal(chain.add(&eth0(&container).netns(path)));
        assert_eq!(code, 4, "{message}");
        assert!(message.contains(text), "{path}: {message}");
    }
    before.assert_same(&state());
}

#[test]
fn check_needs_the_result_of_add() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = net(json!({ "ipam": v4() }));
    chain.add(&eth0(&container)).unwrap();
    chain.forget();
    assert_eq!(refusal(chain.check(&eth0(&container))), (7, "Required prevResult missing".to_owned()));
}

#[test]
fn without_the_capabilities_nothing_is_tried() {
    let host = Host::new();
    let container = host.container("c1");
    let before = state();
    let chain = net(json!({ "isGateway": true, "ipam": v4() }));
    let attachment: Attachment = eth0(&container);
    let stdin = chain.stdin(0, &attachment, None).to_string();
    std::fs::write("/run/config", stdin).unwrap();
    let plugin = plugin_dir().join("bridge");
    let script = format!(
        "CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_IFNAME=eth0 CNI_NETNS=/run/netns/c1 CNI_PATH={} \
         setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all -- {} < /run/config",
        plugin_dir().display(),
        plugin.display()
    );
    let ran = host.netns().run("sh", &["-c", &script]);
    let error: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &error["code"]), (1, &json!(106)), "{error}");
    assert!(error["details"].as_str().unwrap().contains("CAP_"), "{error}");
    before.assert_same(&state());
    let _ = Plugin::new("bridge");
}
