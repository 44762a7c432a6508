use cni::SpecVersion;
use ferrule_core::firewall::IsolationPolicy;
use serde_json::{Value, json};

use super::*;

fn config(isolation: Option<IsolationPolicy>) -> Config {
    Config { backend: None, admin_chain: "CNI-ADMIN".into(), zone: "trusted".into(), isolation }
}

fn planned(isolation: Option<IsolationPolicy>, forward: &[Backend], isolate: Backend) -> Value {
    let bridge = BridgeEnd { name: "cni0".parse().unwrap(), ports: vec!["veth0".parse().unwrap()] };
    let addresses = ["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    let backends = Backends { forward: forward.to_vec(), isolate };
    serde_json::to_value(plan(&config(isolation), &backends, &addresses, Some(&bridge))).unwrap()
}

#[test]
fn every_address_of_the_result_counts_once() {
    let result = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "cni0" }, { "name": "eth0", "sandbox": "/run/netns/c" }, { "name": "veth0" }],
        "ips": [{ "address": "10.1.0.2/24", "interface": 1 }, { "address": "fd00::2/64" }, { "address": "10.1.0.2/16" }]
    });
    let result = AddResult::read(&result, SpecVersion::V1_0_0).unwrap();
    let found: Vec<String> = addresses(&result).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["10.1.0.2", "fd00::2"]);
    assert_eq!(host_interfaces(&result).collect::<Vec<_>>(), ["cni0", "veth0"]);
}

#[test]
fn forwarding_is_one_transaction() {
    let entry = |address: &str| json!({ "kind": "forward", "address": address, "adminChain": "CNI-ADMIN", "zone": "trusted" });
    assert_eq!(
        planned(None, &[Backend::Nftables], Backend::Nftables),
        json!([{ "resource": "rules", "backend": "nftables", "entries": [entry("10.1.0.2"), entry("fd00::2")] }])
    );
}

#[test]
fn a_bridge_is_isolated_before_anything_is_let_through() {
    let plan = planned(Some(IsolationPolicy::Isolated), &[Backend::Iptables], Backend::Iptables);
    assert_eq!(plan.as_array().unwrap().len(), 1);
    assert_eq!(
        plan[0]["entries"][0],
        json!({ "kind": "isolate", "bridge": "cni0", "policy": "isolated", "ports": ["veth0"] })
    );
    assert_eq!(plan[0]["entries"].as_array().unwrap().len(), 3);
}

#[test]
fn firewalld_leaves_isolation_to_another_backend() {
    let plan = planned(Some(IsolationPolicy::SameBridge), &[Backend::Firewalld], Backend::Nftables);
    assert_eq!(plan[0]["backend"], "nftables");
    assert_eq!(plan[0]["entries"].as_array().unwrap().len(), 1);
    assert_eq!(plan[1]["backend"], "firewalld");
    assert_eq!(plan[1]["entries"].as_array().unwrap().len(), 2);
}

#[test]
fn without_addresses_and_isolation_there_is_nothing_to_make() {
    let backends = Backends { forward: vec![Backend::Nftables], isolate: Backend::Nftables };
    assert!(plan(&config(None), &backends, &[], None).is_empty());
}

#[test]
fn packets_are_accepted_wherever_somebody_would_drop_them() {
    let plan = planned(None, &[Backend::Firewalld, Backend::Iptables], Backend::Iptables);
    let backends: Vec<&Value> = plan.as_array().unwrap().iter().map(|rules| &rules["backend"]).collect();
    assert_eq!(backends, ["firewalld", "iptables"]);
    assert!(plan.as_array().unwrap().iter().all(|rules| rules["entries"].as_array().unwrap().len() == 2));
}
