#![expect(clippy::needless_pass_by_value, reason = "what tests pass are literals")]

use cni::SpecVersion;
use serde_json::{Value, json};

use super::*;

fn config(keys: Value, mappings: Value) -> Config {
    let mut object = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "portmap", "runtimeConfig": { "portMappings": mappings }
    });
    object.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    Config::load(&cni::Config::read(object.to_string().into_bytes(), SpecVersion::ALL).unwrap()).unwrap()
}

fn previous(ips: Value) -> AddResult {
    let result = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            { "name": "cni0" }, { "name": "veth0" }, { "name": "eth0", "sandbox": "/run/netns/c" },
            { "name": "eth1", "sandbox": "/run/netns/c" }
        ],
        "ips": ips
    });
    AddResult::read(&result, SpecVersion::V1_1_0).unwrap()
}

fn eth0() -> LinkName {
    LinkName::new("eth0").unwrap()
}

fn planned(config: &Config, destinations: &[&str], towards: Option<&str>) -> Value {
    let destinations: Vec<Cidr> = destinations.iter().map(|text| text.parse().unwrap()).collect();
    let towards = towards.map(|name| LinkName::new(name).unwrap());
    let host = Surroundings { backend: Backend::Nftables, nftables: true, towards };
    serde_json::to_value(plan(config, &host, &destinations)).unwrap()
}

#[test]
fn ports_lead_to_the_first_address_of_each_family_of_the_interface() {
    let previous = previous(json!([
        { "address": "10.1.0.9/24", "interface": 3 },
        { "address": "10.1.0.1/24", "interface": 0 },
        { "address": "10.1.0.2/24", "interface": 2 },
        { "address": "10.1.0.3/24", "interface": 2 },
        { "address": "fd00::2/64" },
    ]));
    let found: Vec<String> = destinations(&previous, &eth0()).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["10.1.0.2/24", "fd00::2/64"]);
}

#[test]
fn a_port_is_one_transaction_and_then_local_routing() {
    let config = config(json!({}), json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]));
    assert_eq!(
        planned(&config, &["10.1.0.2/24", "fd00::2/64"], Some("cni0")),
        json!([
            { "resource": "rules", "backend": "nftables", "entries": [
                { "kind": "publish", "address": "10.1.0.2/24", "snat": true, "masqAll": false, "markBit": 13,
                  "mappings": [{ "protocol": "tcp", "hostPort": 8080, "containerPort": 80 }] },
                { "kind": "publish", "address": "fd00::2/64", "snat": true, "masqAll": false, "markBit": 13,
                  "mappings": [{ "protocol": "tcp", "hostPort": 8080, "containerPort": 80 }] },
                { "kind": "local-guard", "link": "cni0" },
            ] },
            { "resource": "local-routing", "link": "cni0" },
        ])
    );
}

#[test]
fn a_host_address_keeps_to_its_family() {
    let config = config(
        json!({ "conditionsV4": ["ip", "saddr", "192.0.2.0/24"], "masqAll": true }),
        json!([
            { "hostPort": 1, "containerPort": 1, "protocol": "tcp", "hostIP": "192.0.2.1" },
            { "hostPort": 2, "containerPort": 2, "protocol": "udp", "hostIP": "2001:db8::1" },
            { "hostPort": 3, "containerPort": 3, "protocol": "sctp", "hostIP": "0.0.0.0" },
        ]),
    );
    let plan = planned(&config, &["10.1.0.2/24", "fd00::2/64"], None);
    let entries = &plan[0]["entries"];
    assert_eq!(
        entries[0]["mappings"],
        json!([
            { "protocol": "tcp", "hostIp": "192.0.2.1", "hostPort": 1, "containerPort": 1 },
            { "protocol": "sctp", "hostPort": 3, "containerPort": 3 },
        ])
    );
    assert_eq!(entries[0]["conditions"], json!(["ip", "saddr", "192.0.2.0/24"]));
    assert_eq!(entries[0]["masqAll"], true);
    assert_eq!(
        entries[1]["mappings"],
        json!([{ "protocol": "udp", "hostIp": "2001:db8::1", "hostPort": 2, "containerPort": 2 }])
    );
    assert_eq!(entries[1].get("conditions"), None);
}

#[test]
fn what_two_mappings_say_is_said_once() {
    let config = config(
        json!({}),
        json!([{ "hostPort": 1, "containerPort": 1 }, { "hostPort": 1, "containerPort": 1, "hostIP": "0.0.0.0" }]),
    );
    let plan = planned(&config, &["10.1.0.2/24"], None);
    assert_eq!(plan[0]["entries"][0]["mappings"].as_array().unwrap().len(), 1);
}

#[test]
fn local_routing_is_for_ports_that_localhost_can_reach() {
    let plan = |keys: Value, host_ip: &str| {
        let mappings = json!([{ "hostPort": 1, "containerPort": 1, "hostIP": host_ip }]);
        planned(&config(keys, mappings), &["10.1.0.2/24", "fd00::2/64"], Some("cni0"))
    };
    let has = |plan: &Value| plan.as_array().unwrap().iter().any(|one| one["resource"] == "local-routing");
    for host_ip in ["", "0.0.0.0", "127.0.0.1", "127.9.9.9"] {
        assert!(has(&plan(json!({}), host_ip)), "{host_ip}");
    }
    for host_ip in ["192.0.2.1", "::", "2001:db8::1"] {
        let plan = plan(json!({}), host_ip);
        assert!(!has(&plan), "{host_ip}");
        assert!(!plan.to_string().contains("local-guard"), "{host_ip}");
    }
    assert!(!has(&plan(json!({ "snat": false }), "")), "without source NAT nobody could answer");
}

#[test]
fn without_source_nat_nothing_is_masqueraded() {
    let mappings = json!([{ "hostPort": 1, "containerPort": 1 }]);
    let plan = planned(&config(json!({ "snat": false, "masqAll": true }), mappings), &["10.1.0.2/24"], None);
    assert_eq!(plan[0]["entries"][0]["snat"], false);
    assert_eq!(plan[0]["entries"][0]["masqAll"], false);
}

#[test]
fn nothing_to_publish_is_nothing_to_make() {
    assert_eq!(planned(&config(json!({}), json!([])), &["10.1.0.2/24"], Some("cni0")), json!([]));
    let ipv6 = config(json!({}), json!([{ "hostPort": 1, "containerPort": 1, "hostIP": "::" }]));
    let destination = ["10.1.0.2/24".parse().unwrap()];
    assert_eq!(planned(&ipv6, &["10.1.0.2/24"], Some("cni0")), json!([]));
    assert_eq!(unserved(&ipv6, &destination).count(), 1);
    assert_eq!(
        unserved(&config(json!({}), json!([{ "hostPort": 1, "containerPort": 1 }])), &destination).count(),
        0
    );
}

#[test]
fn the_guard_is_nftables_whatever_the_backend_for_the_ports() {
    let config = config(json!({}), json!([{ "hostPort": 1, "containerPort": 1 }]));
    let destination = ["10.1.0.2/24".parse().unwrap()];
    let planned = |nftables| {
        let towards = LinkName::new("cni0").ok();
        let host = Surroundings { backend: Backend::Iptables, nftables, towards };
        serde_json::to_value(plan(&config, &host, &destination)).unwrap()
    };
    let guarded = planned(true);
    assert_eq!(guarded[0]["backend"], "iptables");
    let guard = json!({ "resource": "rules", "backend": "nftables", "entries": [{ "kind": "local-guard", "link": "cni0" }] });
    assert_eq!(guarded[1], guard);
    assert_eq!(guarded[2]["resource"], "local-routing");
    assert_eq!(planned(false)[1]["resource"], "local-routing");
}
