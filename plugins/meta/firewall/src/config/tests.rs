use cni::SpecVersion;
use serde_json::{Value, json};

use super::*;

fn load(keys: &Value) -> Result<Config, Failure> {
    let mut object = json!({ "cniVersion": "1.1.0", "name": "net", "type": "firewall" });
    object.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    Config::load(&cni::Config::read(object.to_string().into_bytes(), SpecVersion::ALL).unwrap())
}

#[test]
fn nothing_has_to_be_configured() {
    let wanted =
        Config { backend: None, admin_chain: "CNI-ADMIN".into(), zone: "trusted".into(), isolation: None };
    assert_eq!(load(&json!({})).unwrap(), wanted);
    let empty =
        json!({ "backend": "", "iptablesAdminChainName": "", "firewalldZone": "", "ingressPolicy": "open" });
    assert_eq!(load(&empty).unwrap(), wanted);
}

#[test]
fn every_key_is_read() {
    let config = load(&json!({
        "Backend": "iptables", "iptablesAdminChainName": "OPS", "firewalldZone": "internal", "ingressPolicy": "same-bridge"
    }));
    let wanted = Config {
        backend: Some(Backend::Iptables),
        admin_chain: "OPS".into(),
        zone: "internal".into(),
        isolation: Some(IsolationPolicy::SameBridge),
    };
    assert_eq!(config.unwrap(), wanted);
    for backend in [Backend::Nftables, Backend::Iptables, Backend::Firewalld] {
        assert_eq!(load(&json!({ "backend": backend.as_str() })).unwrap().backend, Some(backend));
    }
    let isolated = load(&json!({ "ingressPolicy": "isolated" })).unwrap();
    assert_eq!(isolated.isolation, Some(IsolationPolicy::Isolated));
}

#[test]
fn what_is_misspelt_is_refused() {
    for (keys, words) in [
        (json!({ "backend": "firewald" }), "backend: unknown firewall backend \"firewald\""),
        (json!({ "backend": "Iptables" }), "backend: unknown firewall backend \"Iptables\""),
        (json!({ "ingressPolicy": "isolate" }), "ingressPolicy: unknown ingress policy: \"isolate\""),
        (json!({ "iptablesAdminChainName": "-j DROP" }), "iptablesAdminChainName"),
        (json!({ "iptablesAdminChainName": "X".repeat(29) }), "iptablesAdminChainName"),
        (json!({ "backend": 1 }), "backend: expected a string"),
    ] {
        let failure = load(&keys).unwrap_err();
        assert_eq!(failure.code(), Code::InvalidConfig);
        assert!(failure.message().contains(words), "{failure}\n  lacks: {words}");
    }
}
