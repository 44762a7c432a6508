#![expect(clippy::needless_pass_by_value, reason = "what tests pass are literals")]

use cni::SpecVersion;
use serde_json::{Value, json};

use super::*;

fn load(config: Value) -> Result<Config, Failure> {
    let mut object = json!({ "cniVersion": "1.1.0", "name": "net", "type": "portmap" });
    object.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    Config::load(&cni::Config::read(object.to_string().into_bytes(), SpecVersion::ALL).unwrap())
}

fn mapped(mapping: Value) -> Result<PortMapping, Failure> {
    Ok(load(json!({ "runtimeConfig": { "portMappings": [mapping] } }))?.mappings[0])
}

/// The error's message, which has to be one of an invalid configuration.
fn refusal(config: Value) -> String {
    let failure = load(config).unwrap_err();
    assert_eq!(failure.code(), Code::InvalidConfig, "{failure}");
    failure.message().to_owned()
}

#[test]
fn nothing_has_to_be_configured() {
    let config = load(json!({})).unwrap();
    assert_eq!(config.backend, None);
    assert!(config.snat);
    assert!(!config.masq_all);
    assert_eq!(config.mark_bit, 13);
    assert!(config.mappings.is_empty());
}

#[test]
fn mappings_are_read_as_any_runtime_writes_them() {
    let wanted = PortMapping {
        protocol: Protocol::Udp,
        host: HostAddress::One([192, 0, 2, 1].into()),
        host_port: 5353,
        container_port: 53,
    };
    for mapping in [
        json!({ "hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1" }),
        json!({ "HostPort": 5353, "ContainerPort": 53, "Protocol": "UDP", "HostIP": "192.0.2.1" }),
        json!({ "hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIp": "::ffff:192.0.2.1" }),
    ] {
        assert_eq!(mapped(mapping.clone()).unwrap(), wanted, "{mapping}");
    }
}

#[test]
fn a_mapping_without_protocol_and_address_is_tcp_everywhere() {
    for mapping in [
        json!({ "hostPort": 65535, "containerPort": 1 }),
        json!({ "hostPort": 65535, "containerPort": 1, "protocol": "", "hostIP": "" }),
        json!({ "hostPort": 65535, "containerPort": 1, "protocol": null, "hostIP": null }),
    ] {
        let mapping = mapped(mapping).unwrap();
        assert_eq!((mapping.protocol, mapping.host), (Protocol::Tcp, HostAddress::Any));
        assert_eq!((mapping.host_port, mapping.container_port), (65535, 1));
    }
}

#[test]
fn an_unspecified_address_stands_for_its_family() {
    for (text, ipv4) in [("0.0.0.0", true), ("::", false)] {
        let host = mapped(json!({ "hostPort": 1, "containerPort": 1, "hostIP": text })).unwrap().host;
        assert_eq!(host, HostAddress::AnyOf { ipv4 });
        assert!(host.has_family(ipv4) && !host.has_family(!ipv4));
        assert_eq!(host.includes_localhost(), ipv4);
    }
}

#[test]
fn bad_mappings_are_refused_with_path_and_value() {
    let good = json!({ "hostPort": 80, "containerPort": 80, "protocol": "tcp" });
    for (key, value, words) in [
        ("hostPort", json!(0), "hostPort: Invalid host port number: 0"),
        ("hostPort", json!(-1), "hostPort: Invalid host port number: -1"),
        ("hostPort", json!(65536), "hostPort: Invalid host port number: 65536"),
        ("containerPort", json!(0), "containerPort: Invalid container port number: 0"),
        ("containerPort", json!(70000), "containerPort: Invalid container port number: 70000"),
        ("hostPort", json!("80"), "hostPort: expected a whole number"),
        ("protocol", json!("icmp"), "protocol: \"icmp\" is not one of tcp, udp, sctp"),
        ("hostIP", json!("localhost"), "hostIP: `localhost` is not an IP address"),
        ("hostIP", json!("192.0.2.1/24"), "hostIP: `192.0.2.1/24` is not an IP address"),
        ("hostIP", json!("224.0.0.1"), "hostIP: 224.0.0.1 is a multicast address"),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        let message = refusal(json!({ "runtimeConfig": { "portMappings": [good.clone(), bad] } }));
        let wanted = format!("runtimeConfig.portMappings[1].{words}");
        assert!(message.contains(&wanted), "{message}\n  lacks: {wanted}");
    }
}

#[test]
fn a_port_counts_once_and_leads_to_one_place() {
    let map = |host_ip: &str, container_port: u16, protocol: &str| json!({ "hostPort": 80, "containerPort": container_port, "protocol": protocol, "hostIP": host_ip });
    let load = |mappings: Vec<Value>| load(json!({ "runtimeConfig": { "portMappings": mappings } }));
    assert_eq!(load(vec![map("", 80, "tcp"), map("", 80, "TCP")]).unwrap().mappings.len(), 1);
    for mappings in [
        // Other protocols, other families, and an address that is more specific.
        vec![map("", 80, "tcp"), map("", 81, "udp")],
        vec![map("0.0.0.0", 80, "tcp"), map("::", 81, "tcp")],
        vec![map("", 80, "tcp"), map("192.0.2.1", 81, "tcp")],
    ] {
        assert_eq!(load(mappings).unwrap().mappings.len(), 2);
    }
    for mappings in [
        vec![map("", 80, "tcp"), map("", 81, "tcp")],
        vec![map("", 80, "tcp"), map("0.0.0.0", 81, "tcp")],
        vec![map("192.0.2.1", 80, "tcp"), map("192.0.2.1", 81, "tcp")],
    ] {
        let message = load(mappings).unwrap_err().message().to_owned();
        assert!(message.contains("host port 80/tcp is mapped to container port 80 and to 81"), "{message}");
    }
}

#[test]
fn conditions_choose_the_backend_that_understands_them() {
    let iptables = json!(["!", "-s", "192.0.2.0/24"]);
    let nftables = json!(["ip", "saddr", "192.0.2.0/24"]);
    let backend = |config| load(config).unwrap().backend;
    assert_eq!(backend(json!({ "conditionsV4": iptables })), Some(Backend::Iptables));
    assert_eq!(backend(json!({ "conditionsV6": nftables })), Some(Backend::Nftables));
    assert_eq!(backend(json!({ "externalSetMarkChain": "KUBE-MARK-MASQ" })), Some(Backend::Iptables));
    assert_eq!(backend(json!({ "conditionsV4": [], "backend": "" })), None);
    assert_eq!(backend(json!({ "backend": "nftables", "conditionsV4": nftables })), Some(Backend::Nftables));
    assert_eq!(backend(json!({ "backend": "iptables", "conditionsV4": iptables })), Some(Backend::Iptables));
}

#[test]
fn words_of_one_backend_are_refused_with_the_other() {
    let iptables = json!(["-s", "192.0.2.0/24"]);
    let nftables = json!(["ip", "saddr", "192.0.2.0/24"]);
    for (config, words) in [
        (
            json!({ "backend": "nftables", "externalSetMarkChain": "X", "conditionsV4": iptables, "conditionsV6": iptables }),
            "nftables backend was requested but configuration contains iptables-specific options [externalSetMarkChain conditionsV4 conditionsV6]",
        ),
        (
            json!({ "backend": "iptables", "conditionsV4": nftables }),
            "iptables backend was requested but configuration contains nftables-specific options [conditionsV4]",
        ),
        (
            json!({ "conditionsV4": iptables, "conditionsV6": nftables }),
            "iptables backend was requested but configuration contains nftables-specific options [conditionsV6]",
        ),
        (json!({ "backend": "ipfw" }), "backend: unrecognized backend \"ipfw\""),
        (json!({ "backend": "firewalld" }), "backend: unrecognized backend \"firewalld\""),
    ] {
        let message = refusal(config);
        assert!(message.contains(words), "{message}\n  lacks: {words}");
    }
}

#[test]
fn the_mark_is_one_bit_or_somebody_elses_chain() {
    assert_eq!(load(json!({ "markMasqBit": 0 })).unwrap().mark_bit, 0);
    assert_eq!(load(json!({ "markMasqBit": 31 })).unwrap().mark_bit, 31);
    for bit in [-1, 32, 300] {
        let message = refusal(json!({ "markMasqBit": bit }));
        assert!(message.contains("MasqMarkBit must be between 0 and 31"), "{message}");
    }
    let message = refusal(json!({ "markMasqBit": 13, "externalSetMarkChain": "X" }));
    assert!(message.contains("Cannot specify externalSetMarkChain and markMasqBit"), "{message}");
    for chain in ["-X", "A B", "A\nB", "ABCDEFGHIJKLMNOPQRSTUVWXYZABC"] {
        assert!(refusal(json!({ "externalSetMarkChain": chain })).contains("externalSetMarkChain"));
    }
}
