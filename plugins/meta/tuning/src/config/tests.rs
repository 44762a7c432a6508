#![expect(clippy::needless_pass_by_value, reason = "what tests pass are literals")]

use cni::{Environment, SpecVersion};
use serde_json::json;

use super::*;

fn load_text(text: &str, args: &str) -> Result<Config, Failure> {
    let config = cni::Config::read(text.as_bytes().to_vec(), SpecVersion::ALL).unwrap();
    let request = Request::new(config, Environment::from_pairs([("CNI_ARGS", args)]));
    Config::load(&request, &LinkName::new("eth0").unwrap())
}

fn load(keys: Value) -> Result<Config, Failure> {
    let mut object = json!({ "cniVersion": "1.1.0", "name": "net", "type": "tuning" });
    object.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    load_text(&object.to_string(), "")
}

fn refusal(keys: Value) -> String {
    let failure = load(keys).unwrap_err();
    assert_eq!(failure.code(), Code::InvalidConfig, "{failure}");
    failure.message().to_owned()
}

fn mac(last: u8) -> LinkProperty {
    LinkProperty::Mac(MacAddress([2, 0, 0, 0, 0, last]))
}

fn values(config: &Config) -> Vec<(String, &str)> {
    config.sysctls.iter().map(|sysctl| (sysctl.key.to_string(), sysctl.value.as_str())).collect()
}

#[test]
fn nothing_configured_is_nothing_to_do() {
    let config =
        load(json!({ "mtu": 0, "promisc": false, "mac": "", "sysctl": {}, "args": { "cni": {} } })).unwrap();
    assert!(config.sysctls.is_empty() && config.properties.is_empty());
    assert_eq!(config.data_directory, PathBuf::from("/run/cni/tuning"));
}

#[test]
fn every_property_is_read_in_the_order_it_is_set() {
    let config = load(json!({
        "txQLen": 0, "allmulti": false, "mtu": 1454, "promisc": true, "mac": "02:00:00:00:00:01", "dataDir": "/var/lib/tuning"
    }))
    .unwrap();
    assert_eq!(
        config.properties,
        [
            mac(1),
            LinkProperty::Promiscuous(true),
            LinkProperty::Mtu(1454),
            LinkProperty::AllMulticast(false),
            LinkProperty::TxQueueLength(0),
        ]
    );
    assert_eq!(config.data_directory, PathBuf::from("/var/lib/tuning"));
}

#[test]
fn args_overrule_the_configuration() {
    let config = load(json!({
        "mtu": 1454, "promisc": true, "allmulti": true, "txQLen": 1,
        "args": { "cni": { "mtu": 1400, "promisc": false, "allmulti": false, "txQLen": 2, "ips": ["10.0.0.1"] } }
    }))
    .unwrap();
    let wanted = [LinkProperty::Mtu(1400), LinkProperty::AllMulticast(false), LinkProperty::TxQueueLength(2)];
    assert_eq!(config.properties, wanted);
}

#[test]
fn the_mac_comes_from_the_strongest_source() {
    let text = |last: u8| format!("02:00:00:00:00:0{last}");
    let config = |runtime: bool, args: bool| {
        let mut config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "tuning", "mac": text(1) });
        if runtime {
            config["runtimeConfig"] = json!({ "mac": text(3) });
        }
        if args {
            config["args"] = json!({ "cni": { "mac": text(4) } });
        }
        config.to_string()
    };
    let environment = format!("IgnoreUnknown=1;K8S_POD_NAME=p;MAC={}", text(2));
    let found = |text: &str, args: &str| load_text(text, args).unwrap().properties;
    assert_eq!(found(&config(false, false), ""), [mac(1)]);
    assert_eq!(found(&config(false, false), &environment), [mac(2)]);
    assert_eq!(found(&config(true, false), &environment), [mac(3)]);
    assert_eq!(found(&config(true, true), &environment), [mac(4)]);
}

#[test]
fn unknown_cni_args_are_refused_unless_ignored() {
    let text = r#"{ "cniVersion": "1.1.0", "name": "net", "type": "tuning" }"#;
    let failure = load_text(text, "K8S_POD_NAME=p").unwrap_err();
    assert_eq!(failure.code(), Code::InvalidEnvironment);
    assert!(load_text(text, "K8S_POD_NAME=p;IgnoreUnknown=1").is_ok());
}

#[test]
fn bad_values_are_refused_with_their_source() {
    for (keys, words) in [
        (json!({ "mac": "c2:11:22" }), "mac: invalid args c2:11:22 for MAC addr"),
        (json!({ "mac": "01:00:5e:00:00:01" }), "it is a multicast address"),
        (json!({ "mac": "00:00:00:00:00:00" }), "it is all zeros"),
        (json!({ "runtimeConfig": { "mac": "x" } }), "runtimeConfig.mac: invalid args x for MAC addr"),
        (json!({ "args": { "cni": { "mac": "y" } } }), "args.cni.mac: invalid args y for MAC addr"),
        (json!({ "mtu": -1 }), "mtu: expected a number from 0"),
        (
            json!({ "args": { "cni": { "txQLen": 4_294_967_296_u64 } } }),
            "args.cni.txQLen: expected a number from 0",
        ),
        (json!({ "args": { "cni": { "mtu": "1400" } } }), "args.cni.mtu: expected a whole number"),
        (json!({ "promisc": "yes" }), "promisc: expected true or false"),
        (json!({ "sysctl": ["net.ipv4.ip_forward"] }), "sysctl: expected an object"),
        (json!({ "sysctl": { "net.ipv4.ip_forward": 1 } }), "sysctl.net.ipv4.ip_forward: expected a string"),
        (
            json!({ "sysctl": { "kernel.hostname": "x" } }),
            "sysctl: invalid net sysctl key: \"kernel.hostname\"",
        ),
        (json!({ "sysctl": { "net/../kernel/hostname": "x" } }), "invalid net sysctl key"),
    ] {
        let message = refusal(keys);
        assert!(message.contains(words), "{message}\n  lacks: {words}");
    }
}

#[test]
fn odd_args_are_somebody_elses() {
    for args in [json!([]), json!("text"), json!({ "cni": [] }), json!({ "org.example": { "mtu": "x" } })] {
        assert!(load(json!({ "args": args, "mtu": 1400 })).is_ok());
    }
}

#[test]
fn sysctls_keep_their_order() {
    let config = load(json!({ "sysctl": {
        "net.ipv4.conf.IFNAME.rp_filter": "2", "net/core/somaxconn": "500", "net.ipv4.ip_forward": "1",
        "net.ipv4.ip_unprivileged_port_start": null
    } }))
    .unwrap();
    let wanted =
        [("net/ipv4/conf/eth0/rp_filter", "2"), ("net/core/somaxconn", "500"), ("net/ipv4/ip_forward", "1")];
    assert_eq!(values(&config), wanted.map(|(key, value)| (key.to_owned(), value)));
}

#[test]
fn args_overrule_a_sysctl_in_its_place_and_add_others() {
    let args = json!({ "cni": { "sysctl": { "net/core/somaxconn": "700", "net.ipv4.ip_forward": "1" } } });
    let config = load(json!({
        "sysctl": { "net.core.somaxconn": "500", "net.ipv4.tcp_sack": "0" }, "args": args
    }))
    .unwrap();
    let wanted = [("net/core/somaxconn", "700"), ("net/ipv4/tcp_sack", "0"), ("net/ipv4/ip_forward", "1")];
    assert_eq!(values(&config), wanted.map(|(key, value)| (key.to_owned(), value)));
    // The Go suite panics here.
    let config = load(json!({ "args": args })).unwrap();
    assert_eq!(config.sysctls.len(), 2);
}

#[test]
fn a_sysctl_is_said_once() {
    for text in [
        r#"{"cniVersion":"1.1.0","name":"n","type":"tuning","sysctl":{"net.ipv4.ip_forward":"1","net.ipv4.ip_forward":"0"}}"#,
        r#"{"cniVersion":"1.1.0","name":"n","type":"tuning","sysctl":{"net.ipv4.ip_forward":"1","net/ipv4/ip_forward":"0"}}"#,
        r#"{"cniVersion":"1.1.0","name":"n","type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1","net.ipv4.conf.eth0.arp_filter":"0"}}"#,
        r#"{"cniVersion":"1.1.0","name":"n","type":"tuning","args":{"cni":{"sysctl":{"net.ipv4.ip_forward":"1","net.ipv4.ip_forward":"1"}}}}"#,
    ] {
        let failure = load_text(text, "").unwrap_err();
        assert_eq!(failure.code(), Code::InvalidConfig);
        assert!(failure.message().contains("duplicated sysctl keys are not allowed"), "{failure}");
    }
}

#[test]
fn del_finds_the_directory_whatever_else_is_wrong() {
    let config = |text: &str| cni::Config::read(text.as_bytes().to_vec(), SpecVersion::ALL).unwrap();
    let broken = config(r#"{"name":"n","cniVersion":"1.1.0","mtu":"x","mac":1,"DataDir":"/somewhere"}"#);
    assert_eq!(data_directory(&broken), PathBuf::from("/somewhere"));
    assert_eq!(
        data_directory(&config(r#"{"name":"n","cniVersion":"1.1.0","dataDir":[]}"#)),
        PathBuf::from(DATA_DIRECTORY)
    );
}
