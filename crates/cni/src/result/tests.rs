use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{AddResult, Dns, Interface, Ip, ResultError, Route};
use crate::address::{Cidr, canonical};
use crate::version::{ResultFamily, SpecVersion};

fn read(value: &Value) -> AddResult {
    AddResult::read(value, SpecVersion::NEWEST).unwrap()
}

#[test]
fn a_result_without_a_version_is_of_the_version_assumed() {
    let legacy = json!({ "ip4": { "ip": "10.0.0.5/24" } });
    assert_eq!(AddResult::read(&legacy, SpecVersion::V0_2_0).unwrap().ips.len(), 1);
    assert!(AddResult::read(&legacy, SpecVersion::V1_0_0).unwrap().ips.is_empty());
    let empty_version = json!({ "cniVersion": "", "ips": [{ "address": "10.0.0.5/24" }] });
    assert_eq!(AddResult::read(&empty_version, SpecVersion::V0_4_0).unwrap().ips.len(), 1);
    assert_eq!(AddResult::read(&Value::Null, SpecVersion::V1_0_0), Ok(AddResult::default()));
    assert_eq!(
        AddResult::read(&json!({ "cniVersion": "2.0.0" }), SpecVersion::V1_0_0),
        Err(ResultError::Version { version: "2.0.0".to_owned() })
    );
}

#[test]
fn what_old_and_foreign_plugins_write_is_read() {
    let result = read(&json!({
        "cniVersion": "0.4.0",
        "Interfaces": [{ "Name": "eth0", "sandbox": "/x" }, null],
        "ips": [
            { "version": "4", "address": "10.0.0.5/24", "gateway": "", "interface": -1 },
            { "version": "4", "address": "10.0.0.6/24", "gateway": null, "interface": null },
        ],
        "routes": [{ "dst": "10.9.8.7/8", "gw": "" }],
        "dns": null,
    }));
    assert_eq!(result.interfaces.len(), 1);
    assert!(result.ips.iter().all(|ip| ip.gateway.is_none() && ip.interface.is_none()));
    assert_eq!(result.routes[0].dst.to_string(), "10.9.8.7/8", "host bits of a route are kept as given");
}

#[test]
fn unknown_keys_survive_at_every_level() {
    let document = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "eth0", "x-if": [1] }],
        "ips": [{ "interface": 0, "address": "10.0.0.5/24", "x-ip": { "a": null } }],
        "routes": [{ "dst": "0.0.0.0/0", "x-route": 7 }],
        "dns": { "nameservers": ["10.0.0.1"], "x-dns": true },
        "x-top": "kept",
    });
    assert_eq!(read(&document).write(SpecVersion::V1_0_0), Ok(document));
    let only = json!({ "cniVersion": "1.1.0", "dns": { "x-dns": true } });
    assert_eq!(read(&only).write(SpecVersion::V1_1_0), Ok(only));
}

#[test]
fn zero_and_absent_differ_for_table_and_scope() {
    let document = json!({
        "cniVersion": "1.1.0",
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "10.0.0.0/8", "table": 0, "scope": 0 }],
    });
    let result = read(&document);
    assert_eq!((result.routes[0].table, result.routes[0].scope), (None, None));
    assert_eq!((result.routes[1].table, result.routes[1].scope), (Some(0), Some(0)));
    assert_eq!(result.write(SpecVersion::V1_1_0), Ok(document));
}

#[test]
fn an_index_beyond_the_interfaces_is_not_written() {
    let ip = Ip { interface: Some(1), ..Ip::new(Cidr::host([10, 0, 0, 1].into())) };
    let interface = Interface { name: "eth0".to_owned(), ..Interface::default() };
    let result = AddResult { interfaces: vec![interface], ips: vec![ip], ..AddResult::default() };
    assert_eq!(result.write(SpecVersion::V1_1_0).unwrap()["ips"], json!([{ "address": "10.0.0.1/32" }]));
}

#[test]
fn the_error_of_a_bad_shape_does_not_repeat_itself() {
    let error = AddResult::read(&json!({ "ips": [{ "address": 5 }] }), SpecVersion::V1_0_0).unwrap_err();
    assert_eq!(error.to_string(), "the result does not fit CNI 1.0.0");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("ips[0].address: "), "{source}");
}

#[test]
fn the_addresses_of_an_interface() {
    let result = read(&json!({
        "interfaces": [{ "name": "eth0" }, { "name": "eth0", "sandbox": "/x" }, { "name": "eth1", "sandbox": "/x" }],
        "ips": [
            { "address": "10.0.0.1/24", "interface": 0 },
            { "address": "10.0.0.2/24", "interface": 1 },
            { "address": "10.0.0.3/24", "interface": 2 },
            { "address": "10.0.0.4/24" },
            { "address": "10.0.0.5/24", "interface": 9 },
        ],
    }));
    let of = |name: &str| result.ips_of(name).map(|ip| ip.address.address().to_string()).collect::<Vec<_>>();
    assert_eq!(of("eth0"), ["10.0.0.2", "10.0.0.4"], "not the host's interface of the same name");
    assert_eq!(of("eth1"), ["10.0.0.3", "10.0.0.4"]);
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(|bytes| canonical(IpAddr::from(bytes))),
    ]
}

fn any_cidr() -> impl Strategy<Value = Cidr> {
    (any_ip(), 0u8..=128).prop_map(|(ip, length)| {
        Cidr::new(ip, length % if ip.is_ipv4() { 33 } else { 129 }).unwrap_or(Cidr::host(ip))
    })
}

fn any_extra() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map("x-[a-z]{1,4}", any::<u32>(), 0..2)
        .prop_map(|map| map.into_iter().map(|(key, value)| (key, value.into())).collect())
}

prop_compose! {
    fn any_interface()(
        name in "[a-z]{1,8}", mac in "([0-9a-f]{2}(:[0-9a-f]{2}){5})?", mtu in 0u32..10_000,
        sandbox in "(/run/netns/[a-z]{1,6})?", socket_path in "(/run/[a-z]{1,6})?", pci_id in "([0-9a-f]{4}:00:1f.0)?",
        extra in any_extra(),
    ) -> Interface {
        Interface { name, mac, mtu, sandbox, socket_path, pci_id, extra }
    }
}

prop_compose! {
    fn any_address(interfaces: usize)(
        address in any_cidr(), gateway in prop::option::of(any_ip()),
        interface in prop::option::of(0..interfaces.max(1)), extra in any_extra(),
    ) -> Ip {
        Ip { address, gateway, interface: interface.filter(|index| *index < interfaces), extra }
    }
}

prop_compose! {
    fn any_route()(
        dst in any_cidr(), gw in prop::option::of(any_ip()), mtu in any::<u32>(), advmss in any::<u32>(), priority in any::<u32>(),
        table in prop::option::of(any::<u32>()), scope in prop::option::of(any::<u8>()), extra in any_extra(),
    ) -> Route {
        Route { dst, gw, mtu, advmss, priority, table, scope, extra }
    }
}

prop_compose! {
    fn any_dns()(
        nameservers in prop::collection::vec("[0-9.]{1,8}", 0..3), domain in "[a-z]{0,6}",
        search in prop::collection::vec("[a-z]{1,6}", 0..3), options in prop::collection::vec("[a-z]{1,6}", 0..3),
        extra in any_extra(),
    ) -> Dns {
        Dns { nameservers, domain, search, options, extra }
    }
}

fn any_result() -> impl Strategy<Value = AddResult> {
    prop::collection::vec(any_interface(), 0..4).prop_flat_map(|interfaces| {
        let ips = prop::collection::vec(any_address(interfaces.len()), 0..4);
        (Just(interfaces), ips, prop::collection::vec(any_route(), 0..4), any_dns(), any_extra()).prop_map(
            |(interfaces, ips, routes, dns, extra)| AddResult { interfaces, ips, routes, dns, extra },
        )
    })
}

fn any_version() -> impl Strategy<Value = SpecVersion> {
    prop::sample::select(SpecVersion::ALL)
}

/// What a version can express of a result.
fn expressible(result: &AddResult, version: SpecVersion) -> AddResult {
    let mut result = result.clone();
    if version < SpecVersion::V1_1_0 {
        for route in &mut result.routes {
            let legacy = version.result_family() == ResultFamily::Legacy;
            if legacy || !result.interfaces.is_empty() {
                *route = Route { extra: route.extra.clone(), ..Route::new(route.dst, route.gw) };
            }
            if legacy {
                route.extra.clear();
            }
        }
        for interface in &mut result.interfaces {
            interface.mtu = 0;
            interface.socket_path.clear();
            interface.pci_id.clear();
        }
    }
    if version.result_family() == ResultFamily::Legacy {
        result.interfaces.clear();
        let first = |ipv4| result.ips.iter().find(move |ip| ip.address.is_ipv4() == ipv4);
        let ips: Vec<Ip> = [true, false]
            .into_iter()
            .filter_map(first)
            .map(|ip| Ip { gateway: ip.gateway, ..Ip::new(ip.address) })
            .collect();
        result.routes = [true, false]
            .into_iter()
            .filter(|ipv4| ips.iter().any(|ip| ip.address.is_ipv4() == *ipv4))
            .flat_map(|ipv4| result.routes.iter().filter(move |r| r.dst.is_ipv4() == ipv4).cloned())
            .collect();
        result.ips = ips;
    }
    result
}

proptest! {
    #[test]
    fn what_a_version_can_express_comes_back(result in any_result(), version in any_version()) {
        match result.write(version) {
            Ok(document) => {
                prop_assert_eq!(&document["cniVersion"], version.as_str());
                prop_assert_eq!(read(&document), expressible(&result, version));
            }
            Err(error) => {
                prop_assert_eq!(error, ResultError::NoAddress);
                prop_assert!(result.ips.is_empty() && version.result_family() == ResultFamily::Legacy);
            }
        }
    }

    #[test]
    fn a_result_passed_on_is_not_changed(result in any_result(), version in any_version()) {
        if let Ok(document) = result.write(version) {
            prop_assert_eq!(read(&document).write(version), Ok(document));
        }
    }

    #[test]
    fn the_way_over_a_richer_version_loses_nothing(
        result in any_result(), version in any_version(), other in any_version(),
    ) {
        if other >= version && let (Ok(direct), Ok(through)) = (result.write(version), result.write(other)) {
            prop_assert_eq!(read(&through).write(version), Ok(direct));
        }
    }

    #[test]
    fn only_the_newest_version_has_the_newest_keys(result in any_result(), version in any_version()) {
        if version < SpecVersion::V1_1_0 && !result.interfaces.is_empty() && let Ok(document) = result.write(version) {
            let text = document.to_string();
            for key in ["mtu", "socketPath", "pciID", "advmss", "priority", "table", "scope"] {
                prop_assert!(!text.contains(&format!("\"{key}\"")), "{key} in {text}");
            }
        }
    }

    /// Documents that are almost results: whatever a plugin prints, it is read or refused.
    #[test]
    fn nothing_that_looks_like_a_result_makes_it_panic(document in any_document(), assumed in any_version()) {
        if let Ok(result) = AddResult::read(&document, assumed) {
            for version in SpecVersion::ALL {
                let _ = result.write(*version);
            }
            let _ = result.ips_of("eth0").count();
        }
    }
}

#[test]
fn a_result_behind_another_leaves_every_index_right() {
    let previous = read(&json!({ "cniVersion": "1.1.0",
        "interfaces": [{ "name": "veth1" }, { "name": "net1", "sandbox": "/n" }],
        "ips": [{ "address": "10.0.0.5/24", "interface": 1 }],
        "routes": [{ "dst": "10.9.0.0/16" }], "dns": { "domain": "earlier" }, "x": 1 }));
    let own = read(&json!({ "cniVersion": "1.1.0",
        "interfaces": [{ "name": "veth2" }, { "name": "eth0", "sandbox": "/n" }],
        "ips": [{ "address": "10.1.0.5/24", "interface": 1 }, { "address": "10.2.0.5/24" }],
        "routes": [{ "dst": "0.0.0.0/0" }] }));
    let both = own.clone().behind(previous.clone()).write(SpecVersion::NEWEST).unwrap();
    let names: Vec<&Value> =
        both["interfaces"].as_array().unwrap().iter().map(|interface| &interface["name"]).collect();
    assert_eq!(names, ["veth1", "net1", "veth2", "eth0"]);
    let indexes: Vec<&Value> = both["ips"].as_array().unwrap().iter().map(|ip| &ip["interface"]).collect();
    assert_eq!(indexes, [&json!(1), &json!(3), &Value::Null]);
    assert_eq!(both["routes"].as_array().unwrap().len(), 2);
    assert_eq!((&both["dns"]["domain"], &both["x"]), (&json!("earlier"), &json!(1)));
    let own = AddResult { dns: Dns { domain: "own".to_owned(), ..Dns::default() }, ..own };
    assert_eq!(own.behind(previous).dns.domain, "own");
}

fn any_document() -> impl Strategy<Value = Value> {
    const KEYS: [&str; 16] = [
        "cniVersion",
        "interfaces",
        "ips",
        "routes",
        "dns",
        "ip4",
        "ip6",
        "ip",
        "address",
        "gateway",
        "interface",
        "dst",
        "gw",
        "mtu",
        "table",
        "IPS",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["", "0.2.0", "1.1.0", "10.0.0.5/24", "10.0.0.1", "::/0", "x"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        let object = prop::collection::btree_map(prop::sample::select(&KEYS[..]), inner.clone(), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}
