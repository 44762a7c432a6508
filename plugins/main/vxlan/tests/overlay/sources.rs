//! Networks that somebody else looks after: the node agent, flannel's daemon, the kernel.

use std::fs;

use cni::{LinkName, NetworkName};
use ferrule_overlay::{Listed, NodeId, Settings, State, Underlay, View, Vni, ledger, remove, source};
use serde_json::json;
use testkit::{Fabric, FabricHost, ping};

use crate::lab::{Inside, all_reach_all, connect, connect_all, explain, link, list, mtu, peers, run, state};

/// What an agent does on a host: writes down what it knows.
fn agent(host: &FabricHost, nodes: &[Listed]) -> Settings {
    let settings = Settings::new(NetworkName::new("blue").unwrap(), Vni::new(100).unwrap()).unwrap();
    let interface = LinkName::new("eth0").unwrap();
    let underlay = Underlay { address: host.ipv4().into(), prefix: 24, interface, mtu: 1500 };
    let own = NodeId::new(host.name()).unwrap();
    let view = View::new(settings.clone(), underlay, &own, nodes.to_vec()).unwrap();
    host.enter(|| {
        State::of(&view).write().unwrap();
        let records = nodes.iter().map(|listed| &listed.record);
        ledger::write(&State::peers_path(&settings.network), None, records).unwrap();
    });
    settings
}

fn nodes(fabric: &Fabric) -> Vec<Listed> {
    let peers = peers(fabric, Inside::Dual, true);
    source::peers(&peers, "peers", Vni::new(100).unwrap(), ferrule_overlay::Port::VXLAN).unwrap()
}

#[test]
fn an_agents_network_works_while_the_agent_does_not() {
    let fabric = Fabric::switched(2);
    let before = state(&fabric.hosts()[0]);
    let nodes = nodes(&fabric);
    let settings: Vec<Settings> = fabric.hosts().iter().map(|host| agent(host, &nodes)).collect();
    // The device is not there: a host that was started again, say. The plugin makes it from what the agent has written down.
    let list = list(&json!({ "source": "agent", "ipMasq": true }));
    let connected = connect_all(&fabric, &list);
    all_reach_all(&connected);
    for one in &connected {
        one.check().unwrap();
        one.chain.status().unwrap();
        one.del();
        assert_eq!(link(one.host, "vx-blue")["ifname"], "vx-blue", "the device is the agent's, and stays");
        assert!(link(one.host, "vb-blue").is_null());
    }
    run(&fabric.hosts()[0], "ip link del vx-blue");
    let status = connected[0].chain.status().unwrap_err();
    assert_eq!(status.code(), 51, "{status}");
    fabric.hosts()[0].enter(|| {
        remove(&settings[0]).unwrap();
        State::remove(&settings[0].network).unwrap();
    });
    before.assert_same(&state(&fabric.hosts()[0]));
}

#[test]
fn a_flannel_node_changes_its_cni_plugin_and_keeps_its_daemon() {
    let fabric = Fabric::switched(1);
    let host = &fabric.hosts()[0];
    let file = "/run/fabric/subnet.env";
    let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1400\nFLANNEL_IPMASQ=false\n";
    fs::write(file, text).unwrap();
    let before = state(host);
    let list = list(&json!({ "source": "flannel", "subnetFile": file, "ipMasq": true, "hairpinMode": true }));
    let one = connect(&fabric, 1, &list, "c1");
    let other = connect(&fabric, 1, &list, "c2");
    assert_eq!(one.addresses()[0].to_string(), "10.244.3.2");
    assert_eq!(mtu(&one.container), 1400);
    assert!(ping(&one.container, other.addresses()[0]));
    assert!(ping(&one.container, host.ipv4()), "{}", explain(host));
    assert_eq!(link(host, "cni0")["ifname"], "cni0");
    let ports = run(host, "/sbin/bridge -d link show");
    assert_eq!(ports.matches("hairpin on").count(), 2, "{ports}");
    one.check().unwrap();
    one.chain.status().unwrap();
    one.del();
    other.del();
    before.assert_same(&state(host));
}

#[test]
fn the_kernel_finds_the_peers_of_a_multicast_group() {
    for (group, ipv4_underneath) in [("239.1.1.1", true), ("ff05::100", false)] {
        let fabric = Fabric::switched(2);
        let before = state(&fabric.hosts()[0]);
        let peers = crate::lab::peers_with(&fabric, ipv4_underneath, |number| Inside::V4.slices(number));
        let list = list(&json!({
            "vni": 300, "mode": "bridged", "subnet": "10.50.0.0/16", "multicastGroup": group, "peers": peers
        }));
        let connected = connect_all(&fabric, &list);
        let host = connected[0].host;
        all_reach_all(&connected);
        // What is known of the other host has been heard from it.
        assert_eq!(run(host, "ip neigh show dev vb-blue nud permanent"), "");
        let far = connected[1].host;
        let far = if ipv4_underneath { far.ipv4().to_string() } else { far.ipv6().to_string() };
        let entries = run(host, "/sbin/bridge fdb show dev vx-blue");
        let of =
            |to: &str| entries.lines().find(|line| line.contains(&format!(" dst {to} "))).unwrap_or_default();
        assert!(of(group).contains("permanent"), "{entries}");
        assert!(!of(&far).is_empty() && !of(&far).contains("permanent"), "{entries}");
        for one in &connected {
            one.check().unwrap();
            one.del();
        }
        before.assert_same(&state(host));
    }
}
