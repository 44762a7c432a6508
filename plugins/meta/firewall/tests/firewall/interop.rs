//! Next to the Go suite on one host.

use serde_json::{Value, json};
use testkit::{Output, Plugin, Snapshot, plugin_dir, reference_dir};

use crate::lab::Lab;

fn config(keys: &Value) -> Value {
    let mut config = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "firewall", "backend": "iptables",
        "prevResult": {
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "br1" }, { "name": "eth0", "sandbox": "/run/netns/c1" }],
            "ips": [{ "address": "10.1.0.2/24", "interface": 1 }, { "address": "fd00:1::2/64", "interface": 1 }]
        }
    });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    config
}

fn call(plugin: &Plugin, verb: &str, config: &Value) -> Output {
    plugin
        .verb(verb)
        .attachment("c1", "/run/netns/c1", "eth0")
        .path(&[plugin_dir()])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .config(config)
        .run()
}

#[test]
fn each_suite_checks_and_removes_what_the_other_made() {
    let Some(reference) = reference_dir(&["firewall"]) else {
        testkit::skip!("the Go suite is not installed (package containernetworking-plugins)");
    };
    let lab = Lab::new();
    let _container = lab.host.container("c1");
    testkit::tool("ip", &["link", "add", "br1", "type", "bridge"]);
    let (ours, theirs) = (Plugin::new("firewall"), Plugin::at(reference.join("firewall")));
    // Chains and jumps stay in the Go suite; made once, they don't count.
    call(&theirs, "ADD", &config(&json!({}))).success();
    call(&theirs, "DEL", &config(&json!({}))).success();
    let before = Snapshot::take();
    for keys in [json!({}), json!({ "iptablesAdminChainName": "OPERATORS" })] {
        let config = config(&keys);
        call(&theirs, "ADD", &config).success();
        call(&ours, "CHECK", &config).success();
        call(&ours, "DEL", &config).success();
        let rules = rules();
        assert!(!rules.contains("10.1.0.2") && !rules.contains("fd00:1::2"), "{rules}");

        call(&ours, "ADD", &config).success();
        call(&theirs, "CHECK", &config).success();
        call(&theirs, "DEL", &config).success();
        assert_ne!(call(&ours, "CHECK", &config).code, Some(0));
        call(&ours, "DEL", &config).success();
    }
    let shared = ["CNI-ADMIN", "CNI-FORWARD", "OPERATORS", "nftables: "];
    before.without(&shared).assert_same(&Snapshot::take().without(&shared));
}

fn rules() -> String {
    ["iptables-save", "ip6tables-save"].map(|program| testkit::tool::<&str>(program, &[])).concat()
}
