//! CHECK: finds every damage, and raises no false alarm.

use serde_json::{Value, json};
use testkit::{Chain, Container, Host, set_sysctl};

use crate::support::*;

fn attached(host: &Host, keys: Value) -> (Container, Chain) {
    let container = host.container("c1");
    let mut all = json!({
        "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "macspoofchk": true, "ipam": dual()
    });
    all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let chain = net(all);
    chain.add(&eth0(&container)).unwrap();
    chain.check(&eth0(&container)).unwrap();
    (container, chain)
}

/// Does damage, and CHECK must find it and say so with these words.
#[track_caller]
fn finds(damage: impl FnOnce(&Host, &Container), words: &[&str]) {
    let host = Host::new();
    let (container, chain) = attached(&host, json!({}));
    damage(&host, &container);
    let before = state();
    let failure = failure(chain.check(&eth0(&container)));
    before.assert_same(&state());
    let text = failure.text();
    assert_eq!(failure.code(), 102, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} in: {text}");
    }
    chain.del(&eth0(&container)).unwrap();
}

fn nft(host: &Host, words: &str) {
    let ran = host.netns().run("nft", &words.split(' ').collect::<Vec<_>>());
    assert_eq!(ran.code, 0, "nft {words}: {}", ran.stderr);
}

#[test]
fn an_address_removed() {
    finds(
        |_, container| ip(container, "addr del 10.77.0.2/24 dev eth0"),
        &["address 10.77.0.2/24", "eth0", "missing"],
    );
}

#[test]
fn an_ipv6_address_removed() {
    finds(
        |_, container| ip(container, "addr del fd00:77::2/64 dev eth0"),
        &["address fd00:77::2/64", "missing"],
    );
}

#[test]
fn a_route_removed() {
    finds(|_, container| ip(container, "route del default"), &["route 0.0.0.0/0 via 10.77.0.1", "missing"]);
}

#[test]
fn an_ipv6_route_removed() {
    finds(|_, container| ip(container, "-6 route del default"), &["route ::/0 via fd00:77::1", "missing"]);
}

#[test]
fn a_route_that_leads_elsewhere() {
    finds(
        |_, container| {
            ip(container, "route del default");
            ip(container, "route add default via 10.77.0.77");
        },
        &["route 0.0.0.0/0 via 10.77.0.1", "missing"],
    );
}

#[test]
fn the_interface_down() {
    finds(|_, container| ip(container, "link set eth0 down"), &["eth0", "up", "down"]);
}

#[test]
fn the_interface_gone() {
    finds(|_, container| ip(container, "link del eth0"), &["missing"]);
}

#[test]
fn another_hardware_address() {
    finds(
        |_, container| ip(container, "link set eth0 address 02:00:00:00:00:66"),
        &["hardware address of eth0", "02:00:00:00:00:66"],
    );
}

#[test]
fn the_port_down() {
    finds(
        |host, container| {
            let port = host_end_name(host.netns(), container, "eth0");
            ip(host.netns(), &format!("link set {port} down"));
        },
        &["state of port veth", "down"],
    );
}

#[test]
fn the_port_on_no_bridge() {
    finds(
        |host, container| {
            let port = host_end_name(host.netns(), container, "eth0");
            ip(host.netns(), &format!("link set {port} nomaster"));
        },
        &["bridge of port veth", "none"],
    );
}

#[test]
fn the_port_on_another_bridge() {
    finds(
        |host, container| {
            let port = host_end_name(host.netns(), container, "eth0");
            ip(host.netns(), "link add other0 type bridge");
            ip(host.netns(), &format!("link set {port} master other0"));
        },
        &["bridge of port veth"],
    );
}

#[test]
fn the_port_in_hairpin_mode() {
    finds(
        |host, container| {
            let port = host_end_name(host.netns(), container, "eth0");
            ip(host.netns(), &format!("link set {port} type bridge_slave hairpin on"));
        },
        &["hairpin mode of port veth"],
    );
}

#[test]
fn the_bridge_down() {
    finds(|host, _| ip(host.netns(), "link set cni0 down"), &["cni0", "down"]);
}

#[test]
fn the_bridge_gone() {
    finds(|host, _| ip(host.netns(), "link del cni0"), &["link cni0 is missing"]);
}

#[test]
fn the_gateway_address_removed() {
    finds(
        |host, _| ip(host.netns(), "addr del 10.77.0.1/24 dev cni0"),
        &["gateway address 10.77.0.1/24 on cni0", "missing"],
    );
}

#[test]
fn forwarding_off() {
    finds(|_, _| set_sysctl("net.ipv4.ip_forward", "0"), &["net/ipv4/ip_forward"]);
}

#[test]
fn ipv6_forwarding_off() {
    finds(|_, _| set_sysctl("net.ipv6.conf.all.forwarding", "0"), &["net/ipv6/conf/all/forwarding"]);
}

#[test]
fn the_firewall_flushed() {
    finds(|host, _| nft(host, "flush ruleset"), &["ferrule_masquerade"]);
}

#[test]
fn the_chains_emptied() {
    finds(|host, _| nft(host, "flush chain inet ferrule_masquerade postrouting"), &["postrouting"]);
}

#[test]
fn masquerade_of_the_address_removed() {
    finds(
        |host, _| nft(host, "delete element inet ferrule_masquerade masquerade4 { 10.77.0.2 }"),
        &["10.77.0.2", "masquerade4"],
    );
}

#[test]
fn the_spoof_check_removed() {
    finds(|host, _| nft(host, "flush set bridge ferrule_spoof ports"), &["ferrule_spoof"]);
}

#[test]
fn a_lease_given_back() {
    let host = Host::new();
    let (container, chain) = attached(&host, json!({}));
    std::fs::remove_file("/var/lib/cni/networks/net/10.77.0.2").unwrap();
    let failure = failure(chain.check(&eth0(&container)));
    assert!(failure.text().contains("host-local"), "{}", failure.text());
}

#[test]
fn the_failure_of_the_ipam_plugin_is_passed_on() {
    let host = Host::new();
    let container = host.container("c1");
    let ipam = fixed(json!({ "ips": [{ "address": "10.77.0.5/24" }] }));
    let chain = net(json!({ "ipam": ipam }));
    chain.add(&eth0(&container)).unwrap();
    chain.check(&eth0(&container)).unwrap();
    std::fs::write(
        "/run/stubs/stub",
        "#!/bin/sh\necho '{\"cniVersion\":\"1.1.0\",\"code\":77,\"msg\":\"no such lease\"}'\nexit 1\n",
    )
    .unwrap();
    assert_eq!(refusal(chain.check(&eth0(&container))), (77, "no such lease".to_owned()));
}

#[test]
fn another_container_under_the_same_name() {
    let host = Host::new();
    let (container, chain) = attached(&host, json!({}));
    let attachment = eth0(&container);
    container.destroy();
    let successor = host.container("c1");
    let (code, message) = refusal(chain.check(&attachment));
    assert_eq!(code, 102);
    assert!(message.contains("another network namespace"), "{message}");
    drop(successor);
}

/// Does what is allowed, after which CHECK must still be content, as it must be without the record.
#[track_caller]
fn tolerates(keys: Value, change: impl FnOnce(&Host, &Container, &mut Value)) {
    let host = Host::new();
    let (container, chain) = attached(&host, keys);
    let mut previous = chain.result(&eth0(&container)).unwrap();
    change(&host, &container, &mut previous);
    for record in ["there", "lost"] {
        if record == "lost" {
            std::fs::remove_dir_all("/run/ferrule/attachments").unwrap();
        }
        let before = state();
        let output = testkit::Plugin::new("bridge")
            .verb("CHECK")
            .attachment("c1", container.path(), "eth0")
            .path(&[testkit::plugin_dir()])
            .config(&chain.stdin(0, &eth0(&container), Some(&previous)))
            .run();
        assert!(output.succeeded(), "with the record {record}:\n{}", output.describe());
        assert!(output.stdout.is_empty());
        before.assert_same(&state());
    }
}

#[test]
fn nothing_is_wrong_right_after_add() {
    tolerates(json!({}), |_, _, _| {});
}

#[test]
fn a_packet_capture_on_the_bridge_is_no_damage() {
    tolerates(json!({}), |host, _, _| ip(host.netns(), "link set cni0 promisc on"));
}

#[test]
fn more_interfaces_addresses_and_routes_of_later_plugins_are_no_damage() {
    tolerates(json!({}), |_, _, previous| {
        let interfaces = previous["interfaces"].as_array_mut().unwrap();
        interfaces
            .push(json!({ "name": "extra0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/elsewhere" }));
        interfaces.push(json!({ "name": "ifb0", "mac": "02:00:00:00:00:02" }));
        previous["ips"].as_array_mut().unwrap().push(json!({ "address": "172.16.0.1/24", "interface": 3 }));
        previous["ips"].as_array_mut().unwrap().push(json!({ "address": "172.17.0.1/24" }));
    });
}

#[test]
fn routes_that_somebody_added_are_no_damage() {
    tolerates(json!({}), |_, container, _| {
        ip(container, "route add 10.99.0.0/16 via 10.77.0.1");
        ip(container, "route add default via 10.77.0.1 metric 500");
        ip(container, "-6 route append default via fd00:77::9");
    });
}

#[test]
fn a_hardware_address_that_a_later_plugin_set_is_no_damage() {
    tolerates(json!({ "macspoofchk": false }), |_, container, previous| {
        ip(container, "link set eth0 address 02:00:00:00:00:42");
        previous["interfaces"][2]["mac"] = json!("02:00:00:00:00:42");
    });
}

/// As a plugin does that moves routes to a table of its own.
#[test]
fn a_route_that_a_later_plugin_took_away_is_no_damage() {
    tolerates(json!({}), |_, container, previous| {
        ip(container, "route del default");
        previous["routes"].as_array_mut().unwrap().retain(|route| route["dst"] != "0.0.0.0/0");
    });
}

#[test]
fn an_mtu_that_a_later_plugin_set_is_no_damage() {
    tolerates(json!({ "mtu": 1450 }), |_, container, previous| {
        ip(container, "link set eth0 mtu 1300");
        previous["interfaces"][2]["mtu"] = json!(1300);
    });
}

#[test]
fn routes_moved_to_another_table_are_no_damage() {
    tolerates(json!({}), |_, container, _| {
        for family in ["-4", "-6"] {
            let gateway = if family == "-4" { "10.77.0.1" } else { "fd00:77::1" };
            ip(container, &format!("{family} route del default"));
            ip(container, &format!("{family} route add default via {gateway} dev eth0 table 100"));
        }
    });
}

#[test]
fn a_route_that_ipam_put_into_a_table_is_found_there() {
    let mut ipam = dual();
    ipam["routes"] =
        json!([{ "dst": "0.0.0.0/0", "table": 500 }, { "dst": "::/0", "table": 500, "priority": 5 }]);
    tolerates(json!({ "isDefaultGateway": false, "isGateway": true, "ipam": ipam }), |_, _, _| {});
}

#[test]
fn a_network_without_addresses_is_checked_too() {
    tolerates(json!({ "ipam": {}, "isDefaultGateway": false }), |_, _, _| {});
}

#[test]
fn more_containers_on_the_network_are_no_damage() {
    let host = Host::new();
    let (container, chain) = attached(&host, json!({}));
    let other = host.container("c2");
    chain.add(&eth0(&other)).unwrap();
    chain.check(&eth0(&container)).unwrap();
    chain.del(&eth0(&other)).unwrap();
    chain.check(&eth0(&container)).unwrap();
}
