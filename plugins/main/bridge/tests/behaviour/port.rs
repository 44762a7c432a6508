//! Ports: without addresses, hairpin, isolation, promiscuous mode, MTU, hardware addresses.

use serde_json::{Value, json};
use testkit::{Attachment, Host, eventually, ping};

use crate::support::*;

#[test]
fn layer_2_needs_no_ipam() {
    let host = Host::new();
    let before = state();
    for version in VERSIONS {
        let (one, two) = (host.container("c1"), host.container("c2"));
        let chain = net_of(version, "net", json!({ "ipam": {} }));
        chain.status().unwrap();
        if at_least(version, "0.3.0") {
            let result = chain.add(&eth0(&one)).unwrap();
            chain.add(&eth0(&two)).unwrap();
            assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
            assert_eq!((result.get("ips"), result.get("routes")), (None, None));
            assert_eq!(link(&one, "eth0")["operstate"], "UP");
            ip(&one, "addr add 10.5.0.1/24 dev eth0");
            ip(&two, "addr add 10.5.0.2/24 dev eth0");
            assert!(ping(&one, [10, 5, 0, 2]), "frames pass");
            if at_least(version, "0.4.0") {
                chain.check(&eth0(&one)).unwrap();
            }
            chain.del(&eth0(&one)).unwrap();
            chain.del(&eth0(&two)).unwrap();
        } else {
            assert_eq!(refusal(chain.add(&eth0(&one))).1, "cannot convert: no valid IP addresses");
            chain.del(&eth0(&one)).unwrap();
        }
        assert_eq!(links(&one), ["lo"]);
        drop((one, two));
        before.assert_same(&state());
    }
}

#[test]
fn a_disabled_interface_is_left_down_without_any_address() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = net(json!({ "disableContainerInterface": true }));
    chain.add(&eth0(&container)).unwrap();
    assert!(!is_up(&link(&container, "eth0")));
    assert_eq!(addresses(&container, "eth0", true), [""; 0]);
    assert!(
        is_up(&host_end(host.netns(), &container, "eth0")),
        "the host's end is ready for when it comes up"
    );
    chain.check(&eth0(&container)).unwrap();
    chain.del(&eth0(&container)).unwrap();
    assert_eq!(links(host.netns()), ["lo"]);
}

/// A setting of the container's port, as `ip -d` shows it.
fn port_setting(keys: Value, setting: &str) -> Value {
    let host = Host::new();
    let container = host.container("c1");
    let chain = net(keys);
    chain.add(&eth0(&container)).unwrap();
    chain.check(&eth0(&container)).unwrap();
    host_end(host.netns(), &container, "eth0")["linkinfo"]["info_slave_data"][setting].clone()
}

#[test]
fn hairpin_mode_is_set_on_the_port() {
    assert_eq!(port_setting(json!({ "hairpinMode": true, "ipam": v4() }), "hairpin"), true);
}

#[test]
fn isolation_is_set_on_the_port() {
    assert_eq!(port_setting(json!({ "portIsolation": true, "ipam": v4() }), "isolated"), true);
}

#[test]
fn isolated_ports_reach_the_host_and_not_each_other() {
    let host = Host::new();
    let (one, two, open) = (host.container("c1"), host.container("c2"), host.container("c3"));
    let isolated = net(json!({ "isGateway": true, "portIsolation": true, "ipam": v4() }));
    isolated.add(&eth0(&one)).unwrap();
    let second = address_of(&isolated.add(&eth0(&two)).unwrap(), true).parse::<std::net::Ipv4Addr>().unwrap();
    let third = net(json!({ "isGateway": true, "ipam": v4() })).add(&eth0(&open)).unwrap();
    assert!(ping(&one, [10, 77, 0, 1]), "the host");
    assert!(
        ping(&one, address_of(&third, true).parse::<std::net::Ipv4Addr>().unwrap()),
        "a port that is not isolated"
    );
    assert!(!ping(&one, second), "another isolated port");
}

#[test]
fn promiscuous_mode_is_the_bridges() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = net(json!({ "promiscMode": true, "isGateway": true, "ipam": v4() }));
    chain.add(&eth0(&container)).unwrap();
    assert_eq!(link(host.netns(), "cni0")["promiscuity"], 1);
    chain.check(&eth0(&container)).unwrap();
}

#[test]
fn an_mtu_is_that_of_bridge_and_pair() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = net(json!({ "mtu": 1400, "isGateway": true, "ipam": v4() }));
    let result = chain.add(&eth0(&container)).unwrap();
    for (index, link) in
        [link(host.netns(), "cni0"), host_end(host.netns(), &container, "eth0"), link(&container, "eth0")]
            .iter()
            .enumerate()
    {
        assert_eq!(link["mtu"], 1400);
        assert_eq!(result["interfaces"][index]["mtu"], 1400);
    }
    let fits = |size: &str| container.run("ping", &["-c1", "-W2", "-Mdo", "-s", size, "10.77.0.1"]).code == 0;
    assert!(fits("1372"), "20 bytes of IPv4 and 8 of ICMP make 1400");
    assert!(!fits("1373"));
    chain.check(&eth0(&container)).unwrap();
}

#[test]
fn a_mac_comes_from_the_runtime_then_from_args_then_from_the_environment() {
    let host = Host::new();
    let (runtime, args, environment) = ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03");
    for (number, (in_runtime, in_args, expected)) in
        [(true, true, runtime), (false, true, args), (false, false, environment)].into_iter().enumerate()
    {
        let container = host.container(&format!("c{number}"));
        let mut keys = json!({ "capabilities": { "mac": true }, "isGateway": true, "ipam": v4() });
        if in_args {
            keys["args"] = json!({ "cni": { "mac": args } });
        }
        let mut attachment = eth0(&container).args(&format!("IgnoreUnknown=1;MAC={environment}"));
        if in_runtime {
            attachment = attachment.capability("mac", json!(runtime));
        }
        let chain = net(keys);
        let result = chain.add(&attachment).unwrap();
        assert_eq!(link(&container, "eth0")["address"], expected);
        assert_eq!(result["interfaces"][2]["mac"], expected);
        assert_ne!(host_end(host.netns(), &container, "eth0")["address"], expected);
        chain.check(&attachment).unwrap();
        chain.del(&attachment).unwrap();
    }
}

#[test]
fn an_address_that_goes_to_another_container_is_reachable_at_once() {
    let host = Host::new();
    let (watcher, first, second) = (host.container("watcher"), host.container("c1"), host.container("c2"));
    let chain = net(json!({ "isGateway": true, "ipam": dual() }));
    chain.add(&eth0(&watcher)).unwrap();
    let given = |container| Attachment::new("id", container, "eth0").args("IP=10.77.0.9;IgnoreUnknown=1");
    let result = chain.add(&given(&first)).unwrap();
    let v6 = address_of(&result, false);
    assert!(ping(&watcher, [10, 77, 0, 9]));
    assert!(ping(&watcher, v6.parse::<std::net::Ipv6Addr>().unwrap()));
    chain.del(&given(&first)).unwrap();

    let attachment = given(&second).capability("ips", json!(["10.77.0.9/24", format!("{v6}/64")]));
    let mut keys = json!({ "isGateway": true, "capabilities": { "ips": true }, "ipam": dual() });
    keys["ipam"]["routes"] = json!([]);
    let result = net(keys).add(&attachment).unwrap();
    assert_eq!((address_of(&result, true), address_of(&result, false)), ("10.77.0.9".to_owned(), v6.clone()));
    let mac = link(&second, "eth0")["address"].clone();
    for address in ["10.77.0.9", &v6] {
        eventually("the watcher to learn the new hardware address without asking", || {
            let entries = watcher.enter(|| testkit::ip_json("neigh show"));
            entries
                .as_array()
                .unwrap()
                .iter()
                .any(|entry| entry["dst"] == *address && entry["lladdr"] == mac)
                .then_some(())
        });
    }
}
