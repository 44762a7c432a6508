//! What a bridge attachment is made of, for the configurations people write.

use cni::{Config as NetworkConfig, Environment, Request, SpecVersion};
use serde_json::{Value, json};

use super::*;

fn config(keys: &Value) -> Config {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "bridge" });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let bytes = serde_json::to_vec(&config).unwrap();
    let config = NetworkConfig::read(bytes, SpecVersion::ALL).unwrap();
    Config::load(&Request::new(config, Environment::default())).unwrap()
}

/// The configuration with an IPAM plugin.
fn layer3(mut keys: Value) -> Config {
    keys["ipam"] = json!({ "type": "host-local" });
    config(&keys)
}

fn ipam(result: &Value) -> AddResult {
    AddResult::read(result, SpecVersion::NEWEST).unwrap()
}

fn name(text: &str) -> LinkName {
    LinkName::new(text).unwrap()
}

fn link_of(config: &Config) -> Value {
    serde_json::to_value(link(config, &name("veth12345678"), &name("eth0"))).unwrap()
}

/// The resources that follow from what IPAM gave.
fn network_of(config: &Config, result: &Value) -> Value {
    let completed = complete(config, ipam(result)).unwrap();
    let resources =
        network(config, &completed, &name("veth12345678"), &name("eth0"), "02:00:00:00:00:09", || {
            Backend::Nftables
        });
    serde_json::to_value(resources.unwrap()).unwrap()
}

/// The resources of one kind.
fn kind(resources: &Value, kind: &str) -> Vec<Value> {
    resources.as_array().unwrap().iter().filter(|resource| resource["resource"] == kind).cloned().collect()
}

fn kinds(resources: &Value) -> Vec<&str> {
    resources.as_array().unwrap().iter().map(|resource| resource["resource"].as_str().unwrap()).collect()
}

/// The gateway addresses on the host.
fn gateways_of(config: &Config, result: &Value) -> Vec<String> {
    let resources = network_of(config, result);
    kind(&resources, "gateway")
        .iter()
        .map(|gateway| gateway["address"].as_str().unwrap().to_owned())
        .collect()
}

/// The routes of the container, as `ip route` would name them.
fn routes_of(config: &Config, result: &Value) -> Vec<String> {
    let completed = complete(config, ipam(result)).unwrap();
    interface(config, &completed, &name("eth0")).routes.iter().map(ToString::to_string).collect()
}

fn one_address() -> Value {
    json!({ "ips": [{ "address": "10.77.0.5/24" }] })
}

fn dual_stack() -> Value {
    json!({
        "ips": [{ "address": "10.77.0.5/24", "gateway": "10.77.0.1" }, { "address": "fd00:77::5/64", "gateway": "fd00:77::1" }],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]
    })
}

#[test]
fn a_plain_bridge_without_addresses() {
    let config = config(&json!({}));
    let expected = json!([
        { "resource": "bridge", "name": "cni0", "vlanFiltering": false, "promiscuous": false, "router": false },
        { "resource": "veth-pair", "host": "veth12345678", "container": "eth0" },
        {
            "resource": "bridge-port", "link": "veth12345678", "bridge": "cni0", "hairpin": false, "isolated": false,
            "trunk": [], "clearVlans": false
        }
    ]);
    assert_eq!(link_of(&config), expected);
    let expected = json!([{ "resource": "interface", "name": "eth0", "up": true, "dad": false }]);
    assert_eq!(network_of(&config, &json!({})), expected);
}

#[test]
fn what_is_asked_of_bridge_pair_and_port() {
    let keys = json!({
        "bridge": "br1", "mtu": 1400, "promiscMode": true, "portIsolation": true,
        "runtimeConfig": { "mac": "02:00:00:00:00:01" }
    });
    let expected = json!([
        { "resource": "bridge", "name": "br1", "mtu": 1400, "vlanFiltering": false, "promiscuous": true, "router": false },
        { "resource": "veth-pair", "host": "veth12345678", "container": "eth0", "mtu": 1400, "mac": "02:00:00:00:00:01" },
        {
            "resource": "bridge-port", "link": "veth12345678", "bridge": "br1", "hairpin": false, "isolated": true,
            "trunk": [], "clearVlans": false
        }
    ]);
    assert_eq!(link_of(&config(&keys)), expected);
    assert_eq!(link_of(&config(&json!({ "hairpinMode": true })))[2]["hairpin"], true);
}

#[test]
fn a_disabled_interface_stays_down() {
    let config = config(&json!({ "disableContainerInterface": true }));
    assert_eq!(
        network_of(&config, &json!({})),
        json!([{ "resource": "interface", "name": "eth0", "up": false, "dad": false }])
    );
}

#[test]
fn vlans_of_a_port() {
    let port = |keys: Value| {
        let resources = link_of(&config(&keys));
        assert_eq!(resources[0]["vlanFiltering"], true, "{keys}");
        let port = &resources[2];
        (port["nativeVlan"].clone(), port["trunk"].clone(), port["clearVlans"].clone())
    };
    assert_eq!(port(json!({ "vlan": 100 })), (json!(100), json!([]), json!(true)));
    let trunk = json!([{ "id": 101 }, { "minID": 200, "maxID": 210 }]);
    let expected = json!([[101, 101], [200, 210]]);
    assert_eq!(
        port(json!({ "vlanTrunk": trunk })),
        (json!(1), expected.clone(), json!(true)),
        "without `vlan`, the native VLAN is the bridge's default"
    );
    assert_eq!(port(json!({ "vlan": 100, "vlanTrunk": trunk })), (json!(100), expected, json!(true)));
    assert_eq!(port(json!({ "vlanTrunk": [] })), (json!(1), json!([]), json!(true)));
    assert_eq!(
        port(json!({ "vlan": 100, "preserveDefaultVlan": true })),
        (json!(100), json!([]), json!(false))
    );
}

#[test]
fn a_gateway_with_masquerade_and_spoof_check() {
    let config = layer3(json!({
        "isGateway": true, "ipMasq": true, "macspoofchk": true, "forceAddress": true,
        "ipMasqExclude": ["10.0.0.0/8", "fd00::/8"]
    }));
    assert_eq!(link_of(&config)[0]["router"], true);
    let expected = json!([
        { "resource": "forwarding", "ipv4": true },
        { "resource": "forwarding", "ipv4": false },
        { "resource": "gateway", "link": "cni0", "address": "10.77.0.1/24", "force": true },
        { "resource": "gateway", "link": "cni0", "address": "fd00:77::1/64", "force": true },
        {
            "resource": "interface", "name": "eth0", "up": true, "dad": false,
            "sysctls": [["ipv4/arp_notify", "1"], ["ipv6/accept_ra", "0"], ["ipv6/accept_dad", "0"]],
            "addresses": ["10.77.0.5/24", "fd00:77::5/64"],
            "routes": [{ "dst": "0.0.0.0/0", "gateway": "10.77.0.1" }, { "dst": "::/0", "gateway": "fd00:77::1" }]
        },
        { "resource": "rules", "backend": "nftables", "entries": [
            { "kind": "masquerade", "address": "10.77.0.5/24", "exclude": ["10.0.0.0/8"] },
            { "kind": "masquerade", "address": "fd00:77::5/64", "exclude": ["fd00::/8"] },
            { "kind": "spoof-guard", "port": "veth12345678", "mac": "02:00:00:00:00:09" }
        ] }
    ]);
    assert_eq!(network_of(&config, &dual_stack()), expected);
}

#[test]
fn without_a_gateway_the_host_is_left_alone() {
    let resources = network_of(&layer3(json!({})), &dual_stack());
    assert_eq!(kinds(&resources), ["interface"]);
    assert_eq!(
        resources[0]["routes"],
        json!([{ "dst": "0.0.0.0/0", "gateway": "10.77.0.1" }, { "dst": "::/0", "gateway": "fd00:77::1" }])
    );
}

#[test]
fn forwarding_is_for_the_families_in_use() {
    let config = layer3(json!({ "isGateway": true }));
    let families = |result: &Value| kind(&network_of(&config, result), "forwarding");
    assert_eq!(families(&one_address()), [json!({ "resource": "forwarding", "ipv4": true })]);
    assert_eq!(
        families(&json!({ "ips": [{ "address": "fd00::5/64" }] })),
        [json!({ "resource": "forwarding", "ipv4": false })]
    );
}

#[test]
fn the_backend_of_masquerade_is_the_hosts_preferred_one_unless_named() {
    let backends = |keys: Value| {
        let completed = complete(&layer3(keys.clone()), ipam(&one_address())).unwrap();
        let host_end = name("veth12345678");
        let resources =
            network(&layer3(keys), &completed, &host_end, &name("eth0"), "02:00:00:00:00:09", || {
                Backend::Iptables
            });
        let resources = serde_json::to_value(resources.unwrap()).unwrap();
        let rules = kind(&resources, "rules");
        let text = |rule: &Value| {
            let kinds: Vec<&str> = rule["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["kind"].as_str().unwrap())
                .collect();
            format!("{} {}", rule["backend"].as_str().unwrap(), kinds.join(","))
        };
        rules.iter().map(text).collect::<Vec<String>>()
    };
    assert_eq!(backends(json!({ "ipMasq": true })), ["iptables masquerade"]);
    assert_eq!(backends(json!({ "ipMasq": true, "ipMasqBackend": "nftables" })), ["nftables masquerade"]);
    assert_eq!(
        backends(json!({ "ipMasq": true, "ipMasqBackend": "iptables", "macspoofchk": true })),
        ["iptables masquerade", "nftables spoof-guard"],
        "iptables sees no frames"
    );
    assert_eq!(
        backends(json!({ "ipMasq": true, "ipMasqBackend": "nftables", "macspoofchk": true })),
        ["nftables masquerade,spoof-guard"],
        "one transaction"
    );
    assert_eq!(backends(json!({ "ipMasqExclude": ["10.0.0.0/8"] })), [""; 0]);
}

#[test]
fn without_addresses_there_is_nothing_to_masquerade_but_frames_are_checked() {
    let config = config(&json!({ "ipMasq": true, "macspoofchk": true, "isGateway": true }));
    let resources = network_of(&config, &json!({}));
    assert_eq!(kinds(&resources), ["interface", "rules"]);
    assert_eq!(resources[1]["entries"][0]["kind"], "spoof-guard");
}

#[test]
fn an_ipam_plugin_must_give_an_address() {
    let failure = complete(&layer3(json!({})), ipam(&json!({}))).unwrap_err();
    assert_eq!((failure.code().number(), failure.message()), (7, "IPAM plugin returned missing IP config"));
}

#[test]
fn addresses_belong_to_the_third_interface() {
    let completed = complete(&layer3(json!({})), ipam(&dual_stack())).unwrap();
    assert_eq!(completed.ips.iter().map(|ip| ip.interface).collect::<Vec<_>>(), [Some(2), Some(2)]);
}

#[test]
fn a_gateway_that_ipam_does_not_name_is_the_first_address() {
    let config = layer3(json!({ "isGateway": true }));
    for (address, gateway) in [
        ("10.77.0.5/24", "10.77.0.1/24"),
        ("10.1.2.3/16", "10.1.0.1/16"),
        ("fd00:77::5/64", "fd00:77::1/64"),
        ("10.77.0.5/30", "10.77.0.5/30"),
        ("10.77.0.6/31", "10.77.0.7/31"),
        ("10.77.0.7/31", "10.77.0.6/31"),
        ("fd00::7/127", "fd00::6/127"),
    ] {
        let result = complete(&config, ipam(&json!({ "ips": [{ "address": address }] })));
        if address == gateway {
            assert!(result.is_err(), "{address} is both");
        } else {
            assert_eq!(gateways_of(&config, &json!({ "ips": [{ "address": address }] })), [gateway]);
        }
    }
    for address in ["10.77.0.7/32", "fd00::7/128"] {
        assert_eq!(
            gateways_of(&config, &json!({ "ips": [{ "address": address }] })),
            [""; 0],
            "no room beside it"
        );
    }
}

#[test]
fn a_container_on_the_gateways_address_is_refused() {
    let config = layer3(json!({ "isGateway": true }));
    let failure = complete(&config, ipam(&json!({ "ips": [{ "address": "10.77.0.1/24" }] }))).unwrap_err();
    assert_eq!(failure.code().number(), 7);
    assert_eq!(
        failure.message(),
        "10.77.0.1/24 is the container's address and, with isGateway, the gateway's"
    );
    let named = json!({ "ips": [{ "address": "10.77.0.1/24", "gateway": "10.77.0.254" }] });
    assert_eq!(gateways_of(&config, &named), ["10.77.0.254/24"]);
    assert!(complete(&layer3(json!({})), ipam(&json!({ "ips": [{ "address": "10.77.0.1/24" }] }))).is_ok());
}

#[test]
fn addresses_of_one_subnet_share_a_gateway() {
    let config = layer3(json!({ "isGateway": true }));
    let result = json!({ "ips": [{ "address": "10.77.0.5/24" }, { "address": "10.77.0.6/24" }, { "address": "10.78.0.6/24" }] });
    assert_eq!(gateways_of(&config, &result), ["10.77.0.1/24", "10.78.0.1/24"]);
}

#[test]
fn the_gateway_in_a_vlan_has_its_own_interface() {
    let config = layer3(json!({ "isGateway": true, "vlan": 100, "mtu": 1400 }));
    let resources = network_of(&config, &one_address());
    assert_eq!(kinds(&resources), ["forwarding", "vlan-gateway", "gateway", "interface"]);
    let port = resources[1]["port"].as_str().unwrap();
    assert!(port.starts_with("veth") && port.len() == 12, "{port}");
    assert_eq!(
        resources[1],
        json!({
            "resource": "vlan-gateway", "bridge": "cni0", "name": "cni0.100", "port": port, "vlan": 100, "mtu": 1400,
            "keepDefaultVlan": false
        })
    );
    assert_eq!(resources[2]["link"], "cni0.100");
    let again = network_of(&config, &one_address());
    assert_eq!(again[1]["port"], port, "the name is derived, so that it can be found again");
}

#[test]
fn a_default_gateway_adds_a_default_route_a_family() {
    let config = layer3(json!({ "isDefaultGateway": true }));
    assert_eq!(routes_of(&config, &one_address()), ["0.0.0.0/0 via 10.77.0.1"]);
    let two = json!({ "ips": [{ "address": "10.77.0.5/24" }, { "address": "fd00::5/64" }] });
    assert_eq!(routes_of(&config, &two), ["0.0.0.0/0 via 10.77.0.1", "::/0 via fd00::1"]);
    let three = json!({ "ips": [{ "address": "10.77.0.5/24" }, { "address": "10.78.0.5/24" }] });
    assert_eq!(routes_of(&config, &three), ["0.0.0.0/0 via 10.77.0.1"], "one, through the first");
    assert_eq!(routes_of(&layer3(json!({ "isGateway": true })), &one_address()), [""; 0]);
}

#[test]
fn a_default_route_of_ipam_is_completed_not_repeated() {
    let config = layer3(json!({ "isDefaultGateway": true }));
    assert_eq!(routes_of(&config, &dual_stack()), ["0.0.0.0/0 via 10.77.0.1", "::/0 via fd00:77::1"]);
    let with_routes = |routes: Value| json!({ "ips": [{ "address": "10.77.0.5/24" }], "routes": routes });
    assert_eq!(
        routes_of(&config, &with_routes(json!([{ "dst": "0.0.0.0/0", "gw": "10.77.0.254" }]))),
        ["0.0.0.0/0 via 10.77.0.254"],
        "IPAM has decided"
    );
    assert_eq!(
        routes_of(&config, &with_routes(json!([{ "dst": "0.0.0.0/0", "priority": 50 }]))),
        ["0.0.0.0/0 via 10.77.0.1 metric 50"]
    );
    assert_eq!(
        routes_of(&config, &with_routes(json!([{ "dst": "0.0.0.0/0", "table": 100 }]))),
        ["0.0.0.0/0 via 10.77.0.1 table 100", "0.0.0.0/0 via 10.77.0.1"],
        "one in another table is not the default route"
    );
    assert_eq!(
        routes_of(&config, &with_routes(json!([{ "dst": "0.0.0.0/0", "scope": 253 }]))),
        ["0.0.0.0/0 scope 253"],
        "on the link, as it says"
    );
    let completed = complete(&config, ipam(&with_routes(json!([{ "dst": "0.0.0.0/0" }])))).unwrap();
    assert_eq!(completed.routes.len(), 1);
    assert_eq!(completed.routes[0].gw, Some("10.77.0.1".parse().unwrap()), "the result says so too");
}

#[test]
fn a_route_without_a_next_hop_goes_through_the_gateway_of_its_family() {
    let config = layer3(json!({}));
    let routes = json!([
        { "dst": "10.0.0.0/8" }, { "dst": "192.168.0.0/16", "gw": "10.77.0.9" }, { "dst": "fd01::/32" },
        { "dst": "10.99.0.0/16", "scope": 253 }, { "dst": "10.98.0.1/32", "scope": 254 }, { "dst": "10.97.0.0/16", "scope": 0 }
    ]);
    let result = json!({
        "ips": [
            { "address": "10.77.0.5/24", "gateway": "10.77.0.1" }, { "address": "10.78.0.5/24", "gateway": "10.78.0.1" },
            { "address": "fd00::5/64", "gateway": "fd00::1" }
        ],
        "routes": routes
    });
    let expected = [
        "10.0.0.0/8 via 10.77.0.1",
        "192.168.0.0/16 via 10.77.0.9",
        "fd01::/32 via fd00::1",
        "10.99.0.0/16 scope 253",
        "10.98.0.1/32 scope 254",
        "10.97.0.0/16 via 10.77.0.1 scope 0",
    ];
    assert_eq!(routes_of(&config, &result), expected);
    let no_gateway = json!({ "ips": [{ "address": "10.77.0.5/24" }], "routes": [{ "dst": "10.0.0.0/8" }] });
    assert_eq!(routes_of(&config, &no_gateway), ["10.0.0.0/8"], "without a gateway, on the link");
}

#[test]
fn every_attribute_of_a_route_is_kept() {
    let routes = json!([
        { "dst": "10.5.0.0/16", "mtu": 1300, "advmss": 1260, "priority": 7, "table": 500, "scope": 0 },
        { "dst": "10.6.0.0/16", "table": 0 }
    ]);
    let result = json!({ "ips": [{ "address": "10.77.0.5/24", "gateway": "10.77.0.1" }], "routes": routes });
    assert_eq!(
        routes_of(&layer3(json!({})), &result),
        [
            "10.5.0.0/16 via 10.77.0.1 metric 7 table 500 mtu 1300 advmss 1260 scope 0",
            "10.6.0.0/16 via 10.77.0.1 table 0"
        ]
    );
}

#[test]
fn a_configured_name_service_replaces_that_of_ipam_as_a_whole() {
    let result = || {
        ipam(&json!({
            "ips": [{ "address": "10.77.0.5/24" }],
            "dns": { "nameservers": ["10.77.0.1"], "search": ["ipam.example"], "options": ["ndots:2"] }
        }))
    };
    let nameservers = |keys: Value| {
        let dns = complete(&layer3(keys), result()).unwrap().dns;
        (dns.nameservers, dns.search)
    };
    let of_ipam = (vec!["10.77.0.1".to_owned()], vec!["ipam.example".to_owned()]);
    assert_eq!(nameservers(json!({})), of_ipam);
    assert_eq!(nameservers(json!({ "dns": {} })), of_ipam, "nothing is configured");
    assert_eq!(nameservers(json!({ "dns": { "nameservers": [] } })), (vec![], vec![]));
    assert_eq!(
        nameservers(json!({ "dns": { "nameservers": ["192.0.2.53"] } })),
        (vec!["192.0.2.53".to_owned()], vec![]),
        "its search list goes too"
    );
}

#[test]
fn duplicate_address_detection_and_router_advertisements_are_on_request() {
    let sysctls = |keys: Value| {
        let interface = kind(&network_of(&layer3(keys), &dual_stack()), "interface")[0].clone();
        (interface["sysctls"].clone(), interface["dad"].clone())
    };
    assert_eq!(
        sysctls(json!({ "enabledad": true, "acceptRA": true })),
        (
            json!([
                ["ipv4/arp_notify", "1"],
                ["ipv6/accept_ra", "1"],
                ["ipv6/enhanced_dad", "1"],
                ["ipv6/accept_dad", "1"]
            ]),
            json!(true)
        )
    );
}
