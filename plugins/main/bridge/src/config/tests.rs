//! Every key: what it means, what it is without it, and what is refused.

use cni::{Environment, SpecVersion};
use serde_json::{Value, json};

use super::*;

/// A request with these keys, and these `CNI_ARGS`.
fn request(keys: &Value, args: &str) -> Request {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "bridge" });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let config = cni::Config::read(serde_json::to_vec(&config).unwrap(), SpecVersion::ALL).unwrap();
    Request::new(config, Environment::from_pairs([("CNI_ARGS", args)]))
}

fn load(keys: &Value) -> Result<Config, Failure> {
    Config::load(&request(keys, ""))
}

#[track_caller]
fn loaded(keys: &Value) -> Config {
    load(keys).unwrap()
}

/// Code and message of a refusal.
#[track_caller]
fn refused(keys: &Value) -> (u32, String) {
    let failure = load(keys).unwrap_err();
    (failure.code().number(), failure.message().to_owned())
}

#[track_caller]
fn assert_refused(keys: &Value, message: &str) {
    assert_eq!(refused(keys), (7, message.to_owned()), "{keys}");
}

fn mac(text: &str) -> MacAddress {
    text.parse().unwrap()
}

#[test]
fn without_keys_everything_is_off() {
    let config = loaded(&json!({}));
    let expected = Config {
        bridge: LinkName::new("cni0").unwrap(),
        gateway: false,
        default_gateway: false,
        force_address: false,
        masquerade: None,
        masquerade_exclude: Vec::new(),
        mtu: None,
        hairpin: false,
        promiscuous: false,
        vlan: None,
        trunk: None,
        preserve_default_vlan: false,
        spoof_check: false,
        dad: false,
        accept_ra: false,
        disable_container_interface: false,
        isolation: false,
        dns: None,
        mac: None,
        ipam: None,
    };
    assert_eq!(config, expected);
    assert!(!config.vlan_filtering());
}

#[test]
fn null_is_the_default_of_every_key() {
    let nulls = json!({
        "bridge": null, "isGateway": null, "isDefaultGateway": null, "forceAddress": null, "ipMasq": null,
        "ipMasqBackend": null, "ipMasqExclude": null, "mtu": null, "hairpinMode": null, "promiscMode": null,
        "vlan": null, "vlanTrunk": null, "preserveDefaultVlan": null, "macspoofchk": null, "enabledad": null,
        "acceptRA": null, "disableContainerInterface": null, "portIsolation": null, "dns": null, "args": null,
        "runtimeConfig": null, "ipam": null
    });
    assert_eq!(loaded(&nulls), loaded(&json!({})));
    let empty = json!({ "bridge": "", "ipMasqBackend": "", "args": {}, "runtimeConfig": {}, "ipam": {} });
    assert_eq!(loaded(&empty), loaded(&json!({})));
}

#[test]
fn every_key_is_read() {
    let config = loaded(&json!({
        "bridge": "br-apps", "isGateway": true, "forceAddress": true, "ipMasq": true, "ipMasqBackend": "nftables",
        "ipMasqExclude": ["10.0.0.0/8", "fd00::/8"], "mtu": 1400, "hairpinMode": true, "vlan": 100,
        "vlanTrunk": [{ "id": 7 }], "preserveDefaultVlan": true, "macspoofchk": true, "enabledad": true,
        "acceptRA": true, "portIsolation": true, "dns": { "nameservers": ["10.0.0.53"] },
        "args": { "cni": { "mac": "02:00:00:00:00:01" } }, "ipam": { "type": "host-local" }
    }));
    let expected = Config {
        bridge: LinkName::new("br-apps").unwrap(),
        gateway: true,
        default_gateway: false,
        force_address: true,
        masquerade: Some(Some(Backend::Nftables)),
        masquerade_exclude: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        mtu: Some(1400),
        hairpin: true,
        promiscuous: false,
        vlan: Some(100),
        trunk: Some(VlanTrunk(vec![(7, 7)])),
        preserve_default_vlan: true,
        spoof_check: true,
        dad: true,
        accept_ra: true,
        disable_container_interface: false,
        isolation: true,
        dns: Some(Dns { nameservers: vec!["10.0.0.53".to_owned()], ..Dns::default() }),
        mac: Some(mac("02:00:00:00:00:01")),
        ipam: Some("host-local".to_owned()),
    };
    assert_eq!(config, expected);
    assert!(loaded(&json!({ "promiscMode": true })).promiscuous);
    assert!(loaded(&json!({ "disableContainerInterface": true })).disable_container_interface);
}

#[test]
fn keys_match_in_any_case_as_in_go() {
    let config = loaded(
        &json!({ "BRIDGE": "br1", "ISGATEWAY": true, "Mtu": 1300, "RuntimeConfig": { "Mac": "02:00:00:00:00:02" } }),
    );
    assert_eq!((config.bridge.as_str(), config.gateway, config.mtu), ("br1", true, Some(1300)));
    assert_eq!(config.mac, Some(mac("02:00:00:00:00:02")));
}

#[test]
fn a_value_of_the_wrong_kind_is_named_with_its_path() {
    for (keys, message) in [
        (json!({ "mtu": "1500" }), "invalid configuration: mtu: "),
        (json!({ "isGateway": 1 }), "invalid configuration: isGateway: "),
        (
            json!({ "vlanTrunk": [{ "id": 1 }, { "minID": "x" }] }),
            "invalid configuration: vlanTrunk[1].minID: ",
        ),
        (json!({ "ipMasqExclude": ["10.0.0.0/8", "10.1.0.0"] }), "invalid configuration: ipMasqExclude[1]: "),
        (json!({ "ipam": [] }), "invalid configuration: ipam"),
        (json!({ "ipam": { "type": 7 } }), "invalid configuration: ipam.type: "),
    ] {
        let (code, found) = refused(&keys);
        assert_eq!(code, 7, "{keys}");
        assert!(found.starts_with(message), "{keys}: {found}");
    }
}

#[test]
fn a_default_gateway_is_a_gateway() {
    let config = loaded(&json!({ "isDefaultGateway": true }));
    assert!(config.gateway && config.default_gateway);
    assert!(!loaded(&json!({ "isGateway": true })).default_gateway);
}

#[test]
fn hairpin_and_promiscuous_mode_exclude_each_other() {
    assert_refused(
        &json!({ "hairpinMode": true, "promiscMode": true }),
        "cannot set hairpin mode and promiscuous mode at the same time",
    );
}

#[test]
fn a_disabled_interface_has_no_addresses() {
    assert_refused(
        &json!({ "disableContainerInterface": true, "ipam": { "type": "host-local" } }),
        "cannot use IPAM when DisableContainerInterface flag is set",
    );
    assert!(load(&json!({ "disableContainerInterface": true, "ipam": {} })).is_ok());
}

#[test]
fn a_bridge_needs_an_interface_name() {
    for name in ["a-name-too-long-1", "br/0", "br:0", "br 0", "..", "."] {
        let (code, message) = refused(&json!({ "bridge": name }));
        assert_eq!(code, 7);
        assert!(message.starts_with(&format!("bridge: {name:?} is not an interface name: ")), "{message}");
    }
    assert_eq!(loaded(&json!({ "bridge": "fifteen-letters" })).bridge.as_str(), "fifteen-letters");
}

#[test]
fn an_mtu_is_one_that_ip_can_work_with() {
    for (mtu, expected) in [(0, None), (68, Some(68)), (1500, Some(1500)), (65535, Some(65535))] {
        assert_eq!(loaded(&json!({ "mtu": mtu })).mtu, expected);
    }
    for mtu in [-1, 1, 67, 65536] {
        let message = format!("mtu: {mtu} is not possible; it is 68 to 65535, or 0 for the kernel's default");
        assert_refused(&json!({ "mtu": mtu }), &message);
    }
}

#[test]
fn a_vlan_is_0_to_4094() {
    for (vlan, expected) in [(0, None), (1, Some(1)), (100, Some(100)), (4094, Some(4094))] {
        let config = loaded(&json!({ "vlan": vlan }));
        assert_eq!((config.vlan, config.vlan_filtering()), (expected, expected.is_some()));
    }
    for vlan in [-100, -1, 4095, 5000, 65636] {
        let message = format!("invalid VLAN ID {vlan} (must be between 0 and 4094)");
        assert_refused(&json!({ "vlan": vlan }), &message);
    }
}

#[test]
fn a_trunk_is_the_union_of_ids_and_ranges() {
    for (trunk, expected) in [
        (json!([]), vec![]),
        (json!([{}]), vec![]),
        (json!([{ "minID": 100, "maxID": 105 }]), vec![(100, 105)]),
        (json!([{ "id": 101 }]), vec![(101, 101)]),
        (json!([{ "id": 101 }, { "minID": 200, "maxID": 210 }]), vec![(101, 101), (200, 210)]),
        (json!([{ "id": 7, "minID": 8, "maxID": 9 }]), vec![(7, 9)]),
        (
            json!([{ "minID": 200, "maxID": 210 }, { "id": 205 }, { "minID": 205, "maxID": 220 }]),
            vec![(200, 220)],
        ),
        (json!([{ "id": 3 }, { "id": 2 }, { "id": 1 }, { "id": 3 }]), vec![(1, 3)]),
        (json!([{ "minID": 1, "maxID": 4094 }]), vec![(1, 4094)]),
        (json!([{ "minID": 5, "maxID": 5 }]), vec![(5, 5)]),
    ] {
        let config = loaded(&json!({ "vlanTrunk": trunk }));
        assert_eq!(config.trunk, Some(VlanTrunk(expected)), "{trunk}");
        assert!(config.vlan_filtering(), "a trunk turns filtering on even if it is empty");
    }
    assert_eq!(loaded(&json!({ "vlanTrunk": null })).trunk, None);
}

#[test]
fn a_trunk_with_a_wrong_entry_is_refused() {
    let simultaneously = "minID and maxID should be configured simultaneously";
    for (entry, reason) in [
        (json!({ "minID": 100 }), format!("{simultaneously}, maxID is missing")),
        (json!({ "maxID": 100 }), format!("{simultaneously}, minID is missing")),
        (json!({ "minID": -1, "maxID": 2 }), "incorrect trunk minID parameter (value: -1)".to_owned()),
        (json!({ "minID": 0, "maxID": 2 }), "incorrect trunk minID parameter (value: 0)".to_owned()),
        (json!({ "minID": 5000, "maxID": 6000 }), "incorrect trunk minID parameter (value: 5000)".to_owned()),
        (json!({ "minID": 100, "maxID": 4095 }), "incorrect trunk maxID parameter (value: 4095)".to_owned()),
        (json!({ "minID": 100, "maxID": -5 }), "incorrect trunk maxID parameter (value: -5)".to_owned()),
        (
            json!({ "minID": 100, "maxID": 50 }),
            "minID is greater than maxID in trunk parameter (100 > 50)".to_owned(),
        ),
        (json!({ "id": 4095 }), "incorrect trunk id parameter (value: 4095)".to_owned()),
        (json!({ "id": 0 }), "incorrect trunk id parameter (value: 0)".to_owned()),
        (json!({ "id": -200 }), "incorrect trunk id parameter (value: -200)".to_owned()),
    ] {
        assert_refused(&json!({ "vlanTrunk": [{ "id": 1 }, entry] }), &format!("vlanTrunk[1]: {reason}"));
    }
}

#[test]
fn the_gateway_of_a_vlan_has_an_interface_of_its_own() {
    let name = |keys: &Value| loaded(keys).vlan_gateway().unwrap().map(|name| name.to_string());
    assert_eq!(name(&json!({ "vlan": 100, "isGateway": true })), Some("cni0.100".to_owned()));
    assert_eq!(name(&json!({ "vlan": 100 })), None);
    assert_eq!(name(&json!({ "isGateway": true })), None);
    let (code, message) = refused(&json!({ "bridge": "twelve-chars", "vlan": 100, "isGateway": true }));
    assert_eq!(code, 7);
    assert!(
        message.starts_with("bridge: the gateway's interface would be \"twelve-chars.100\": "),
        "{message}"
    );
    assert!(load(&json!({ "bridge": "twelve-chars", "vlan": 100 })).is_ok(), "no interface, no long name");
}

#[test]
fn masquerade_names_its_backend_or_leaves_it_open() {
    let masquerade = |keys: &Value| loaded(keys).masquerade;
    assert_eq!(masquerade(&json!({ "ipMasq": true })), Some(None));
    assert_eq!(masquerade(&json!({ "ipMasq": true, "ipMasqBackend": "" })), Some(None));
    assert_eq!(
        masquerade(&json!({ "ipMasq": true, "ipMasqBackend": "nftables" })),
        Some(Some(Backend::Nftables))
    );
    assert_eq!(
        masquerade(&json!({ "ipMasq": true, "ipMasqBackend": "iptables" })),
        Some(Some(Backend::Iptables))
    );
    assert_eq!(masquerade(&json!({ "ipMasq": false, "ipMasqBackend": "nftables" })), None);
    assert_eq!(
        masquerade(&json!({ "ipMasqBackend": "ebtables" })),
        None,
        "the Go plugin does not look at it either"
    );
    for backend in ["nft", "IPTABLES", "firewalld"] {
        assert_refused(
            &json!({ "ipMasq": true, "ipMasqBackend": backend }),
            &format!("ipMasqBackend: unknown ipmasq backend {backend:?}"),
        );
    }
}

#[test]
fn dns_counts_once_anything_is_in_it() {
    let dns = |value: Value| loaded(&json!({ "dns": value })).dns;
    assert_eq!(dns(json!({})), None, "an empty object leaves IPAM's");
    assert_eq!(dns(json!({ "domain": "" })), None);
    assert_eq!(dns(json!({ "nameservers": null })), None);
    for list in ["nameservers", "search", "options"] {
        assert_eq!(dns(json!({ list: [] })), Some(Dns::default()), "an empty list of {list} clears IPAM's");
    }
    let expected = Dns {
        nameservers: vec!["192.0.2.53".to_owned()],
        domain: "example.org".to_owned(),
        search: vec!["a.example.org".to_owned(), "example.org".to_owned()],
        options: vec!["ndots:5".to_owned()],
        ..Dns::default()
    };
    let all = json!({
        "nameservers": ["192.0.2.53"], "domain": "example.org", "search": ["a.example.org", "example.org"],
        "options": ["ndots:5"]
    });
    assert_eq!(dns(all), Some(expected));
}

/// The address that comes of the three sources.
#[track_caller]
fn mac_from(runtime: &str, args: &str, cni_args: &str) -> Result<Option<MacAddress>, Failure> {
    let keys = json!({ "runtimeConfig": { "mac": runtime }, "args": { "cni": { "mac": args } } });
    Config::load(&request(&keys, cni_args)).map(|config| config.mac)
}

#[test]
fn the_runtime_goes_before_args_which_go_before_the_environment() {
    let (one, two, three) = ("02:00:00:00:00:01", "02:00:00:00:00:02", "MAC=02:00:00:00:00:03");
    assert_eq!(mac_from(one, two, three), Ok(Some(mac(one))));
    assert_eq!(mac_from("", two, three), Ok(Some(mac(two))));
    assert_eq!(mac_from("", "", three), Ok(Some(mac("02:00:00:00:00:03"))));
    assert_eq!(mac_from("", "", ""), Ok(None));
    assert_eq!(mac_from("", "", "IgnoreUnknown=1;K8S_POD_NAME=web;MAC="), Ok(None));
    assert_eq!(
        loaded(&json!({ "mac": one })).mac,
        None,
        "there is no such key at the top: the Go plugin would not see it either"
    );
}

#[test]
fn a_mac_is_taken_in_every_form_of_go() {
    for text in ["02:aB:0c:00:00:01", "02-ab-0c-00-00-01", "02ab.0c00.0001"] {
        assert_eq!(mac_from(text, "", ""), Ok(Some(mac("02:ab:0c:00:00:01"))));
    }
}

#[test]
fn a_wrong_mac_names_its_source() {
    let refused = |result: Result<Option<MacAddress>, Failure>| {
        let failure = result.unwrap_err();
        (failure.code().number(), failure.message().to_owned())
    };
    let zz = "`zz` is not a MAC address such as 02:42:ac:11:00:02";
    assert_eq!(refused(mac_from("zz", "", "")), (7, format!("runtimeConfig.mac: {zz}")));
    assert_eq!(refused(mac_from("", "zz", "")), (7, format!("args.cni.mac: {zz}")));
    assert_eq!(refused(mac_from("", "", "MAC=zz")), (4, format!("CNI_ARGS: MAC: {zz}")));
    for text in ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"] {
        let message = format!("runtimeConfig.mac: {text} is not the address of one interface");
        assert_eq!(refused(mac_from(text, "", "")), (7, message));
    }
}

#[test]
fn cni_args_that_are_not_known_are_refused_unless_they_may_be_ignored() {
    let failure = mac_from("", "", "mac=02:00:00:00:00:03").unwrap_err();
    assert_eq!((failure.code().number(), failure.message()), (4, "CNI_ARGS: unknown args [\"mac\"]"));
    let failure = mac_from("", "", "MAC").unwrap_err();
    assert_eq!((failure.code().number(), failure.message()), (4, "CNI_ARGS: invalid pair \"MAC\""));
    assert_eq!(mac_from("", "", "K8S_POD_UID=1;IgnoreUnknown=true"), Ok(None));
}
