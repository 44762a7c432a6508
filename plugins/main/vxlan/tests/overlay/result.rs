//! What ADD tells: every interface it made, the name service, routes as they were asked for.

use serde_json::{Value, json};
use testkit::{Fabric, Netns};

use crate::lab::{Inside, all_reach_all, connect, connect_all, link, list, peers, peers_with, run};

#[test]
fn the_result_lists_the_device_and_the_address_points_at_the_containers_interface() {
    let fabric = Fabric::switched(2);
    let list = list(&json!({ "vni": 100, "peers": peers(&fabric, Inside::Dual, true) }));
    let connected = connect(&fabric, 1, &list, "c1");
    let interfaces = connected.result["interfaces"].as_array().unwrap();
    let names: Vec<&str> = interfaces.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!((&names[..2], names[3]), (&["vx-blue", "vb-blue"][..], "eth0"), "{names:?}");
    assert_eq!(interfaces[0]["mac"], link(connected.host, "vx-blue")["address"]);
    for ip in connected.result["ips"].as_array().unwrap() {
        assert_eq!(ip["interface"], 3, "{}", connected.result);
    }
    connected.check().unwrap();
    connected.del();
}

#[test]
fn the_name_service_of_the_configuration_is_in_the_result() {
    let fabric = Fabric::switched(1);
    let dns = json!({ "nameservers": ["192.0.2.53"], "search": ["example.org"] });
    let with =
        |dns: &Value| list(&json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true), "dns": dns }));
    let connected = connect(&fabric, 1, &with(&dns), "c1");
    assert_eq!(connected.result["dns"], dns);
    let without = connect(&fabric, 1, &with(&Value::Null), "c2");
    assert!(without.result["dns"].as_object().is_none_or(serde_json::Map::is_empty), "{}", without.result);
    connected.del();
    without.del();
}

#[test]
fn a_route_of_scope_link_has_no_next_hop() {
    let fabric = Fabric::switched(1);
    let ipam = json!({ "type": "host-local", "ranges": [[{ "subnet": "10.40.1.0/24" }]],
        "routes": [{ "dst": "198.51.100.0/24", "scope": 253 }, { "dst": "203.0.113.0/24" }] });
    let list = list(&json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true), "ipam": ipam }));
    let connected = connect(&fabric, 1, &list, "c1");
    let routes = run(&connected.container, "ip route show");
    let of = |network: &str| routes.lines().find(|line| line.starts_with(network)).unwrap().to_owned();
    assert!(!of("198.51.100.0/24").contains("via"), "{routes}");
    assert!(of("203.0.113.0/24").contains("via 10.40.1.1"), "{routes}");
    connected.del();
}

/// Checksums and segments are the kernel's to put off, which is most of a tunnel's speed: every link has the features of one that was made by hand.
#[test]
fn no_offload_is_switched_off() {
    if testkit::have("ethtool").is_none() {
        testkit::skip!("there is no ethtool to ask for features");
    }
    let features = |netns: &Netns, link: &str| {
        let shown = run(netns, &format!("ethtool -k {link}"));
        let lines: Vec<String> = shown.lines().skip(1).map(str::to_owned).collect();
        assert!(lines.iter().any(|line| line == "tx-checksumming: on"), "{link}: {shown}");
        lines
    };
    for keys in [json!({}), json!({ "mode": "bridged", "subnet": "10.50.0.0/16" })] {
        let fabric = Fabric::switched(2);
        let host = &fabric.hosts()[0];
        let bridged = keys["mode"] == "bridged";
        let blocks = |number| if bridged { Inside::V4.slices(number) } else { Inside::V4.blocks(number) };
        let mut all = json!({ "vni": 100, "ipMasq": true, "peers": peers_with(&fabric, true, blocks) });
        all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let connected = connect_all(&fabric, &list(&all));
        all_reach_all(&connected);

        let plain = fabric.container("plain");
        for line in [
            "ip link add plain-br type bridge",
            "ip link add plain-vx type vxlan id 999 dstport 4790 local 192.0.2.1 nolearning",
            &format!("ip link add plain-host type veth peer name eth0 netns {}", plain.path().display()),
            "ip link set plain-host master plain-br",
            if bridged { "ip link set plain-vx master plain-br" } else { "true" },
            "ip link set plain-br up",
            "ip link set plain-vx up",
            "ip link set plain-host up",
        ] {
            run(host, line);
        }
        run(&plain, "ip link set eth0 up");
        let port = connected[0].result["interfaces"][2]["name"].as_str().unwrap();
        for (ours, by_hand) in [("vx-blue", "plain-vx"), ("vb-blue", "plain-br"), (port, "plain-host")] {
            assert_eq!(features(host, ours), features(host, by_hand), "{ours} of {keys}");
        }
        assert_eq!(features(&connected[0].container, "eth0"), features(&plain, "eth0"), "{keys}");
    }
}

#[test]
fn what_earlier_plugins_made_stays_in_the_result() {
    let fabric = Fabric::switched(1);
    let mut list = list(&json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true) }));
    list["plugins"].as_array_mut().unwrap().insert(0, json!({ "type": "loopback" }));
    let connected = connect(&fabric, 1, &list, "c1");
    let interfaces = connected.result["interfaces"].as_array().unwrap();
    assert_eq!((&interfaces[0]["name"], &interfaces[4]["name"]), (&json!("lo"), &json!("eth0")));
    let of_index = |ip: &&Value| ip["interface"] == 4;
    assert_eq!(
        connected.result["ips"].as_array().unwrap().iter().find(of_index).unwrap()["address"],
        "10.40.1.2/24"
    );
    connected.check().unwrap();
    connected.del();
}
