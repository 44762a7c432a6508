//! Containers with addresses.

use serde_json::{Value, json};
use testkit::{Host, Netns, Plugin, ping, plugin_dir, sysctl, tcp_echo_server, tcp_roundtrip};

use crate::support::*;

/// A kind of network: its ranges, the gateway addresses that belong on the bridge, and how many addresses a container has.
struct Case {
    subnets: &'static [&'static str],
    gateways: &'static [&'static str],
}

const CASES: [Case; 3] = [
    Case { subnets: &[SUBNET_4], gateways: &["10.77.0.1/24"] },
    Case { subnets: &[SUBNET_6], gateways: &["fd00:77::1/64"] },
    Case { subnets: &[SUBNET_4, SUBNET_6], gateways: &["10.77.0.1/24", "fd00:77::1/64"] },
];

#[test]
fn a_container_is_connected_and_disconnected_in_every_version() {
    let host = Host::new();
    let before = state();
    for version in VERSIONS {
        for case in &CASES {
            connect(&host, version, case);
            before.assert_same(&state());
        }
    }
}

fn connect(host: &Host, version: &str, case: &Case) {
    let container = host.container("c1");
    let ipam = json!({ "type": "host-local", "ranges": ranges(case.subnets), "dataDir": "/run/leases" });
    let chain = net_of(version, "net", json!({ "isDefaultGateway": true, "ipam": ipam }));
    let attachment = eth0(&container);
    chain.status().unwrap();
    let result = chain.add(&attachment).unwrap();

    assert_result(&result, host.netns(), &container, version, case);
    assert_eq!(addresses(host.netns(), "cni0", false), case.gateways);
    let bridge = link(host.netns(), "cni0");
    assert_eq!(bridge["linkinfo"]["info_kind"], "bridge");
    assert_eq!(bridge["linkinfo"]["info_data"]["vlan_filtering"], 0);
    assert_eq!(bridge["promiscuity"], 0);
    let port = host_end(host.netns(), &container, "eth0");
    assert_eq!(port["master"], "cni0");
    assert_eq!(port["linkinfo"]["info_slave_data"]["isolated"], false);
    assert_eq!(port["linkinfo"]["info_slave_data"]["hairpin"], false);
    assert_eq!(links(host.netns()), ["cni0", "lo", port["ifname"].as_str().unwrap()]);

    let inside = link(&container, "eth0");
    assert_eq!(inside["linkinfo"]["info_kind"], "veth");
    assert_eq!(inside["operstate"], "UP");
    assert_eq!(addresses(&container, "eth0", false).len(), case.subnets.len());
    for gateway in case.gateways {
        let gateway = gateway.split('/').next().unwrap();
        let words = if gateway.contains(':') { "-6 route show default" } else { "-4 route show default" };
        let defaults = routes(&container, words);
        assert_eq!(defaults.len(), 1, "{defaults:?}");
        assert!(defaults[0].starts_with(&format!("default via {gateway} dev eth0")), "{defaults:?}");
        assert!(ping(&container, gateway.parse::<std::net::IpAddr>().unwrap()), "the gateway answers");
    }
    for address in addresses(&container, "eth0", false) {
        let address: std::net::IpAddr = address.split('/').next().unwrap().parse().unwrap();
        assert!(ping(host.netns(), address), "the host reaches {address}");
    }

    check(&chain, &attachment, version);
    chain.del(&attachment).unwrap();
    assert_eq!(links(&container), ["lo"]);
    assert_eq!(links(host.netns()), ["lo"]);
    std::fs::remove_dir_all("/run/leases").unwrap();
}

fn ranges(subnets: &[&str]) -> Value {
    subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect()
}

/// CHECK succeeds where the version has it; where not, the answer is the Go suite's.
fn check(chain: &testkit::Chain, attachment: &testkit::Attachment, version: &str) {
    if at_least(version, "0.4.0") {
        return chain.check(attachment).unwrap();
    }
    let stdin = chain.stdin(0, attachment, None);
    let output = Plugin::new("bridge")
        .verb("CHECK")
        .attachment("c1", "/run/netns/c1", "eth0")
        .path(&[plugin_dir()])
        .config(&stdin)
        .run();
    let error = output.error();
    assert_eq!(error["code"], 1);
    assert_eq!(error["msg"], "config version does not allow CHECK");
}

fn assert_result(result: &Value, host: &Netns, container: &Netns, version: &str, case: &Case) {
    if !at_least(version, "0.3.0") {
        assert_eq!(result.get("interfaces"), None);
        for gateway in case.gateways {
            let key = if gateway.contains(':') { "ip6" } else { "ip4" };
            assert_eq!(result[key]["gateway"], gateway.split('/').next().unwrap());
            assert_eq!(result[key]["routes"].as_array().unwrap().len(), 1);
        }
        return;
    }
    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 3, "{result}");
    let port = host_end(host, container, "eth0");
    let kernel = [link(host, "cni0"), port, link(container, "eth0")];
    for (interface, link) in interfaces.iter().zip(&kernel) {
        assert_eq!(interface["name"], link["ifname"]);
        assert_eq!(interface["mac"], link["address"]);
        let mtu = interface.get("mtu").cloned().unwrap_or_default();
        assert_eq!(mtu, if at_least(version, "1.1.0") { link["mtu"].clone() } else { Value::Null });
    }
    assert!(interfaces[1]["name"].as_str().unwrap().starts_with("veth"));
    assert_ne!(interfaces[0]["mac"], interfaces[1]["mac"]);
    assert_eq!(interfaces[2]["sandbox"], container.path().to_str().unwrap());
    assert_eq!((interfaces[0].get("sandbox"), interfaces[1].get("sandbox")), (None, None));
    let ips = result["ips"].as_array().unwrap();
    assert_eq!(ips.len(), case.subnets.len());
    for (ip, gateway) in ips.iter().zip(case.gateways) {
        assert_eq!(ip["interface"], 2);
        assert_eq!(ip["gateway"], gateway.split('/').next().unwrap());
        let family = if at_least(version, "1.0.0") {
            Value::Null
        } else {
            json!(if gateway.contains(':') { "6" } else { "4" })
        };
        assert_eq!(ip.get("version").cloned().unwrap_or_default(), family);
    }
    assert_eq!(result["routes"].as_array().unwrap().len(), case.subnets.len());
}

#[test]
fn more_than_one_address_a_family_needs_version_0_3_0() {
    let host = Host::new();
    let subnets = [SUBNET_4, SUBNET_6, "fd00:78::/64"];
    let keys = json!({ "isDefaultGateway": true, "ipam": host_local(&subnets) });
    for version in VERSIONS {
        let container = host.container("c1");
        let before = state();
        let chain = net_of(version, "net", keys.clone());
        let attachment = eth0(&container);
        if at_least(version, "0.3.0") {
            chain.add(&attachment).unwrap();
            assert_eq!(addresses(&container, "eth0", false).len(), 3);
            assert_eq!(
                addresses(host.netns(), "cni0", false),
                ["10.77.0.1/24", "fd00:77::1/64", "fd00:78::1/64"]
            );
            chain.del(&attachment).unwrap();
        } else {
            let text = format!("CNI version {version} does not support more than 1 address per family");
            assert!(refusal(chain.add(&attachment)).1.contains(&text));
            // The Go plugin refuses this too, and so never gets rid of what was made with another configuration.
            chain.del(&attachment).unwrap();
        }
        assert_eq!(links(&container), ["lo"]);
        before.assert_same(&state());
    }
}

#[test]
fn containers_reach_each_other_with_their_own_addresses() {
    let host = Host::new();
    let chain = net(json!({ "isGateway": true, "ipMasq": true, "ipam": dual() }));
    let (one, two) = (host.container("c1"), host.container("c2"));
    chain.add(&eth0(&one)).unwrap();
    let result = chain.add(&eth0(&two)).unwrap();
    for ipv4 in [true, false] {
        let address: std::net::IpAddr = address_of(&result, ipv4).parse().unwrap();
        let server = tcp_echo_server(&two, address, 0);
        let reply = tcp_roundtrip(&one, address, server.address().port()).unwrap();
        assert_eq!(reply.server, "c2");
        let own = address_of(&chain.result(&eth0(&one)).unwrap(), ipv4);
        assert_eq!(reply.seen_from.ip().to_string(), own);
    }
}

#[test]
fn name_service_settings_are_those_of_ipam_unless_configured() {
    let host = Host::new();
    std::fs::write("/run/resolv.conf", "nameserver 192.0.2.53\nsearch example.org\noptions ndots:2\n")
        .unwrap();
    let mut ipam = v4();
    ipam["resolvConf"] = json!("/run/resolv.conf");
    let of_ipam = json!({ "nameservers": ["192.0.2.53"], "search": ["example.org"], "options": ["ndots:2"] });
    for (number, (dns, expected)) in [
        (Value::Null, of_ipam.clone()),
        (json!({}), of_ipam),
        (json!({ "nameservers": ["10.0.0.1"] }), json!({ "nameservers": ["10.0.0.1"] })),
        (json!({ "nameservers": [] }), Value::Null),
    ]
    .into_iter()
    .enumerate()
    {
        let container = host.container(&format!("c{number}"));
        let chain = net(json!({ "ipam": ipam, "dns": dns }));
        let result = chain.add(&eth0(&container)).unwrap();
        assert_eq!(result.get("dns").cloned().unwrap_or_default(), expected, "with dns {dns}");
    }
}

#[test]
fn without_is_gateway_the_host_has_no_address() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = net(json!({ "ipam": v4() }));
    chain.add(&eth0(&container)).unwrap();
    assert_eq!(addresses(host.netns(), "cni0", false), [""; 0]);
    assert_eq!(sysctl("net.ipv4.ip_forward"), "0");
    assert_eq!(
        routes(&container, "-4 route show default").len(),
        1,
        "the route of IPAM, through its gateway"
    );
}

#[test]
fn forwarding_goes_back_with_the_last_container() {
    let host = Host::new();
    let chain = net(json!({ "isGateway": true, "ipam": dual() }));
    let (one, two) = (host.container("c1"), host.container("c2"));
    let forwarding = || (sysctl("net.ipv4.ip_forward"), sysctl("net.ipv6.conf.all.forwarding"));
    let before = forwarding();
    chain.add(&eth0(&one)).unwrap();
    chain.add(&eth0(&two)).unwrap();
    assert_eq!(forwarding(), ("1".to_owned(), "1".to_owned()));
    chain.del(&eth0(&one)).unwrap();
    assert_eq!(forwarding(), ("1".to_owned(), "1".to_owned()));
    chain.del(&eth0(&two)).unwrap();
    assert_eq!(forwarding(), before);
}

#[test]
fn forwarding_that_was_on_stays_on() {
    let host = Host::new();
    testkit::set_sysctl("net.ipv4.ip_forward", "1");
    let chain = net(json!({ "isGateway": true, "ipam": v4() }));
    let container = host.container("c1");
    chain.add(&eth0(&container)).unwrap();
    chain.del(&eth0(&container)).unwrap();
    assert_eq!(sysctl("net.ipv4.ip_forward"), "1");
}

#[test]
fn every_attribute_of_a_route_reaches_the_kernel() {
    let host = Host::new();
    let container = host.container("c1");
    let ipam = fixed(json!({
        "ips": [{ "address": "10.77.0.5/24", "gateway": "10.77.0.1" }, { "address": "fd00:77::5/64", "gateway": "fd00:77::1" }],
        "routes": [
            { "dst": "0.0.0.0/0" },
            { "dst": "10.5.0.0/16", "mtu": 1300, "advmss": 1260, "priority": 7 },
            { "dst": "10.6.0.0/16", "gw": "10.77.0.9", "table": 500 },
            { "dst": "10.7.0.0/16", "scope": 253 },
            { "dst": "10.8.0.0/16", "gw": "10.77.0.8" },
            { "dst": "10.8.0.0/16", "gw": "10.77.0.9", "priority": 50 },
            { "dst": "10.8.0.0/16", "gw": "10.77.0.8" },
            { "dst": "fd05::/32", "mtu": 1300, "priority": 5 },
            { "dst": "fd06::/32", "table": 500 }
        ]
    }));
    let chain = net(json!({ "isGateway": true, "ipam": ipam }));
    let result = chain.add(&eth0(&container)).unwrap();
    assert_eq!(
        result["routes"][1],
        json!({ "dst": "10.5.0.0/16", "mtu": 1300, "advmss": 1260, "priority": 7 })
    );
    assert_eq!(
        routes(&container, "-4 route show"),
        [
            "10.5.0.0/16 via 10.77.0.1 dev eth0 metric 7 mtu 1300 advmss 1260",
            "10.7.0.0/16 dev eth0 scope link",
            "10.8.0.0/16 via 10.77.0.8 dev eth0",
            "10.8.0.0/16 via 10.77.0.9 dev eth0 metric 50",
            "default via 10.77.0.1 dev eth0",
        ]
    );
    assert_eq!(routes(&container, "-4 route show table 500"), ["10.6.0.0/16 via 10.77.0.9 dev eth0"]);
    assert_eq!(
        routes(&container, "-6 route show"),
        ["fd05::/32 via fd00:77::1 dev eth0 metric 5 mtu 1300 pref medium"]
    );
    assert_eq!(
        routes(&container, "-6 route show table 500"),
        ["fd06::/32 via fd00:77::1 dev eth0 metric 1024 pref medium"]
    );
    chain.check(&eth0(&container)).unwrap();
}

#[test]
fn a_subnet_of_two_addresses_is_enough() {
    let host = Host::new();
    let container = host.container("c1");
    let ipam = fixed(json!({ "ips": [{ "address": "10.77.0.4/31" }, { "address": "fd00:77::6/127" }] }));
    let chain = net(json!({ "isDefaultGateway": true, "ipam": ipam }));
    chain.add(&eth0(&container)).unwrap();
    assert_eq!(addresses(host.netns(), "cni0", false), ["10.77.0.5/31", "fd00:77::7/127"]);
    assert!(ping(&container, [10, 77, 0, 5]));
    assert!(ping(&container, "fd00:77::7".parse::<std::net::Ipv6Addr>().unwrap()));
}

#[test]
fn two_interfaces_of_a_container_on_one_network_are_two_attachments() {
    let host = Host::new();
    let uplink = host.uplink();
    let container = host.container("c1");
    let chain = net(
        json!({ "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "macspoofchk": true, "ipam": v4() }),
    );
    let second = testkit::Attachment::new("c1", &container, "eth1");
    let one = address_of(&chain.add(&eth0(&container)).unwrap(), true);
    let before = state();
    chain.add(&second).unwrap();
    chain.check(&eth0(&container)).unwrap();
    chain.check(&second).unwrap();
    chain.del(&second).unwrap();
    before.assert_same(&state());
    chain.check(&eth0(&container)).unwrap();
    let server = tcp_echo_server(&uplink, testkit::Uplink::OUTSIDE_IPV4, 0);
    let reply = tcp_roundtrip(&container, testkit::Uplink::OUTSIDE_IPV4, server.address().port()).unwrap();
    assert_eq!(reply.seen_from.ip(), testkit::Uplink::HOST_IPV4, "{one} is still masqueraded");
}

#[test]
fn two_networks_on_two_bridges_do_not_disturb_each_other() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = |name: &str, subnet: &str| {
        net_of(
            "1.1.0",
            name,
            json!({ "bridge": format!("br-{name}"), "isGateway": true, "ipMasq": true, "ipam": host_local(&[subnet]) }),
        )
    };
    let (red, blue) = (chain("red", "10.1.0.0/24"), chain("blue", "10.2.0.0/24"));
    let eth1 = testkit::Attachment::new("c1", &container, "eth1");
    red.add(&eth0(&container)).unwrap();
    let before = state();
    blue.add(&eth1).unwrap();
    for address in [[10, 1, 0, 2], [10, 2, 0, 2]] {
        assert!(ping(host.netns(), address), "{address:?} answers");
    }
    red.check(&eth0(&container)).unwrap();
    blue.check(&eth1).unwrap();
    blue.del(&eth1).unwrap();
    before.assert_same(&state());
    red.check(&eth0(&container)).unwrap();
    red.del(&eth0(&container)).unwrap();
    assert_eq!(links(host.netns()), ["lo"]);
}

#[test]
fn behind_another_plugin_the_result_has_what_was_there() {
    let host = Host::new();
    let container = host.container("c1");
    let earlier = json!({ "cniVersion": "1.1.0",
        "interfaces": [{ "name": "net1", "sandbox": container.path().display().to_string() }],
        "ips": [{ "address": "192.0.2.5/24", "interface": 0 }], "dns": { "nameservers": ["192.0.2.53"] } });
    stub("earlier", &format!("printf %s '{earlier}'"));
    let list = json!({ "cniVersion": "1.1.0", "name": "net", "plugins": [
        { "type": "earlier" },
        { "type": "bridge", "isGateway": true, "ipam": v4() },
    ] });
    let chain = runtime().chain(&list);
    let result = chain.add(&eth0(&container)).unwrap();
    let names: Vec<&str> =
        result["interfaces"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
    assert_eq!((names[0], names[1], names[3], names.len()), ("net1", "cni0", "eth0", 4));
    assert_eq!(result["ips"][0], earlier["ips"][0]);
    assert_eq!(result["ips"][1]["interface"], 3, "the address points at eth0");
    assert_eq!(result["dns"], earlier["dns"]);
    chain.check(&eth0(&container)).unwrap();
    chain.del(&eth0(&container)).unwrap();
}
